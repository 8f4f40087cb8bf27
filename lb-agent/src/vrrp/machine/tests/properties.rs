//! What holds after any sequence of events, at any pace.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Start,
    ShutDown,
    Timeout,
    Hear { from: u8, priority: u8, interval_cs: u16 },
    Resign,
    HoldBack(bool),
    SetPriority(u8),
    KeepStep { next_ms: u64 },
    Configure { priority: u8, interval_cs: u16, preempt: bool, delay_s: u64, vips: u8 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => Just(Event::Start),
        1 => Just(Event::ShutDown),
        6 => Just(Event::Timeout),
        6 => (130u8..140, any::<u8>(), 1u16..4096)
            .prop_map(|(from, priority, interval_cs)| Event::Hear { from, priority, interval_cs }),
        1 => Just(Event::Resign),
        1 => any::<bool>().prop_map(Event::HoldBack),
        1 => (1u8..=255).prop_map(Event::SetPriority),
        2 => (1u64..2000).prop_map(|next_ms| Event::KeepStep { next_ms }),
        2 => (1u8..=254, 1u16..4096, any::<bool>(), 0u64..20, 150u8..152).prop_map(
            |(priority, interval_cs, preempt, delay_s, vips)| {
                Event::Configure { priority, interval_cs, preempt, delay_s, vips }
            }
        ),
    ]
}

fn give(machine: &mut Machine, event: &Event, now: Moment) -> Vec<Action> {
    match *event {
        Event::Start => machine.start(now),
        Event::ShutDown => machine.shut_down(now),
        Event::Timeout => machine.timeout(now),
        Event::Hear { from, priority, interval_cs } => {
            let interval = Duration::from_millis(10 * u64::from(interval_cs));
            let heard = Advertisement { interval, ..advertisement(priority) };
            machine.hear(node(from), &heard, now).unwrap_or_default()
        }
        Event::Resign => machine.resign(now),
        Event::HoldBack(held_back) => machine.hold_back(held_back, now),
        Event::SetPriority(priority) => machine.set_priority(Priority(priority), now),
        Event::KeepStep { next_ms } => machine.keep_step(now + Duration::from_millis(next_ms), now),
        Event::Configure { priority, interval_cs, preempt, delay_s, vips } => {
            let other = Parameters {
                priority: Priority(priority),
                interval: Duration::from_millis(10 * u64::from(interval_cs)),
                preempt,
                preempt_delay: Duration::from_secs(delay_s),
                addresses: (150..=vips).map(node).collect(),
                ..parameters()
            };
            machine.configure(other, now)
        }
    }
}

/// The longest that a Backup waits: three of the longest interval, and a skew below one more.
const LONGEST: Duration = Duration::from_millis(4 * 40_950);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_machine_is_of_one_piece(
        preempt: bool,
        delay_s in 0u64..20,
        events in prop::collection::vec((event(), 0u64..8000, any::<bool>()), 1..60),
    ) {
        let preempt_delay = Duration::from_secs(delay_s);
        let mut machine =
            Machine::new(Parameters { preempt, preempt_delay, ..parameters() }, at(0));
        let mut now = at(0);
        for (event, pause_ms, punctual) in events {
            now = now + Duration::from_millis(pause_ms);
            if punctual && let Some(due) = machine.deadline() && due > now {
                now = due;
            }
            let before = machine.clone();
            let actions = give(&mut machine, &event, now);
            let acquires = actions.iter().filter(|a| matches!(a, Action::Acquire(_))).count();
            let releases = actions.iter().filter(|a| matches!(a, Action::Release(_))).count();

            // Who is Active answers for the addresses, who does not take part does not.
            prop_assert!(machine.state() != State::Active || machine.holds());
            prop_assert!(machine.state() != State::Initialize || !machine.holds());
            // What it is configured to be is no reason to be Active, or no longer; only to have overslept is.
            if matches!(event, Event::Configure { .. }) && machine.last_transition().0 != Reason::Overslept {
                prop_assert_eq!(before.state(), machine.state());
            }
            // Both ends of it are told, once.
            let becomes = before.state() != State::Active && machine.state() == State::Active;
            prop_assert_eq!(acquires, usize::from(becomes));
            prop_assert_eq!(releases, usize::from(before.holds() && !machine.holds()));
            // Only an Active router says that it is one; only one that was says that it ends.
            for action in &actions {
                match action {
                    Action::Advertise(Priority::RESIGN) => {
                        prop_assert_eq!(before.state(), State::Active);
                        prop_assert!(machine.state() != State::Active);
                    }
                    Action::Advertise(priority) => {
                        prop_assert_eq!(machine.state(), State::Active);
                        prop_assert_eq!(*priority, machine.parameters().priority);
                    }
                    _ => {}
                }
            }
            // Who is held back does not become Active.
            prop_assert!(!(machine.is_held_back() && machine.state() == State::Active));
            // A timer runs unless it takes no part, and not for longer than the protocol has.
            prop_assert_eq!(machine.deadline().is_none(), machine.state() == State::Initialize);
            if let Some(due) = machine.deadline() && matches!(event, Event::Timeout) {
                prop_assert!(due.since(now) <= LONGEST);
                prop_assert!(due > now || machine.deadline() == before.deadline());
            }
        }
    }

    #[test]
    fn a_router_alone_becomes_active_and_stays_so(priority in 1u8..=254, interval_ms in 10u64..5000) {
        let interval = Duration::from_millis(interval_ms);
        let mut machine = started(Parameters { priority: Priority(priority), interval, ..parameters() });
        let mut last = None;
        for turn in 0..50 {
            let due = machine.deadline().unwrap();
            let actions = machine.timeout(due);
            prop_assert_eq!(actions[0], Action::Advertise(Priority(priority)));
            if let Some(last) = last {
                prop_assert_eq!(due.since(last), interval, "turn {}", turn);
            }
            last = Some(due);
        }
        prop_assert_eq!(machine.state(), State::Active);
    }
}
