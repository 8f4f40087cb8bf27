//! One node's keepalived file: what it says, as values with their places. Not for what several nodes say
//! together: that is `cluster`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::directive::{Directive, Place};
use super::instance::{self, Instance};
use super::keepalived;
use super::report::{Placed, Report};
use super::value::{number, only, seconds};

/// Names of directives of `global_defs`, and what takes their place.
const MEANINGLESS: &[(&[&str], &str)] = &[
    (
        &[
            "notification_email",
            "notification_email_from",
            "smtp_server",
            "smtp_connect_timeout",
            "smtp_helo_name",
            "smtp_alert",
            "smtp_alert_vrrp",
            "smtp_alert_checker",
            "email_faults",
            "no_email_faults",
        ],
        "no mails are sent: a [[notify]] runs a script, or calls a server, at each change",
    ),
    (
        &["enable_script_security"],
        "always so: a script that others could change is not run (docs/configuration.md, [[track]])",
    ),
    (
        &[
            "vrrp_garp_master_delay",
            "vrrp_garp_master_repeat",
            "vrrp_garp_master_refresh",
            "vrrp_garp_master_refresh_repeat",
            "vrrp_garp_lower_prio_delay",
            "vrrp_garp_lower_prio_repeat",
            "vrrp_garp_interval",
            "vrrp_gna_interval",
            "vrrp_garp_extra_if",
            "vrrp_min_garp",
        ],
        "addresses are announced in bursts, and again after each rival's advertisement",
    ),
    (
        &[
            "vrrp_priority",
            "vrrp_rt_priority",
            "vrrp_cpu_affinity",
            "vrrp_no_swap",
            "vrrp_process_name",
            "vrrp_rlimit_rttime",
            "vrrp_rlimit_rtime",
            "max_auto_priority",
            "min_auto_priority_delay",
            "process_names",
            "use_pid_dir",
            "instance",
            "bfd_rlimit_rttime",
            "checker_priority",
            "checker_no_swap",
            "checker_rt_priority",
        ],
        "the agent is one process, whose VRRP has a thread of its own",
    ),
    (
        &["vrrp_strict", "vrrp_skip_check_adv_addr", "vrrp_check_unicast_src"],
        "what is refused of advertisements is counted and named by `lbctl vrrp`",
    ),
    (
        &["vrrp_iptables", "vrrp_ipsets", "nftables", "dynamic_interfaces", "linkbeat_use_polling"],
        "the program in the kernel decides who answers for an address, without packet filters",
    ),
    (
        &[
            "enable_snmp_vrrp",
            "enable_snmp_keepalived",
            "enable_snmp_rfc",
            "snmp_socket",
            "enable_traps",
            "enable_dbus",
        ],
        "there are metrics for Prometheus ([metrics]) and an API on a socket ([control])",
    ),
    (
        &["lvs_sync_daemon", "lvs_timeouts", "lvs_flush", "lvs_flush_onstop"],
        "there is no IPVS, and no connection table to keep in step",
    ),
];

/// Blocks that keepalived has and the load balancer has not.
const FOREIGN_BLOCKS: &[(&[&str], &str)] = &[
    (
        &["virtual_server", "virtual_server_group"],
        "IPVS: write a [[service]] with this port, and its real servers as `backends`",
    ),
    (
        &["static_ipaddress", "static_routes", "static_rules"],
        "addresses, routes and rules of the node are for the system's own network files",
    ),
    (&["vrrp_track_process"], "watch the process by a [[track]] with a script"),
    (&["vrrp_track_file", "track_file"], "watch the file by a [[track]] with a script"),
    (&["bfd_instance"], "there is no BFD: short advertisements notice a dead node as soon"),
    (&["garp_group"], "addresses are announced in bursts by themselves"),
];

/// What a node's file says.
#[derive(Debug)]
pub(super) struct NodeFile {
    pub(super) file: Arc<str>,
    /// It has one argument. What became of it is noted when all files are known.
    pub(super) router_id: Option<Directive>,
    /// `vrrp_version`.
    pub(super) version: Option<Placed<u8>>,
    pub(super) script_user: Option<Placed<String>>,
    pub(super) scripts: Vec<Script>,
    pub(super) instances: Vec<Instance>,
}

