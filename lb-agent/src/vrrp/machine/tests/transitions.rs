//! Every state and every event: what comes out, and where the machine is then.

use super::*;
use State::{Active, Backup, Initialize};

/// What happens to a machine, at one second after its last timer was set.
#[derive(Clone, Copy, Debug)]
enum Event {
    Start,
    ShutDown,
    Due,
    Resignation,
    Lower,
    EqualFromLower,
    EqualFromGreater,
    Higher,
    Resign,
    HoldBack,
}

use Event::{
    Due, EqualFromGreater, EqualFromLower, Higher, HoldBack, Lower, Resign, Resignation, ShutDown,
    Start,
};

/// What comes out, without the reasons.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Does {
    Tells(u8),
    Acquires,
    Releases,
    Announces,
}

use Does::{Acquires, Announces, Releases, Tells};

/// When the timer fires next, from the event on.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Waits {
    Forever,
    /// As before the event.
    On,
    Interval,
    Down,
    Skew,
}

type Row = (State, Event, State, &'static [Does], Waits);

/// For a preempting router of priority 100.
const TABLE: &[Row] = &[
    (Initialize, Start, Backup, &[], Waits::Down),
    (Initialize, ShutDown, Initialize, &[], Waits::Forever),
    (Initialize, Due, Initialize, &[], Waits::Forever),
    (Initialize, Resignation, Initialize, &[], Waits::Forever),
    (Initialize, Lower, Initialize, &[], Waits::Forever),
    (Initialize, EqualFromLower, Initialize, &[], Waits::Forever),
    (Initialize, EqualFromGreater, Initialize, &[], Waits::Forever),
    (Initialize, Higher, Initialize, &[], Waits::Forever),
    (Initialize, Resign, Initialize, &[], Waits::Forever),
    (Initialize, HoldBack, Initialize, &[], Waits::Forever),
    (Backup, Start, Backup, &[], Waits::On),
    (Backup, ShutDown, Initialize, &[], Waits::Forever),
    (Backup, Due, Active, &[Tells(100), Acquires], Waits::Interval),
    (Backup, Resignation, Backup, &[], Waits::Skew),
    (Backup, Lower, Backup, &[], Waits::On),
    (Backup, EqualFromLower, Backup, &[], Waits::Down),
    (Backup, EqualFromGreater, Backup, &[], Waits::Down),
    (Backup, Higher, Backup, &[], Waits::Down),
    (Backup, Resign, Backup, &[], Waits::On),
    (Backup, HoldBack, Backup, &[], Waits::On),
    (Active, Start, Active, &[], Waits::On),
    (Active, ShutDown, Initialize, &[Tells(0), Releases], Waits::Forever),
    (Active, Due, Active, &[Tells(100)], Waits::Interval),
    (Active, Resignation, Active, &[Tells(100)], Waits::Interval),
    (Active, Lower, Active, &[Tells(100), Announces], Waits::On),
    (Active, EqualFromLower, Active, &[Tells(100), Announces], Waits::On),
    (Active, EqualFromGreater, Backup, &[Releases], Waits::Down),
    (Active, Higher, Backup, &[Releases], Waits::Down),
    (Active, Resign, Backup, &[Tells(0)], Waits::Down),
    (Active, HoldBack, Backup, &[Tells(0)], Waits::Down),
];

fn in_state(state: State) -> Machine {
    match state {
        Initialize => Machine::new(parameters(), at(0)),
        Backup => started(parameters()),
        Active => active(parameters()),
    }
}

/// Gives a machine the event; when it was, and what came out.
fn give(machine: &mut Machine, event: Event) -> (Moment, Vec<Action>) {
    let now = match (event, machine.deadline()) {
        (Due, Some(due)) => due,
        (_, Some(due)) => due - SECOND / 2,
        (_, None) => at(500),
    };
    let hear = |machine: &mut Machine, from: u8, priority: u8| {
        machine.hear(node(from), &advertisement(priority), now).unwrap()
    };
    let actions = match event {
        Start => machine.start(now),
        ShutDown => machine.shut_down(now),
        Due => machine.timeout(now),
        Resignation => hear(machine, 133, 0),
        Lower => hear(machine, 135, 99),
        EqualFromLower => hear(machine, 133, 100),
        EqualFromGreater => hear(machine, 135, 100),
        Higher => hear(machine, 133, 101),
        Resign => machine.resign(now),
        HoldBack => machine.hold_back(true, now),
    };
    (now, actions)
}

fn does(action: &Action) -> Does {
    match action {
        Action::Advertise(priority) => Tells(priority.0),
        Action::Acquire(_) => Acquires,
        Action::Release(_) => Releases,
        Action::Announce => Announces,
    }
}

#[test]
fn every_event_in_every_state_leads_where_the_table_says() {
    assert_eq!(TABLE.len(), 3 * 10, "each state, each event");
    for &(state, event, then, expected, wait) in TABLE {
        let mut machine = in_state(state);
        let before = machine.deadline();
        let (now, actions) = give(&mut machine, event);
        let row = format!("{state:?}, {event:?}");
        assert_eq!(machine.state(), then, "{row}");
        assert_eq!(actions.iter().map(does).collect::<Vec<_>>(), expected, "{row}");
        let due = match wait {
            Waits::Forever => None,
            Waits::On => before,
            Waits::Interval => Some(now + SECOND),
            Waits::Down => Some(now + 3 * SECOND + skew(100)),
            Waits::Skew => Some(now + skew(100)),
        };
        assert_eq!(machine.deadline(), due, "{row}");
    }
}
