//! Two nodes with two wires between them, each in a network namespace of its own.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _};
use std::thread;

use futures::TryStreamExt as _;
use netlink_packet_route::link::LinkAttribute;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netlink::testbed::{address, isolated, up};
use crate::netlink::{Mac, Monitor, MonitorOptions, Netlink};
use crate::vrrp::link::{Link, LinkError, Reach, Received};

/// A name and its addresses, each with the length of its prefix.
type Interface = (&'static str, &'static [(&'static str, u8)]);

/// The wires, as named at either end, with the addresses there. The first of a family is the one
/// that the kernel would speak from by itself.
const WIRES: [[Interface; 2]; 2] = [
    [
        (
            "near",
            &[
                ("192.0.2.101", 24),
                ("192.0.2.1", 24),
                ("fe80::101", 64),
                ("fe80::1", 64),
                ("2001:db8::1", 64),
            ],
        ),
        ("far", &[("192.0.2.2", 24), ("192.0.2.3", 24), ("fe80::2", 64), ("2001:db8::2", 64)]),
    ],
    [
        ("near-other", &[("198.51.100.1", 24), ("fe80::a1", 64), ("2001:db8:a::1", 64)]),
        ("far-other", &[("198.51.100.2", 24), ("fe80::a2", 64), ("2001:db8:a::2", 64)]),
    ],
];

pub(super) struct Lab {
    pub(super) near: Node,
    pub(super) far: Node,
}

/// Runs a test between two nodes. Fails where the process is not root's.
pub(super) fn between_nodes(test: impl FnOnce(Lab) + Send + 'static) {
    isolated(|| async {
        let near = Node { namespace: namespace_of_this_thread() };
        let apart = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            namespace_of_this_thread()
        });
        let far = Node { namespace: apart.join().unwrap() };
        let netlink = Netlink::connect().unwrap();
        for [(left, _), (right, _)] in WIRES {
            let link = netlink.raw().link();
            link.add(LinkVeth::new(left, right).build()).execute().await.unwrap();
            let moved = LinkMessageBuilder::<LinkUnspec>::new()
                .name(right.to_owned())
                .setns_by_fd(far.namespace.as_raw_fd())
                .build();
            netlink.raw().link().set(moved).execute().await.unwrap();
        }
        let nodes = WIRES.map(|[near, _]| near);
        set_up(&netlink, &nodes).await;
        far.configure(|netlink| async move {
            let nodes = WIRES.map(|[_, far]| far);
            set_up(&netlink, &nodes).await;
            wait_for(&netlink, &nodes).await;
        });
        wait_for(&netlink, &nodes).await;
        test(Lab { near, far });
    });
}

impl Lab {
    /// Sets an interface of far up again, and waits until both ends carry.
    pub(super) fn restore(&self, wire: usize) {
        let [near, far] = WIRES[wire];
        self.far.configure(|netlink| async move {
            up(&netlink, if_nametoindex(far.0).unwrap()).await;
            wait_for(&netlink, &[far]).await;
        });
        self.near.configure(|netlink| async move { wait_for(&netlink, &[near]).await });
    }
}

fn namespace_of_this_thread() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

async fn set_up(netlink: &Netlink, interfaces: &[Interface]) {
    for (name, addresses) in interfaces {
        let index = if_nametoindex(*name).unwrap();
        up(netlink, index).await;
        for (ip, prefix) in *addresses {
            address(netlink, index, ip, *prefix).await;
        }
    }
}

/// Waits until the interfaces have their queues: until then frames vanish.
async fn wait_for(netlink: &Netlink, interfaces: &[Interface]) {
    let mut monitor = Monitor::open(MonitorOptions::default()).unwrap();
    for (name, _) in interfaces {
        while !has_queue(netlink, name).await {
            monitor.changed().await;
        }
    }
}

async fn has_queue(netlink: &Netlink, name: &str) -> bool {
    let mut links = netlink.raw().link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await.unwrap().unwrap();
    link.attributes.iter().any(|a| matches!(a, LinkAttribute::Qdisc(q) if q != "noop"))
}

pub(super) struct Node {
    namespace: File,
}

impl Node {
    /// Does something as this node.
    pub(super) fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let enter_and_act = || {
            setns(&self.namespace, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        };
        thread::scope(|scope| scope.spawn(enter_and_act).join().unwrap())
    }

    pub(super) fn configure<F: Future<Output = ()>>(&self, act: impl FnOnce(Netlink) -> F + Send) {
        self.run(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { act(Netlink::connect().unwrap()).await });
        });
    }

    pub(super) fn remove_address(&self, interface: &str, address: &str) {
        let ifindex = self.ifindex(interface);
        self.configure(|netlink| async move {
            let addresses = netlink.raw().address();
            let wanted = addresses.get().set_link_index_filter(ifindex);
            let mut wanted = wanted.set_address_filter(ip(address)).execute();
            let message = wanted.try_next().await.unwrap().unwrap();
            addresses.del(message).execute().await.unwrap();
        });
    }

    pub(super) fn ifindex(&self, interface: &str) -> u32 {
        self.run(|| if_nametoindex(interface).unwrap())
    }

    /// The MAC of an interface.
    pub(super) fn mac(&self, interface: &str) -> Mac {
        let mut mac = None;
        let found = &mut mac;
        let name = interface.to_owned();
        self.configure(|netlink| async move {
            let mut links = netlink.raw().link().get().match_name(name).execute();
            let link = links.try_next().await.unwrap().unwrap();
            *found = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok(),
                _ => None,
            });
        });
        mac.expect("an ethernet has a MAC")
    }

    pub(super) fn try_open(
        &self,
        interface: &str,
        source: &str,
        reach: &Reach,
    ) -> Result<Link, LinkError> {
        let ifindex = self.ifindex(interface);
        self.run(|| Link::open(interface, ifindex, ip(source), reach))
    }

    pub(super) fn multicast(&self, interface: &str, source: &str) -> Link {
        self.try_open(interface, source, &Reach::Multicast).unwrap()
    }

    pub(super) fn unicast(&self, interface: &str, source: &str, peers: &[&str]) -> Link {
        let peers = peers.iter().map(|peer| ip(peer)).collect();
        self.try_open(interface, source, &Reach::Unicast(peers)).unwrap()
    }

    /// A socket that hears all of a protocol that comes to this node, over IPv4.
    pub(super) fn ear(&self, protocol: i32) -> Socket {
        let protocol = Some(Protocol::from(protocol));
        self.run(|| Socket::new(Domain::IPV4, Type::RAW, protocol).unwrap())
    }
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Waits until there is something to read.
pub(super) fn wait_readable(socket: &impl AsFd) {
    let mut sockets = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut sockets, PollTimeout::from(10_000_u16)).unwrap();
    assert_eq!(ready, 1, "nothing came within 10 seconds");
}

/// The next packet that comes.
pub(super) fn heard(link: &mut Link) -> Received {
    wait_readable(link);
    link.receive().unwrap().expect("it was readable")
}
