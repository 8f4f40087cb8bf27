//! The machine as a whole: what the agent may do, what forbids it more, and the clock.

use std::path::PathBuf;

use crate::finding::Finding;

/// Capabilities that the agent uses, by their numbers (linux/capability.h), and what for.
const CAPABILITIES: [(u32, &str, &str); 5] = [
    (12, "CAP_NET_ADMIN", "attaching programs, the VIP's address, routes"),
    (13, "CAP_NET_RAW", "VRRP, announcements, probes"),
    (39, "CAP_BPF", "loading programs and maps"),
    (38, "CAP_PERFMON", "programs that read packets freely"),
    (21, "CAP_SYS_ADMIN", "the hooks for this node's own processes, the BPF file system"),
];
/// It includes what CAP_BPF and CAP_PERFMON allow.
const SYS_ADMIN: u32 = 21;

/// Whose rights are judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::doctor) struct Process {
    /// The agent's, where one runs; otherwise this one, as which an agent would be started.
    pub(in crate::doctor) agent: Option<i32>,
    /// CapEff of `/proc/PID/status`.
    pub(in crate::doctor) capabilities: Option<u64>,
    pub(in crate::doctor) root: bool,
    /// `/proc/PID/attr/current`, where a security module fills it in.
    pub(in crate::doctor) confinement: Option<String>,
}

/// Whether a process may do what an agent does.
pub(in crate::doctor) fn rights(process: &Process) -> Finding {
    const NAME: &str = "capabilities";
    let (subject, what) = match process.agent {
        Some(pid) => (format!("capabilities of the agent ({pid})"), "it"),
        None => ("capabilities".to_owned(), "an agent that is started like this command"),
    };
    let Some(effective) = process.capabilities else {
        return Finding::not_looked_at(NAME, subject, "/proc does not tell them", None);
    };
    let has = |bit: u32| effective >> bit & 1 == 1;
    let lacking = CAPABILITIES.iter().filter(|(bit, ..)| match bit {
        38 | 39 => !has(*bit) && !has(SYS_ADMIN),
        _ => !has(*bit),
    });
    let lacking: Vec<String> =
        lacking.map(|(_, name, purpose)| format!("{name} ({purpose})")).collect();
    if lacking.is_empty() {
        return Finding::good(NAME, subject, "all that an agent uses");
    }
    let lacking = lacking.join(", ");
    if process.agent.is_none() && !process.root {
        let why = format!("run by an ordinary user, without {lacking}");
        return Finding::not_looked_at(NAME, subject, why, Some("sudo lbctl doctor"));
    }
    Finding::bad(
        NAME,
        subject,
        format!("{what} lacks {lacking}"),
        "run it as root without a bounding set: in a unit no CapabilityBoundingSet= that leaves them \
         out, in a container --cap-add for each, or --privileged",
    )
}

/// What the kernel's security modules say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::doctor) struct Modules {
    /// SELinux: enforcing or permissive; none where there is none.
    pub(in crate::doctor) selinux_enforces: Option<bool>,
    /// Whether AppArmor is on.
    pub(in crate::doctor) apparmor: bool,
    /// Lines of the kernel's log or the audit log that deny something; none where neither can be read.
    pub(in crate::doctor) log: Option<Vec<String>>,
    /// `/sys/kernel/security/lockdown`.
    pub(in crate::doctor) lockdown: Option<String>,
}

/// The programs whose denials matter.
const COMMANDS: [&str; 2] = ["comm=\"lb-agent\"", "comm=\"lbctl\""];

/// Whether the log's line is a denial of a security module that the agent met.
pub(in crate::doctor) fn is_denial(line: &str) -> bool {
    let denies =
        (line.contains("avc:") && line.contains("denied")) || line.contains("apparmor=\"DENIED\"");
    denies && COMMANDS.iter().any(|command| line.contains(command))
}

/// Denials by SELinux and AppArmor.
pub(in crate::doctor) fn modules(modules: &Modules, process: &Process) -> Vec<Finding> {
    let mut findings = Vec::new();
    let log = modules.log.as_deref();
    let denials =
        |word: &str| log.map(|all| all.iter().filter(|l| l.contains(word)).collect::<Vec<_>>());
    if let Some(enforces) = modules.selinux_enforces {
        let domain = process.confinement.as_deref().unwrap_or("unknown");
        let found = format!(
            "SELinux {}, domain {domain}",
            if enforces { "enforcing" } else { "permissive" }
        );
        let remedy = "ausearch -m avc -c lb-agent | audit2allow -M lb && semodule -i lb.pp";
        findings.push(denied("selinux", "SELinux", found, enforces, denials("avc:"), remedy));
    }
    if modules.apparmor {
        let profile = process.confinement.as_deref().unwrap_or("unconfined");
        let enforces = profile.ends_with("(enforce)");
        let name = profile.split(" (").next().unwrap_or(profile);
        let found = format!("AppArmor is on, profile {profile}");
        let remedy = match enforces {
            true => format!("aa-complain {name}, or allow in its profile what the line names"),
            false => "aa-status: whose profile is it? Allow in it what the line names".to_owned(),
        };
        let denials = denials("apparmor=");
        findings.push(denied("apparmor", "AppArmor", found, true, denials, &remedy));
    }
    findings.extend(lockdown(modules.lockdown.as_deref()));
    findings
}

