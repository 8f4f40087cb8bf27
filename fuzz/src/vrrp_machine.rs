//! Any sequence of events, at any pace, in the state machine of a virtual router: no panic, and it
//! keeps what it promises to its driver.
//!
//! An input is eight bytes of settings, then four for each event: what, and three of how.

#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use lb_fuzz::vrrp::identity::{Priority, RouterId, Version};
use lb_fuzz::vrrp::machine::{Action, Machine, Parameters, Rivals, State};
use lb_fuzz::vrrp::moment::Moment;
use lb_fuzz::vrrp::packet::{Advertisement, Authentication};
use libfuzzer_sys::{Corpus, fuzz_target};

/// Longer sequences find nothing more, only later.
const EVENTS_MAX: usize = 256;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((settings, events)) = input.split_first_chunk() else { return Corpus::Reject };
    let parameters = parameters(settings);
    let mut run = Run {
        machine: Machine::new(parameters.clone(), Moment::default()),
        parameters,
        now: Moment::default(),
        holds: false,
        held_back: false,
    };
    for event in events.as_chunks::<4>().0.iter().take(EVENTS_MAX) {
        run.take(*event);
    }
    Corpus::Keep
});

fn parameters(settings: &[u8; 8]) -> Parameters {
    let [flags, router_id, priority, interval, delay, address, ..] = *settings;
    let has = |bit: u8| flags & bit != 0;
    let version = if has(1) { Version::V2 } else { Version::V3 };
    Parameters {
        version,
        router_id: RouterId::new(router_id.max(1)).expect("not 0"),
        priority: Priority(priority.max(1)),
        interval: interval_of(version, interval),
        preempt: has(2),
        preempt_delay: Duration::from_millis(u64::from(delay) * 100),
        address: node(address),
        addresses: vec![IpAddr::from([192, 0, 2, 100])],
        authentication: if has(4) && version == Version::V2 {
            Authentication::Password(*b"password")
        } else {
            Authentication::None
        },
        rivals: if has(8) { Rivals::Answer } else { Rivals::Ignore },
        same_addresses: has(16),
    }
}

/// One that an advertisement can carry.
fn interval_of(version: Version, byte: u8) -> Duration {
    let unit = u64::from(byte).max(1);
    match version {
        Version::V2 => Duration::from_secs(unit),
        // From 10 ms to nearly 41 s.
        Version::V3 => Duration::from_millis(10 * (unit * unit / 16).clamp(1, 4095)),
    }
}

fn node(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// The machine, and what its driver knows.
struct Run {
    machine: Machine,
    parameters: Parameters,
    now: Moment,
    /// By the actions.
    holds: bool,
    held_back: bool,
}

impl Run {
    fn take(&mut self, [what, a, b, c]: [u8; 4]) {
        let before = self.machine.clone();
        let actions = match what % 12 {
            0 => self.machine.start(self.now),
            1 => self.machine.shut_down(self.now),
            2 => self.machine.resign(self.now),
            3 => {
                self.held_back = a % 2 == 1;
                self.machine.hold_back(self.held_back, self.now)
            }
            4 => self.machine.set_priority(Priority(a.max(1)), self.now),
            // Time passes, but not beyond what the machine waits for.
            5 => {
                let pause =
                    Duration::from_micros(u64::from(u16::from_be_bytes([a, b])) << (c % 16));
                let then = self.now + pause;
                self.now = self.machine.deadline().map_or(then, |due| due.min(then)).max(self.now);
                return;
            }
            // Or the thread did not run for a while.
            6 => {
                self.now = self.now + Duration::from_millis(u64::from(u16::from_be_bytes([a, b])));
                return;
            }
            // A timer that is not due yet does nothing.
            7 => self.machine.timeout(self.now),
            8 => self.serve(Duration::ZERO),
            9 => self.serve(Duration::from_micros(u64::from(u16::from_be_bytes([a, b])))),
            _ => return self.hear(a, Priority(b), c, what >= 128, &before),
        };
        self.judge(&before, &actions);
    }

    /// The timer, so long after it was due.
    fn serve(&mut self, late: Duration) -> Vec<Action> {
        let Some(due) = self.machine.deadline() else { return Vec::new() };
        self.now = self.now.max(due + late);
        let before = self.machine.state();
        let overslept = self.now.since(due) >= self.parameters.interval * 2;
        let actions = self.machine.timeout(self.now);
        let next = self.machine.deadline().expect("it takes part");
        assert!(next > self.now, "a timer that is due for ever");
        if before == State::Active && !overslept {
            let own = self.machine.parameters().priority;
            assert_eq!(actions, [Action::Advertise(own)], "an Active router advertises");
        }
        actions
    }

    fn hear(&mut self, from: u8, priority: Priority, how: u8, stranger: bool, before: &Machine) {
        let version = self.parameters.version;
        let mut said = Advertisement {
            router_id: self.parameters.router_id,
            priority,
            interval: self.parameters.interval,
            addresses: self.parameters.addresses.clone(),
            authentication: self.parameters.authentication,
        };
        if stranger {
            said.interval = interval_of(version, how);
            said.addresses.push(node(how));
        }
        match self.machine.hear(node(from), &said, self.now) {
            Ok(actions) => self.judge(before, &actions),
            Err(_) => {
                assert_eq!(self.machine.state(), before.state());
                assert_eq!(self.machine.deadline(), before.deadline());
                assert_eq!(self.machine.holds(), before.holds());
            }
        }
    }

    fn judge(&mut self, before: &Machine, actions: &[Action]) {
        let machine = &self.machine;
        for action in actions {
            match action {
                Action::Acquire(_) => self.holds = true,
                Action::Release(_) => self.holds = false,
                Action::Advertise(_) | Action::Announce => {}
            }
        }
        assert_eq!(machine.holds(), self.holds, "what it holds is what it said");
        match machine.state() {
            State::Initialize => {
                assert_eq!(machine.deadline(), None, "who takes no part waits for nothing");
                assert!(!machine.holds());
            }
            State::Backup => {
                let due = machine.deadline().expect("a Backup waits");
                // Three of the longest interval, and a skew of less than one more.
                let longest = match self.parameters.version {
                    Version::V2 => Duration::from_secs(3 * 255 + 1),
                    Version::V3 => Duration::from_millis(4 * 40_950),
                };
                assert!(due.since(self.now) <= longest, "a Backup that waits for ever");
            }
            State::Active => {
                assert!(machine.holds() && !self.held_back);
                let due = machine.deadline().expect("an Active router advertises");
                assert!(due.since(self.now) <= self.parameters.interval, "within its interval");
            }
        }
        let becomes = before.state() != State::Active && machine.state() == State::Active;
        let acquires = actions.iter().filter(|a| matches!(a, Action::Acquire(_))).count();
        assert_eq!(acquires, usize::from(becomes));
        if becomes {
            let own = machine.parameters().priority;
            assert_eq!(actions[0], Action::Advertise(own), "it advertises first");
        }
    }
}
