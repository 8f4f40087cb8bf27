//! Telling the user's scripts and servers what happens: changes of role, and trouble.
//!
//! ```text
//! Event --offer--> queue --first--> script or webhook, again and again until it took it
//!                    |
//!                  spool (a file for each notice that waits)
//! ```
//!
//! Each hook has its own task, queue and spool, and no hook waits for another. A notice is told at
//! least once and in order: the next one waits until the hook has taken it. Offering one takes a lock
//! for a moment, and never waits for a disk, a script or a network.
//!
//! Pure: [`notice`], [`queue`], [`pace`], [`timestamp`]. Drivers: [`spool`], [`deliver`], [`webhook`],
//! [`hook`].

mod deliver;
mod hook;
pub mod notice;
mod pace;
mod queue;
mod spool;
#[cfg(test)]
mod tests;
mod timestamp;
mod webhook;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

pub use hook::HookStatus;
pub use notice::{Event, Family, Notice, Router, State, What};
pub(crate) use timestamp::rfc3339;

use self::deliver::Way;
use self::hook::Hook;
use crate::config::Notify;

/// Where spools are, below `paths.state`.
const DIRECTORY: &str = "notify";
/// How long an ending agent waits for hooks that take what they are told.
const FAREWELL: Duration = Duration::from_secs(3);

/// And one that another process follows, for which everything waits.
const HANDED_OVER: Duration = Duration::from_millis(500);

/// All hooks of the node.
#[derive(Debug)]
pub struct Hooks(Vec<Arc<Hook>>);

impl Hooks {
    /// Starts a task for each, which begins with what an earlier run of the agent left.
    pub async fn start(configured: &[Notify], node: &str, state: &Path) -> Self {
        Self(Vec::new()).follow(&[], configured, (node, state)).await
    }

    /// The hooks of another configuration. Those that are in both go on; one that is another goes on with what the
    /// one before has left, where it has the same name. Nothing may be offered to these any more.
    pub async fn follow(
        &self,
        former: &[Notify],
        configured: &[Notify],
        (node, state): (&str, &Path),
    ) -> Self {
        let directory = state.join(DIRECTORY);
        let run = format!("{:016x}", hook::random());
        let known: Vec<(&Notify, &Arc<Hook>)> = former.iter().zip(&self.0).collect();
        let gone = known.iter().filter(|(notify, _)| !configured.contains(notify));
        join_all(gone.map(|(_, hook)| hook.close(HANDED_OVER))).await;
        let mut hooks = Vec::new();
        for notify in configured {
            if let Some((_, hook)) = known.iter().find(|(known, _)| *known == notify) {
                hooks.push(Arc::clone(hook));
                continue;
            }
            let way = Way::new(&notify.way, notify.timeout);
            let place = directory.join(&notify.name);
            hooks.push(Arc::new(Hook::start(notify, way, (node, &run), place).await));
        }
        Self(hooks)
    }

    /// Tells all hooks that want to know. Never waits.
    pub fn offer(&self, event: &Event) {
        for hook in &self.0 {
            hook.offer(event);
        }
    }

    pub fn status(&self) -> Vec<HookStatus> {
        self.0.iter().map(|hook| hook.status()).collect()
    }

    /// Waits until everything is on disk, and a moment for hooks that are not failing.
    pub async fn close(&self) {
        self.close_within(FAREWELL).await;
    }

    /// As [`close`](Self::close), for a process that is followed by another one, which goes on with what waits.
    pub async fn hand_over(&self) {
        self.close_within(HANDED_OVER).await;
    }

    async fn close_within(&self, limit: Duration) {
        let ends = self.0.iter().map(|hook| hook.close(limit));
        join_all(ends).await;
    }
}