/// A `vrrp_script` that some instance tracks.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) name: Placed<String>,
    pub(super) command: Option<Placed<Vec<String>>>,
    pub(super) interval: Option<Placed<Duration>>,
    pub(super) timeout: Option<Placed<Duration>>,
    pub(super) weight: Option<Placed<i16>>,
    pub(super) rise: Option<Placed<u32>>,
    pub(super) fall: Option<Placed<u32>>,
    pub(super) user: Option<Placed<String>>,
}

impl NodeFile {
    pub(super) fn router_id(&self) -> Option<(&str, &Place)> {
        let directive = self.router_id.as_ref()?;
        Some((directive.arguments.first()?, &directive.place))
    }

    /// The file's name without what is the same for most: `keepalived-master1.conf` is `master1`, and
    /// `master1/keepalived.conf` as well.
    pub(super) fn short_name(&self) -> Option<&str> {
        let path = Path::new(&*self.file);
        let stem = path.file_stem()?.to_str()?;
        let bare =
            stem.strip_prefix("keepalived").map(|rest| rest.trim_start_matches(['-', '_', '.']));
        match bare {
            Some("") => path.parent()?.file_name()?.to_str(),
            Some(rest) => Some(rest),
            None => Some(stem),
        }
    }
}

pub(super) fn read(file: &str, directives: &[Directive], report: &mut Report) -> NodeFile {
    let mut node = NodeFile {
        file: Arc::from(file),
        router_id: None,
        version: None,
        script_user: None,
        scripts: Vec::new(),
        instances: Vec::new(),
    };
    let tracked = tracked_scripts(directives);
    for directive in directives {
        match directive.name.as_str() {
            "global_defs" => global_defs(directive, &mut node, report),
            "vrrp_script" => script(directive, &tracked, &mut node, report),
            "vrrp_instance" => node.instances.extend(instance::read(directive, report)),
            "vrrp_sync_group" => report.meaningless(
                directive,
                "every node serves every packet, so that addresses need not move together; those of \
                 one [[vrrp.router]] do",
            ),
            "include" | "includer" | "includem" | "includew" => report.not_taken(
                directive,
                "not followed: put what it names in its place, and import again",
            ),
            name => match why(name, FOREIGN_BLOCKS) {
                Some(why) => report.not_taken(directive, why),
                None => report.unknown(directive),
            },
        }
    }
    node
}

