//! `vlan`: services in a VLAN (802.1Q) and in a VLAN within a provider's (802.1ad), by carrying and by NAT,
//! with programs on the VLANs' interfaces alone, and then on the wire below them, too: by tc, since the kernel
//! takes no XDP program above or below another. Where the kernel has no VLANs nothing is tried.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use super::stage::Stage;
use super::tally::Tally;
use crate::backend::{Backend, Mode};
use crate::client::{Arguments, Connections, Load};
use crate::guest;
use crate::lab::agent::Agent;
use crate::lab::{Host, Lab};

/// Emulated machines are slow.
const LIMIT: Duration = Duration::from_secs(30);
const COUNT: u64 = 24;
const PORT: u16 = 7000;
const BACKEND_PORT: u16 = 7007;
/// The wire, which has no address of its own.
const WIRE: &str = "ens33";
/// The interface of a VLAN, and the network in it.
const VLANS: [(&str, &str); 2] = [("ens33.7", "192.168.139"), ("ens33.20.8", "192.168.140")];
/// What makes them.
const LINKS: &str = "link add link ens33 name ens33.7 type vlan id 7
link add link ens33 name ens33.20 type vlan proto 802.1ad id 20
link set ens33.20 up
link add link ens33.20 name ens33.20.8 type vlan id 8
";
/// Hosts, and the last number of their addresses. The first has the VIPs; it and the second are nodes, and
/// the second and the third are servers.
const HOSTS: [(&str, u8); 4] =
    [("master1", 133), ("master2", 134), ("server1", 140), ("client1", 20)];
const SERVERS: [usize; 2] = [1, 2];
const VIP: u8 = 150;

/// Whether the kernel has VLANs. It claims that a guest's has: there it would be our fault.
pub(super) fn can_be_tried(stage: &mut Stage, lab: &Lab) -> Result<bool> {
    let probe = lab.host("probe").interface::<&str>(WIRE, "trunk", &[]).start()?;
    let Err(error) = probe.namespace().ip("link add link ens33 name ens33.7 type vlan id 7") else {
        return Ok(true);
    };
    let text = "this kernel has no 8021q: nothing is tried here, see `kernels`";
    stage.claim(text, !guest::is_here(), format!("{error:#}").replace('\n', " "));
    Ok(false)
}

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let lab = Lab::new(stage.tool())?;
    if !can_be_tried(stage, &lab)? {
        return Ok(());
    }
    let hosts: Vec<Host> =
        HOSTS.iter().map(|(name, last)| host(&lab, name, *last)).collect::<Result<_>>()?;
    let client = &hosts[3];
    let mut servers = Vec::new();
    for server in SERVERS {
        let listen = VLANS.map(|(_, network)| socket(network, HOSTS[server].1, BACKEND_PORT));
        servers.push(Backend::start(&lab, &hosts[server], Mode::Tcp, &listen, None)?);
    }
    let above = configuration("");
    let (mut holder, node) = (start(&hosts[0], &above)?, start(&hosts[1], &above)?);
    // Until the other one ran, what was carried to it was not served there.
    accepts_all(&holder)?;

    stage.step("programs on the VLANs' interfaces");
    let mut tally = Tally::default();
    ask(stage, &lab, client, &mut tally, "")?;
    let (carried, translated) = (holder.counter("direct_new")?, holder.counter("nat_new")?);
    stage.claim("some are carried", carried > 0, carried);
    stage.claim("others are translated", translated > 0, translated);

    stage.step("and on the wire below them");
    holder.stop()?;
    holder = start(&hosts[0], &configuration(WIRE))?;
    let attached: Vec<String> =
        holder.status()?.interfaces.into_iter().map(|interface| interface.name).collect();
    let all = attached.len() == 3 && attached.iter().any(|name| name == WIRE);
    stage.claim("all three are attached", all, format!("{attached:?}"));
    ask(stage, &lab, client, &mut tally, " after that")?;
    let left = holder.counter("other_vlan")?;
    stage.claim("what has tags is left to the VLANs' interfaces", left > 0, left);
    stage.figure("carried", carried);
    stage.figure("translated", translated);
    stage.figure("left_to_vlans", left);
    tally.spread(stage, SERVERS.len());
    tally.figures(stage);
    holder.stop()?;
    node.stop()
}

fn start(host: &Host, configuration: &str) -> Result<Agent> {
    let agent = Agent::start(host, configuration)?;
    accepts_all(&agent)?;
    Ok(agent)
}

fn accepts_all(agent: &Agent) -> Result<()> {
    agent.wait_for_backends("every backend accepts", LIMIT, |backends| {
        !backends.is_empty() && backends.iter().all(|backend| backend.accepting)
    })
}

/// In both VLANs of the wire.
fn host(lab: &Lab, name: &str, last: u8) -> Result<Host> {
    let host = lab.host(name).interface::<&str>(WIRE, "trunk", &[]).start()?;
    let mut batch = LINKS.to_owned();
    for (interface, network) in VLANS {
        batch.push_str(&format!("link set {interface} up\n"));
        batch.push_str(&format!("addr add {network}.{last}/24 dev {interface}\n"));
    }
    host.namespace().ip(&batch)?;
    Ok(host)
}

fn socket(network: &str, last: u8, port: u16) -> SocketAddr {
    let text = format!("{network}.{last}:{port}");
    text.parse().expect("networks are three numbers")
}

/// With a program on the wire, too, where that is named.
fn configuration(wire: &str) -> String {
    let mut interfaces: Vec<&str> = VLANS.map(|(interface, _)| interface).to_vec();
    let modes = if wire.is_empty() { "" } else { "[data_path]\nmodes = [\"tc\"]" };
    interfaces.extend(Some(wire).filter(|wire| !wire.is_empty()));
    let both = |last: u8| VLANS.map(|(_, network)| format!("{network}.{last}"));
    let backends: Vec<String> = SERVERS
        .iter()
        .flat_map(|server| both(HOSTS[*server].1))
        .map(|address| format!("{address}:{BACKEND_PORT}"))
        .collect();
    let [(first, one), (second, other), ..] = HOSTS;
    let (vips, one, other) = (both(VIP), both(one), both(other));
    format!(
        r#"
interfaces = {interfaces:?}
virtual_addresses = {vips:?}
active = "{first}"
{modes}

[[node]]
name = "{first}"
addresses = {one:?}
[[node]]
name = "{second}"
addresses = {other:?}

[[service]]
name = "echo"
port = {PORT}
hash = "source-port"
backends = {backends:?}
"#
    )
}

/// A client in each VLAN.
fn ask(stage: &mut Stage, lab: &Lab, client: &Host, tally: &mut Tally, when: &str) -> Result<()> {
    for (interface, network) in VLANS {
        let arguments = Arguments {
            connections: Connections::PerRequest,
            concurrency: 4,
            count: COUNT,
            ..Arguments::new(socket(network, VIP, PORT), Mode::Tcp)
        };
        let report = Load::complete(lab, client, &arguments)?;
        tally.answered(stage, &format!("a client on {interface}{when}"), &report);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_one_that_the_agent_accepts() {
        for wire in ["", WIRE] {
            let text = configuration(wire);
            let config = lb_agent::config::Config::parse(&text);
            assert!(config.is_ok(), "{text}\n{config:?}");
        }
    }
}
