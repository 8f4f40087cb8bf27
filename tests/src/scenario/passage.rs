//! What a capture on the holder's wire proves: which frames it carried on, whether it changed
//! them, and whether a reply came past it. Pure.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use lb_common::bucket::RANKS;

use crate::lab::Mac;
use crate::lab::capture::{Direction, Frame, Packet, Recording};

/// The highest TTL of a segment in its last round (docs/packet-path.md, Choosing).
const LAST_ROUND: u8 = RANKS as u8;

/// Counts of frames.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Passage {
    /// From clients to the VIP, handed to the holder.
    pub(super) arrived: u64,
    /// Of those, carried on to another node.
    pub(super) carried: u64,
    /// Carried on, but no frame with that IP payload had arrived.
    pub(super) changed: u64,
    /// Carried on with another TTL than the arrived one's less one, last rounds apart.
    pub(super) wrong_ttl: u64,
    /// Segments that nobody owned, whose last round began at the holder.
    pub(super) last_rounds: u64,
    /// Answers of the holder's own backend.
    pub(super) own_replies: u64,
    /// Answers of other backends that went through the holder.
    pub(super) foreign_replies: u64,
}

impl Passage {
    /// `holder` is its MAC, `target` the VIP and port; `nodes` are no clients: what they send to it are probes.
    pub(super) fn of(
        recording: &Recording,
        holder: Mac,
        target: SocketAddr,
        nodes: &[IpAddr],
    ) -> Self {
        let mut passage = Self::default();
        let mut arrived: HashMap<(SocketAddr, &[u8]), Vec<u8>> = HashMap::new();
        let mut carried: HashSet<SocketAddr> = HashSet::new();
        for frame in &recording.frames {
            let of_client = |packet: &Packet<'_>| {
                packet.destination == target && !nodes.contains(&packet.source.ip())
            };
            let Some(packet) = frame.packet().filter(of_client) else { continue };
            let key = (packet.source, packet.ip_payload);
            match frame.direction {
                Direction::ToHost if frame.destination_mac() == Some(holder) => {
                    passage.arrived += 1;
                    arrived.entry(key).or_default().push(packet.ttl);
                }
                Direction::ToHost => {}
                Direction::FromHost => {
                    passage.carried += 1;
                    // Not by any segment: the last one of a connection that the holder served may
                    // come after its socket has gone, and is then offered to the others.
                    if packet.opens {
                        carried.insert(packet.source);
                    }
                    match arrived.get_mut(&key).and_then(Vec::pop) {
                        None => passage.changed += 1,
                        Some(ttl) if Some(packet.ttl) == ttl.checked_sub(1) => {}
                        Some(_) if packet.ttl <= LAST_ROUND && !packet.opens => {
                            passage.last_rounds += 1
                        }
                        Some(_) => passage.wrong_ttl += 1,
                    }
                }
            }
        }
        let to_client = |frame: &&Frame| {
            frame.packet().is_some_and(|packet| !nodes.contains(&packet.destination.ip()))
        };
        for frame in recording.frames.iter().filter(to_client) {
            passage.count_reply(frame, holder, target, &carried);
        }
        passage
    }

    fn count_reply(
        &mut self,
        frame: &Frame,
        holder: Mac,
        target: SocketAddr,
        carried: &HashSet<SocketAddr>,
    ) {
        let Some(packet) = frame.packet().filter(|packet| packet.source == target) else { return };
        match frame.direction {
            // A bridge floods what it has not learned; only what is addressed to the holder counts.
            Direction::ToHost if frame.destination_mac() != Some(holder) => {}
            Direction::ToHost => self.foreign_replies += 1,
            Direction::FromHost if carried.contains(&packet.destination) => {
                self.foreign_replies += 1;
            }
            Direction::FromHost => self.own_replies += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use std::time::Duration;

    const CLIENT: Mac = [1; 6];
    const HOLDER: Mac = [2; 6];
    const OTHER: Mac = [3; 6];
    const VIP: [u8; 4] = [192, 0, 2, 150];
    const NODE: [u8; 4] = [192, 0, 2, 2];
    const SOURCE: [u8; 4] = [192, 0, 2, 1];

    fn frame(direction: Direction, macs: [Mac; 2], ttl: u8, reply: bool, data: &[u8]) -> Frame {
        let mut bytes = Vec::new();
        let ethernet = PacketBuilder::ethernet2(macs[0], macs[1]);
        let packet = match reply {
            false => ethernet.ipv4(SOURCE, VIP, ttl).udp(1000, 53),
            true => ethernet.ipv4(VIP, SOURCE, ttl).udp(53, 1000),
        };
        packet.write(&mut bytes, data).unwrap();
        Frame { at: Duration::ZERO, direction, bytes }
    }

    fn judge(frames: Vec<Frame>) -> Passage {
        Passage::of(&Recording { frames }, HOLDER, SocketAddr::from((VIP, 53)), &[NODE.into()])
    }

    #[test]
    fn a_faithful_holder_is_told_from_one_that_changes_a_byte() {
        let arrived = || frame(Direction::ToHost, [CLIENT, HOLDER], 64, false, b"abc");
        let carried = |ttl, data| frame(Direction::FromHost, [HOLDER, OTHER], ttl, false, data);
        let good = judge(vec![arrived(), carried(63, b"abc")]);
        assert_eq!(good, Passage { arrived: 1, carried: 1, ..Passage::default() });
        assert_eq!(judge(vec![arrived(), carried(63, b"abd")]).changed, 1);
        assert_eq!(judge(vec![arrived(), carried(64, b"abc")]).wrong_ttl, 1);
        assert_eq!(judge(vec![arrived(), carried(1, b"abc")]).wrong_ttl, 1);
        assert_eq!(judge(vec![arrived(), carried(63, b"abc"), carried(63, b"abc")]).changed, 1);
    }

    #[test]
    fn the_last_round_of_a_segment_may_begin_with_a_low_ttl() {
        let segment = |direction, macs: [Mac; 2], ttl| {
            let mut bytes = Vec::new();
            let ethernet = PacketBuilder::ethernet2(macs[0], macs[1]);
            let tcp = ethernet.ipv4(SOURCE, VIP, ttl).tcp(1000, 53, 1, 100).ack(1);
            tcp.write(&mut bytes, b"").unwrap();
            Frame { at: Duration::ZERO, direction, bytes }
        };
        let arrived = segment(Direction::ToHost, [CLIENT, HOLDER], 64);
        let carried = segment(Direction::FromHost, [HOLDER, OTHER], 3);
        let passage = judge(vec![arrived, carried]);
        assert_eq!((passage.last_rounds, passage.wrong_ttl), (1, 0));
    }

    #[test]
    fn what_nodes_send_to_one_another_is_no_clients() {
        let probe = |reply| {
            let mut bytes = Vec::new();
            let ethernet = PacketBuilder::ethernet2(HOLDER, OTHER);
            let packet = match reply {
                false => ethernet.ipv4(NODE, VIP, 64).udp(1000, 53),
                true => ethernet.ipv4(VIP, NODE, 64).udp(53, 1000),
            };
            packet.write(&mut bytes, b"x").unwrap();
            Frame { at: Duration::ZERO, direction: Direction::FromHost, bytes }
        };
        assert_eq!(judge(vec![probe(false), probe(true)]), Passage::default());
    }

    #[test]
    fn a_reply_through_the_holder_is_told_from_its_own() {
        let arrived = || frame(Direction::ToHost, [CLIENT, HOLDER], 64, false, b"abc");
        let carried = frame(Direction::FromHost, [HOLDER, OTHER], 63, false, b"abc");
        let out = || frame(Direction::FromHost, [HOLDER, CLIENT], 64, true, b"x");
        let through = frame(Direction::ToHost, [OTHER, HOLDER], 64, true, b"x");
        let flooded = frame(Direction::ToHost, [OTHER, CLIENT], 64, true, b"x");
        let own = judge(vec![arrived(), out()]);
        assert_eq!((own.own_replies, own.foreign_replies), (1, 0));
        assert_eq!(judge(vec![arrived(), carried, out()]).foreign_replies, 1);
        assert_eq!(judge(vec![through]).foreign_replies, 1);
        assert_eq!(judge(vec![flooded]).foreign_replies, 0);
    }
}
