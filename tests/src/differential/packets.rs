//! Frames from a seed: what a network brings, right, odd and broken, around a few services.

use std::sync::LazyLock;

use anyhow::Result;
use lb_common::Address;
use lb_common::filter::AddressFilter;
use lb_common::service::TCP;

use super::cast::{CLIENT_PORTS, Place, VIPS};
use super::step::id_octet;
use crate::packet::frame::{Frame, Kind};
use crate::packet::names;
use crate::packet::scene::BACKEND_PORT;
use crate::simulation::random::Random;

const FLAGS: [&str; 14] =
    ["S", "A", "SA", "R", "RA", "FA", "AP", "", "SF", "SR", "SPU", "FSRPAU", "F", "SAF"];
const TTLS: [u8; 13] = [0, 1, 2, 3, 4, 7, 8, 9, 10, 12, 63, 128, 255];
const OPTIONS: [&str; 4] = ["94040000", "01010100", "0101010101010101", ""];
const PAYLOADS: [&str; 5] = ["", "x", "an odd payload!", "an even payload!", "\0\0\u{7f}\u{7f}"];
const PROTOCOLS: [u8; 9] = [0, 1, 2, 43, 47, 50, 58, 60, 132];

/// A foreign address of each family that hits the filter as a VIP does.
static SHADOWS: LazyLock<[String; 2]> = LazyLock::new(|| {
    let mut filter = AddressFilter::EMPTY;
    let vips = VIPS.iter().filter_map(|(name, family)| names::address(name, *family).ok());
    vips.for_each(|vip| filter.insert(&Address::from(vip)));
    let find = |address: &dyn Fn(u16) -> String| {
        let hits = |text: &String| {
            text.parse::<std::net::IpAddr>().is_ok_and(|it| filter.may_contain(&it.into()))
        };
        (0..u16::MAX).map(address).find(hits).unwrap_or_else(|| address(0))
    };
    [
        find(&|number| format!("10.0.{}.{}", number >> 8, number & 0xff)),
        find(&|number| format!("fd00:10::{number:x}")),
    ]
});

/// A frame that arrives.
pub(super) fn arriving(random: &mut Random, place: &Place) -> Result<Frame> {
    let mut frame = match random.below(100) {
        0..66 => to_service(random, place),
        66..74 => icmp(random, place),
        74..80 => arp(random),
        80..86 => discovery(random),
        86..92 => to_nat_port(random, place),
        _ => foreign(random, place),
    };
    disguise(random, &mut frame);
    if random.chance(7) {
        enlarge(random, &mut frame);
    }
    if random.chance(12) {
        damage(random, &mut frame)?;
    }
    Ok(frame)
}

/// ARP or neighbour discovery, arriving.
pub(super) fn of_neighbours(random: &mut Random) -> Result<Frame> {
    let mut frame = if random.chance(50) { arp(random) } else { discovery(random) };
    if random.chance(10) {
        disguise(random, &mut frame);
        damage(random, &mut frame)?;
    }
    Ok(frame)
}

/// What answers to an entry look like; addresses and ports are filled in later.
pub(super) fn replying(random: &mut Random) -> Result<Frame> {
    let mut frame = Frame {
        mac_from: random.pick(&["server", "server2", "client"]).to_owned(),
        flags: random.pick(&["SA", "A", "AP", "FA", "R", "RA", "S"]).to_owned(),
        payload: random.pick(&PAYLOADS).to_owned(),
        ..Frame::default()
    };
    disguise(random, &mut frame);
    if random.chance(4) {
        frame.cut = Some(random.below(60));
    }
    Ok(frame)
}

