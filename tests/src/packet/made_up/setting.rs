//! What the programs find around them while a story runs: the first bytes of an input, as the node,
//! its backends and its sockets. Pure.
//!
//! ```text
//! 0       LEASE, DROP_UNKNOWN, LISTENING, CONNECTED, NO_ADDRESS, STAYS: bits
//! 1       COOKIES_ABOUT, COOKIE_VALID, TIME_WAIT: bits; only plain values can be told so
//! 2       how many backends, modulo 5
//! 3..=6   a backend each: delivery modulo 4, then bits ALIVE, ACCEPTS, ELSEWHERE
//! 7       how many ports NAT has, modulo 4
//! 8       how many bytes of a frame lie in its first piece; 0 for all
//! 9       room for NAT entries; 0 for as many as come
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::backend::Delivery;
use lb_common::quic::Scheme;
use lb_common::service::{self, Service};

/// Bytes of an input that are the setting.
pub const LENGTH: usize = 10;

/// The port of the services at the VIPs, the backends' port, NAT's first.
pub const PORT: u16 = 8443;
pub const BACKEND_PORT: u16 = 6443;
pub const NAT_PORT: u16 = 61000;
/// The port from which the client's connection comes, where there is one.
pub const CLIENT_PORT: u16 = 40000;

pub const LEASE: u8 = 1;
pub const DROP_UNKNOWN: u8 = 2;
pub const LISTENING: u8 = 4;
pub const CONNECTED: u8 = 8;
pub const NO_ADDRESS: u8 = 16;
pub const STAYS: u8 = 32;

pub const COOKIES_ABOUT: u8 = 1;
pub const COOKIE_VALID: u8 = 2;
pub const TIME_WAIT: u8 = 4;

pub const ALIVE: u8 = 4;
pub const ACCEPTS: u8 = 8;
pub const ELSEWHERE: u8 = 16;

/// The flags of a service whose datagrams stay: for a minute, and by connection ids that name backends by
/// their places, in one byte.
pub const STAYING: u32 =
    service::STAYS | Service::affinity_flags(60) | Scheme { rotation: 0, id_bytes: 1 }.flags();

pub type Mac = [u8; 6];

/// A machine of the story: the same as the fixtures'.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// As the fixtures call it.
    pub name: &'static str,
    pub mac: Mac,
    host: u8,
}

const fn machine(name: &'static str, last: u8, host: u8) -> Machine {
    Machine { name, mac: [2, 0, 0, 0, 0, last], host }
}

pub const CLIENT: Machine = machine("client", 0x10, 10);
/// The node whose programs run.
pub const NODE: Machine = machine("master1", 0x01, 133);
pub const VIP: Machine = machine("vip", 0x00, 150);
pub const PEERS: [Machine; 2] = [machine("master2", 0x02, 134), machine("master3", 0x03, 135)];
/// Backends by their place in an input.
pub const BACKENDS: [Machine; 4] = [NODE, PEERS[0], PEERS[1], machine("server", 0x40, 140)];

impl Machine {
    /// Its address in a family, 4 or 6.
    pub fn address(&self, family: u8) -> IpAddr {
        let host = u16::from(self.host);
        match family {
            4 => Ipv4Addr::new(192, 168, 139, self.host).into(),
            // As people write it: the same digits, read as hexadecimal ones.
            _ => {
                let digits = host / 100 * 0x100 + host / 10 % 10 * 0x10 + host % 10;
                Ipv6Addr::new(0xfd00, 0x139, 0, 0, 0, 0, 0, digits).into()
            }
        }
    }

    pub fn at(&self, family: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(family), port)
    }

    pub fn has(&self, address: IpAddr) -> bool {
        [4, 6].iter().any(|family| self.address(*family) == address)
    }
}

/// A backend; its place in the setting's list is its rank.
#[derive(Clone, Copy, Debug)]
pub struct Backing {
    pub machine: Machine,
    pub delivery: Delivery,
    pub alive: bool,
    pub accepts: bool,
    /// It is reached by another interface than the one that frames come in on.
    pub elsewhere: bool,
}

#[derive(Clone, Debug)]
pub struct Setting {
    pub backends: Vec<Backing>,
    pub lease: bool,
    pub drop_unknown_ports: bool,
    /// This node's backend has its sockets.
    pub listening: bool,
    /// The client's connection from [`CLIENT_PORT`] has its socket on this node.
    pub connected: bool,
    pub no_address: bool,
    /// Datagrams stay, and connection ids name backends.
    pub stays: bool,
    pub cookies_about: bool,
    pub cookie_valid: bool,
    /// What looks like a connection is in TIME-WAIT.
    pub time_wait: bool,
    pub nat_ports: u16,
    /// Bytes of a frame that can be read directly.
    pub linear: Option<usize>,
    pub nat_room: Option<usize>,
}

impl Setting {
    /// From the first bytes of an input; any will do.
    pub fn read(bytes: &[u8; LENGTH]) -> Self {
        let [node, pure, count, backends @ .., nat_ports, linear, nat_room] = *bytes;
        let backends: [u8; 4] = backends;
        let chosen = BACKENDS.into_iter().zip(backends).take(usize::from(count % 5));
        let or_all = |byte: u8| (byte > 0).then_some(usize::from(byte));
        Self {
            backends: chosen.map(|(machine, byte)| Backing::read(machine, byte)).collect(),
            lease: node & LEASE != 0,
            drop_unknown_ports: node & DROP_UNKNOWN != 0,
            listening: node & LISTENING != 0,
            connected: node & CONNECTED != 0,
            no_address: node & NO_ADDRESS != 0,
            stays: node & STAYS != 0,
            cookies_about: pure & COOKIES_ABOUT != 0,
            cookie_valid: pure & COOKIE_VALID != 0,
            time_wait: pure & TIME_WAIT != 0,
            nat_ports: u16::from(nat_ports % 4),
            linear: or_all(linear),
            nat_room: or_all(nat_room),
        }
    }

    pub fn has(&self, delivery: Delivery) -> bool {
        self.backends.iter().any(|backend| backend.delivery == delivery)
    }

    pub const fn is_nat_port(&self, port: u16) -> bool {
        port.wrapping_sub(NAT_PORT) < self.nat_ports
    }
}

impl Backing {
    const fn read(machine: Machine, byte: u8) -> Self {
        let delivery = match byte % 4 {
            0 => Delivery::Local,
            1 => Delivery::Direct,
            2 => Delivery::Nat,
            _ => Delivery::None,
        };
        Self {
            machine,
            delivery,
            alive: byte & ALIVE != 0,
            accepts: byte & ACCEPTS != 0,
            elsewhere: byte & ELSEWHERE != 0,
        }
    }
}
