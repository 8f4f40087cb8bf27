//! A scenario from a seed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use lb_agent::vrrp::identity::{Priority, RouterId, Version};
use lb_agent::vrrp::machine::{Parameters, Rivals};
use lb_agent::vrrp::moment::Moment;
use lb_agent::vrrp::packet::Authentication;

use super::{ANNOUNCED_EVERY, Event, Kind, MOST_ROUTERS, Member, Network, Scenario};
use crate::simulation::random::Random;

impl Scenario {
    pub(in crate::simulation) fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let members = members(&mut random);
        let rough_network = random.chance(50);
        let shortest = members.iter().map(|member| member.parameters.interval).min();
        let shortest = shortest.unwrap_or_default();
        let network = Network {
            // Above a fifth, timers that the skew tells apart fire in any order anyway.
            delay: shortest * u32::from(random.between(0, 20)) / 100,
            loss_percent: if rough_network { random.between(0, 30) } else { 0 },
            duplication_percent: random.pick(&[0, 0, 10, 30]),
            in_order: random.chance(50),
        };
        let (events, gone) = (Vec::new(), Vec::new());
        let mut scenario = Self { seed, members, network, events, gone };
        scenario.schedule(rough_network, &mut random);
        scenario
    }

    /// Fills in what happens.
    fn schedule(&mut self, rough_network: bool, random: &mut Random) {
        let (interval, bound) = (self.interval(), self.bound());
        let count = self.members.len();
        for router in 0..count {
            self.events.push((Moment::default() + random.time(interval), Event::Start(router)));
        }
        let settled = Moment::default() + interval + bound;
        let rough = settled + interval + random.time(interval);
        let heal = rough + interval * u32::from(random.between(4, 24));
        self.events.extend([(settled, Event::Settled), (rough, Event::Roughen)]);
        for _ in 0..random.between(1, 6) {
            let fault = if rough_network { random.below(9) } else { random.below(7) };
            self.fault(fault, (rough, heal), random);
        }
        // Someone has to be left.
        if self.gone.len() == count {
            self.gone.pop();
        }
        let checked = heal + bound;
        let end = checked + interval * (ANNOUNCED_EVERY + 2);
        self.events.extend([(heal, Event::Heal), (checked, Event::Settled), (end, Event::End)]);
        self.events.sort_by_key(|(at, _)| *at);
    }

    fn fault(&mut self, fault: usize, (rough, heal): (Moment, Moment), random: &mut Random) {
        let interval = self.interval();
        let at = rough + random.time(heal.since(rough));
        let over = at + random.time(interval * 6);
        let router = random.below(self.members.len());
        let mut twice = |first, second| {
            self.events.push((at, first));
            // Healing ends whatever has not ended by itself.
            if over < heal {
                self.events.push((over, second));
            }
        };
        match fault {
            0 => twice(Event::Stall(router), Event::Wake(router)),
            1 => self.events.push((at, Event::Resign(router))),
            2 => twice(Event::HoldBack(router, true), Event::HoldBack(router, false)),
            3 => {
                // An owner stays one: the addresses are on its interface.
                if self.members[router].parameters.priority != Priority::OWNER {
                    let priority = random.between(1, 254);
                    self.events.push((at, Event::SetPriority(router, priority)));
                }
            }
            4 => twice(Event::ShutDown(router), Event::Start(router)),
            5 | 6 => {
                if random.chance(25) {
                    self.events.push((at, Event::Crash(router)));
                    if !self.gone.contains(&router) {
                        self.gone.push(router);
                    }
                } else {
                    twice(Event::Crash(router), Event::Start(router));
                }
            }
            7 => self.partition((at, over.min(heal)), random),
            _ => {
                let to = (router + 1 + random.below(self.members.len() - 1)) % self.members.len();
                twice(Event::Block(router, to, true), Event::Block(router, to, false));
            }
        }
    }

    /// Two sides that do not hear each other.
    fn partition(&mut self, (from, until): (Moment, Moment), random: &mut Random) {
        let sides: [bool; MOST_ROUTERS] = std::array::from_fn(|_| random.chance(50));
        let count = self.members.len();
        for (a, b) in (0..count).flat_map(|a| (0..count).map(move |b| (a, b))) {
            if sides[a] != sides[b] {
                self.events.push((from, Event::Block(a, b, true)));
                self.events.push((until, Event::Block(a, b, false)));
            }
        }
    }
}

fn members(random: &mut Random) -> Vec<Member> {
    let count = usize::from(random.between(2, MOST_ROUTERS as u8));
    let version = if random.chance(25) { Version::V2 } else { Version::V3 };
    let interval = match version {
        Version::V2 => Duration::from_secs(random.between(1, 2).into()),
        Version::V3 => Duration::from_millis(10) * random.between(1, 100).into(),
    };
    // Version 2 refuses another interval.
    let mixed = version == Version::V3 && random.chance(20);
    let ours_percent = random.pick(&[100, 100, 60, 30]);
    let owner = random.chance(10).then(|| random.below(count));
    let close = random.chance(30);
    let (rotation, six) = (random.below(count), version == Version::V3 && random.chance(30));
    let member = |index: usize| {
        let others = random.pick(&[Kind::Keepalived, Kind::Frr]);
        let ours = index == 0 || random.chance(ours_percent);
        let kind = if ours { Kind::Ours } else { others };
        let priority =
            if close { random.pick(&[99, 100, 100, 101]) } else { random.between(1, 254) };
        let factor = if mixed { random.between(1, 4) } else { 1 };
        let address = address(six, (index + rotation) % count);
        let interval = interval * factor.into();
        let mut parameters = parameters(version, Priority(priority), interval, address);
        parameters.preempt = random.chance(70);
        if ours && random.chance(40) {
            parameters.preempt_delay = random.time(interval * 3);
        }
        if ours && random.chance(30) {
            parameters.rivals = random.pick(&[Rivals::Answer, Rivals::Ignore]);
        }
        if owner == Some(index) {
            parameters.priority = Priority::OWNER;
            // RFC 9568, 6.1: it always preempts, whatever Preempt_Mode says. The models take that
            // at its word.
            parameters.preempt |= !ours;
        }
        Member { kind, parameters }
    };
    (0..count).map(member).collect()
}

fn address(six: bool, index: usize) -> IpAddr {
    let last = index as u8 + 1;
    if six {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last.into()).into()
    } else {
        Ipv4Addr::new(192, 168, 139, last).into()
    }
}

/// As the RFC of the version has it, unless changed.
pub(in crate::simulation) fn parameters(
    version: Version,
    priority: Priority,
    interval: Duration,
    address: IpAddr,
) -> Parameters {
    let router_id = RouterId::new(51).expect("51 is above 0");
    let shared = match address {
        IpAddr::V4(_) => Ipv4Addr::new(192, 168, 139, 150).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 150).into(),
    };
    Parameters {
        version,
        router_id,
        priority,
        interval,
        preempt: true,
        preempt_delay: Duration::ZERO,
        address,
        addresses: vec![shared],
        authentication: Authentication::None,
        rivals: Rivals::of(version),
        same_addresses: true,
    }
}