/// A frame of this node.
pub(super) fn leaving(random: &mut Random, place: &Place) -> Result<Frame> {
    let mut frame = match random.below(10) {
        0..3 => arp(random),
        3..6 => discovery(random),
        6..9 => Frame {
            kind: Kind::Udp,
            family: place.family,
            from: "master1".to_owned(),
            to: random.pick(&["client", "client2"]).to_owned(),
            port_from: BACKEND_PORT,
            port_to: random.pick(&CLIENT_PORTS),
            unsummed: random.chance(10),
            payload: random.pick(&PAYLOADS).to_owned(),
            ..Frame::default()
        },
        _ => to_service(random, place),
    };
    disguise(random, &mut frame);
    frame.mac_from = "master1".to_owned();
    if random.chance(12) {
        damage(random, &mut frame)?;
    }
    Ok(frame)
}

fn client(random: &mut Random) -> String {
    random.pick(&["client", "client", "client", "client2", "stranger"]).to_owned()
}

/// To the place's VIP and port.
pub(super) fn to_service(random: &mut Random, place: &Place) -> Frame {
    let tcp = place.protocol == TCP;
    Frame {
        kind: if tcp { Kind::Tcp } else { Kind::Udp },
        family: place.family,
        from: client(random),
        to: place.vip.to_owned(),
        port_from: random.pick(&CLIENT_PORTS),
        port_to: place.port,
        flags: if random.chance(50) { "S" } else { random.pick(&FLAGS) }.to_owned(),
        payload: random.pick(&PAYLOADS).to_owned(),
        unsummed: !tcp && random.chance(15),
        ..Frame::default()
    }
}

/// Numbers of configurations of connection ids: as many as fit an octet of a text.
pub(super) const ROTATIONS: [u8; 4] = [0, 1, 2, 3];

/// A datagram, mostly of QUIC: of one client, most of the time, with a connection id.
pub(super) fn datagram(random: &mut Random, place: &Place) -> Frame {
    let mut frame = Frame { kind: Kind::Udp, ..to_service(random, place) };
    if random.chance(75) {
        (frame.from, frame.port_from) = ("client".to_owned(), CLIENT_PORTS[0]);
    }
    if random.chance(70) {
        frame.payload = quic(random);
    }
    if random.chance(30) {
        disguise(random, &mut frame);
    }
    if random.chance(8) {
        in_pieces(random, &mut frame);
    }
    frame
}

/// The beginning of a packet of QUIC, whose connection id may name one of the backends.
fn quic(random: &mut Random) -> String {
    let first = char::from(random.pick(&ROTATIONS) << 5 | random.below(32) as u8);
    let server = char::from(id_octet(random.below(6) as u8));
    let id: String = std::iter::once(first).chain(std::iter::repeat_n(server, 8)).collect();
    let id = if random.chance(10) { id[..random.below(9)].to_owned() } else { id };
    if random.chance(60) {
        return format!("@{id}protected");
    }
    // Two bytes: one of a long header, and the version's first.
    let length = char::from(random.pick(&[9, 9, 9, 20, 0, 2, 8]));
    format!("\u{c3}\0\0\0{length}{id}protected")
}

/// By chance, or to a port that nothing is known of.
fn to_nat_port(random: &mut Random, place: &Place) -> Frame {
    Frame {
        from: random.pick(&["server", "server2", "stranger"]).to_owned(),
        mac_from: "server".to_owned(),
        port_from: BACKEND_PORT,
        port_to: random.pick(&[61000, 61001, 61019, 61020, 60999, 65535]),
        flags: random.pick(&["SA", "A", "R"]).to_owned(),
        ..to_service(random, place)
    }
}

/// Errors about connections of a service, in most cases.
fn icmp(random: &mut Random, place: &Place) -> Frame {
    let asked = to_service(random, place);
    icmp_about(random, place, asked)
}

/// Errors about what answers datagrams, in most cases.
pub(super) fn icmp_about_datagram(random: &mut Random, place: &Place) -> Frame {
    let asked = datagram(random, place);
    icmp_about(random, place, asked)
}

