//! Links between the namespaces of two nodes, and what needs no link.

mod lab;
mod pure;

use std::net::{IpAddr, SocketAddr};

use super::{Envelope, Link, LinkError, Reach, Received};
use crate::netlink::testbed::{address, down};
use crate::vrrp::packet::PROTOCOL;
use lab::{between_nodes, heard, ip, wait_readable};

/// Near's address, far's, and the group that both are in.
const GROUPS: [[&str; 3]; 2] =
    [["192.0.2.1", "192.0.2.2", "224.0.0.18"], ["fe80::1", "fe80::2", "ff02::12"]];

/// Near's address and far's.
const PAIRS: [[&str; 2]; 3] =
    [["192.0.2.1", "192.0.2.2"], ["fe80::1", "fe80::2"], ["2001:db8::1", "2001:db8::2"]];

/// A payload that says where it should have come.
fn saying(text: &str) -> impl Fn(IpAddr) -> Vec<u8> {
    move |destination| format!("{text} to {destination}").into_bytes()
}

fn packet(text: &str, source: &str, destination: &str) -> Received {
    let (source, destination) = (ip(source), ip(destination));
    let envelope = Envelope { source, destination, ttl: 255 };
    Received { envelope, payload: saying(text)(destination) }
}

#[test]
fn multicast_reaches_the_other_node_from_the_source_that_was_asked_for() {
    between_nodes(|lab| {
        for [near, far, group] in GROUPS {
            let speaker = lab.near.multicast("near", near);
            let mut listener = lab.far.multicast("far", far);
            assert_eq!(listener.receive().unwrap(), None);
            speaker.send(saying("hello")).unwrap();
            assert_eq!(heard(&mut listener), packet("hello", near, group));
            assert_eq!(listener.receive().unwrap(), None);
        }
    });
}

#[test]
fn a_sender_is_known_by_the_mac_of_its_frames() {
    between_nodes(|lab| {
        for [near, far, _] in GROUPS {
            let speaker = lab.near.multicast("near", near);
            let mut listener = lab.far.multicast("far", far);
            assert_eq!(listener.origin(ip(near)), None);
            speaker.send(saying("hello")).unwrap();
            heard(&mut listener);
            assert_eq!(listener.origin(ip(near)), Some(lab.near.mac("near")));
            // Its own frames are not looked at.
            listener.send(saying("answer")).unwrap();
            assert_eq!(listener.origin(ip(far)), None);
            assert_eq!(listener.take_impostor(), None);
        }
    });
}

#[test]
fn advertisements_leave_with_the_virtual_mac_from_the_node_s_own_address() {
    between_nodes(|lab| {
        for ([near, far, group], v4) in GROUPS.into_iter().zip([true, false]) {
            let mac = lb_common::virtual_mac::virtual_mac(51, v4);
            let parent = lab.near.ifindex("near");
            let name = if v4 { "lb-v51" } else { "lb-v51-6" };
            lab.near.configure(|netlink| async move {
                netlink.add_virtual_link(name, parent, mac, v4).await.unwrap();
            });
            let ifindex = lab.near.ifindex(name);
            let speaker = lab.near.multicast("near", near);
            let mut speaker = lab
                .near
                .run(|| speaker.send_from(name, ifindex, ip(near), &Reach::Multicast).unwrap());
            let mut listener = lab.far.multicast("far", far);
            speaker.send(saying("hello")).unwrap();
            assert_eq!(heard(&mut listener), packet("hello", near, group));
            assert_eq!(listener.origin(ip(near)), Some(mac));
            // It still hears where it is, also what has the MAC of its own virtual router.
            listener.send(saying("answer")).unwrap();
            assert_eq!(heard(&mut speaker), packet("answer", far, group));
        }
    });
}

#[test]
fn unicast_reaches_the_peer() {
    between_nodes(|lab| {
        for [near, far] in PAIRS {
            let speaker = lab.near.unicast("near", near, &[far]);
            let mut listener = lab.far.unicast("far", far, &[near]);
            speaker.send(saying("hello")).unwrap();
            assert_eq!(heard(&mut listener), packet("hello", near, far));
        }
    });
}

#[test]
fn each_peer_gets_its_own_payload() {
    between_nodes(|lab| {
        let peers = ["192.0.2.2", "192.0.2.3"];
        let speaker = lab.near.unicast("near", "192.0.2.1", &peers);
        let mut listeners = peers.map(|peer| lab.far.unicast("far", peer, &[]));
        speaker.send(saying("hello")).unwrap();
        for (listener, peer) in listeners.iter_mut().zip(peers) {
            assert_eq!(heard(listener), packet("hello", "192.0.2.1", peer));
            assert_eq!(listener.receive().unwrap(), None);
        }
    });
}

