//! `lbctl doctor`: what is wrong with this machine, its network and its file, before and after installation, each
//! with what to do. [`look`] gathers facts, [`judge`] says what follows from them (pure), and [`examine`] has the one
//! after the other.
//!
//! It changes nothing. What it sends are questions: ARP probes and solicitations for the virtual addresses, echoes to
//! the other nodes, TLS handshakes with backends.

mod judge;
mod look;
mod patient;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::config::{Check, Config};
use crate::finding::{Finding, Severity};
use crate::kernel::Knowledge;
use crate::netlink::{Mac, Netlink, Network};
use judge::advertisement::{self, Listening};
use judge::{
    address, agent, certificate, election, firewall, interface, keeper, machine, path, program,
    script,
};
use look::claim::Claims;
use patient::Patient;

/// What is to be looked at.
#[derive(Clone, Debug)]
pub struct Request {
    pub file: File,
    /// Instead of those of the file.
    pub interface: Option<String>,
    /// How long to listen to VRRP; zero is not at all. None: three intervals of the file.
    pub listen: Option<Duration>,
    /// Whether native XDP is tried on the interfaces, which takes their links down for a moment with some drivers.
    pub try_attach: bool,
    pub socket: PathBuf,
}

/// The configuration, as far as there is one.
#[derive(Clone, Debug)]
pub enum File {
    /// The machine is looked at alone.
    Absent,
    /// It could not be read: why, and whether root could.
    Unread(String),
    /// It is no configuration: how many problems it has, and what shows them.
    Refused {
        problems: usize,
        path: PathBuf,
    },
    Read(Box<Config>),
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// The kernel's release.
    pub kernel: String,
    /// One sentence.
    pub summary: String,
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// Whether something does not work.
    pub fn is_bad(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Bad)
    }
}

/// Looks at everything, and says what it means. Takes as long as it listens, or two seconds.
pub async fn examine(request: Request) -> Diagnosis {
    let knowledge = blocking(Knowledge::gather).await;
    let mut findings = Vec::new();
    let mut release = "unknown".to_owned();
    if let Some(knowledge) = knowledge {
        release = knowledge.release;
        findings.extend(knowledge.findings);
    }
    findings.extend(of_file(&request.file));
    match Patient::meet(request).await {
        Ok(patient) => findings.extend(patient.examine().await),
        Err(why) => findings.push(Finding::not_looked_at("network", "network", why, None)),
    }
    let summary = summary(&release, &findings);
    Diagnosis { kernel: release, summary, findings }
}

/// Runs what blocks on a thread for that. None where it panicked, which is a mistake of ours.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

fn of_file(file: &File) -> Option<Finding> {
    const NAME: &str = "configuration";
    let subject = "configuration";
    match file {
        File::Absent => Some(Finding::not_looked_at(
            NAME,
            subject,
            "there is none: what depends on it is left out",
            Some("lbctl doctor --config FILE"),
        )),
        File::Unread(why) => {
            Some(Finding::not_looked_at(NAME, subject, why, Some("sudo lbctl doctor")))
        }
        File::Refused { problems, path } => Some(Finding::bad(
            NAME,
            subject,
            format!(
                "{} has {problems} problems, and an agent does not start with it",
                path.display()
            ),
            format!("lbctl check {}", path.display()),
        )),
        File::Read(_) => None,
    }
}

/// The worst, by their subjects.
fn summary(release: &str, findings: &[Finding]) -> String {
    let named = |severity| -> Vec<&str> {
        let found = findings.iter().filter(|finding| finding.severity == severity);
        found.map(|finding| finding.subject.as_str()).collect()
    };
    let mut parts = Vec::new();
    for (severity, word) in [(Severity::Bad, "bad"), (Severity::Doubtful, "doubtful")] {
        let subjects = named(severity);
        if !subjects.is_empty() {
            parts.push(format!("{word}: {}", subjects.join(", ")));
        }
    }
    if parts.is_empty() {
        parts.push("nothing wrong was found".to_owned());
    }
    match named(Severity::NotLookedAt).len() {
        0 => {}
        unseen => parts.push(format!("{unseen} not looked at")),
    }
    format!("Linux {release}; {}", parts.join("; "))
}

/// How long to listen: three intervals, after which an Active router was heard, and a little more.
fn listening_time(config: Option<&Config>) -> Duration {
    const WITHOUT_A_FILE: Duration = Duration::from_secs(3);
    const LEAST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(15);
    match config.map(|config| config.vrrp.as_ref()) {
        Some(Some(vrrp)) => {
            (vrrp.advertisement_interval * 3 + Duration::from_millis(200)).clamp(LEAST, MOST)
        }
        // It is compared with nothing.
        Some(None) => Duration::ZERO,
        None => WITHOUT_A_FILE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_the_worst_first() {
        let all = [
            Finding::doubtful("a", "one", "", ""),
            Finding::bad("a", "two", "", ""),
            Finding::good("a", "three", ""),
            Finding::not_looked_at("a", "four", "", None),
        ];
        let expected = "Linux 6.1; bad: two; doubtful: one; 1 not looked at";
        assert_eq!(summary("6.1", &all), expected);
        assert_eq!(summary("6.1", &all[2..3]), "Linux 6.1; nothing wrong was found");
    }

    #[test]
    fn three_intervals_are_listened_to_within_reason() {
        let config = |keys: &str| {
            let text = format!(
                "virtual_addresses = [\"192.0.2.1\"]\n{keys}\n\
                 [[node]]\nname = \"a\"\naddress = \"192.0.2.2\"\n\
                 [[service]]\nname = \"s\"\nport = 80\nbackends = [\"192.0.2.2:8080\"]\n"
            );
            Config::parse(&text).unwrap_or_else(|error| panic!("{}", error.report("x")))
        };
        let of = |keys: &str| listening_time(Some(&config(keys)));
        let vrrp = "[vrrp]\nrouter_id = 51\n";
        assert_eq!(of(vrrp), Duration::from_secs(1));
        let two = format!("{vrrp}version = 2\nadvertisement_interval = \"2s\"");
        assert_eq!(of(&two), Duration::from_millis(6200));
        assert_eq!(of(""), Duration::ZERO);
        assert_eq!(listening_time(None), Duration::from_secs(3));
    }
}