/// The reason for a directive of this name.
pub(super) fn why(name: &str, table: &[(&[&str], &'static str)]) -> Option<&'static str> {
    table.iter().find(|(names, _)| names.contains(&name)).map(|(_, why)| *why)
}

fn tracked_scripts(directives: &[Directive]) -> Vec<&str> {
    let instances = directives.iter().filter(|directive| directive.name == "vrrp_instance");
    let blocks = instances.flat_map(Directive::children).filter(|d| d.name == "track_script");
    blocks.flat_map(Directive::children).map(|script| script.name.as_str()).collect()
}

fn global_defs(block: &Directive, node: &mut NodeFile, report: &mut Report) {
    report.entered(block, "what stands in it");
    for directive in block.children() {
        match directive.name.as_str() {
            "router_id" => match only(directive) {
                Ok(_) => {
                    if let Some(earlier) = node.router_id.replace(directive.clone()) {
                        report.meaningless(&earlier, "another one is said further down");
                    }
                }
                Err(why) => report.not_taken(directive, &why),
            },
            "vrrp_version" => {
                let read = number(directive, 2..=3);
                node.version = report.take(directive, "vrrp.version", read);
            }
            "script_user" => node.script_user = user(directive, report),
            name => match why(name, MEANINGLESS) {
                Some(why) => report.meaningless(directive, why),
                None => report.unknown(directive),
            },
        }
    }
}

/// `USER [GROUP]`: scripts have their user's own group here.
fn user(directive: &Directive, report: &mut Report) -> Option<Placed<String>> {
    let read = match &directive.arguments[..] {
        [user] => Ok(user.clone()),
        [user, group] => {
            report.part_not_taken(directive, group, "a script runs with its user's own group");
            Ok(user.clone())
        }
        _ => Err("not understood: it should be a user".to_owned()),
    };
    report.take(directive, "track.user", read)
}

fn script(block: &Directive, tracked: &[&str], node: &mut NodeFile, report: &mut Report) {
    let Ok(name) = name_of(block) else {
        return report.not_taken(block, "not understood: it should be vrrp_script NAME { .. }");
    };
    if !tracked.contains(&name) {
        return report.meaningless(block, "no vrrp_instance of this file tracks the script");
    }
    report.entered(block, "[[track]]");
    let mut script = Script {
        name: Placed::new(name.to_owned(), &block.place),
        command: None,
        interval: None,
        timeout: None,
        weight: None,
        rise: None,
        fall: None,
        user: None,
    };
    for directive in block.children() {
        let d = directive;
        match d.name.as_str() {
            "script" => script.command = report.take(d, "track.script", command(&d.arguments)),
            "interval" => script.interval = report.take(d, "track.interval", seconds(d)),
            "timeout" => script.timeout = report.take(d, "track.timeout", seconds(d)),
            "weight" => script.weight = report.take(d, "track.weight", weight(&d.arguments)),
            "rise" => script.rise = report.take(d, "track.rise", number(d, 1..=100)),
            "fall" => script.fall = report.take(d, "track.fall", number(d, 1..=100)),
            "user" => script.user = user(d, report),
            "init_fail" => {
                report.meaningless(d, "the first run decides, and until then the node stays Backup")
            }
            _ => report.unknown(d),
        }
    }
    node.scripts.push(script);
}

/// The name of a block: `vrrp_script NAME {`.
pub(super) fn name_of(block: &Directive) -> Result<&str, ()> {
    match (&block.arguments[..], &block.block) {
        ([name], Some(_)) => Ok(name),
        _ => Err(()),
    }
}

/// `WEIGHT`, from -254 to 254. 0 is none.
pub(super) fn weight(arguments: &[String]) -> Result<i16, String> {
    let wanted = || "not understood: it should be a weight from -254 to 254".to_owned();
    match arguments {
        [weight] => weight.parse().ok().filter(|w| (-254..=254).contains(w)).ok_or_else(wanted),
        [_, reverse] if reverse == "reverse" => {
            Err("a weight cannot be turned round: let the script answer the opposite".to_owned())
        }
        _ => Err(wanted()),
    }
}

/// A program and its arguments, as keepalived runs them: from the root, or by the `PATH`.
pub(super) fn command(arguments: &[String]) -> Result<Vec<String>, String> {
    let words = match arguments {
        [text] => keepalived::command(text),
        several => Some(several.to_vec()),
    };
    let plain = |word: &String| {
        word.chars().all(|c| c.is_ascii_alphanumeric() || "/._+-".contains(c)) && !word.is_empty()
    };
    match words {
        Some(words) if words.first().is_some_and(plain) => Ok(match words[0].starts_with('/') {
            true => words,
            // It looks the program up as keepalived does.
            false => std::iter::once("/usr/bin/env".to_owned()).chain(words).collect(),
        }),
        _ => Err(
            "not understood: it should be a program and its arguments; put what it does into a \
                  script of its own"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_after_its_node() {
        let name = |file: &str| {
            let node = read(file, &[], &mut Report::default());
            node.short_name().map(str::to_owned)
        };
        for (file, expected) in [
            ("/etc/master1.conf", Some("master1")),
            ("keepalived-master2.conf", Some("master2")),
            ("/tmp/master3/keepalived.conf", Some("master3")),
            ("keepalived.conf", None),
        ] {
            assert_eq!(name(file).as_deref(), expected, "{file}");
        }
    }

    #[test]
    fn a_command_without_a_path_is_looked_up_as_before() {
        let read = |text: &str| command(&[text.to_owned()]).map(|words| words.join("|"));
        assert_eq!(read("/bin/check 8443").as_deref(), Ok("/bin/check|8443"));
        assert_eq!(read("killall -0 nginx").as_deref(), Ok("/usr/bin/env|killall|-0|nginx"));
        for text in ["</dev/tcp/127.0.0.1/80", "", "$CHECK", "/bin/sh -c 'x"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
