//! The agent's own way from a file's text to the kernel's maps, without the agent's process: parsed,
//! tables built, planned for a network that is written down here, applied. Frames are run through the
//! loaded program one by one.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use anyhow::{Context as _, Result, ensure};
use lb_agent::config::Config;
use lb_agent::dataplane::{Capacity, DataPlane, Pins};
use lb_agent::netlink::{Hop, InterfaceAddress, Link, Neighbour, NeighbourState, Network, Route};
use lb_agent::plan::{Inputs, Lists, Plan, Tables};
use lb_agent::standing::Usable;

use super::frames::{self, Seen};
use super::reckon::Ranked;
use crate::lab::Mac;
use crate::packet::syscall;

pub(super) const NODE: &str = "lb1";
pub(super) const NODE_MAC: Mac = [2, 0, 0, 0, 0, 0x33];
pub(super) const CLIENT_MAC: Mac = [2, 0, 0, 0, 0, 0x10];
pub(super) const ROUTER_MAC: Mac = [2, 0, 0, 0, 0, 0x01];
/// BPF_PROG_TEST_RUN without a context runs on the namespace's loopback interface.
const LOOPBACK: u32 = 1;
const XDP_TX: u32 = 3;

pub(super) const VIPS: [&str; 2] = ["192.168.139.150", "fd00:139::150"];
const OWN: [(&str, u8); 2] = [("192.168.139.133", 24), ("fd00:139::133", 64)];
const ROUTERS: [&str; 2] = ["192.168.139.1", "fd00:139::1"];

/// Another node's addresses and MAC, by its number from 2 on.
pub(super) fn peer(number: u8) -> ([IpAddr; 2], Mac) {
    let v6 = format!("fd00:139::{number}");
    let addresses =
        [IpAddr::from([192, 168, 139, number]), v6.parse().unwrap_or(IpAddr::from([0; 16]))];
    (addresses, [2, 0, 0, 0, 1, number])
}

/// What stands above the services in every file here: this node, and `peers` others.
pub(super) fn head(peers: u8) -> String {
    let mut text =
        format!("interface = \"lo\"\nvirtual_addresses = {VIPS:?}\nactive = \"{NODE}\"\n");
    let [(v4, _), (v6, _)] = OWN;
    text.push_str(&format!(
        "\n[[node]]\nname = \"{NODE}\"\naddress = \"{v4}\"\naddresses = [\"{v6}\"]\n"
    ));
    for number in 2..2 + peers {
        let ([v4, v6], _) = peer(number);
        text.push_str(&format!(
            "\n[[node]]\nname = \"lb{number}\"\naddress = \"{v4}\"\naddresses = [\"{v6}\"]\n"
        ));
    }
    text
}

/// A service of a file.
pub(super) fn service(name: &str, vip: &str, port: u16, backends: &[(SocketAddr, u16)]) -> String {
    let elements: Vec<String> = backends
        .iter()
        .map(|(at, weight)| format!("{{ address = \"{at}\", weight = {weight} }}"))
        .collect();
    format!(
        "\n[[service]]\nname = \"{name}\"\naddress = \"{vip}\"\nport = {port}\nhash = \"source-port\"\n\
         backends = [{}]\n",
        elements.join(", ")
    )
}

/// This node on its link, with a router to everywhere else. The peers answer, and so does the router.
fn network(peers: u8) -> Network {
    let link = Link {
        index: LOOPBACK,
        name: "lo".to_owned(),
        mac: Some(NODE_MAC),
        up: true,
        running: true,
        loopback: false,
        veth: false,
        mtu: 1500,
    };
    let ip = |text: &str| text.parse::<IpAddr>().unwrap_or(IpAddr::from([0; 4]));
    let addresses = OWN.map(|(address, prefix_len)| InterfaceAddress {
        ifindex: LOOPBACK,
        address: ip(address),
        prefix_len,
        usable: true,
        permanent: true,
    });
    let route = |destination: &str, prefix_len, gateway: Option<&str>| Route {
        destination: ip(destination),
        prefix_len,
        metric: 0,
        hops: vec![Hop { ifindex: LOOPBACK, gateway: gateway.map(ip), usable: true }],
    };
    let routes = vec![
        route("192.168.139.0", 24, None),
        route("0.0.0.0", 0, Some(ROUTERS[0])),
        route("fd00:139::", 64, None),
        route("::", 0, Some(ROUTERS[1])),
    ];
    let neighbour = |address, mac| Neighbour {
        ifindex: LOOPBACK,
        address,
        mac: Some(mac),
        state: NeighbourState::Reachable,
    };
    let mut neighbours: Vec<Neighbour> =
        ROUTERS.iter().map(|router| neighbour(ip(router), ROUTER_MAC)).collect();
    for number in 2..2 + peers {
        let (addresses, mac) = peer(number);
        neighbours.extend(addresses.map(|address| neighbour(address, mac)));
    }
    Network::new(vec![link], addresses.to_vec(), routes, neighbours)
}