fn denied(
    name: &'static str,
    subject: &str,
    found: String,
    enforces: bool,
    denials: Option<Vec<&String>>,
    remedy: &str,
) -> Finding {
    match denials {
        None => {
            let why = format!("{found}; neither the kernel's log nor the audit log can be read");
            Finding::not_looked_at(name, subject, why, Some("sudo lbctl doctor"))
        }
        Some(denials) => match denials.last() {
            None => Finding::good(name, subject, format!("{found}; nothing of ours was denied")),
            Some(last) => {
                let found = format!("{found}; {} denials, the last: {last}", denials.len());
                match enforces {
                    true => Finding::bad(name, subject, found, remedy),
                    false => Finding::doubtful(name, subject, found, remedy),
                }
            }
        },
    }
}

/// It has one word in brackets: the level that is on. Our programs read packets and sockets, no memory of
/// the kernel's, which is what it would forbid.
fn lockdown(text: Option<&str>) -> Option<Finding> {
    let (_, rest) = text?.split_once('[')?;
    let (level, _) = rest.split_once(']')?;
    let found = format!("{level}; the programs do nothing that it forbids");
    Some(Finding::good("lockdown", "kernel lockdown", found))
}

/// The clock that certificates and logs go by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::doctor) struct Clock {
    /// Seconds since 1970.
    pub(in crate::doctor) now: u64,
    /// Whether the kernel says that something keeps it right (adjtimex(2)).
    pub(in crate::doctor) synchronised: bool,
}

/// The beginning of 2026: no build of this is older.
const BUILT: u64 = 1_767_225_600;

/// VRRP, leases and checks go by a clock that no setting moves; certificates do not.
pub(in crate::doctor) fn clock(clock: Clock, certificates: bool) -> Finding {
    const NAME: &str = "clock";
    let subject = "clock";
    let steps = "steps do not matter to VRRP, leases and checks";
    let remedy = "timedatectl set-ntp true (or run chronyd)";
    if clock.now < BUILT {
        let found = format!("it is wrong by years; {steps}, but no certificate is valid then");
        return Finding::bad(NAME, subject, found, remedy);
    }
    match (clock.synchronised, certificates) {
        (true, _) => Finding::good(NAME, subject, format!("kept right; {steps}")),
        (false, false) => {
            let found = format!(
                "nothing keeps it right, as the kernel says; {steps}, only to the log's times"
            );
            Finding::good(NAME, subject, found)
        }
        (false, true) => {
            let found = format!(
                "nothing keeps it right, as the kernel says: a clock that is wrong has certificates count as \
                 expired; {steps}"
            );
            Finding::doubtful(NAME, subject, found, remedy)
        }
    }
}

/// Where the agent is to pin things.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::doctor) struct Pins {
    pub(in crate::doctor) path: PathBuf,
    /// Whether it, or the nearest directory above it that is there, is on a BPF file system.
    pub(in crate::doctor) on_bpf: bool,
    /// Whether it lies where the agent mounts one by itself.
    pub(in crate::doctor) mountable: bool,
}

/// Whether it can.
pub(in crate::doctor) fn pins(pins: &Pins) -> Finding {
    const NAME: &str = "pins";
    let path = pins.path.display();
    let subject = format!("pins at {path}");
    match (pins.on_bpf, pins.mountable) {
        (true, _) => Finding::good(NAME, subject, "on a BPF file system"),
        (_, true) => {
            Finding::good(NAME, subject, "no BPF file system yet: the agent mounts one there")
        }
        _ => Finding::bad(
            NAME,
            subject,
            "not on a BPF file system: the agent does not start",
            format!("mkdir -p {path} && mount -t bpf bpf {path}"),
        ),
    }
}

