//! Plans of small networks.

use std::collections::HashMap;

use super::*;
use crate::hysteresis::State;
use crate::netlink::{Hop, InterfaceAddress, Link, Neighbour, NeighbourState, Route};
use crate::standing::{Admin, Manner, Member};

const CONFIG: &str = r#"
interface = "e0"
virtual_addresses = ["192.168.139.150"]

[[node]]
name = "m0"
address = "192.168.139.133"

[[node]]
name = "m1"
address = "192.168.139.134"

[[service]]
name = "api"
port = 8443
backends = ["192.168.139.133:6443", "192.168.139.134:6443", "192.168.139.9:6443"]
"#;

const PEER_MAC: Mac = [2, 0, 0, 0, 0, 0x34];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Node m0's network; the neighbours are those that answer.
fn network(neighbours: &[(&str, Mac)]) -> Network {
    network_on(true, neighbours)
}

/// The same, on a link that has its cable or not.
fn network_on(running: bool, neighbours: &[(&str, Mac)]) -> Network {
    let link = Link {
        index: 2,
        name: "e0".to_owned(),
        mac: Some([2, 0, 0, 0, 0, 0x33]),
        up: true,
        running,
        loopback: false,
        veth: false,
        mtu: 1500,
    };
    let address = InterfaceAddress {
        ifindex: 2,
        address: ip("192.168.139.133"),
        prefix_len: 24,
        usable: true,
        permanent: true,
    };
    let route = Route {
        destination: ip("192.168.139.0"),
        prefix_len: 24,
        metric: 0,
        hops: vec![Hop { ifindex: 2, gateway: None, usable: true }],
    };
    let neighbours = neighbours.iter().map(|(address, mac)| Neighbour {
        ifindex: 2,
        address: ip(address),
        mac: Some(*mac),
        state: NeighbourState::Stale,
    });
    Network::new(vec![link], vec![address], vec![route], neighbours.collect())
}

struct World {
    config: Config,
    known: HashMap<(u32, IpAddr), Mac>,
    down: Vec<SocketAddr>,
    /// And so that its clients are to be told.
    gone: Vec<SocketAddr>,
    minimum_healthy: u32,
}

impl World {
    fn new(text: &str) -> Self {
        let config = Config::parse(text).unwrap();
        Self {
            config,
            known: HashMap::new(),
            down: Vec::new(),
            gone: Vec::new(),
            minimum_healthy: 0,
        }
    }

    fn plan(&self, network: &Network) -> Plan {
        let members = |service: usize| {
            let backends = self.config.services[service].backends.iter();
            backends.map(|backend| Member {
                health: if self.down.contains(&backend.address) {
                    State::Down
                } else {
                    State::Healthy
                },
                admin: Admin::Enabled,
                backup: backend.backup,
                weighted: backend.weight > 0,
                gone: self.gone.contains(&backend.address),
            })
        };
        let usable = |service: usize, place: usize| {
            let manner = Manner::of(members(service), self.minimum_healthy);
            manner.usable(members(service).nth(place).unwrap())
        };
        Plan::make(&Inputs {
            config: &self.config,
            node: "m0",
            tables: &Tables::build(&self.config).unwrap(),
            lists: &Lists::default(),
            network,
            known_macs: &self.known,
            syn_cookies: true,
            attached: &[2],
            usable: &usable,
        })
    }
}

fn backend<'a>(plan: &'a Plan, address: &str) -> &'a PlannedBackend {
    let address: SocketAddr = address.parse().unwrap();
    plan.services[0].backends.iter().find(|b| b.address == address).unwrap()
}

#[test]
fn whose_address_it_is_decides_how_a_backend_is_reached() {
    let network = network(&[("192.168.139.134", PEER_MAC), ("192.168.139.9", [2; 6])]);
    let plan = World::new(CONFIG).plan(&network);
    let ways = [
        ("192.168.139.133:6443", Delivery::Local),
        ("192.168.139.134:6443", Delivery::Direct),
        ("192.168.139.9:6443", Delivery::Nat),
    ];
    for (address, delivery) in ways {
        assert_eq!(backend(&plan, address).entry.delivery, delivery as u8, "{address}");
    }
    assert_eq!(backend(&plan, "192.168.139.134:6443").entry.mac, PEER_MAC);
    assert_eq!(plan.services[0].flags, HAS_LOCAL | HAS_NAT | NOTED);
    assert_eq!(plan.peers, [PeerKey { mac: PEER_MAC, padding: [0; 2] }]);
    assert_ne!(plan.settings.peers & peer_bit(&PEER_MAC), 0);
}

#[test]
fn a_neighbour_that_does_not_answer_is_asked_for_and_skipped() {
    let plan = World::new(CONFIG).plan(&network(&[]));
    let peer = backend(&plan, "192.168.139.134:6443");
    assert_eq!(peer.entry.delivery, Delivery::None as u8);
    assert!(peer.reason.contains("does not answer on e0"), "{}", peer.reason);
    assert!(plan.unresolved.contains(&(2, ip("192.168.139.134"))));
    // What it is going to be is known, so that its NAT entries are looked for.
    assert_eq!(plan.services[0].flags, HAS_LOCAL | HAS_NAT | NOTED);
}

