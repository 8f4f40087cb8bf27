//! What was found when something was looked at, how bad it is, and what to do: the words of `lbctl doctor`, and of
//! the agent about the kernel. Pure.

use serde::Serialize;

/// In the order in which they count for the whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Good,
    /// Nobody knows. The finding says why.
    NotLookedAt,
    /// It works, with something worse.
    Doubtful,
    /// It does not work.
    Bad,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What was looked at, for programs: the same in every version. Several findings may have one.
    pub name: &'static str,
    pub subject: String,
    pub severity: Severity,
    /// What was found, and how.
    pub found: String,
    /// What to do, as it can be typed where that is possible. Only where something is doubtful or bad, or to be
    /// looked at in another way.
    pub remedy: Option<String>,
}

impl Finding {
    pub(crate) fn good(
        name: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        let (subject, found) = (subject.into(), found.into());
        Self { name, subject, severity: Severity::Good, found, remedy: None }
    }

    pub(crate) fn doubtful(
        name: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Doubtful,
            remedy: Some(remedy.into()),
            ..Self::good(name, subject, found)
        }
    }

    pub(crate) fn bad(
        name: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let severity = Severity::Bad;
        Self { severity, ..Self::doubtful(name, subject, found, remedy) }
    }

    /// `why` nobody knows, and how to find out, where there is a way.
    pub(crate) fn not_looked_at(
        name: &'static str,
        subject: impl Into<String>,
        why: impl Into<String>,
        remedy: Option<&str>,
    ) -> Self {
        Self {
            severity: Severity::NotLookedAt,
            remedy: remedy.map(str::to_owned),
            ..Self::good(name, subject, why)
        }
    }
}
