//! Whom the agent tells of changes: events of VRRP and moves of a static role, as notices for the
//! hooks; and how the hooks are.

use std::sync::Arc;
use std::time::SystemTime;

use super::core::Agent;
use super::report::unix;
use super::seats::{Seat, Seats, Tasks};
use crate::config::Config;
use crate::control::api;
use crate::notify::{Event, HookStatus, Hooks, Router, State, What};
use crate::role::Role;

/// Tells the hooks of every change of a role that no VRRP decides. Beside the agent's loop: a holder
/// keeps only its latest state, and must not change twice before the hooks have seen it.
pub(super) fn follow_roles(hooks: &Arc<Hooks>, seats: &Seats, config: &Config) -> Tasks {
    let follow = |seat: &Seat| {
        let vips = seat.vips.clone().unwrap_or_else(|| config.virtual_addresses.clone());
        let router = Router { virtual_addresses: vips, ..Router::default() };
        let (hooks, mut holding) = (Arc::clone(hooks), seat.holder.watch());
        tokio::spawn(async move {
            let mut known = State::Initialize;
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
