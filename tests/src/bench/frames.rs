//! The frames that are measured: as short as they come.

use etherparse::PacketBuilder;

pub(super) type Mac = [u8; 6];

/// A segment's flags.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Segment {
    Syn,
    Ack,
    /// It carries something, or says so.
    Push,
}

/// A TCP segment over IPv4, in the shortest frame that an Ethernet has: 60 bytes.
pub(super) fn tcp(
    macs: [Mac; 2],
    from: ([u8; 4], u16),
    to: ([u8; 4], u16),
    segment: Segment,
) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(macs[0], macs[1])
        .ipv4(from.0, to.0, 64)
        .tcp(from.1, to.1, 1000, 64_000);
    let packet = match segment {
        Segment::Syn => packet.syn(),
        Segment::Ack => packet.ack(1),
        Segment::Push => packet.ack(1).psh(),
    };
    let mut bytes = Vec::new();
    // 54 bytes of headers, all in the words of eight bytes that are written anew before each run.
    packet.write(&mut bytes, b"6bytes").expect("writing to a vector");
    bytes
}