#[test]
fn a_neighbour_that_fell_silent_keeps_its_mac() {
    let mut world = World::new(CONFIG);
    world.known.insert((2, ip("192.168.139.134")), PEER_MAC);
    world.down.push("192.168.139.134:6443".parse().unwrap());
    let plan = world.plan(&network(&[]));
    let peer = backend(&plan, "192.168.139.134:6443").entry;
    assert_eq!((peer.delivery, peer.mac, peer.state), (Delivery::Direct as u8, PEER_MAC, 0));
}

#[test]
fn what_is_gone_gets_nothing_unless_nobody_is_believed() {
    let peer = "192.168.139.134:6443";
    let mut world = World::new(CONFIG);
    world.known.insert((2, ip("192.168.139.134")), PEER_MAC);
    (world.down, world.gone) = (vec![peer.parse().unwrap()], vec![peer.parse().unwrap()]);
    let plan = world.plan(&network(&[]));
    let gone = backend(&plan, peer);
    assert_eq!((gone.entry.delivery, gone.entry.state), (Delivery::None as u8, 0));
    // Where it was is not forgotten: it is asked there for a sign of life.
    assert_eq!((gone.intended, gone.entry.mac), (Delivery::Direct, PEER_MAC));
    // With fewer healthy ones than there must be the checks are not to be believed.
    world.minimum_healthy = 3;
    let plan = world.plan(&network(&[]));
    assert_eq!(backend(&plan, peer).entry.delivery, Delivery::Direct as u8);
}

#[test]
fn clients_are_noted_only_where_they_may_have_to_be_told() {
    let noted = |text: &str| {
        let plan = World::new(&CONFIG.replace("[[service]]", text)).plan(&network(&[]));
        plan.services[0].flags & NOTED != 0
    };
    assert!(noted("[[service]]"));
    assert!(!noted("[[service]]\nhealth = { reset_clients = \"never\" }"));
    assert!(!noted("[[service]]\nhealth = { enabled = false }"));
    assert!(!noted("[[service]]\nprotocol = \"udp\"\nhealth = {}"));
}

#[test]
fn a_link_that_is_down_for_a_moment_changes_no_way() {
    let mut world = World::new(CONFIG);
    world.known.insert((2, ip("192.168.139.134")), PEER_MAC);
    let up = world.plan(&network(&[]));
    let down = world.plan(&network_on(false, &[]));
    let way = |plan| backend(plan, "192.168.139.134:6443").entry;
    assert_eq!(way(&down), way(&up));
    assert_eq!(way(&down).delivery, Delivery::Direct as u8);
    assert_eq!(down.peers, up.peers);
}

#[test]
fn the_port_range_of_nat_is_reserved_only_where_something_is_translated() {
    let direct_only = CONFIG.replace(", \"192.168.139.9:6443\"", "");
    let network = network(&[("192.168.139.134", PEER_MAC)]);
    assert_eq!(World::new(&direct_only).plan(&network).settings.nat_port_count, 0);
    assert_ne!(World::new(CONFIG).plan(&network).settings.nat_port_count, 0);
}

#[test]
fn weight_zero_drains_and_does_not_kill() {
    let text = CONFIG
        .replace("\"192.168.139.134:6443\"", "{ address = \"192.168.139.134:6443\", weight = 0 }");
    let plan = World::new(&text).plan(&network(&[("192.168.139.134", PEER_MAC)]));
    assert_eq!(backend(&plan, "192.168.139.134:6443").entry.state, ALIVE);
}

#[test]
fn backups_rank_behind_all_others() {
    let text = CONFIG.replace(
        "\"192.168.139.134:6443\"",
        "{ address = \"192.168.139.134:6443\", backup = true }",
    );
    let mut world = World::new(&text);
    let network = network(&[("192.168.139.134", PEER_MAC), ("192.168.139.9", [2; 6])]);
    let plan = world.plan(&network);
    let backup = backend(&plan, "192.168.139.134:6443");
    assert_eq!((backup.entry.state, backup.share), (ALIVE, 0.0));
    world.down =
        ["192.168.139.133:6443", "192.168.139.9:6443"].map(|a| a.parse().unwrap()).to_vec();
    let plan = world.plan(&network);
    assert_eq!(backend(&plan, "192.168.139.134:6443").entry.state, ALIVE | ACCEPTS);
}

#[test]
fn one_that_is_used_though_it_is_down_is_found_by_its_entries_alone() {
    let mut world = World::new(CONFIG);
    world.minimum_healthy = 1;
    let all = ["192.168.139.133:6443", "192.168.139.134:6443", "192.168.139.9:6443"];
    world.down = all.map(|a| a.parse().unwrap()).to_vec();
    let plan = world.plan(&network(&[("192.168.139.134", PEER_MAC), ("192.168.139.9", [2; 6])]));
    let states = all.map(|address| backend(&plan, address).entry.state);
    assert_eq!(states, [ACCEPTS, ACCEPTS, ALIVE | ACCEPTS]);
}

#[test]
fn nodes_agree_on_the_nat_key_whatever_the_order_of_their_addresses() {
    let two = |list: &str| World::new(&CONFIG.replace("[\"192.168.139.150\"]", list));
    let a = two(r#"["192.168.139.150", "192.168.139.151"]"#).plan(&network(&[]));
    let b = two(r#"["192.168.139.151", "192.168.139.150"]"#).plan(&network(&[]));
    assert_eq!(a.settings.nat_key, b.settings.nat_key);
    let other = World::new(CONFIG).plan(&network(&[]));
    assert_ne!(a.settings.nat_key, other.settings.nat_key);
}