fn icmp_about(random: &mut Random, place: &Place, asked: Frame) -> Frame {
    let errors: &[u8] = if place.family == 4 { &[3, 11, 12] } else { &[1, 2, 3, 4] };
    let mut quote = Frame {
        from: asked.to,
        to: asked.from.clone(),
        port_from: asked.port_to,
        port_to: asked.port_from,
        flags: random.pick(&["A", "SA", "FA", "R"]).to_owned(),
        ttl: random.pick(&TTLS),
        kind: asked.kind,
        family: place.family,
        payload: asked.payload,
        ..Frame::default()
    };
    match random.below(16) {
        0 => quote.port_from = 22,
        1 => quote.kind = Kind::Other,
        2 => quote.fragment = Some(random.pick(&[0, 0, 100])),
        3 => quote.version = Some(random.pick(&[0, 4, 5, 6])),
        4 => quote.ihl = Some(random.below(16) as u8),
        5 => quote.options = random.pick(&OPTIONS).to_owned(),
        6 => quote.more_fragments = true,
        7 => quote.from = "master1".to_owned(),
        _ => {}
    }
    Frame {
        kind: Kind::Icmp,
        family: place.family,
        icmp: if random.chance(80) { random.pick(errors) } else { random.below(256) as u8 },
        from: random.pick(&["stranger", "client"]).to_owned(),
        to: place.vip.to_owned(),
        quote: random.chance(92).then(|| Box::new(quote)),
        payload: random.pick(&PAYLOADS).to_owned(),
        ..Frame::default()
    }
}

fn arp(random: &mut Random) -> Frame {
    let names = ["vip", "vip2", "master1", "client", "10.0.0.1"];
    Frame {
        kind: Kind::Arp,
        mac_to: random.pick(&["broadcast", "master1", "client"]).to_owned(),
        operation: random.pick(&[1, 1, 1, 2, 0, 3, 257]),
        sender: random.pick(&names).to_owned(),
        target: random.pick(&names).to_owned(),
        ..Frame::default()
    }
}

fn discovery(random: &mut Random) -> Frame {
    let names = ["vip", "vip2", "master1", "client"];
    Frame {
        kind: Kind::Nd,
        family: 6,
        icmp: random.pick(&[135, 135, 135, 136, 136, 133, 134, 137]),
        mac_to: random.pick(&["33:33:ff:00:01:50", "master1"]).to_owned(),
        from: random.pick(&names).to_owned(),
        to: random.pick(&["ff02::1:ff00:150", "ff02::1", "vip", "master1"]).to_owned(),
        target: random.pick(&names).to_owned(),
        ttl: if random.chance(85) { 255 } else { random.pick(&TTLS) },
        ..Frame::default()
    }
}

/// Not for a service, or not by a protocol of ours.
fn foreign(random: &mut Random, place: &Place) -> Frame {
    let mut frame = to_service(random, place);
    match random.below(6) {
        0 => frame.port_to = random.pick(&[22, 80, 8442]),
        1 => frame.to = random.pick(&["master1", "server", "stranger"]).to_owned(),
        2 => frame.to = SHADOWS[usize::from(place.family == 6)].clone(),
        3 => frame.kind = Kind::Raw,
        4 => {
            frame.kind = Kind::Other;
            frame.protocol = random.pick(&PROTOCOLS);
        }
        // The same port, the other protocol.
        _ => frame.kind = if frame.kind == Kind::Tcp { Kind::Udp } else { Kind::Tcp },
    }
    frame
}

/// One that may be more than a page.
pub(super) fn large(random: &mut Random, place: &Place) -> Result<Frame> {
    let mut frame = if random.chance(80) { to_service(random, place) } else { icmp(random, place) };
    disguise(random, &mut frame);
    frame.payload = "x".to_owned();
    frame.times = random.pick(&[1, 3000, 4100, 5000, 8900, 8960, 9100]);
    if random.chance(10) {
        damage(random, &mut frame)?;
    }
    Ok(frame)
}

/// More than the narrow interface takes, or nearly.
fn enlarge(random: &mut Random, frame: &mut Frame) {
    if random.chance(30) {
        // Who is not answered.
        frame.mac_from = "master2".to_owned();
    }
    frame.payload = "x".to_owned();
    frame.times = random.pick(&[1300, 1339, 1340, 1341, 1353, 1360, 1380, 2000]);
}

