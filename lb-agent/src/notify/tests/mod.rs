//! Notices: what stands in them, that they wait in order, and that real scripts and servers are told.

mod hooks;
mod notice;
mod queue;
mod receiver;

use std::time::{Duration, UNIX_EPOCH};

use super::notice::{Event, Family, Router, State, What};

pub(super) fn router(family: Family) -> Router {
    Router {
        router_id: Some(51),
        version: Some(3),
        interface: Some("ens33".to_owned()),
        family: Some(family),
        priority: Some(90),
        virtual_addresses: vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()],
    }
}

fn event(router: Router, what: What) -> Event {
    Event { at: UNIX_EPOCH + Duration::from_secs(1), router, what }
}

fn role(from: State, to: State, reason: &str) -> Event {
    event(router(Family::Ipv4), What::Role { from, to, reason: reason.to_owned() })
}

/// From Backup to Active or back, with its number as the reason.
fn turn(number: u64) -> Event {
    let (from, to) = match number % 2 {
        0 => (State::Backup, State::Active),
        _ => (State::Active, State::Backup),
    };
    role(from, to, &number.to_string())
}

fn trouble(kind: &str) -> Event {
    let what = What::Trouble {
        trouble: kind.to_owned(),
        address: Some("192.0.2.9".parse().unwrap()),
        mac: Some("02:00:00:00:00:09".to_owned()),
        sentence: "another router is Active".to_owned(),
    };
    event(router(Family::Ipv4), what)
}
