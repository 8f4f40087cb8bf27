//! A simulated machine: a network namespace on the switch, a cgroup, a directory, processes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lb_agent::announce::{Interface, LinkSocket};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{if_nameindex, if_nametoindex};

use super::namespace::Namespace;
use super::process::{Place, Process};
use super::run::making;
use super::xdp_pass::Pass;
use super::{Inner, capture, cgroup, queues, tool};

/// A MAC as in a frame.
pub type Mac = [u8; 6];

/// Of every Ethernet.
pub const ETHERNET_MTU: u32 = 1500;

/// What the host's network cards do by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offloads {
    /// No checksum, segmentation, receive or VLAN offload: what native XDP on a veth needs, since a local
    /// stack otherwise sends frames whose checksum a real card would fill in.
    Off,
    /// As the kernel makes a veth: frames up to 64 KiB, checksums left open.
    Default,
}

/// What one host is to be. Made by [`Lab::host`](super::Lab::host).
#[derive(Debug)]
pub struct HostBuilder {
    lab: Arc<Inner>,
    name: String,
    offloads: Offloads,
    mtu: u32,
    interfaces: Vec<(String, String, Vec<String>)>,
}

impl HostBuilder {
    pub(super) fn new(lab: Arc<Inner>, name: &str) -> Self {
        let (offloads, interfaces) = (Offloads::Off, Vec::new());
        Self { lab, name: name.to_owned(), offloads, mtu: ETHERNET_MTU, interfaces }
    }

    /// An interface on a segment of the switch, with addresses such as `192.168.139.10/24`.
    #[must_use]
    pub fn interface<A: ToString>(mut self, name: &str, segment: &str, addresses: &[A]) -> Self {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        self.interfaces.push((name.to_owned(), segment.to_owned(), addresses));
        self
    }

    /// What its interfaces and their switch ports take.
    #[must_use]
    pub const fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    #[must_use]
    pub const fn offloads(mut self, offloads: Offloads) -> Self {
        self.offloads = offloads;
        self
    }

    /// Makes it and plugs it in.
    ///
    /// # Errors
    /// Where a namespace, a link, an address or the cgroup cannot be made.
    pub fn start(self) -> Result<Host> {
        let _making = making();
        let run = &self.lab.run;
        let namespace = Namespace::create(format!("{}-{}", run.name(), self.name))?;
        let directory = run.directory().join(&self.name);
        std::fs::create_dir_all(&directory).context("cannot make the host's directory")?;
        let cgroup = cgroup::create(run.name(), &self.name)?;
        // No duplicate address detection: an address is usable at once.
        namespace.sysctl("net.ipv6.conf.default.accept_dad", "0")?;
        namespace.sysctl("net.ipv6.conf.all.accept_dad", "0")?;
        namespace.sysctl("net.ipv6.conf.default.accept_ra", "0")?;
        let mut host = Host {
            name: self.name,
            namespace,
            cgroup,
            directory,
            links: BTreeMap::new(),
            processes: AtomicU32::new(0),
            lab: self.lab,
        };
        for (interface, segment, addresses) in &self.interfaces {
            host.plug(interface, segment, addresses, (self.mtu, self.offloads))?;
        }
        Ok(host)
    }
}

/// The link from a host's interface to its switch port.
#[derive(Debug)]
struct Link {
    mac: Mac,
    port: String,
    _pass: Option<Pass>,
}

/// Owned: its namespace goes with it. Its processes are owned by whoever started them.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: Namespace,
    cgroup: PathBuf,
    directory: PathBuf,
    links: BTreeMap<String, Link>,
    processes: AtomicU32,
    lab: Arc<Inner>,
}

impl Host {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The cgroup that all its processes are in.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// For its sockets, state and logs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A directory of its own on the run's bpf file system.
    pub fn bpf_directory(&self) -> PathBuf {
        self.lab.run.bpf().join(&self.name)
    }

    /// The MAC of an interface.
    ///
    /// # Errors
    /// Where it has no such interface.
    pub fn mac(&self, interface: &str) -> Result<Mac> {
        Ok(self.link(interface)?.mac)
    }

