//! `vrrp-vlan`: a virtual router in each of two VLANs of one wire. Adverts, VIPs and connections stay
//! in their VLAN, and each router moves by itself. Where the kernel has no VLANs nothing is tried.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use lb_agent::control::api::VrrpState;

use super::stage::Stage;
use super::tally::Tally;
use super::vlan;
use crate::backend::{Backend, Mode};
use crate::client::{Arguments, Connections, Load};
use crate::lab::agent::Agent;
use crate::lab::{Host, Lab};

/// Emulated machines are slow.
const LIMIT: Duration = Duration::from_secs(30);
const COUNT: u64 = 16;
const PORT: u16 = 7000;
const BACKEND_PORT: u16 = 7007;
/// The wire, which has no address of its own.
const WIRE: &str = "ens33";
/// VLAN and the network in it.
const VLANS: [(u16, &str); 2] = [(7, "192.168.139"), (8, "192.168.140")];
/// Who is Active in it.
const NAMES: [&str; 2] = ["master1", "master2"];

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let lab = Lab::new(stage.tool())?;
    if !vlan::can_be_tried(stage, &lab)? {
        return Ok(());
    }
    let nodes = [host(&lab, NAMES[0], 133)?, host(&lab, NAMES[1], 134)?];
    let client = host(&lab, "client1", 20)?;
    let mut backends = Vec::new();
    for (node, last) in nodes.iter().zip([133, 134]) {
        let listen = VLANS.map(|(_, network)| socket(network, last, BACKEND_PORT));
        backends.push(Backend::start(&lab, node, Mode::Tcp, &listen, None)?);
    }
    let configuration = configuration();
    let mut agents = Vec::new();
    for node in &nodes {
        agents.push(Agent::start(node, &configuration)?);
    }
    for agent in &agents {
        agent.wait_for_backends("every backend accepts", LIMIT, |backends| {
            !backends.is_empty() && backends.iter().all(|backend| backend.accepting)
        })?;
    }
    owned(stage, &agents, "each VLAN's router is Active where its priority is highest", [0, 1])?;
    let modes: Vec<String> = agents[0]
        .status()?
        .interfaces
        .iter()
        .map(|interface| Ok(serde_json::to_string(&interface.mode)?.replace('"', "")))
        .collect::<Result<_>>()?;
    stage.claim("both VLANs' interfaces are attached", modes.len() == 2, format!("{modes:?}"));
    let mut tally = Tally::default();
    ask(stage, &lab, &client, &mut tally, "")?;
    tally.spread(stage, 2);

    stage.step("the first VLAN's router is held back on master1");
    agents[0].lbctl(["vrrp", "hold", "51"])?;
    owned(stage, &agents, "it moves, the other VLAN's stays", [1, 1])?;
    ask(stage, &lab, &client, &mut tally, " after that")?;
    tally.figures(stage);
    agents.into_iter().try_for_each(Agent::stop)
}

/// On both VLANs of the wire.
fn host(lab: &Lab, name: &str, last: u8) -> Result<Host> {
    let host = lab.host(name).interface::<&str>(WIRE, "trunk", &[]).start()?;
    for (vlan, network) in VLANS {
        host.namespace().ip(&format!(
            "link add link {WIRE} name {WIRE}.{vlan} type vlan id {vlan}\n\
             link set {WIRE}.{vlan} up\naddr add {network}.{last}/24 dev {WIRE}.{vlan}"
        ))?;
    }
    Ok(host)
}

fn socket(network: &str, last: u8, port: u16) -> SocketAddr {
    let text = format!("{network}.{last}:{port}");
    text.parse().expect("networks are three numbers")
}

fn configuration() -> String {
    let both = |last: u8, port: &str| VLANS.map(|(_, network)| format!("{network}.{last}{port}"));
    let backends: Vec<String> =
        [133, 134].into_iter().flat_map(|last| both(last, &format!(":{BACKEND_PORT}"))).collect();
    let [first, second] = both(150, "");
    let [one, other] = [133, 134].map(|last| both(last, ""));
    let interfaces = VLANS.map(|(vlan, _)| format!("{WIRE}.{vlan}"));
    format!(
        r#"
interfaces = {interfaces:?}
virtual_addresses = ["{first}", "{second}"]

[vrrp]
preempt = true
[[vrrp.router]]
router_id = 51
virtual_addresses = ["{first}"]
[[vrrp.router]]
router_id = 52
virtual_addresses = ["{second}"]
priorities = [{{ node = "master2", priority = 120 }}]

[[node]]
name = "master1"
addresses = {one:?}
[[node]]
name = "master2"
addresses = {other:?}
priority = 90

[[service]]
name = "echo"
port = {PORT}
hash = "source-port"
backends = {backends:?}
"#
    )
}

/// Each router is Active on one node only, and is so soon.
fn owned(stage: &mut Stage, agents: &[Agent], text: &str, owners: [usize; 2]) -> Result<()> {
    let expected = owners.map(|owner| vec![NAMES[owner]]);
    let deadline = Instant::now() + LIMIT;
    let mut seen = look(agents)?;
    while seen != expected && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
        seen = look(agents)?;
    }
    stage.claim(text, seen == expected, format!("{seen:?}"));
    Ok(())
}

/// For each router the nodes on which it is Active.
fn look(agents: &[Agent]) -> Result<[Vec<&'static str>; 2]> {
    let mut found = [vec![], vec![]];
    for (agent, name) in agents.iter().zip(NAMES) {
        for router in agent.vrrp()? {
            let at = usize::from(router.router_id.saturating_sub(51)).min(1);
            if router.state == VrrpState::Active {
                found[at].push(name);
            }
        }
    }
    Ok(found)
}

/// A client in each VLAN.
fn ask(stage: &mut Stage, lab: &Lab, client: &Host, tally: &mut Tally, when: &str) -> Result<()> {
    for (vlan, network) in VLANS {
        let arguments = Arguments {
            connections: Connections::PerRequest,
            concurrency: 4,
            count: COUNT,
            ..Arguments::new(socket(network, 150, PORT), Mode::Tcp)
        };
        let report = Load::complete(lab, client, &arguments)?;
        tally.answered(stage, &format!("a client in VLAN {vlan}{when}"), &report);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_one_that_the_agent_accepts() {
        let text = configuration();
        let config = lb_agent::config::Config::parse(&text);
        assert!(config.is_ok(), "{text}\n{config:?}");
    }
}
