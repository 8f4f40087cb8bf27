//! The network between the routers: what arrives, and when.

use lb_agent::vrrp::moment::Moment;

use super::random::Random;
use super::scenario::{MOST_ROUTERS, Network};

pub(super) struct Links {
    network: Network,
    /// Loss and duplication are of the rough part only.
    rough: bool,
    /// How many faults block the way from one router to another.
    blocks: [[u8; MOST_ROUTERS]; MOST_ROUTERS],
    /// When the last packet on a way arrives.
    last: [[Moment; MOST_ROUTERS]; MOST_ROUTERS],
}

impl Links {
    pub(super) fn new(network: Network) -> Self {
        Self { network, rough: false, blocks: Default::default(), last: Default::default() }
    }

    pub(super) fn roughen(&mut self) {
        self.rough = true;
    }

    pub(super) fn heal(&mut self) {
        self.rough = false;
        self.blocks = Default::default();
    }

    pub(super) fn block(&mut self, from: usize, to: usize, blocked: bool) {
        let count = &mut self.blocks[from][to];
        *count = if blocked { *count + 1 } else { count.saturating_sub(1) };
    }

    /// When what is sent now arrives: never, once or twice.
    pub(super) fn arrivals(
        &mut self,
        from: usize,
        to: usize,
        now: Moment,
        random: &mut Random,
    ) -> [Option<Moment>; 2] {
        let Network { loss_percent, duplication_percent, .. } = self.network;
        let lost = self.rough && random.chance(loss_percent);
        if self.blocks[from][to] > 0 || lost {
            return [None, None];
        }
        let first = self.arrival(from, to, now, random);
        let twice = self.rough && random.chance(duplication_percent);
        let second = twice.then(|| self.arrival(from, to, now, random));
        [Some(first), second]
    }

    fn arrival(&mut self, from: usize, to: usize, now: Moment, random: &mut Random) -> Moment {
        let mut at = now + random.time(self.network.delay);
        if self.network.in_order {
            // Still within the bound: the packet before was sent earlier.
            at = at.max(self.last[from][to]);
            self.last[from][to] = at;
        }
        at
    }
}
