//! What a run of a tracked script means.

use super::judge::{Failure, Kind, Outcome};
use crate::config;
use crate::script::{Input, RunError, Runner, Script};

/// Runs one tracked script.
#[derive(Debug)]
pub(super) struct Check(Runner);

impl Check {
    pub(super) fn new(script: config::Script) -> Self {
        let config::Script { path, arguments, timeout, user, .. } = script;
        Self(Runner::new(Script { path, arguments, user: Some(user), timeout }))
    }

    /// One run, to its end or its timeout.
    pub(super) async fn run(&mut self) -> Outcome {
        let (kind, reason) = match self.0.run(Input::default()).await {
            Ok(ending) if ending.success() => return Outcome::Good(ending.to_string()),
            Ok(ending) => (Kind::Failed, ending.to_string()),
            Err(error @ (RunError::Late { .. } | RunError::Stuck)) => {
                (Kind::TimedOut, error.to_string())
            }
            Err(error @ (RunError::Distrust(_) | RunError::Start { .. })) => {
                (Kind::Refused, error.to_string())
            }
        };
        Outcome::Bad(Failure { kind, reason })
    }
}
