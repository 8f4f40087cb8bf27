//! What a scenario's cluster is to look like, and the configuration that follows: the addresses of
//! the README's picture. Pure; [`super::cluster`] builds it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::backend::Mode;
use crate::lab::{ETHERNET_MTU, Offloads};

/// The interface of every machine.
pub const NIC: &str = "ens33";

/// Own addresses of a client, so that hashing by source spreads it over the backends.
const CLIENT_ADDRESSES: u8 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// The service that a mode stands for: the clients' port and the backends'.
const fn ports(mode: Mode) -> (u16, u16) {
    match mode {
        Mode::Https => (8443, 6443),
        Mode::Tcp => (7000, 7007),
        Mode::Udp => (5353, 5300),
    }
}

/// Where the backends are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum On {
    /// On the nodes themselves.
    Nodes,
    /// On machines that run nothing of ours.
    Servers,
}

#[derive(Clone, Debug)]
pub struct Shape {
    pub nodes: u8,
    /// Machines without the agent; they have the backends where `on` says so.
    pub servers: u8,
    pub clients: u8,
    /// A further client behind a router.
    pub far_client: bool,
    pub on: On,
    pub services: Vec<Mode>,
    /// Of the VIPs and services.
    pub families: &'static [Family],
    /// What stands below `[service.health]` of TCP services.
    pub checks: String,
    /// `hash` of every service.
    pub hash: &'static str,
    /// `data_path.modes`; where empty the agent chooses, for the lab's veths generic XDP.
    pub modes: &'static [&'static str],
    /// `data_path.on_stop` is "remove".
    pub on_stop_remove: bool,
    pub offloads: Offloads,
    /// Of all machines.
    pub mtu: u32,
    /// Names of machines whose backends are configured; all where empty.
    pub members: Vec<String>,
    /// Instead of a node that is configured as active.
    pub vrrp: Option<Vrrp>,
    /// `virtual_mac` of it.
    pub virtual_mac: bool,
    /// `preempt` of it.
    pub preempt: bool,
    /// Further keys of every service, and tables below it.
    pub service_keys: String,
    pub service_tables: String,
    /// Further tables, as they are to stand at the file's end.
    pub further: String,
}

/// How the nodes elect one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vrrp {
    pub interval: Duration,
}

impl Shape {
    /// The three masters of the README, each with an API server.
    pub fn masters(services: &[Mode]) -> Self {
        Self {
            nodes: 3,
            servers: 0,
            clients: 2,
            far_client: false,
            on: On::Nodes,
            services: services.to_vec(),
            families: &Family::BOTH,
            checks: QUICK.to_owned(),
            hash: "source",
            modes: &["native"],
            on_stop_remove: false,
            offloads: Offloads::Off,
            mtu: ETHERNET_MTU,
            members: Vec::new(),
            vrrp: None,
            virtual_mac: false,
            preempt: false,
            service_keys: String::new(),
            service_tables: String::new(),
            further: String::new(),
        }
    }

    /// A pair of load balancers before three servers that run nothing of ours.
    pub fn pair(services: &[Mode]) -> Self {
        Self { nodes: 2, servers: 3, on: On::Servers, ..Self::masters(services) }
    }

    pub fn node_names(&self) -> Vec<String> {
        (1..=self.nodes).map(|n| format!("master{n}")).collect()
    }

    pub fn server_names(&self) -> Vec<String> {
        (1..=self.servers).map(|n| format!("server{n}")).collect()
    }

    pub fn client_names(&self) -> Vec<String> {
        (1..=self.clients).map(|n| format!("client{n}")).collect()
    }

    /// Those that have backends.
    pub fn backend_names(&self) -> Vec<String> {
        match self.on {
            On::Nodes => self.node_names(),
            On::Servers => self.server_names(),
        }
    }

    /// The same cluster whose configuration has only these machines' backends.
    #[must_use]
    pub fn with_members(&self, members: &[&str]) -> Self {
        Self { members: members.iter().map(|&name| name.to_owned()).collect(), ..self.clone() }
    }

    /// `lb.toml`, the same on every node.
    pub fn configuration(&self) -> String {
        let vips: Vec<String> =
            self.families.iter().map(|&family| vip(family).to_string()).collect();
        let mut text = format!("interface = \"{NIC}\"\nvirtual_addresses = {vips:?}\n");
        match self.vrrp {
            None => text.push_str("active = \"master1\"\n"),
            Some(Vrrp { interval }) => {
                let interval_ms = interval.as_millis();
                let _ = write!(
                    text,
                    "\n[vrrp]\nrouter_id = 51\nadvertisement_interval = \"{interval_ms}ms\"\n"
                );
                let _ = writeln!(text, "preempt = {}", self.preempt);
                if self.virtual_mac {
                    text.push_str("virtual_mac = true\n");
                }
            }
        }
        text.push_str("\n[data_path]\n");
        if !self.modes.is_empty() {
            let _ = writeln!(text, "modes = {:?}", self.modes);
        }
        if self.on_stop_remove {
            text.push_str("on_stop = \"remove\"\n");
        }
        for (name, number) in self.node_names().into_iter().zip(1..) {
            let [v4, v6] = Family::BOTH.map(|family| address(&name, family));
            let _ = write!(
                text,
                "\n[[node]]\nname = \"{name}\"\naddress = \"{v4}\"\naddresses = [\"{v6}\"]\n"
            );
            if self.vrrp.is_some() {
                let _ = writeln!(text, "priority = {}", priority(number));
            }
        }
        for &mode in &self.services {
            for &family in self.families {
                text.push_str(&self.service(mode, family));
            }
        }
        text.push_str(&self.further);
        text
    }