#[test]
fn a_peer_that_cannot_be_reached_is_named_and_costs_the_others_nothing() {
    between_nodes(|lab| {
        let peers = ["2001:db8:dead::1", "2001:db8::2", "2001:db8:dead::2"];
        let speaker = lab.near.unicast("near", "2001:db8::1", &peers);
        let mut listener = lab.far.unicast("far", "2001:db8::2", &[]);
        let error = speaker.send(saying("hello")).unwrap_err();
        assert!(
            matches!(error, LinkError::NotSent { destination, .. } if destination == ip(peers[0])),
            "{error}"
        );
        assert_eq!(heard(&mut listener), packet("hello", "2001:db8::1", "2001:db8::2"));
    });
}

#[test]
fn a_node_does_not_hear_itself() {
    between_nodes(|lab| {
        for [near, far, group] in GROUPS {
            let mut speaker = lab.near.multicast("near", near);
            let mut other_router = lab.near.multicast("near", near);
            let mut answerer = lab.far.multicast("far", far);
            speaker.send(saying("hello")).unwrap();
            heard(&mut answerer);
            answerer.send(saying("answer")).unwrap();
            // The first that they hear.
            assert_eq!(heard(&mut speaker), packet("answer", far, group));
            assert_eq!(heard(&mut other_router), packet("answer", far, group));
        }
    });
}

#[test]
fn another_protocol_is_not_heard() {
    const OTHER: i32 = 113;
    between_nodes(|lab| {
        let mut listener = lab.far.unicast("far", "192.0.2.2", &[]);
        let ear = lab.far.ear(OTHER);
        let stranger = lab.near.ear(OTHER);
        stranger.send_to(b"other", &SocketAddr::new(ip("192.0.2.2"), 0).into()).unwrap();
        wait_readable(&ear);
        lab.near.unicast("near", "192.0.2.1", &["192.0.2.2"]).send(saying("hello")).unwrap();
        assert_eq!(heard(&mut listener), packet("hello", "192.0.2.1", "192.0.2.2"));
    });
}

#[test]
fn what_comes_to_the_group_on_another_interface_is_not_heard() {
    let others = ["198.51.100.1", "fe80::a1"].into_iter().zip(["198.51.100.2", "fe80::a2"]);
    between_nodes(move |lab| {
        for ([near, far, group], (near_other, far_other)) in GROUPS.into_iter().zip(others) {
            let mut listener = lab.far.multicast("far", far);
            let mut other = lab.far.multicast("far-other", far_other);
            lab.near.multicast("near-other", near_other).send(saying("astray")).unwrap();
            assert_eq!(heard(&mut other), packet("astray", near_other, group));
            lab.near.multicast("near", near).send(saying("hello")).unwrap();
            assert_eq!(heard(&mut listener), packet("hello", near, group));
            assert_eq!(other.receive().unwrap(), None);
        }
    });
}

/// Linux takes a packet for any address of its own on any interface.
#[test]
fn what_comes_to_the_address_on_another_interface_is_not_heard() {
    between_nodes(|lab| {
        let mut listener = lab.far.unicast("far", "192.0.2.2", &[]);
        let ear = lab.far.ear(PROTOCOL.into());
        let stray = lab.near.unicast("near-other", "198.51.100.1", &["192.0.2.2"]);
        stray.send(saying("astray")).unwrap();
        wait_readable(&ear);
        lab.near.unicast("near", "192.0.2.1", &["192.0.2.2"]).send(saying("hello")).unwrap();
        assert_eq!(heard(&mut listener), packet("hello", "192.0.2.1", "192.0.2.2"));
    });
}

#[test]
fn a_link_hears_what_was_sent_in_its_own_way_only() {
    between_nodes(|lab| {
        for [near, far, group] in GROUPS {
            let mut group_listener = lab.far.multicast("far", far);
            let mut unicast_listener = lab.far.unicast("far", far, &[]);
            let to_group = lab.near.multicast("near", near);
            let to_peer = lab.near.unicast("near", near, &[far]);
            to_group.send(saying("all")).unwrap();
            assert_eq!(heard(&mut group_listener), packet("all", near, group));
            to_peer.send(saying("you")).unwrap();
            assert_eq!(heard(&mut unicast_listener), packet("you", near, far));
            to_group.send(saying("all again")).unwrap();
            assert_eq!(heard(&mut group_listener), packet("all again", near, group));
            assert_eq!(unicast_listener.receive().unwrap(), None);
        }
    });
}

