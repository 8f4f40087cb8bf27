//! What is found about a kernel, each with what follows from it and what to do. Pure: [`probe`](super::probe) asks.

use super::feature::{FEATURES, Feature, LOWEST, Need, Question};
use super::release::Release;
use crate::finding::{Finding, Severity};

/// What the system says beside the kernel's features.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    /// Where cgroup2 is mounted.
    pub cgroup2: Option<String>,
    /// Where it can be.
    pub cgroup2_place: &'static str,
    /// Where a BPF file system is mounted, or can be.
    pub bpf: Option<String>,
    /// `net.core.bpf_jit_enable`; nothing where the kernel does not say.
    pub jit: Option<u8>,
}

/// Everything, in the order in which kernels learnt it.
pub(super) fn findings(
    release: &str,
    ask: impl Fn(Question) -> Option<bool>,
    surroundings: &Surroundings,
) -> Vec<Finding> {
    let number = Release::read(release);
    let mut findings = vec![version(release, number)];
    findings.extend(FEATURES.iter().map(|feature| {
        let found = judge(feature, number, ask(feature.question));
        let severity = match (found.0, feature.need) {
            (true, _) => Severity::Good,
            (false, Need::Better) => Severity::Doubtful,
            (false, Need::Required) => Severity::Bad,
        };
        let lacking = severity != Severity::Good;
        let upgrade =
            format!("kernels have it from {} on (commit {})", feature.since, feature.commit);
        Finding {
            name: "kernel",
            subject: feature.name.to_owned(),
            severity,
            found: match lacking {
                true => format!("missing ({}): {}", found.1, feature.without),
                false => found.1,
            },
            remedy: lacking.then_some(upgrade),
        }
    }));
    findings.extend(mounted(surroundings));
    findings
}

fn version(release: &str, number: Option<Release>) -> Finding {
    let (severity, found) = match number {
        Some(number) if number >= LOWEST => {
            (Severity::Good, format!("Linux {release}; {LOWEST} and later are supported"))
        }
        Some(_) => (
            Severity::Doubtful,
            format!("Linux {release} is older than {LOWEST}, the oldest that is tested"),
        ),
        None => (Severity::Doubtful, format!("`{release}` is no release that is known")),
    };
    let remedy = (severity != Severity::Good).then(|| format!("run Linux {LOWEST} or later"));
    Finding { name: "kernel", subject: "kernel version".to_owned(), severity, found, remedy }
}

/// Whether it is there, and how that is known.
fn judge(feature: &Feature, number: Option<Release>, answer: Option<bool>) -> (bool, String) {
    match (answer, number) {
        (Some(answer), _) => (answer, "asked".to_owned()),
        (None, Some(number)) => (number >= feature.since, format!("by version: {}", feature.since)),
        (None, None) => (false, "neither asked nor known by version".to_owned()),
    }
}

fn mounted(surroundings: &Surroundings) -> [Finding; 3] {
    let finding = |(name, subject): (&'static str, &str),
                   place: &Option<String>,
                   without: Severity,
                   words: [&str; 2]| {
        let (severity, found) = match place {
            Some(place) => (Severity::Good, place.clone()),
            None => (without, words[0].to_owned()),
        };
        let remedy = place.is_none().then(|| words[1].to_owned());
        Finding { name, subject: subject.to_owned(), severity, found, remedy }
    };
    let mount_cgroup2 = format!("mount -t cgroup2 none {}", surroundings.cgroup2_place);
    let jit = match surroundings.jit {
        Some(0) => (Severity::Doubtful, "off: each packet costs several times as much"),
        Some(_) => (Severity::Good, "on"),
        // Kernels that always compile have no switch for everybody to read.
        None => (Severity::Good, "the kernel does not say"),
    };
    let jit_remedy = jit.0 != Severity::Good;
    [
        finding(
            ("cgroup2", "cgroup2"),
            &surroundings.cgroup2,
            Severity::Doubtful,
            [
                "not mounted: this node's own processes reach the VIP only where it is held",
                &mount_cgroup2,
            ],
        ),
        finding(
            ("bpf_file_system", "BPF file system"),
            &surroundings.bpf,
            Severity::Bad,
            ["neither mounted nor possible at /sys/fs/bpf", "mount -t bpf bpf /sys/fs/bpf"],
        ),
        Finding {
            name: "bpf_jit",
            subject: "compiler for programs".to_owned(),
            severity: jit.0,
            found: jit.1.to_owned(),
            remedy: jit_remedy.then(|| "sysctl -w net.core.bpf_jit_enable=1".to_owned()),
        },
    ]
}

/// One sentence about all: for a log, and for programs.
pub(super) fn summary(release: &str, findings: &[Finding]) -> String {
    let named = |severity| -> Vec<&str> {
        let found = findings.iter().filter(|finding| finding.severity == severity);
        found.map(|finding| finding.subject.as_str()).collect()
    };
    let (bad, doubtful) = (named(Severity::Bad), named(Severity::Doubtful));
    if !bad.is_empty() {
        return format!("Linux {release} lacks what is required: {}", bad.join(", "));
    }
    if !doubtful.is_empty() {
        return format!("Linux {release} will do, but for: {}", doubtful.join(", "));
    }
    format!("Linux {release} has everything")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: Surroundings =
        Surroundings { cgroup2: None, cgroup2_place: "/sys/fs/cgroup", bpf: None, jit: Some(1) };

    fn complete() -> Surroundings {
        let place = |text: &str| Some(text.to_owned());
        Surroundings {
            cgroup2: place("/sys/fs/cgroup"),
            bpf: place("/sys/fs/bpf"),
            ..COMPLETE.clone()
        }
    }

    fn told(release: &str, answer: Option<bool>) -> String {
        summary(release, &findings(release, |_| answer, &complete()))
    }

    #[test]
    fn a_kernel_lacks_what_came_later() {
        assert_eq!(told("6.18.44", None), "Linux 6.18.44 has everything");
        assert_eq!(
            told("6.1.0-56-amd64", None),
            "Linux 6.1.0-56-amd64 will do, but for: tcx, assigning sockets with SO_REUSEPORT"
        );
        assert_eq!(
            told("5.15.0", None),
            "Linux 5.15.0 lacks what is required: XDP on frames of several buffers, SYN cookies made by XDP"
        );
    }

    #[test]
    fn the_kernels_own_answer_counts_more_than_its_version() {
        // Features that nothing asks for go by version.
        let only_tcx = |question| (question != Question::None).then_some(question != Question::Tcx);
        let found = findings("6.12.0", only_tcx, &complete());
        assert_eq!(summary("6.12.0", &found), "Linux 6.12.0 will do, but for: tcx");
        let backported = |question| (question != Question::None).then_some(true);
        let found = findings("5.14.0-503.el9", backported, &complete());
        assert!(found.iter().all(|finding| finding.severity != Severity::Bad), "{found:?}");
    }

    #[test]
    fn everything_that_is_not_good_has_a_remedy() {
        let bare = Surroundings { jit: Some(0), ..COMPLETE };
        for finding in findings("4.19.0", |_| None, &bare) {
            let is_good = finding.severity == Severity::Good;
            assert_eq!(finding.remedy.is_none(), is_good, "{finding:?}");
        }
    }
}