    fn service(&self, mode: Mode, family: Family) -> String {
        let (name, protocol, health) = match mode {
            Mode::Https => ("kube-apiserver", "tcp", self.checks.as_str()),
            Mode::Tcp => ("echo", "tcp", self.checks.as_str()),
            Mode::Udp => ("dns", "udp", "enabled = false\n"),
        };
        let members = self.backend_names().into_iter();
        let members = members.filter(|n| self.members.is_empty() || self.members.contains(n));
        let backends: Vec<String> =
            members.map(|name| backend(&name, mode, family).to_string()).collect();
        let suffix = family.name().to_lowercase();
        format!(
            "\n[[service]]\nname = \"{name}-{suffix}\"\nport = {}\nprotocol = \"{protocol}\"\n\
             hash = \"{}\"\nbackends = {backends:?}\n{}[service.health]\n{health}{}",
            ports(mode).0,
            self.hash,
            self.service_keys,
            self.service_tables,
        )
    }
}

/// Quick, so that a scenario is: a backend's death is noticed in less than a second.
const QUICK: &str = "interval = \"300ms\"\ntimeout = \"300ms\"\nrise = 2\nfall = 2\n";

/// The VRRP priority of a node by its number: 100, 90, and so on.
pub const fn priority(node: u8) -> u8 {
    110 - 10 * node
}

/// What VRRP takes until a Backup of this priority takes over: three intervals and its skew
/// (RFC 9568, 6.1).
pub fn down_interval(interval: Duration, priority: u8) -> Duration {
    interval * 3 + interval * (256 - u32::from(priority)) / 256
}

pub fn vip(family: Family) -> IpAddr {
    host(150, family)
}

/// What clients talk to.
pub fn target(mode: Mode, family: Family) -> SocketAddr {
    SocketAddr::new(vip(family), ports(mode).0)
}

/// Where a machine's backend listens.
pub fn backend(name: &str, mode: Mode, family: Family) -> SocketAddr {
    SocketAddr::new(address(name, family), ports(mode).1)
}

/// A machine's first address. Names end in the machine's number.
pub fn address(name: &str, family: Family) -> IpAddr {
    let number: u8 = name.trim_start_matches(char::is_alphabetic).parse().unwrap_or(0);
    match name.trim_end_matches(char::is_numeric) {
        "master" => host(132 + number, family),
        "server" => host(200 + number, family),
        "client" => host(20 * number, family),
        FAR_CLIENT => far(10, family),
        _ => host(1, family),
    }
}

pub const ROUTER: &str = "router";
pub const FAR_CLIENT: &str = "far";

/// All own addresses of a client.
pub fn sources(name: &str, family: Family) -> Vec<IpAddr> {
    let first = address(name, family);
    (0..CLIENT_ADDRESSES).map(|n| plus(first, n)).collect()
}

/// A machine's addresses with the length of their networks' prefixes.
pub fn networks(name: &str) -> Vec<String> {
    let is_client = name.starts_with("client") || name == FAR_CLIENT;
    let of = |family| match is_client {
        true => sources(name, family),
        false => vec![address(name, family)],
    };
    let v4 = of(Family::V4).into_iter().map(|address| format!("{address}/24"));
    v4.chain(of(Family::V6).into_iter().map(|address| format!("{address}/64"))).collect()
}

/// The router's other side.
pub fn far_router(family: Family) -> IpAddr {
    far(1, family)
}

fn host(last: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(192, 168, 139, last)),
        Family::V6 => v6(0x139, last),
    }
}

fn far(last: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 1, 0, last)),
        Family::V6 => v6(0x1, last),
    }
}

/// `fd00:NET::LAST`, with the last part's digits those of the IPv4 address.
fn v6(net: u16, last: u8) -> IpAddr {
    let last = u16::from(last);
    let last = ((last / 100) << 8) | ((last / 10 % 10) << 4) | (last % 10);
    IpAddr::from([0xfd00, net, 0, 0, 0, 0, 0, last])
}

fn plus(address: IpAddr, n: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() + u32::from(n))),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() + u128::from(n)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_one_that_the_agent_accepts() {
        let all = [Mode::Https, Mode::Tcp, Mode::Udp];
        let tc_only = Shape { modes: &["tc"], hash: "source-port", ..Shape::masters(&all) };
        let smaller = Shape::masters(&all).with_members(&["master1", "master2"]);
        for shape in [Shape::masters(&all), Shape::pair(&all), tc_only, smaller] {
            let text = shape.configuration();
            let config = lb_agent::config::Config::parse(&text);
            assert!(config.is_ok(), "{text}\n{config:?}");
        }
    }

    #[test]
    fn the_addresses_are_those_of_the_picture() {
        assert_eq!(address("master3", Family::V4).to_string(), "192.168.139.135");
        assert_eq!(address("master3", Family::V6).to_string(), "fd00:139::135");
        assert_eq!(vip(Family::V6).to_string(), "fd00:139::150");
        assert_eq!(target(Mode::Https, Family::V4).to_string(), "192.168.139.150:8443");
        assert_eq!(backend("master1", Mode::Https, Family::V6).to_string(), "[fd00:139::133]:6443");
        assert_eq!(sources("client2", Family::V4)[15].to_string(), "192.168.139.55");
    }

    #[test]
    fn no_two_machines_share_an_address() {
        let names = [
            "master1", "master2", "master3", "server1", "server2", "server3", "client1", "client2",
            "router", "far",
        ];
        let mut all: Vec<String> = names.iter().flat_map(|name| networks(name)).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(!all.iter().any(|a| a.starts_with("192.168.139.150/")));
    }
}
