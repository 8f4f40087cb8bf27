//! A part of `mtu`: the node's way to its backend takes smaller packets than its way from the clients. Nobody
//! but the node can tell a client so, since its programs are the router there: it answers with a too-big that
//! it made itself (RFC 1191, RFC 8201). Where it does not the transfer hangs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;

use super::shape::{Family, NIC, address, vip};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::{Backend, Mode};
use crate::client::{Arguments, Connections, Load};
use crate::lab::agent::Agent;
use crate::lab::{Host, Lab, tool};

const LIMIT: Duration = Duration::from_secs(30);
const NODE: &str = "master1";
const CLIENT: &str = "client1";
/// The node's interface to its backend.
const INNER: &str = "ens34";
/// What that takes.
const NARROW: u32 = 1400;
/// Bytes of an echo that need many segments.
const BULK: u32 = 500_000;
const TRANSFERS: u64 = 8;
const PORT: u16 = 8443;
const BACKEND_PORT: u16 = 6443;

/// Both sides of the narrow link, and what the backend says that it takes: as much as the clients' link.
struct Inner {
    family: Family,
    node: IpAddr,
    server: IpAddr,
    length: u8,
    clients: &'static str,
    segment: u32,
}

const INNERS: [Inner; 2] = [
    Inner {
        family: Family::V4,
        node: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
        server: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2)),
        length: 24,
        clients: "192.168.139.0/24",
        segment: 1460,
    },
    Inner {
        family: Family::V6,
        node: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x34, 0, 0, 0, 0, 1)),
        server: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x34, 0, 0, 0, 0, 2)),
        length: 64,
        clients: "fd00:139::/64",
        segment: 1440,
    },
];

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let lab = Lab::new(stage.tool())?;
    let (node, server, client) = machines(&lab)?;
    let listens = INNERS.each_ref().map(Inner::backend);
    let _backend = Backend::start(&lab, &server, Mode::Tcp, &listens, None)?;
    let mut tally = Tally::default();
    for mode in ["native", "generic", "tc"] {
        stage.step(&format!("{mode}: starting"));
        let mut agent = Agent::start(&node, &configuration(mode))?;
        agent.wait_until_active(LIMIT)?;
        agent.wait_for_backends("the backends accept", LIMIT, |backends| {
            backends.iter().all(|backend| backend.accepting)
        })?;
        let before = agent.counter("icmp_too_big")?;
        for family in Family::BOTH {
            let who = format!("{mode}, {}: {BULK} bytes to a narrower link", family.name());
            stage.step(&who);
            let arguments = Arguments {
                connections: Connections::PerRequest,
                count: TRANSFERS,
                payload_bytes: BULK,
                timeout_ms: 10_000,
                ..Arguments::new((vip(family), PORT).into(), Mode::Tcp)
            };
            tally.answered(stage, &who, &Load::complete(&lab, &client, &arguments)?);
        }
        let told = agent.counter("icmp_too_big")? - before;
        stage.claim(&format!("{mode}: the client was told what fits"), told > 0, told);
        stage.figure(&format!("icmp_too_big_{mode}"), told);
        agent.stop()?;
        // What it has learned it would know in the next mode's turn.
        for family in ["-4", "-6"] {
            let namespace = client.namespace().name();
            tool::run("ip", &["-n", namespace, family, "route", "flush", "cache"])?;
        }
    }
    Ok(())
}

impl Inner {
    const fn backend(&self) -> SocketAddr {
        SocketAddr::new(self.server, BACKEND_PORT)
    }
}

fn machines(lab: &Lab) -> Result<(Host, Host, Host)> {
    let outer = |name: &str| {
        [(Family::V4, 24), (Family::V6, 64)]
            .map(|(family, length)| format!("{}/{length}", address(name, family)))
    };
    let inner = |end: fn(&Inner) -> IpAddr| {
        INNERS.each_ref().map(|inner| format!("{}/{}", end(inner), inner.length))
    };
    let node = lab.host(NODE).interface(NIC, "lan", &outer(NODE));
    let node = node.interface(INNER, "servers", &inner(|it| it.node)).start()?;
    let server = lab.host("server1").interface(NIC, "servers", &inner(|it| it.server)).start()?;
    let client = lab.host(CLIENT).interface(NIC, "lan", &outer(CLIENT)).start()?;
    for (host, interface) in [(&node, INNER), (&server, NIC)] {
        host.namespace().ip(&format!("link set {interface} mtu {NARROW}"))?;
    }
    for Inner { node, clients, segment, .. } in &INNERS {
        server.namespace().ip(&format!("route add {clients} via {node} advmss {segment}"))?;
    }
    Ok((node, server, client))
}

fn configuration(mode: &str) -> String {
    let [vip4, vip6] = Family::BOTH.map(vip);
    let own = address(NODE, Family::V4);
    let mut text = format!(
        "interfaces = [\"{NIC}\", \"{INNER}\"]\nvirtual_addresses = [\"{vip4}\", \"{vip6}\"]\n\
         active = \"{NODE}\"\n[data_path]\nmodes = [\"{mode}\"]\n\
         [[node]]\nname = \"{NODE}\"\naddress = \"{own}\"\n"
    );
    for inner in &INNERS {
        let (backend, family) = (inner.backend(), inner.family);
        text.push_str(&format!(
            "[[service]]\nname = \"bulk-{}\"\nport = {PORT}\nbackends = [\"{backend}\"]\n",
            family.name().to_lowercase()
        ));
    }
    text
}