#[test]
fn advertisements_are_marked_as_network_control() {
    between_nodes(|lab| {
        let ear = lab.far.ear(PROTOCOL.into());
        for reach in [Reach::Multicast, Reach::Unicast(vec![ip("192.0.2.2")])] {
            // The ear hears groups that somebody on its node is in.
            let mut _member = lab.far.multicast("far", "192.0.2.2");
            let speaker = lab.near.try_open("near", "192.0.2.1", &reach).unwrap();
            speaker.send(saying("hello")).unwrap();
            wait_readable(&ear);
            let mut header = [0; 20];
            std::io::Read::read(&mut (&ear), &mut header).unwrap();
            assert_eq!((header[1], header[8], header[9]), (0xc0, 255, PROTOCOL));
        }
        for [near, ..] in GROUPS {
            let link = lab.near.multicast("near", near);
            let socket = socket2::SockRef::from(&link);
            assert_eq!(socket.priority().unwrap(), 6);
            assert!(near.contains('.') || socket.tclass_v6().unwrap() == 0xc0);
        }
    });
}

#[test]
fn a_long_packet_is_cut_behind_any_length_that_vrrp_has() {
    between_nodes(|lab| {
        for [near, far, group] in GROUPS {
            let speaker = lab.near.multicast("near", near);
            let mut listener = lab.far.multicast("far", far);
            for (length, at_least) in [(0, 0), (4088, 4088), (6000, 4089)] {
                speaker.send(|_| vec![7; length]).unwrap();
                let received = heard(&mut listener);
                assert_eq!(received.envelope, packet("", near, group).envelope);
                assert!((at_least..=length).contains(&received.payload.len()), "{length}");
            }
        }
    });
}

#[test]
fn a_missing_interface_is_named() {
    between_nodes(|lab| {
        let ifindex = lab.near.ifindex("near");
        let open = |name: &str, ifindex| {
            lab.near.run(|| Link::open(name, ifindex, ip("192.0.2.1"), &Reach::Multicast))
        };
        open("near", ifindex).unwrap();
        // Without a name a socket would be bound to no interface, and hear all.
        for (name, index) in [("nowhere", ifindex), ("near", ifindex + 1000), ("", ifindex)] {
            let error = open(name, index).unwrap_err();
            assert!(matches!(&error, LinkError::NoSuchInterface { .. }), "{error}");
            let named = format!("no interface {name} with index {index} ");
            assert!(error.to_string().contains(&named), "{error}");
        }
    });
}

#[test]
fn a_link_whose_interface_is_deleted_says_so() {
    between_nodes(|lab| {
        let links = GROUPS.map(|[near, ..]| lab.near.multicast("near", near));
        let ifindex = lab.near.ifindex("near");
        lab.near.configure(|netlink| async move {
            netlink.raw().link().del(ifindex).execute().await.unwrap();
        });
        for link in links {
            let error = link.send(saying("hello")).unwrap_err();
            assert!(matches!(error, LinkError::NoSuchInterface { .. }), "{error}");
        }
    });
}

#[test]
fn a_source_of_another_node_is_refused() {
    between_nodes(|lab| {
        for source in ["192.0.2.2", "fe80::2", "2001:db8::2"] {
            for reach in [Reach::Multicast, Reach::Unicast(Vec::new())] {
                let error = lab.near.try_open("near", source, &reach).unwrap_err();
                assert!(matches!(error, LinkError::NoSuchSource { .. }), "{error}");
                assert!(error.to_string().contains(source), "{error}");
            }
        }
    });
}

/// A node that took this for silence of the others would become Active.
#[test]
fn a_source_that_vanishes_is_told_and_may_come_back() {
    between_nodes(|lab| {
        let ifindex = lab.near.ifindex("near");
        for [near, far, group] in GROUPS {
            let mut group_speaker = lab.near.multicast("near", near);
            let mut peer_speaker = lab.near.unicast("near", near, &[far]);
            let mut listener = lab.far.multicast("far", far);
            lab.near.remove_address("near", near);
            for speaker in [&mut group_speaker, &mut peer_speaker] {
                let error = speaker.send(saying("lost")).unwrap_err();
                assert!(matches!(error, LinkError::NoSuchSource { .. }), "{error}");
            }
            lab.near.configure(|netlink| async move {
                address(&netlink, ifindex, near, 24).await;
            });
            group_speaker.send(saying("back")).unwrap();
            assert_eq!(heard(&mut listener), packet("back", near, group));
        }
    });
}

#[test]
fn a_link_goes_on_after_its_interface_was_down() {
    between_nodes(|lab| {
        let [near, far, group] = GROUPS[0];
        let speaker = lab.near.multicast("near", near);
        let mut listener = lab.far.multicast("far", far);
        let ifindex = lab.far.ifindex("far");
        lab.far.configure(|netlink| async move {
            down(&netlink, ifindex).await;
        });
        assert_eq!(listener.receive().unwrap(), None);
        let error = listener.send(saying("down")).unwrap_err();
        assert!(matches!(error, LinkError::NotSent { .. }), "{error}");
        lab.restore(0);
        speaker.send(saying("hello")).unwrap();
        assert_eq!(heard(&mut listener), packet("hello", near, group));
    });
}