/// What a right frame may have, too: tags, options, hops, and who sent it.
fn disguise(random: &mut Random, frame: &mut Frame) {
    if random.chance(30) {
        let senders = ["master2", "master2", "master3", "master1", "client2", "server"];
        frame.mac_from = random.pick(&senders).to_owned();
    }
    if random.chance(40) && frame.kind != Kind::Nd {
        frame.ttl = random.pick(&TTLS);
    }
    if random.chance(4) {
        frame.mac_to = random.pick(&["broadcast", "master2", "33:33:00:00:00:01"]).to_owned();
    }
    if random.chance(12) {
        frame.vlan = (0..random.between(1, 3)).map(|tag| u16::from(tag) * 100 + 5).collect();
    }
    if random.chance(8) && frame.family == 4 {
        frame.options = random.pick(&OPTIONS).to_owned();
    }
    if random.chance(5) {
        match random.below(4) {
            0 => frame.fragment = Some(random.pick(&[0, 1, 185, 8191])),
            1 => frame.more_fragments = true,
            2 => frame.extensions = extensions(random),
            _ => frame.damaged = true,
        }
    }
}

/// A chain of IPv6 extension headers: mostly sane.
fn extensions(random: &mut Random) -> Vec<(u8, u8)> {
    let length = |random: &mut Random| match random.below(10) {
        0 => random.pick(&[8, 20, 30]),
        _ => random.below(4) as u8,
    };
    let count = if random.chance(90) { random.between(1, 3) } else { random.between(4, 8) };
    (0..count).map(|_| (random.pick(&[0, 43, 44, 60]), length(random))).collect()
}

/// A part of a packet: the first, which has ports, or a following one.
fn in_pieces(random: &mut Random, frame: &mut Frame) {
    frame.fragment = Some(random.pick(&[0, 0, 2, 4]));
    frame.more_fragments = frame.fragment == Some(0) || random.chance(50);
    frame.identification = random.pick(&[1, 1, 1, 0x102]);
    if random.chance(10) {
        frame.extensions = extensions(random);
        frame.segments_left = u8::from(random.chance(10));
    }
}

pub(super) fn pieces_to_service(random: &mut Random, place: &Place) -> Frame {
    let mut frame = to_service(random, place);
    if random.chance(70) {
        frame.from = "client".to_owned();
    }
    if random.chance(30) {
        disguise(random, &mut frame);
    }
    in_pieces(random, &mut frame);
    frame
}

pub(super) fn pieces_replying(random: &mut Random) -> Result<Frame> {
    let mut frame = replying(random)?;
    in_pieces(random, &mut frame);
    Ok(frame)
}

pub(super) fn pieces_leaving(random: &mut Random, place: &Place) -> Result<Frame> {
    let mut frame = leaving(random, place)?;
    in_pieces(random, &mut frame);
    Ok(frame)
}

/// What no sane sender does.
fn damage(random: &mut Random, frame: &mut Frame) -> Result<()> {
    match random.below(10) {
        0 => frame.version = Some(random.below(16) as u8),
        1 => frame.ihl = Some(random.below(16) as u8),
        2 => frame.data_offset = Some(random.below(16) as u8),
        3 => frame.total_length = Some(random.below(100) as u16),
        4 => frame.ethertype = Some(random.pick(&[0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8, 46])),
        _ => {}
    }
    let length = frame.bytes()?.len();
    if random.chance(50) {
        for _ in 0..random.between(1, 3) {
            let bit = 1u8 << random.below(8);
            let at = random.below(length);
            let value = if random.chance(50) { random.below(256) as u8 } else { bit };
            frame.replaced.push((at, value));
        }
    }
    if random.chance(40) {
        // Below an Ethernet header the kernel has no test run.
        frame.cut = Some(14.max(random.below(length + 1)).min(length));
    }
    Ok(())
}
