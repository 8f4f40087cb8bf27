//! "Answers": ICMP errors that this node makes, in place of packets that go no further.

use lb_common::Address;
use lb_common::counter::Verdict;

use super::parse::{self, Family, Kind, Packet};
use super::state::State;
use super::{Action, Outcome};
use crate::packet::checksum;

/// "A message is at most 576 bytes long, over IPv6 1280."
const LONGEST: [usize; 2] = [576, 1280];

/// "Larger than the MTU of the interface where it is to go, and not larger than that of the one where it
/// came in": the MTU. A frame of at most 1294 bytes is not looked at.
pub(super) fn too_large(
    state: &State,
    frame: &[u8],
    packet: &Packet,
    interface: u32,
) -> Option<u16> {
    let mtu = |index| state.interface(index).map(|interface| interface.mtu);
    let (out, came) = (mtu(interface)?, mtu(packet.interface)?);
    let length = length(frame, packet)?;
    let large = frame.len() > 1294 && length > usize::from(out) && length <= usize::from(came);
    (large && out != 0).then_some(out)
}

/// As its IP header says.
fn length(frame: &[u8], packet: &Packet) -> Option<usize> {
    Some(match packet.ip.family {
        Family::V4 => usize::from(parse::word(frame, packet.ip.at + 2)?),
        Family::V6 => usize::from(parse::word(frame, packet.ip.at + 4)?) + 40,
    })
}

/// The answer instead of what was dropped.
pub(super) fn instead(state: &State, frame: &[u8], packet: &Packet, outcome: Outcome) -> Outcome {
    let verdict = match outcome.verdict {
        Some(Verdict::TtlExceeded) => Verdict::IcmpExpired,
        Some(Verdict::TooBig) => Verdict::IcmpTooBig,
        _ => return outcome,
    };
    match message(state, frame, packet, outcome.mtu) {
        // "A TCP segment or datagram, neither in pieces nor with extension headers."
        Some(message) if packet.plain && packet.kind != Kind::Error => Outcome {
            verdict: Some(verdict),
            action: Action::Send(packet.interface),
            frame: message,
            mtu: 0,
        },
        _ => outcome,
    }
}

fn message(state: &State, frame: &[u8], packet: &Packet, mtu: u16) -> Option<Vec<u8>> {
    let (family, to) = (packet.ip.family, packet.ip.source);
    // "Not where a peer carried it here, nor where its source is not one machine's address."
    if state.is_peer(&packet.link.from) || !is_one_machine(&to, family) {
        return None;
    }
    // "From the node's own address on the interface; none without one."
    let interface = state.interface(packet.interface)?;
    let own = match family {
        Family::V4 => Address::from_v4_word(interface.address_v4_be),
        Family::V6 => interface.address_v6,
    };
    let none = [Address::from_v4_word(0), Address::UNSPECIFIED];
    if none.contains(&own) {
        return None;
    }
    let (header, longest) = match family {
        Family::V4 => (20, LONGEST[0]),
        Family::V6 => (40, LONGEST[1]),
    };
    // "As much of the packet as fits, in whole words."
    let quoted = length(frame, packet)?.min(longest - header - 8) / 4 * 4;
    let quoted = frame.get(packet.ip.at..packet.ip.at + quoted)?;
    let (kind, code) = match (family, mtu) {
        (Family::V4, 0) => (11, 0),
        (Family::V4, _) => (3, 4),
        (Family::V6, 0) => (3, 0),
        (Family::V6, _) => (2, 0),
    };
    let mut message = vec![kind, code, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(quoted);
    let (own_ip, to_ip) = (std::net::IpAddr::from(own), std::net::IpAddr::from(to));
    let sum = match family {
        Family::V4 => checksum::of(&[&message]),
        Family::V6 => checksum::of(&[
            &checksum::pseudo_header(own_ip, to_ip, parse::ICMPV6, message.len()),
            &message,
        ]),
    };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    // "The link header turned round, with its tags."
    let mut out = [&frame[6..12], &frame[0..6], &frame[12..packet.ip.at]].concat();
    out.extend(match family {
        Family::V4 => header_v4(&own, &to, message.len()),
        Family::V6 => header_v6(&own, &to, message.len()),
    });
    out.extend(message);
    Some(out)
}

fn is_one_machine(address: &Address, family: Family) -> bool {
    match std::net::IpAddr::from(*address) {
        std::net::IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            first != 0 && first != 127 && first < 224
        }
        // ::1 and the unspecified address, and what begins like them.
        std::net::IpAddr::V6(v6) => {
            family == Family::V6 && !v6.is_multicast() && v6.octets()[..12] != [0; 12]
        }
    }
}

/// TOS 0xc0, "don't fragment", TTL 64.
fn header_v4(from: &Address, to: &Address, payload: usize) -> Vec<u8> {
    let mut header = vec![0x45, 0xc0];
    header.extend(((20 + payload) as u16).to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, 1, 0, 0]);
    header.extend(&from.octets()[12..]);
    header.extend(&to.octets()[12..]);
    let sum = checksum::of(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn header_v6(from: &Address, to: &Address, payload: usize) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend((payload as u16).to_be_bytes());
    header.extend([parse::ICMPV6, 64]);
    header.extend(from.octets());
    header.extend(to.octets());
    header
}
