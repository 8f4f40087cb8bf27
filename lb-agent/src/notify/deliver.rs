//! One attempt to tell a hook one notice.

use std::time::Duration;

use super::notice::Notice;
use super::webhook::Webhook;
use crate::config::NotifyWay;
use crate::script::{Input, Runner, Script, trust};

/// How a hook is told.
#[derive(Debug)]
pub(super) enum Way {
    Script(Runner),
    Webhook(Webhook),
}

impl Way {
    pub(super) fn new(way: &NotifyWay, timeout: Duration) -> Self {
        match way.clone() {
            NotifyWay::Script { path, arguments, user } => {
                Self::Script(Runner::new(Script { path, arguments, user, timeout }))
            }
            NotifyWay::Webhook { url, ca_file } => Self::Webhook(Webhook { url, ca_file, timeout }),
        }
    }

    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Script(_) => "script",
            Self::Webhook(_) => "webhook",
        }
    }

    /// What will go wrong, if that can be seen without telling anything.
    pub(super) fn foresee(&self) -> Result<(), String> {
        match self {
            Self::Webhook(_) => Ok(()),
            Self::Script(runner) => {
                let script = runner.script();
                if script.user.is_some() {
                    // Whose own file it may be is for a user's look-up to say, which may take long.
                    return Ok(());
                }
                trust::check(&script.path, None).map(drop).map_err(|error| error.to_string())
            }
        }
    }

    /// Whether the hook has taken it; where not, why.
    pub(super) async fn deliver(&mut self, notice: &Notice) -> Result<(), String> {
        let json = notice.json();
        match self {
            Self::Script(runner) => {
                let (arguments, variables) = (notice.arguments(), notice.variables());
                let input = Input { arguments: &arguments, variables: &variables, bytes: &json };
                let run = runner.run(input).await;
                match run {
                    Ok(ending) if ending.success() => Ok(()),
                    Ok(ending) => Err(ending.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            }
            Self::Webhook(webhook) => {
                webhook.post(json, &notice.key()).await.map_err(|error| error.to_string())
            }
        }
    }
}
