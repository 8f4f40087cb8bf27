//! The driver against a real kernel, in network namespaces of the tests' own.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::testbed::{address, down, isolated, veth};
use super::{Change, Monitor, MonitorOptions, NeighbourState, Netlink, Unreachable};

const VIPS: [&str; 2] = ["192.0.2.150", "2001:db8::150"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_snapshot_holds_links_addresses_routes_and_neighbours() {
    isolated(|| async {
        let netlink = Netlink::connect().unwrap();
        let (left, right) = veth(&netlink).await;
        address(&netlink, left.index, "192.0.2.5", 24).await;
        address(&netlink, left.index, "2001:db8::5", 64).await;

        let network = netlink.snapshot().await.unwrap();
        assert_eq!(network.link_by_name("left"), Some(&left));
        assert!(left.up && left.running && left.mac.is_some() && left.mtu == 1500);
        let lo = network.link_by_name("lo").unwrap();
        assert!(lo.loopback && !lo.veth && left.veth);
        assert!(network.is_own(ip("192.0.2.5")) && network.is_own(ip("2001:db8::5")));
        assert!(network.addresses_of(left.index).any(|a| a.prefix_len == 24 && a.permanent));
        for (destination, other) in [("192.0.2.9", "192.0.2.5"), ("2001:db8::9", "2001:db8::5")] {
            let hop = network.resolve(ip(destination)).unwrap();
            assert_eq!((hop.ifindex, hop.mac), (left.index, None));
            assert_eq!(hop.source_mac, left.mac.unwrap());
            assert_eq!(network.resolve(ip(other)), Err(Unreachable::Own(ip(other))));
        }
        assert_eq!(
            network.resolve(ip("198.51.100.1")),
            Err(Unreachable::NoRoute(ip("198.51.100.1")))
        );

        let mut monitor = Monitor::open(MonitorOptions::default()).unwrap();
        down(&netlink, right.index).await;
        let mut network = netlink.snapshot().await.unwrap();
        while network.link_by_name("left").unwrap().running {
            monitor.changed().await;
            network = netlink.snapshot().await.unwrap();
        }
        assert!(network.resolve(ip("192.0.2.9")).is_err());
    });
}

#[test]
fn a_neighbour_is_resolved_without_application_data() {
    isolated(|| async {
        let netlink = Netlink::connect().unwrap();
        let (left, _) = veth(&netlink).await;
        address(&netlink, left.index, "192.0.2.5", 24).await;
        let mut monitor = Monitor::open(MonitorOptions::default()).unwrap();
        // Nobody answers on the other end: the kernel asks, then gives up.
        netlink.probe_neighbour(left.index, ip("192.0.2.9")).await.unwrap();
        let network = netlink.snapshot().await.unwrap();
        let state = network.neighbour(left.index, ip("192.0.2.9")).unwrap().state;
        assert_eq!(state, NeighbourState::Incomplete);
        loop {
            monitor.changed().await;
            let network = netlink.snapshot().await.unwrap();
            let neighbour = network.neighbour(left.index, ip("192.0.2.9")).unwrap();
            assert_eq!(neighbour.mac, None);
            if neighbour.state == NeighbourState::Failed {
                break;
            }
        }
    });
}

#[test]
fn a_vip_appears_with_a_lifetime_and_expires_unless_refreshed() {
    isolated(|| async {
        let netlink = Netlink::connect().unwrap();
        let (left, _) = veth(&netlink).await;
        let mut monitor = Monitor::open(MonitorOptions::default()).unwrap();
        monitor.set_own(VIPS.iter().map(|v| ip(v)).collect());
        for vip in VIPS {
            netlink.add_address(left.index, ip(vip), Duration::from_secs(2)).await.unwrap();
            netlink.add_address(left.index, ip(vip), Duration::from_secs(2)).await.unwrap();
        }
        let network = netlink.snapshot().await.unwrap();
        for vip in VIPS {
            let held = network.addresses().iter().find(|a| a.address == ip(vip)).unwrap();
            assert!(held.usable && !held.permanent && held.ifindex == left.index);
        }
        let mut held: BTreeSet<_> = VIPS.iter().map(|v| ip(v)).collect();
        while !held.is_empty() {
            let change = monitor.changed().await;
            let network = netlink.snapshot().await.unwrap();
            let before = held.len();
            held.retain(|vip| network.is_own(*vip));
            assert!(change.vip_removed || held.len() == before, "removed without a notice");
        }
    });
}

#[test]
fn adding_and_removing_what_is_there_or_gone_already_is_fine() {
    isolated(|| async {
        let netlink = Netlink::connect().unwrap();
        let (left, _) = veth(&netlink).await;
        for vip in VIPS.map(ip) {
            netlink.add_local_route(vip).await.unwrap();
            netlink.add_local_route(vip).await.unwrap();
            netlink.add_address(left.index, vip, Duration::from_secs(60)).await.unwrap();
            netlink.add_local_route(vip).await.unwrap();
            netlink.remove_address(left.index, vip).await.unwrap();
            netlink.remove_address(left.index, vip).await.unwrap();
        }
        assert_eq!(netlink.local_routes().await.unwrap(), VIPS.map(ip));
        for vip in VIPS.map(ip) {
            netlink.remove_local_route(vip).await.unwrap();
            netlink.remove_local_route(vip).await.unwrap();
        }
        assert_eq!(netlink.local_routes().await.unwrap(), [] as [IpAddr; 0]);
    });
}

#[test]
fn the_local_route_added_while_the_vip_is_held_survives_its_loss() {
    isolated(|| async {
        let netlink = Netlink::connect().unwrap();
        let (left, _) = veth(&netlink).await;
        for vip in VIPS.map(ip) {
            netlink.add_address(left.index, vip, Duration::from_secs(60)).await.unwrap();
            netlink.add_local_route(vip).await.unwrap();
            netlink.remove_address(left.index, vip).await.unwrap();
            assert!(delivered(vip), "{vip} is not delivered locally");
            netlink.remove_local_route(vip).await.unwrap();
            assert!(!delivered(vip), "{vip} is still delivered locally");
        }
    });
}

/// Whether a connection of the node's own to an address reaches its own listener.
fn delivered(address: IpAddr) -> bool {
    let listener = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::net::TcpStream::connect_timeout(&(address, port).into(), Duration::from_secs(1)).is_ok()
}

#[test]
fn refreshes_wake_nobody_and_other_changes_do() {
    isolated(|| async {
        let netlink = Netlink::connect().unwrap();
        let (left, _) = veth(&netlink).await;
        let life = Duration::from_secs(60);
        for vip in VIPS.map(ip) {
            netlink.add_address(left.index, vip, life).await.unwrap();
        }
        let mut monitor = Monitor::open(MonitorOptions::default()).unwrap();
        monitor.set_own(VIPS.iter().map(|v| ip(v)).collect());
        assert_eq!(monitor.changed().await, Change::ALL);
        settle(&mut monitor).await;
        for vip in VIPS.map(ip) {
            netlink.add_address(left.index, vip, life).await.unwrap();
        }
        // Notices come in order: a refresh that woke would be told with this one, or before.
        let named = LinkMessageBuilder::<LinkUnspec>::new().index(left.index).alias("x").build();
        netlink.raw().link().set(named).execute().await.unwrap();
        assert_eq!(monitor.changed().await, Change { links: true, ..Change::NONE });
        netlink.remove_address(left.index, ip(VIPS[0])).await.unwrap();
        assert!(monitor.changed().await.vip_removed);
    });
}

/// Waits until nothing has been told for a while: IPv6 set-up goes on by itself after a link
/// comes up, and has no end that could be awaited.
async fn settle(monitor: &mut Monitor) {
    let quiet = Duration::from_secs(2);
    while tokio::time::timeout(quiet, monitor.changed()).await.is_ok() {}
}

#[test]
fn an_overrun_is_counted_and_everything_is_read_anew() {
    isolated(|| async {
        let netlink = Netlink::connect().unwrap();
        let (left, _) = veth(&netlink).await;
        let options = MonitorOptions { receive_buffer_bytes: 4096, ..MonitorOptions::default() };
        let mut monitor = Monitor::open(options).unwrap();
        assert_eq!(monitor.changed().await, Change::ALL);
        assert_eq!(monitor.overruns(), 0);
        for host in 1..=200 {
            address(&netlink, left.index, &format!("192.0.2.{host}"), 32).await;
        }
        while monitor.overruns() == 0 {
            monitor.changed().await;
        }
        // It goes on afterwards.
        settle(&mut monitor).await;
        address(&netlink, left.index, "198.51.100.1", 32).await;
        assert!(monitor.changed().await.addresses);
        assert_eq!(netlink.snapshot().await.unwrap().addresses_of(left.index).count(), 202);
    });
}

#[test]
fn everything_is_read_anew_now_and_then() {
    isolated(|| async {
        let resync = Duration::from_millis(50);
        let mut monitor =
            Monitor::open(MonitorOptions { resync, ..MonitorOptions::default() }).unwrap();
        for _ in 0..3 {
            assert_eq!(monitor.changed().await, Change::ALL);
        }
    });
}

#[test]
fn a_refusal_names_the_operation_and_the_remedy() {
    isolated(|| async {
        let netlink = Netlink::connect().unwrap();
        let error = netlink.add_local_route(ip("2001:db8::150")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot add the local route for 2001:db8::150: Network is down (os error 100) (bring \
             the interface up: ip link set lo up)"
        );
        let error = netlink.add_address(99, ip("192.0.2.150"), Duration::from_secs(2)).await;
        assert!(error.unwrap_err().to_string().contains("(the interface is gone)"));
    });
}

#[test]
fn disabled_ipv6_is_told_with_its_remedy() {
    isolated(|| async {
        let netlink = Netlink::connect().unwrap();
        let (left, _) = veth(&netlink).await;
        assert_eq!(super::ipv6_obstacle("left"), None);
        std::fs::write("/proc/sys/net/ipv6/conf/left/disable_ipv6", "1").unwrap();
        let sentence = super::ipv6_obstacle("left").unwrap();
        assert!(sentence.starts_with("IPv6 is disabled on left: run sysctl -w "), "{sentence}");
        let (index, life) = (left.index, Duration::from_secs(2));
        let error = netlink.add_address(index, ip("2001:db8::150"), life).await.unwrap_err();
        assert!(error.to_string().ends_with("IPv6 is disabled on the interface)"), "{error}");
    });
}
