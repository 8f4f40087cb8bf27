//! One attempt to tell a hook one notice.

use std::time::Duration;

use super::notice::Notice;
use super::webhook::Webhook;
use crate::config::NotifyWay;
use crate::script::{self, Script};

/// How a hook is told.
#[derive(Clone, Debug)]
pub(super) enum Way {
    Script(Script),
    Webhook(Webhook),
}

impl Way {
    pub(super) fn new(way: &NotifyWay, timeout: Duration) -> Self {
        match way.clone() {
            NotifyWay::Script { path, arguments, user } => {
                Self::Script(Script { path, arguments, user, timeout })
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
            // Whose own file it may be is for a user's look-up to say, which may take long.
            Self::Script(Script { user: Some(_), .. }) | Self::Webhook(_) => Ok(()),
            Self::Script(script) => {
                script::inspect(&script.path, None).map_err(|error| error.to_string())
            }
        }
    }

    /// Whether the hook has taken it; where not, why.
    pub(super) async fn deliver(&self, notice: &Notice) -> Result<(), String> {
        let json = notice.json();
        match self {
            Self::Script(script) => {
                let run = script.run(&notice.arguments(), &notice.variables(), &json).await;
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