    /// Starts a process in the host. Its output is read line by line, its standard error goes to
    /// a log in the host's directory.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        let number = self.processes.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            namespace: self.namespace.descriptor(),
            cgroup: &self.cgroup,
            log: self.directory.join(format!("{name}-{number}.log")),
        };
        Process::start(&format!("{name} on {}", self.name), command, &place)
    }

    /// A permanent entry in the host's neighbour table, as a stale or forged one would be.
    ///
    /// # Errors
    /// Where `ip` refuses it.
    pub fn set_neighbour(&self, interface: &str, address: IpAddr, mac: Mac) -> Result<()> {
        let mac = format_mac(mac);
        self.namespace
            .ip(&format!("neigh replace {address} lladdr {mac} dev {interface} nud permanent"))
    }

    /// What the host believes to be the MAC of an address.
    ///
    /// # Errors
    /// Where `ip` fails.
    pub fn neighbour(&self, address: IpAddr) -> Result<Option<Mac>> {
        let address = address.to_string();
        let text =
            tool::run("ip", &["-n", self.namespace.name(), "neigh", "show", "to", &address])?;
        let mut words = text.split_ascii_whitespace().skip_while(|word| *word != "lladdr");
        Ok(words.nth(1).and_then(parse_mac))
    }

    /// Waits until the host believes this to be the MAC of an address, and returns what it believes
    /// then or at the end.
    ///
    /// # Errors
    /// Where `ip` fails.
    pub fn await_neighbour(
        &self,
        address: IpAddr,
        mac: Mac,
        limit: Duration,
    ) -> Result<Option<Mac>> {
        let deadline = Instant::now() + limit;
        loop {
            let known = self.neighbour(address)?;
            if known == Some(mac) || Instant::now() > deadline {
                return Ok(known);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Makes the kernel ask who has an address, by a datagram to it.
    ///
    /// # Errors
    /// Where no socket can be opened. That nobody answers is none.
    pub fn knock(&self, address: IpAddr) -> Result<()> {
        self.namespace.within(|| {
            let any: std::net::SocketAddr = match address {
                IpAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
                IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = std::net::UdpSocket::bind(any)?;
            // The discard port: what becomes of the datagram is of no account.
            let _ = socket.send_to(b"knock", (address, 9));
            Ok(())
        })
    }

    /// Its interfaces' names.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn interfaces(&self) -> Result<Vec<String>> {
        self.namespace.within(|| {
            let all = if_nameindex()?;
            Ok(all.iter().map(|link| link.name().to_string_lossy().into_owned()).collect())
        })
    }

    /// Whether an interface has an address now.
    ///
    /// # Errors
    /// Where `ip` fails.
    pub fn holds(&self, interface: &str, address: IpAddr) -> Result<bool> {
        let namespace = self.namespace.name();
        let text = tool::run("ip", &["-n", namespace, "-o", "addr", "show", "dev", interface])?;
        let prefix = format!("{address}/");
        Ok(text.split_ascii_whitespace().any(|word| word.starts_with(&prefix)))
    }

    /// Deletes an address, as a person or another daemon would, and returns how long it was away.
    ///
    /// # Errors
    /// Where it was not there, or does not come back in time.
    pub fn delete_address(
        &self,
        interface: &str,
        address: IpAddr,
        limit: Duration,
    ) -> Result<Duration> {
        self.namespace.within(|| {
            let before = Instant::now();
            let text = address.to_string();
            tool::run("ip", &["addr", "del", &text, "dev", interface])?;
            // The tool's own end takes longer than an agent may take.
            while !has(interface, address)? {
                if before.elapsed() > limit {
                    bail!("{address} was deleted from {interface} and not restored in {limit:?}");
                }
                std::thread::yield_now();
            }
            Ok(before.elapsed())
        })
    }

    /// Records every frame on the wire between an interface and the switch, in both directions:
    /// taken at the switch port, since the host's own taps do not see what XDP sends.
    ///
    /// # Errors
    /// Where the socket cannot be opened.
    pub fn capture(&self, interface: &str) -> Result<capture::Capture> {
        let port = self.link(interface)?.port.clone();
        self.lab.switch.within(move || capture::Capture::start(&port))
    }

    /// A socket that sends whole frames from an interface.
    ///
    /// # Errors
    /// Where there is no such interface, or no packet socket can be opened.
    pub fn link_socket(&self, interface: &str) -> Result<LinkSocket> {
        let mac = self.mac(interface)?;
        self.namespace.within(|| {
            let index = if_nametoindex(interface).context("an interface to send on")?;
            let interface = Interface { index, name: interface.to_owned(), mac };
            LinkSocket::sender(&interface).context("a socket to send by")
        })
    }

    /// Pulls the cable out of an interface, or plugs it in again.
    ///
    /// # Errors
    /// Where `ip` fails.
    pub fn set_cable(&self, interface: &str, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        self.lab.switch.ip(&format!("link set {} {state}", self.link(interface)?.port))
    }

    /// SIGKILL to everything that runs on it, at once.
    ///
    /// # Errors
    /// Where the kernel is older than 5.14, or a process does not die.
    pub fn kill_all(&self) -> Result<()> {
        cgroup::kill(&self.cgroup)
    }

    fn link(&self, interface: &str) -> Result<&Link> {
        self.links
            .get(interface)
            .with_context(|| format!("{} has no interface {interface}", self.name))
    }

    fn plug(
        &mut self,
        interface: &str,
        segment: &str,
        addresses: &[String],
        (mtu, offloads): (u32, Offloads),
    ) -> Result<()> {
        self.lab.segment(segment)?;
        let port = self.lab.next_port();
        let here = self.namespace.name();
        let cpus = queues::cpus()?;
        let options = format!("mtu {mtu} {}", queues::options(&cpus));
        self.lab.switch.ip(&format!(
            "link add {port} {options} type veth peer name {interface} {options} netns {here}\n\
             link set {port} master {segment} up"
        ))?;
        let mut batch = format!("link set {interface} up\n");
        for address in addresses {
            let flag = if address.contains(':') { " nodad" } else { "" };
            batch.push_str(&format!("addr add {address} dev {interface}{flag}\n"));
        }
        self.namespace.ip(&batch)?;
        queues::share_out(&self.namespace, interface, &cpus)?;
        queues::share_out(&self.lab.switch, &port, &cpus)?;
        if offloads == Offloads::Off {
            self.namespace.within(|| switch_off_offloads(interface))?;
            self.lab.switch.within(|| switch_off_offloads(&port))?;
        }
        let pass = match offloads {
            Offloads::Off => Some(self.lab.switch.within(|| Pass::attach(&port))?),
            // A program on the port would take the segmentation offload away from the host.
            Offloads::Default => None,
        };
        let mac = self.read_mac(interface)?;
        self.links.insert(interface.to_owned(), Link { mac, port, _pass: pass });
        Ok(())
    }

    fn read_mac(&self, interface: &str) -> Result<Mac> {
        let arguments = ["-n", self.namespace.name(), "-o", "link", "show", "dev", interface];
        let text = tool::run("ip", &arguments)?;
        let mut words = text.split_ascii_whitespace().skip_while(|word| *word != "link/ether");
        words.nth(1).and_then(parse_mac).with_context(|| format!("{interface} has no MAC: {text}"))
    }
}

/// Runs in the interface's namespace.
fn has(interface: &str, address: IpAddr) -> Result<bool> {
    let mut all = getifaddrs().context("cannot list addresses")?;
    Ok(all.any(|one| {
        let here = one.address.and_then(|storage| {
            let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        });
        one.interface_name == interface && here == Some(address)
    }))
}

/// Runs in the interface's namespace.
fn switch_off_offloads(interface: &str) -> Result<()> {
    // The last three leave VLAN tags in the frames.
    let features = ["tx", "tso", "gso", "gro", "txvlan", "rxvlan", "tx-vlan-stag-hw-insert"]
        .map(|it| [it, "off"]);
    let arguments: Vec<&str> =
        ["-K", interface].into_iter().chain(features.iter().flatten().copied()).collect();
    tool::run("ethtool", &arguments).map(drop)
}

pub fn format_mac(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn parse_mac(text: &str) -> Option<Mac> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_survives_the_round_trip_and_a_wrong_one_is_refused() {
        let mac = [0x02, 0, 0xab, 0xcd, 0xef, 0x01];
        assert_eq!(parse_mac(&format_mac(mac)), Some(mac));
        assert_eq!(parse_mac("02:00:ab:cd:ef"), None);
        assert_eq!(parse_mac("02:00:ab:cd:ef:01:02"), None);
        assert_eq!(parse_mac("02:00:ab:cd:ef:0g"), None);
    }
}
