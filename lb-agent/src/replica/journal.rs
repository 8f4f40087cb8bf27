//! What a peer was told of each flow, so that it is told of what has changed and of nothing else. Pure.

use std::collections::HashMap;
use std::time::Duration;

use lb_common::nat::{FROM_CLIENT, SEEN_DATA, SEEN_FIN, SEEN_RST};
use lb_common::service::UDP;

use crate::dataplane::{Half, Translation};

/// One that is used is told of so many times while it may be silent.
const TELLINGS: u32 = 4;

/// Of one flow: 20 bytes, with its number some 40 for each that the map has.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The look at which it was told.
    told: u32,
    /// The look that met it last.
    met: u32,
    /// When it was used, as it was told, in seconds of this node's clock.
    used_s: u32,
    translation: u32,
    seen: [u8; 2],
}

/// Of one peer.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    of: HashMap<u64, Entry>,
    /// The number of the look that is going on, or was last.
    look: u32,
    /// The peer knows nothing: flows that this node itself was told of are news to it, too.
    all: bool,
    udp_again_s: u32,
    tcp_again_s: u32,
}

impl Journal {
    /// Goes on after what the peer has heard, or begins anew.
    pub(super) fn resume(&mut self, heard: Option<u64>) {
        // More than was said is no less strange than nothing.
        let heard = heard.and_then(|look| u32::try_from(look).ok()).filter(|&l| l <= self.look);
        match heard.filter(|&look| look > 0) {
            Some(heard) => self.of.retain(|_, entry| entry.told <= heard),
            None => {
                self.of.clear();
                self.all = true;
            }
        }
    }

    /// Flows may be silent for so long. Returns the look's number.
    pub(super) fn begin_look(&mut self, udp_timeout: Duration, tcp_timeout: Duration) -> u64 {
        let again = |timeout: Duration| {
            u32::try_from((timeout / TELLINGS).as_secs()).unwrap_or(u32::MAX).max(1)
        };
        (self.udp_again_s, self.tcp_again_s) = (again(udp_timeout), again(tcp_timeout));
        self.look = self.look.wrapping_add(1);
        u64::from(self.look)
    }

    /// The peer has heard all of it. Flows that are no more are forgotten.
    pub(super) fn end_look(&mut self) {
        self.all = false;
        let look = self.look;
        self.of.retain(|_, entry| entry.met == look);
    }

    /// Whether the peer may have to be told of the flow that has this entry.
    pub(super) fn may_be_due(&mut self, half: &Half) -> bool {
        let Half { entry, .. } = half;
        let direction = usize::from(entry.direction != FROM_CLIENT);
        let look = self.look;
        let used_s = seconds(entry.last_seen_ns);
        let again_s = self.again_s(half.client.protocol);
        match self.of.get_mut(&half.number) {
            // Only what was told of can be due by its backend's packets, and what has both ends otherwise: a
            // flood of SYNs costs nothing here.
            None => {
                let is_first_seen = self.all || !entry.is_only_told();
                is_first_seen && direction == 0 && entry.seen & SEEN_DATA != 0
            }
            Some(told) => {
                told.met = look;
                let differs =
                    told.translation != half.translation || told.seen[direction] != entry.seen;
                !entry.is_only_told() && (differs || used_s >= told.used_s.saturating_add(again_s))
            }
        }
    }

    /// Whether the flow is worth telling of, and notes that it is told if so.
    pub(super) fn tell(&mut self, half: &Half, flow: &Translation) -> bool {
        let Translation { forward, back, .. } = flow;
        let (either, both) = (forward.seen | back.seen, forward.seen & back.seen);
        let is_open = both & SEEN_DATA != 0 && both & SEEN_FIN == 0 && either & SEEN_RST == 0;
        if !is_open && !self.of.contains_key(&half.number) {
            return false;
        }
        let used_s = seconds(forward.last_seen_ns.max(back.last_seen_ns));
        let (look, seen) = (self.look, [forward.seen, back.seen]);
        let translation = half.translation;
        self.of.insert(half.number, Entry { told: look, met: look, used_s, translation, seen });
        true
    }

    const fn again_s(&self, protocol: u8) -> u32 {
        if protocol == UDP { self.udp_again_s } else { self.tcp_again_s }
    }
}

fn seconds(ns: u64) -> u32 {
    u32::try_from(ns / 1_000_000_000).unwrap_or(u32::MAX)
}
