//! The cases of the RFCs, each named by what it claims; then every transition; then properties.

mod cases;
mod configured;
mod in_step;
mod properties;
mod resumed;
mod transitions;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::*;
use crate::vrrp::identity::{RouterId, Version};
use crate::vrrp::packet::Authentication;

const SECOND: Duration = Duration::from_secs(1);

fn node(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 168, 139, last).into()
}

fn at(milliseconds: u64) -> Moment {
    Moment::after_origin(Duration::from_millis(milliseconds))
}

/// Version 3, priority 100, one second, preempting, .134 of .133 to .135.
fn parameters() -> Parameters {
    Parameters {
        version: Version::V3,
        router_id: RouterId::new(51).unwrap(),
        priority: Priority(100),
        interval: SECOND,
        preempt: true,
        preempt_delay: Duration::ZERO,
        address: node(134),
        addresses: vec![node(150)],
        authentication: Authentication::None,
        rivals: Rivals::Answer,
        same_addresses: false,
    }
}

fn advertisement(priority: u8) -> Advertisement {
    Advertisement {
        router_id: RouterId::new(51).unwrap(),
        priority: Priority(priority),
        interval: SECOND,
        addresses: vec![node(150)],
        authentication: Authentication::None,
    }
}

fn started(parameters: Parameters) -> Machine {
    let mut machine = Machine::new(parameters, at(0));
    machine.start(at(0));
    machine
}

/// Active since 3609.375 ms: three seconds and a skew of 156/256 of one.
fn active(parameters: Parameters) -> Machine {
    let mut machine = started(parameters);
    let due = machine.deadline().unwrap();
    machine.timeout(due);
    assert_eq!(machine.state(), State::Active);
    machine
}

/// When the machine of [`active`] became Active.
fn since() -> Moment {
    Moment::after_origin(Duration::from_micros(3_609_375))
}

fn waits(machine: &Machine, now: Moment) -> Duration {
    machine.deadline().unwrap().since(now)
}

fn skew(priority: u8) -> Duration {
    SECOND * (256 - u32::from(priority)) / 256
}