/// The cgroup whose processes are to reach the VIP by hooks; the file's own, where it names one.
pub(in crate::doctor) fn cgroup(path: &std::path::Path, is_cgroup2: bool) -> Finding {
    let subject = format!("cgroup {}", path.display());
    match is_cgroup2 {
        true => Finding::good("cgroup", subject, "a directory of cgroup2"),
        false => Finding::doubtful(
            "cgroup",
            subject,
            "no directory of cgroup2: this node's own processes reach the VIP only where it is held",
            "findmnt -t cgroup2 says where one is: name one below it as `cgroup` in [host]",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    const ALL: u64 = 0x1ff_ffff_ffff;

    fn process(agent: Option<i32>, capabilities: u64, root: bool) -> Process {
        Process { agent, capabilities: Some(capabilities), root, confinement: None }
    }

    #[test]
    fn a_missing_capability_is_named_with_what_it_is_for() {
        assert_eq!(rights(&process(None, ALL, true)).severity, Severity::Good);
        let found = rights(&process(None, ALL & !(1 << 13), true));
        assert_eq!(found.severity, Severity::Bad);
        assert!(found.found.contains("CAP_NET_RAW") && !found.found.contains("CAP_BPF"));
        // CAP_SYS_ADMIN was enough before there was CAP_BPF.
        let old = ALL & !(1 << 38) & !(1 << 39);
        assert_eq!(rights(&process(None, old, true)).severity, Severity::Good);
    }

    #[test]
    fn an_ordinary_user_is_told_that_nothing_was_seen() {
        assert_eq!(rights(&process(None, 0, false)).severity, Severity::NotLookedAt);
        // But an agent that runs without rights is bad, whoever asks.
        assert_eq!(rights(&process(Some(7), 0, false)).severity, Severity::Bad);
    }

    // As Fedora 40's audit.log and Ubuntu 24.04's kernel log have them.
    const AVC: &str = "type=AVC msg=audit(1718000000.123:456): avc:  denied  { prog_load } for  pid=812 \
        comm=\"lb-agent\" scontext=system_u:system_r:init_t:s0 tcontext=system_u:system_r:init_t:s0 \
        tclass=bpf permissive=0";
    const APPARMOR: &str = "6,1029,9142421,-;audit: type=1400 audit(1718000000.123:77): \
        apparmor=\"DENIED\" operation=\"create\" class=\"net\" profile=\"lb-agent\" pid=901 \
        comm=\"lb-agent\" family=\"inet\" sock_type=\"raw\" protocol=112 requested_mask=\"create\" \
        denied_mask=\"create\"";

    #[test]
    fn denials_of_the_agent_are_found_and_others_are_not() {
        assert!(is_denial(AVC) && is_denial(APPARMOR));
        assert!(!is_denial(&AVC.replace("lb-agent", "sshd")));
        assert!(!is_denial(&APPARMOR.replace("DENIED", "ALLOWED")));
    }

    #[test]
    fn a_denial_is_bad_where_it_is_enforced() {
        let at = |enforces, log: &[&str]| {
            let log = Some(log.iter().map(|line| (*line).to_owned()).collect());
            let facts = Modules { selinux_enforces: Some(enforces), log, ..Modules::default() };
            modules(&facts, &process(None, ALL, true))[0].severity
        };
        assert_eq!(at(true, &[]), Severity::Good);
        assert_eq!(at(true, &[AVC]), Severity::Bad);
        assert_eq!(at(false, &[AVC]), Severity::Doubtful);
        assert_eq!(at(true, &[APPARMOR]), Severity::Good, "of another module");
    }

    #[test]
    fn an_apparmor_profile_that_denied_something_can_be_relaxed_by_its_name() {
        let facts =
            Modules { apparmor: true, log: Some(vec![APPARMOR.to_owned()]), ..Modules::default() };
        let confinement = Some("lb-agent (enforce)".to_owned());
        let found = modules(&facts, &Process { confinement, ..process(Some(901), ALL, true) });
        assert_eq!(found[0].severity, Severity::Bad);
        assert!(found[0].remedy.as_ref().unwrap().starts_with("aa-complain lb-agent,"));
    }

    #[test]
    fn without_a_log_nobody_knows_of_denials() {
        let facts = Modules { selinux_enforces: Some(true), ..Modules::default() };
        let found = modules(&facts, &process(None, ALL, true));
        assert_eq!(found[0].severity, Severity::NotLookedAt);
    }

    #[test]
    fn lockdown_is_told_by_the_level_that_is_on() {
        let facts = Modules {
            lockdown: Some("none [integrity] confidentiality".to_owned()),
            ..Modules::default()
        };
        let found = modules(&facts, &process(None, ALL, true));
        assert!(found[0].found.starts_with("integrity;"), "{found:?}");
    }

    #[test]
    fn a_clock_matters_to_certificates_alone() {
        let at = |now, synchronised, certificates| {
            clock(Clock { now, synchronised }, certificates).severity
        };
        assert_eq!(at(BUILT, true, true), Severity::Good);
        assert_eq!(at(BUILT, false, false), Severity::Good);
        assert_eq!(at(BUILT, false, true), Severity::Doubtful);
        assert_eq!(at(0, true, false), Severity::Bad);
    }

    #[test]
    fn pins_need_a_bpf_file_system_or_a_place_for_one() {
        let at = |on_bpf, mountable| pins(&Pins { path: "/p".into(), on_bpf, mountable }).severity;
        assert_eq!([at(true, false), at(false, true)], [Severity::Good; 2]);
        assert_eq!(at(false, false), Severity::Bad);
    }
}
