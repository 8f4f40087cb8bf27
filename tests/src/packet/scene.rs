//! What the program finds around it when a frame arrives: the fields of a fixture's `scene`, and
//! how they lie in the maps.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lb_common::Address;
use lb_common::backend::{ACCEPTS, ALIVE, Backend, Delivery};
use lb_common::bucket::{Bucket, NONE, RANKS};
use lb_common::hash::service_seed;
use lb_common::service::{HAS_LOCAL, HAS_NAT, HASH_PORT, PROTECTED, Service, ServiceKey, TCP, UDP};
use lb_common::settings::{DROP_UNKNOWN_PORTS, LOCAL_UDP, VIRTUAL_MAC};
use nix::sys::socket;
use serde::Deserialize;

use super::guard::Guard;
use super::made_up::setting::STAYING;
use super::names;

/// The port that clients use, the port that backends listen on.
pub const PORT: u16 = 8443;
pub const BACKEND_PORT: u16 = 6443;

/// The interface on which test runs happen: the namespace's loopback.
pub const INTERFACE: u32 = 1;

/// The virtual router whose MACs fixtures write out: `00:00:5e:00:01:33`.
pub const ROUTER_ID: u8 = 0x33;

/// How a fixture's backend is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    Local,
    Direct,
    Nat,
    /// Its neighbour is not resolved.
    Unresolved,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    #[default]
    Up,
    Draining,
    Down,
    /// Down, and used all the same.
    Distrusted,
}

/// Whether virtual MACs are in use, and the lease on those of [`ROUTER_ID`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VirtualMac {
    #[default]
    Off,
    Held,
    /// Lately.
    RanOut,
    /// Long ago, or never had.
    Over,
}

impl VirtualMac {
    /// The lease's end by `CLOCK_MONOTONIC`; none without virtual MACs.
    pub const fn until_ns(self, now_ns: u64) -> Option<u64> {
        match self {
            Self::Off => None,
            Self::Held => Some(u64::MAX),
            // A moment ago: the clock of programs is some milliseconds behind.
            Self::RanOut => Some(now_ns.saturating_sub(100_000_000)),
            Self::Over => Some(0),
        }
    }
}

impl Way {
    pub(crate) const fn delivery(self) -> Delivery {
        match self {
            Self::Local => Delivery::Local,
            Self::Direct => Delivery::Direct,
            Self::Nat => Delivery::Nat,
            Self::Unresolved => Delivery::None,
        }
    }
}

impl State {
    pub(crate) const fn flags(self) -> u8 {
        match self {
            Self::Up => ALIVE | ACCEPTS,
            Self::Draining => ALIVE,
            Self::Down => 0,
            Self::Distrusted => ACCEPTS,
        }
    }
}

/// A backend; its place in the scene's list is its rank.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SceneBackend {
    pub name: String,
    pub delivery: Way,
    #[serde(default)]
    pub state: State,
    /// Above 0 while it starts slowly.
    #[serde(default)]
    pub reluctance: u32,
    /// Out of which interface; 1 is the one that frames come in on.
    #[serde(default = "interface")]
    pub interface: u32,
}

const fn interface() -> u32 {
    INTERFACE
}

/// One service in both families and for both protocols, its backends in the order of their ranks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scene {
    pub backends: Vec<SceneBackend>,
    /// This node holds the VIPs.
    pub lease: bool,
    /// The virtual router's MACs.
    pub virtual_mac: VirtualMac,
    /// Packets to unknown ports are dropped.
    pub drop_unknown_ports: bool,
    /// The reserved ports: the first, and how many. Fixtures use one, so that it is known.
    pub nat_ports: Option<(u16, u16)>,
    /// The first backend of this node has its listeners.
    pub listening: bool,
    /// The client's connection has its socket on this node.
    pub connected: bool,
    /// A service without any backend, and settings that were never written.
    pub unconfigured: bool,
    /// This node's interface has no address of its own.
    pub no_address: bool,
    /// What the interface takes; 0 is not known.
    pub mtu: u16,
    /// And the one after it.
    pub next_mtu: u16,
    /// Datagrams stay, as [`STAYING`] says.
    pub stays: bool,
    /// What the services refuse.
    pub guard: Option<Guard>,
}