/// A file that was read, and what follows from it.
pub(super) struct Read {
    config: Config,
    tables: Tables,
}

impl Read {
    /// # Errors
    /// Where the agent would refuse it.
    pub(super) fn new(text: &str) -> Result<Self> {
        let config = Config::parse(text)
            .map_err(|error| anyhow::anyhow!("the file is refused: {}", error.report("lb.toml")))?;
        let tables = Tables::build(&config)?;
        Ok(Self { config, tables })
    }
}

/// The data path of a node in the calling thread's network namespace.
pub(super) struct Rig {
    pub(super) data_path: DataPlane,
    network: Network,
}

impl Rig {
    /// Loads the programs, with maps of the sizes that the file asks for.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub(super) fn load(pins: Pins, read: &Read, peers: u8) -> Result<Self> {
        let capacity = Capacity {
            services: read.config.limits.services,
            backends: read.config.limits.backends,
            nat_flows: read.config.nat.flows,
            sources: read.config.limits.sources,
            connections: read.config.limits.connections,
            datagram_flows: read.config.limits.datagram_flows,
            flows: read.config.limits.flows,
        };
        let data_path = DataPlane::open(pins, capacity).context("loading the programs")?;
        Ok(Self { data_path, network: network(peers) })
    }

    /// What the maps are to hold, while these backends are down.
    pub(super) fn plan(&self, read: &Read, down: &[SocketAddr]) -> Plan {
        let usable = |service: usize, place: usize| {
            let up = !down.contains(&read.config.services[service].backends[place].address);
            Usable { alive: up, accepts: up, ..Usable::NOT }
        };
        Plan::make(&Inputs {
            config: &read.config,
            node: NODE,
            tables: &read.tables,
            lists: &Lists::default(),
            syn_cookies: false,
            network: &self.network,
            known_macs: &HashMap::new(),
            attached: &[LOOPBACK],
            usable: &usable,
        })
    }

    /// The steering program.
    ///
    /// # Errors
    /// Where it is not loaded.
    pub(super) fn program(&self) -> Result<BorrowedFd<'_>> {
        self.data_path.program("lb_xdp").context("no program lb_xdp")
    }
}

/// The services of a plan, for the reckoning. Asked before the plan is applied, which lets the tables'
/// buckets go.
pub(super) fn ranked(plan: &Plan) -> Vec<Ranked> {
    let services = plan.services.iter().map(|service| Ranked {
        at: SocketAddr::new(service.address, u16::from_be(service.key.port_be)),
        by_port: true,
        buckets: service.table.buckets(),
        members: service.backends.iter().map(|backend| backend.address).collect(),
    });
    services.collect()
}

/// Runs the program on a segment, and reads what leaves, with its checksums judged.
///
/// # Errors
/// Where it is not sent on, or is no valid segment then.
pub(super) fn steer(program: BorrowedFd<'_>, frame: &[u8]) -> Result<Seen> {
    frames::look(&sent(program, frame)?)
}

/// As [`steer`], without a look at the checksums: for what is not to touch them.
///
/// # Errors
/// Where it is not sent on.
pub(super) fn carry(program: BorrowedFd<'_>, frame: &[u8]) -> Result<Seen> {
    frames::read(&sent(program, frame)?)
}

fn sent(program: BorrowedFd<'_>, frame: &[u8]) -> Result<Vec<u8>> {
    let run = syscall::test_run(program, frame).context("BPF_PROG_TEST_RUN")?;
    ensure!(run.action == XDP_TX, "it is not sent on, but answered with {}", run.action);
    Ok(run.frame)
}
