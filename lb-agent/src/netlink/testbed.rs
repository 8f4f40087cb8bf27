//! A network namespace of a test's own: on a thread that left the host's, with a runtime that
//! stays on that thread. Test code only.

use std::net::IpAddr;
use std::time::Duration;

use futures::TryStreamExt as _;
use netlink_packet_route::address::AddressScope;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{Link, Monitor, MonitorOptions, Netlink};

/// Runs a test in a fresh network namespace, which goes when the test ends. The host's network is
/// never touched.
///
/// Panics where the process may not make namespaces: a test that could not run must not pass.
pub(crate) fn isolated<F>(test: impl FnOnce() -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET)
            .expect("this test makes a network namespace of its own: run it as root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let limit = Duration::from_secs(60);
            tokio::time::timeout(limit, test()).await.expect("the test took over a minute");
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Sets a link up.
pub(crate) async fn up(netlink: &Netlink, index: u32) {
    let message = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
    netlink.raw().link().set(message).execute().await.unwrap();
}

pub(crate) async fn down(netlink: &Netlink, index: u32) {
    let message = LinkMessageBuilder::<LinkUnspec>::new().index(index).down().build();
    netlink.raw().link().set(message).execute().await.unwrap();
}

/// A pair of linked interfaces, `left` and `right`, both up and working, and lo up.
pub(crate) async fn veth(netlink: &Netlink) -> (Link, Link) {
    let mut monitor = Monitor::open(MonitorOptions::default()).unwrap();
    netlink.raw().link().add(LinkVeth::new("left", "right").build()).execute().await.unwrap();
    let network = netlink.snapshot().await.unwrap();
    for name in ["left", "right", "lo"] {
        up(netlink, network.link_by_name(name).unwrap().index).await;
    }
    while !carries(netlink, "left").await || !carries(netlink, "right").await {
        monitor.changed().await;
    }
    let network = netlink.snapshot().await.unwrap();
    ["left", "right"].map(|name| network.link_by_name(name).unwrap().clone()).into()
}

/// Whether a link is operational and has its queue: until then frames vanish (qdisc noop).
async fn carries(netlink: &Netlink, name: &str) -> bool {
    use netlink_packet_route::link::{LinkAttribute, LinkFlags};
    let mut links = netlink.raw().link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await.unwrap().unwrap();
    let queue = link.attributes.iter().any(|a| matches!(a, LinkAttribute::Qdisc(q) if q != "noop"));
    queue && link.header.flags.contains(LinkFlags::Running)
}

/// Adds a permanent address with its prefix route; an IPv6 one is usable at once.
pub(crate) async fn address(netlink: &Netlink, ifindex: u32, ip: &str, prefix: u8) {
    use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
    let ip: IpAddr = ip.parse().unwrap();
    let mut request = netlink.raw().address().add(ifindex, ip, prefix);
    let message = request.message_mut();
    message.header.scope = AddressScope::Universe;
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    request.execute().await.unwrap();
}