impl Scene {
    pub fn service(&self, family: u8, protocol: u8, base: u32) -> Result<(ServiceKey, Service)> {
        let address = Address::from(names::address("vip", family)?);
        let port_be = PORT.to_be();
        let key = ServiceKey { address, port_be, protocol, padding: 0 };
        let has = |way| self.backends.iter().any(|backend| backend.delivery == way);
        let mut flags = HASH_PORT;
        if has(Way::Local) {
            flags |= HAS_LOCAL;
        }
        if has(Way::Nat) {
            flags |= HAS_NAT;
        }
        if self.guard.is_some() {
            flags |= PROTECTED;
        }
        if self.stays {
            flags |= STAYING;
        }
        let service = Service {
            seed: service_seed(&address, port_be, protocol),
            table: 0,
            slots: 1,
            backends: base,
            flags,
            backend_count: self.backends.len() as u32,
            // One for each family.
            protection: u32::from(family),
        };
        Ok((key, service))
    }

    /// The one bucket: fixtures are about ranks, not about hashes.
    pub fn bucket(&self) -> Bucket {
        let mut ranks = [NONE; RANKS];
        for (rank, slot) in ranks.iter_mut().enumerate().take(self.backends.len()) {
            *slot = rank as u16;
        }
        Bucket { ranks }
    }

    pub fn entries(&self, family: u8) -> Result<Vec<Backend>> {
        self.backends.iter().map(|backend| backend.entry(family)).collect()
    }

    pub fn flags(&self) -> u32 {
        let unknown = if self.drop_unknown_ports { DROP_UNKNOWN_PORTS } else { 0 };
        let local = self.backends.iter().any(|backend| backend.delivery == Way::Local);
        let virtual_mac = if self.virtual_mac == VirtualMac::Off { 0 } else { VIRTUAL_MAC };
        unknown | virtual_mac | if local { LOCAL_UDP } else { 0 }
    }

    /// Opens the sockets that the scene has, in the calling thread's namespace.
    ///
    /// # Errors
    /// Where an address is missing there.
    pub fn sockets(&self) -> Result<Sockets> {
        let mut sockets = Sockets::default();
        for family in [4, 6] {
            let at =
                |name: &str, port| anyhow::Ok(SocketAddr::new(names::address(name, family)?, port));
            if self.listening {
                let address = at("master1", BACKEND_PORT)?;
                sockets.listeners.push(listen(address)?);
                sockets.datagrams.push(UdpSocket::bind(address).context("a UDP socket")?);
            }
            if self.connected {
                let (client, server) = connection(at("client", 40000)?, at("vip", PORT)?)?;
                sockets.connections.extend([client, server]);
            }
        }
        Ok(sockets)
    }
}

impl SceneBackend {
    pub(crate) fn entry(&self, family: u8) -> Result<Backend> {
        Ok(Backend {
            address: names::address(&self.name, family)?.into(),
            mac: names::mac(&self.name)?,
            delivery: self.delivery.delivery() as u8,
            state: self.state.flags(),
            port_be: BACKEND_PORT.to_be(),
            source_mac: names::mac("master1")?,
            ifindex: self.interface,
            reluctance: self.reluctance,
            ..Backend::EMPTY
        })
    }
}

/// The protocols that every scene serves.
pub const PROTOCOLS: [u8; 2] = [TCP, UDP];

/// Open as long as the scene lasts.
#[derive(Debug, Default)]
pub struct Sockets {
    listeners: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
    connections: Vec<TcpStream>,
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))
}

/// A connection with both ends in this namespace; its listener is gone when this returns.
pub(crate) fn connection(client: SocketAddr, server: SocketAddr) -> Result<(TcpStream, TcpStream)> {
    let listener = listen(server)?;
    let family = match client.ip() {
        IpAddr::V4(_) => socket::AddressFamily::Inet,
        IpAddr::V6(_) => socket::AddressFamily::Inet6,
    };
    let kind = socket::SockType::Stream;
    let fd = socket::socket(family, kind, socket::SockFlag::SOCK_CLOEXEC, None)?;
    // The scene before used the same port.
    socket::setsockopt(&fd, socket::sockopt::ReuseAddr, &true)?;
    let no_wait = libc::linger { l_onoff: 1, l_linger: 0 };
    socket::setsockopt(&fd, socket::sockopt::Linger, &no_wait)?;
    let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
    socket::bind(raw, &socket::SockaddrStorage::from(client))
        .with_context(|| format!("cannot use {client}"))?;
    socket::connect(raw, &socket::SockaddrStorage::from(server))
        .with_context(|| format!("cannot connect to {server}"))?;
    let (accepted, peer) = listener.accept().context("no connection arrived")?;
    if peer != client {
        bail!("a connection of {peer} arrived instead of {client}'s");
    }
    accepted.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket::setsockopt(&accepted, socket::sockopt::Linger, &no_wait)?;
    Ok((TcpStream::from(fd), accepted))
}
