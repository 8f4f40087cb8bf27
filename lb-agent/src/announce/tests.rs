//! Announcements and duplicate checks on real links, in network namespaces of the tests' own.

use std::net::IpAddr;
use std::time::Duration;

use super::frame::{ETHERTYPE_ARP, ETHERTYPE_IPV6};
use super::{
    Announcement, CONFLICT_WAIT, Interface, LinkSocket, Schedule, announcements, vip_conflict,
};
use crate::netlink::testbed::{address, isolated, veth};
use crate::netlink::{Link, Netlink};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn interface(link: &Link) -> Interface {
    Interface { index: link.index, name: link.name.clone(), mac: link.mac.unwrap() }
}

/// The first `count` frames that arrive and are among the wanted ones.
async fn arriving(mut socket: LinkSocket, wanted: &[Vec<u8>], count: usize) -> Vec<Vec<u8>> {
    let wanted = wanted.to_vec();
    let collect = move || {
        let mut frames = Vec::new();
        let start = std::time::Instant::now();
        while frames.len() < count {
            assert!(start.elapsed().as_secs() < 10, "only {} of {count} came", frames.len());
            let frame = socket.receive().unwrap().unwrap_or_default().to_vec();
            frames.extend(wanted.contains(&frame).then_some(frame));
        }
        frames
    };
    tokio::task::spawn_blocking(collect).await.unwrap()
}

#[test]
fn every_announcement_of_a_schedule_arrives() {
    isolated(|| async {
        let netlink = Netlink::connect().unwrap();
        let (left, right) = veth(&netlink).await;
        for (vip, ethertype) in [("192.0.2.150", ETHERTYPE_ARP), ("2001:db8::150", ETHERTYPE_IPV6)]
        {
            let vip = ip(vip);
            let each = announcements(vip, left.mac.unwrap());
            let schedule = Schedule {
                bursts_at: vec![Duration::ZERO, Duration::from_millis(100)],
                repeats: 3,
                spacing: Duration::from_millis(5),
            };
            let step = Duration::from_millis(20);
            let ear = LinkSocket::receiver(&interface(&right), ethertype, step).unwrap();
            let announcement = Announcement::start(&interface(&left), &[vip], schedule).unwrap();
            let frames = arriving(ear, &each, 6 * each.len()).await;
            assert!(frames.chunks(each.len()).all(|chunk| chunk == each));
            announcement.finished().await;
        }
    });
}

#[test]
fn announcements_stop_when_they_are_dropped() {
    isolated(|| async {
        let netlink = Netlink::connect().unwrap();
        let (left, right) = veth(&netlink).await;
        let step = Duration::from_millis(20);
        let ear = LinkSocket::receiver(&interface(&right), ETHERTYPE_ARP, step).unwrap();
        let schedule = |spacing, repeats| {
            let spacing = Duration::from_millis(spacing);
            Schedule { bursts_at: vec![Duration::ZERO], repeats, spacing }
        };
        let (first, second) = (ip("192.0.2.150"), ip("192.0.2.151"));
        let dropped = Announcement::start(&interface(&left), &[first], schedule(1, 1000)).unwrap();
        drop(dropped);
        // Three announcements of another VIP take long enough for dozens of the first.
        let _other = Announcement::start(&interface(&left), &[second], schedule(20, 3)).unwrap();
        let [first, second] = [first, second].map(|vip| announcements(vip, left.mac.unwrap()));
        let expected = [&first[..], &second, &second, &second].concat();
        assert_eq!(arriving(ear, &expected, expected.len()).await, expected);
    });
}

#[test]
fn a_vip_that_another_machine_has_is_found() {
    isolated(|| async {
        let netlink = Netlink::connect().unwrap();
        let (left, right) = veth(&netlink).await;
        address(&netlink, right.index, "192.0.2.150", 24).await;
        address(&netlink, right.index, "2001:db8::150", 64).await;
        for vip in ["192.0.2.150", "2001:db8::150"] {
            let rival = vip_conflict(&interface(&left), ip(vip), CONFLICT_WAIT).await.unwrap();
            assert_eq!(rival, right.mac, "{vip}");
        }
    });
}

#[test]
fn a_vip_that_nobody_or_only_this_interface_has_is_free() {
    isolated(|| async {
        let netlink = Netlink::connect().unwrap();
        let (left, _) = veth(&netlink).await;
        // The other end is in the same namespace, and would answer for its neighbour's address.
        std::fs::write("/proc/sys/net/ipv4/conf/right/arp_ignore", "1").unwrap();
        for vip in ["192.0.2.150", "2001:db8::150"] {
            let check = vip_conflict(&interface(&left), ip(vip), CONFLICT_WAIT).await;
            assert_eq!(check.unwrap(), None);
            netlink.add_address(left.index, ip(vip), Duration::from_secs(60)).await.unwrap();
            let check = vip_conflict(&interface(&left), ip(vip), CONFLICT_WAIT).await;
            assert_eq!(check.unwrap(), None);
        }
    });
}

#[test]
fn without_ipv6_or_without_the_interface_a_sentence_says_so() {
    isolated(|| async {
        let netlink = Netlink::connect().unwrap();
        let (left, _) = veth(&netlink).await;
        std::fs::write("/proc/sys/net/ipv6/conf/left/disable_ipv6", "1").unwrap();
        let check = vip_conflict(&interface(&left), ip("2001:db8::150"), CONFLICT_WAIT).await;
        assert!(check.unwrap_err().to_string().starts_with("IPv6 is disabled on left: run "));
        let gone = Interface { index: 99, name: "gone0".to_owned(), mac: [2; 6] };
        let check = vip_conflict(&gone, ip("192.0.2.150"), CONFLICT_WAIT).await;
        let sentence = check.unwrap_err().to_string();
        assert!(sentence.starts_with("cannot open a packet socket on gone0: "), "{sentence}");
    });
}
