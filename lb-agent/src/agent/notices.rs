//! Whom the agent tells of changes: events of VRRP and moves of a static role, as notices for the
//! hooks; and how the hooks are.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::core::Agent;
use super::report::unix;
use super::seats::{Seat, Seats, Tasks};
use crate::config::Config;
use crate::control::api;
use crate::netlink::mac_text;
use crate::notify::{Event, Family, HookStatus, Hooks, Router, State, What};
use crate::role::Role;
use crate::vrrp::identity::Version;
use crate::vrrp::{self, Happening, machine};

/// The kind of trouble that no other router is behind.
const OBSTACLE: &str = "obstacle";

/// Tells the hooks of every change of a role that no VRRP decides. Beside the agent's loop: a holder
/// keeps only its latest state, and must not change twice before the hooks have seen it.
/// `known`: they have been told of the present one.
pub(super) fn follow_roles(
    hooks: &Arc<Hooks>,
    seats: &Seats,
    config: &Config,
    known: bool,
) -> Tasks {
    let follow = |seat: &Seat| {
        let vips = seat.vips.clone().unwrap_or_else(|| config.virtual_addresses.clone());
        let router = Router { virtual_addresses: vips, ..Router::default() };
        let (hooks, mut holding) = (Arc::clone(hooks), seat.holder.watch());
        tokio::spawn(async move {
            let mut known = if known { state(holding.borrow().role) } else { State::Initialize };
            // Ends with the holder.
            while holding.changed().await.is_ok() {
                let (to, reason) = {
                    let now = holding.borrow_and_update();
                    (state(now.role), now.reason.clone())
                };
                if to != known {
                    let what = What::Role { from: known, to, reason };
                    hooks.offer(&Event { at: SystemTime::now(), router: router.clone(), what });
                    known = to;
                }
            }
        })
    };
    seats.0.iter().map(follow).collect()
}

/// What a hook is told of an event of VRRP. `vips` are all of the router's number, of both families.
pub(super) fn notice(event: &vrrp::Event, vips: &[IpAddr]) -> Event {
    let is_v4 = event.address.is_ipv4();
    let router = Router {
        router_id: Some(event.router_id.number()),
        version: Some(match event.version {
            Version::V2 => 2,
            Version::V3 => 3,
        }),
        interface: Some(event.interface.clone()),
        family: Some(if is_v4 { Family::Ipv4 } else { Family::Ipv6 }),
        priority: Some(event.priority.0),
        virtual_addresses: vips.iter().copied().filter(|vip| vip.is_ipv4() == is_v4).collect(),
    };
    let what = match &event.happening {
        Happening::Transition { from, to, reason } => {
            What::Role { from: state_of(*from), to: state_of(*to), reason: reason.clone() }
        }
        Happening::Trouble(trouble) => What::Trouble {
            trouble: trouble.kind.to_owned(),
            address: Some(trouble.rival),
            mac: trouble.mac.map(mac_text),
            sentence: trouble.sentence.clone(),
        },
        Happening::Obstacle(sentence) => What::Trouble {
            trouble: OBSTACLE.to_owned(),
            address: None,
            mac: None,
            sentence: sentence.clone(),
        },
    };
    Event { at: event.at, router, what }
}

const fn state_of(state: machine::State) -> State {
    match state {
        machine::State::Initialize => State::Initialize,
        machine::State::Backup => State::Backup,
        machine::State::Active => State::Active,
    }
}

const fn state(role: Role) -> State {
    match role {
        Role::Active => State::Active,
        Role::Backup => State::Backup,
    }
}

impl Agent {
    pub(super) fn api_notify(&self) -> Vec<api::NotifyHook> {
        self.hooks.status().into_iter().map(hook).collect()
    }

    /// What a person should know of the hooks.
    pub(super) fn notify_warnings(&self) -> Vec<String> {
        let hooks = self.hooks.status();
        let failing = hooks.iter().filter_map(|hook| {
            let failing = hook.failing.as_ref()?;
            // A clock that was set back makes it young.
            let since = failing.since.elapsed().unwrap_or_default().as_secs();
            Some(format!(
                "notify hook {} has failed for {since} s, {} notices wait: {}",
                hook.name, hook.waiting, failing.why
            ))
        });
        let spools = hooks.iter().filter_map(|hook| {
            let trouble = hook.spool_trouble.as_ref()?;
            Some(format!("notices for hook {} do not outlive the agent: {trouble}", hook.name))
        });
        failing.chain(spools).collect()
    }
}

fn hook(hook: HookStatus) -> api::NotifyHook {
    api::NotifyHook {
        name: hook.name,
        way: hook.kind.to_owned(),
        delivered: hook.delivered,
        failed_attempts: hook.failed_attempts,
        waiting: hook.waiting as u64,
        folded: hook.folded,
        failing_since: hook.failing.as_ref().map(|failing| unix(failing.since)),
        failure: hook.failing.map(|failing| failing.why),
        spool_trouble: hook.spool_trouble,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::Trouble;
    use crate::vrrp::identity::{Priority, RouterId};

    fn told(address: &str, happening: Happening) -> Event {
        let event = vrrp::Event {
            router_id: RouterId::new(51).expect("not 0"),
            version: Version::V3,
            interface: "ens33".to_owned(),
            address: address.parse().expect("an address"),
            priority: Priority(90),
            at: SystemTime::UNIX_EPOCH,
            happening,
        };
        let vips = ["192.0.2.100", "2001:db8::100", "192.0.2.101"];
        notice(&event, &vips.map(|vip| vip.parse().expect("an address")))
    }

    fn transition() -> Happening {
        let (from, to) = (machine::State::Backup, machine::State::Active);
        Happening::Transition { from, to, reason: "why".to_owned() }
    }

    #[test]
    fn a_transition_is_told_with_the_addresses_of_its_family() {
        let event = told("192.0.2.1", transition());
        let (from, to) = (State::Backup, State::Active);
        assert_eq!(event.what, What::Role { from, to, reason: "why".to_owned() });
        let router = event.router;
        assert_eq!(
            (router.router_id, router.version, router.priority),
            (Some(51), Some(3), Some(90))
        );
        assert_eq!((router.family, router.virtual_addresses.len()), (Some(Family::Ipv4), 2));
        let router = told("fe80::1", transition()).router;
        assert_eq!((router.family, router.virtual_addresses.len()), (Some(Family::Ipv6), 1));
    }

    #[test]
    fn trouble_is_told_with_the_rival_and_an_obstacle_without() {
        let at = SystemTime::UNIX_EPOCH;
        let sentence = "it was routed".to_owned();
        let rival = IpAddr::from([192, 0, 2, 9]);
        let mac = Some([2, 0, 0, 0, 0, 9]);
        let trouble = Trouble { kind: "ttl", rival, mac, sentence, count: 3, first: at, last: at };
        let What::Trouble { trouble, address, mac, .. } =
            told("192.0.2.1", Happening::Trouble(trouble)).what
        else {
            panic!("trouble")
        };
        let expected = ("ttl", Some(rival), Some("02:00:00:00:00:09"));
        assert_eq!((trouble.as_str(), address, mac.as_deref()), expected);
        let obstacle = told("192.0.2.1", Happening::Obstacle("no route".to_owned())).what;
        let What::Trouble { trouble, address: None, mac: None, .. } = obstacle else {
            panic!("{obstacle:?}")
        };
        assert_eq!(trouble, "obstacle");
    }
}
