//! `lbctl check FILE`: is a configuration right, and what does it mean? Needs neither privileges
//! nor an agent.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::Outcome;
use super::failure::Failure;
use super::screen::{Screen, Tone};
use super::table::{Cell, Table};
use crate::config::{
    Backend, Check, Config, ConfigError, ConnectionLimit, DeliverySetting, Fault, Health, Lists,
    Notify, NotifyWay, Protocol, RateLimit, Service, Vrrp, Watched, duration_text,
};
use crate::discovery;
use crate::health::Schedule;
use crate::lists;
use crate::replica::{Key, KeyError};
use crate::script::trust::{self, Distrust};

/// A configuration with the most backends that are possible is smaller.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Problems that are shown to people: more come from a file that is no configuration at all.
const SHOWN_PROBLEMS_MAX: usize = 50;

/// Services, and backends of each, that are shown where the user does not ask for more.
const SHOWN_SERVICES_MAX: usize = 100;
const SHOWN_BACKENDS_MAX: usize = 50;

/// Check a configuration file and say what it means
///
/// Needs neither root nor a running agent. Everything that is wrong is shown with its place and
/// what to do about it.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "Examples:\n  \
    lbctl check lb.toml && sudo cp lb.toml /etc/lb/\n  \
    lbctl check -o json lb.toml | jq .problems")]
pub struct Arguments {
    #[arg(value_name = "FILE", default_value = "/etc/lb/lb.toml")]
    file: PathBuf,
}

/// For programs.
#[derive(Default, Serialize)]
pub(super) struct Verdict {
    pub(super) valid: bool,
    problems: Vec<ShownProblem>,
    /// Scripts that this machine's agent would not run.
    scripts: Vec<String>,
    /// Files of prefixes that are wrong.
    lists: Vec<String>,
    /// Files of secrets that this machine's agent would refuse.
    keys: Vec<String>,
    remarks: Vec<String>,
}

#[derive(Serialize)]
struct ShownProblem {
    line: usize,
    column: usize,
    message: String,
    remedy: Option<String>,
}

pub(super) fn run(arguments: &Arguments, screen: &mut Screen<'_>) -> Result<Outcome, Failure> {
    let (verdict, config) = judge(&read(&arguments.file)?);
    if !screen.data(&verdict)? {
        match &config {
            Ok(config) => summary(&arguments.file, config, &verdict, screen)?,
            Err(error) => refused(&arguments.file, error, screen)?,
        }
    }
    Ok(if verdict.valid { Outcome::Done } else { Outcome::Misused })
}

/// What is to be said of a text, and the configuration that it is.
pub(super) fn judge(text: &str) -> (Verdict, Result<Config, ConfigError>) {
    let config = Config::parse(text);
    let verdict = match &config {
        Ok(config) => {
            let mut verdict = Verdict { remarks: config.remarks(), ..Verdict::default() };
            verdict.remarks.extend(config.notify.iter().filter_map(unrunnable));
            scripts(config, &mut verdict);
            lists(config, &mut verdict);
            verdict.keys.extend(unusable_key(config));
            verdict.valid =
                verdict.scripts.is_empty() && verdict.lists.is_empty() && verdict.keys.is_empty();
            verdict
        }
        Err(error) => Verdict {
            problems: error.faults.iter().map(ShownProblem::of).collect(),
            ..Verdict::default()
        },
    };
    (verdict, config)
}

impl ShownProblem {
    fn of(fault: &Fault) -> Self {
        Self {
            line: fault.line,
            column: fault.column,
            message: fault.problem.to_string(),
            remedy: fault.problem.remedy(),
        }
    }
}

/// Why a hook's script would not be run, as far as this machine shows it: the file is for all nodes,
/// and the script may be on others only.
fn unrunnable(hook: &Notify) -> Option<String> {
    let NotifyWay::Script { path, user, .. } = &hook.way else { return None };
    let distrust = trust::check(path, user.as_deref()).err()?;
    Some(format!("hook `{}` would not be told anything by this machine: {distrust}", hook.name))
}

/// Looks at the scripts as they are on this machine.
fn scripts(config: &Config, verdict: &mut Verdict) {
    for track in &config.tracks {
        let Watched::Script(script) = &track.watched else { continue };
        let name = format!("track `{}`", track.name);
        let effect = "it would count as failing";
        trusted(&name, &script.path, &script.user, effect, verdict);
    }
    for service in config.services.iter().filter(|service| service.health.enabled) {
        let Check::Script(script) = &*service.health.check else { continue };
        let name = format!("the check of service `{}`", service.name);
        let effect = "its backends would not be checked";
        trusted(&name, &script.path, &script.user, effect, verdict);
    }
}

/// One that is not there may be on the nodes.
fn trusted(name: &str, path: &Path, user: &str, effect: &str, verdict: &mut Verdict) {
    match trust::check(path, Some(user)) {
        Ok(_) => {}
        Err(
            distrust @ (Distrust::Missing { .. }
            | Distrust::Unreadable { .. }
            | Distrust::NoUser { .. }
            | Distrust::UnknownUser { .. }),
        ) => {
            verdict.remarks.push(format!("{name} on this machine: {distrust}; on a node {effect}"))
        }
        Err(distrust) => verdict.scripts.push(format!("{name}: {distrust}")),
    }
}

/// Looks at the files of prefixes. One that is not there may be on the nodes.
fn lists(config: &Config, verdict: &mut Verdict) {
    for error in lists::check(config) {
        match error.is_missing() {
            true => verdict
                .remarks
                .push(format!("{error}; without it an agent on this machine would not start")),
            false => verdict.lists.push(error.to_string()),
        }
    }
}

/// What is wrong with the key of `[peers]`, as far as this machine shows it: it may be on the nodes only, where root
/// can read it.
fn unusable_key(config: &Config) -> Option<String> {
    match Key::read(&config.peers.as_ref()?.key_file) {
        Ok(_) | Err(KeyError::Unreadable { .. }) => None,
        Err(error) => Some(format!("`key_file` in [peers]: {error}")),
    }
}

/// The text of a file that somebody wrote.
pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let unreadable = |source| Failure::Unreadable { file: file.to_owned(), source };
    let mut bytes = Vec::new();
    let open = File::open(file).map_err(unreadable)?;
    open.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::TooLarge { file: file.to_owned(), most: FILE_BYTES_MAX });
    }
    String::from_utf8(bytes).map_err(|error| Failure::NotUtf8 {
        file: file.to_owned(),
        valid: error.utf8_error().valid_up_to(),
    })
}

/// Every problem with its place.
pub(super) fn refused(
    file: &Path,
    error: &ConfigError,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let label = screen.painted(Tone::Bad, "error:");
    for fault in error.faults.iter().take(SHOWN_PROBLEMS_MAX) {
        let report = fault.report(&file.display().to_string());
        let report = report.strip_prefix("error:").unwrap_or(&report);
        screen.line(&format!("{label}{report}"))?;
    }
    let count = error.faults.len();
    let problems = if count == 1 { "1 problem".to_owned() } else { format!("{count} problems") };
    let shown = if count > SHOWN_PROBLEMS_MAX {
        format!(" (the first {SHOWN_PROBLEMS_MAX} are shown)")
    } else {
        String::new()
    };
    screen.line(&format!("{problems}{shown}: {} would be refused", file.display()))
}

fn summary(
    file: &Path,
    config: &Config,
    verdict: &Verdict,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let valid = match verdict.valid {
        true => screen.painted(Tone::Good, "valid"),
        false => format!("valid, but {}", screen.painted(Tone::Bad, "not for this machine")),
    };
    screen.line(&format!("{} is {valid}\n", file.display()))?;
    let vips: Vec<String> = config.virtual_addresses.iter().map(IpAddr::to_string).collect();
    screen.line(&format!("virtual addresses  {}", vips.join(", ")))?;
    screen.line(&match &config.vrrp {
        Some(vrrp) => format!("elected by VRRP    {}", election(vrrp)),
        None => format!("held at first by   {}", config.active.as_deref().unwrap_or("nobody")),
    })?;
    let interfaces = match config.interfaces.len() {
        0 => "none until `lbctl attach`".to_owned(),
        _ => config.interfaces.join(", "),
    };
    screen.line(&format!("interfaces         {interfaces}\n"))?;
    screen.table(&nodes(config))?;
    let shown = if screen.is_wide() { usize::MAX } else { SHOWN_SERVICES_MAX };
    for service in config.services.iter().take(shown) {
        screen.line("")?;
        self::service(config, service, screen)?;
    }
    if let Some(more @ 1..) = config.services.len().checked_sub(shown) {
        screen.line(&format!("\n{more} more services (-o wide shows them)"))?;
    }
    if !config.tracks.is_empty() {
        screen.line("")?;
        screen.table(&tracks(config))?;
    }
    complaints(verdict, screen)
}

/// What is to be said of a file that is a configuration.
pub(super) fn complaints(verdict: &Verdict, screen: &mut Screen<'_>) -> Result<(), Failure> {
    for problem in verdict.scripts.iter().chain(&verdict.lists).chain(&verdict.keys) {
        let label = screen.painted(Tone::Bad, "error:");
        screen.line(&format!("\n{label} {problem}"))?;
    }
    for remark in &verdict.remarks {
        let label = screen.painted(Tone::Doubtful, "remark:");
        screen.line(&format!("\n{label} {remark}"))?;
    }
    Ok(())
}

fn election(vrrp: &Vrrp) -> String {
    let version = vrrp.version;
    let ids: Vec<String> = vrrp.routers.iter().map(|router| router.router_id.to_string()).collect();
    let routers = match ids.len() {
        1 => format!("router {}", ids[0]),
        _ => format!("routers {}", ids.join(", ")),
    };
    let interval = duration_text(vrrp.advertisement_interval);
    let how = if vrrp.unicast { ", unicast" } else { "" };
    let returns = match (vrrp.preempt, vrrp.preempt_delay) {
        (false, _) => "no preemption".to_owned(),
        (true, Duration::ZERO) => "preemption".to_owned(),
        (true, delay) => format!("preemption after {}", duration_text(delay)),
    };
    format!("version {version}, {routers}, every {interval}{how}, {returns}")
}

fn nodes(config: &Config) -> Table {
    let mut table = Table::new(["NODE", "ADDRESSES", "PRIORITY"]);
    for node in &config.nodes {
        let addresses: Vec<String> = node.addresses.iter().map(IpAddr::to_string).collect();
        table.row([
            Cell::from(&node.name),
            Cell::from(addresses.join(",")),
            Cell::from(node.priority),
        ]);
    }
    table
}

fn tracks(config: &Config) -> Table {
    let mut table = Table::new(["TRACK", "WATCHES", "WHILE IT FAILS"]);
    for track in &config.tracks {
        let effect = match track.weight {
            Some(weight) => format!("priority {weight}"),
            None => "the node resigns".to_owned(),
        };
        table.row([
            Cell::from(&track.name),
            Cell::from(track.watched.to_string()),
            Cell::from(effect),
        ]);
    }
    table
}

fn service(config: &Config, service: &Service, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let at: Vec<String> = service
        .addresses
        .iter()
        .map(|address| SocketAddr::new(*address, service.port).to_string())
        .collect();
    let Service { name, protocol, hash, .. } = service;
    let of_client = match hash {
        crate::config::Hash::Source => "address",
        crate::config::Hash::SourcePort => "address and port",
    };
    screen.line(&format!(
        "service {name}: {protocol} {}, clients divided by {of_client}, {}",
        at.join(", "),
        checks(&service.health)
    ))?;
    for line in protection(service).into_iter().chain(discovered(service)) {
        screen.line(&format!("  {line}"))?;
    }
    let primaries = service.backends.iter().filter(|backend| !backend.backup);
    let weights: u64 = primaries.map(|backend| u64::from(backend.weight)).sum();
    let mut table = Table::new(["BACKEND", "SHARE", "DELIVERY"]);
    let shown = if screen.is_wide() { usize::MAX } else { SHOWN_BACKENDS_MAX };
    for backend in service.backends.iter().take(shown) {
        // The file is valid: some weight is above 0.
        let share = f64::from(backend.weight) / weights.max(1) as f64;
        let share = match backend.backup {
            true => "backup".to_owned(),
            false => super::figures::share(share),
        };
        table.row([
            Cell::from(backend.address),
            Cell::from(share),
            Cell::from(delivery(config, backend)),
        ]);
    }
    screen.table(&table)?;
    match service.backends.len().checked_sub(shown) {
        Some(more @ 1..) => screen.line(&format!("{more} more backends (-o wide shows them)")),
        _ => Ok(()),
    }
}

/// Who tells of its backends.
fn discovered(service: &Service) -> Option<String> {
    let discover = service.discover.as_ref()?;
    let (source, most) = (&discover.source, discover.max_backends);
    let unbuilt = discovery::unbuilt(source).map_or_else(String::new, |why| format!("; {why}"));
    Some(format!("backends by {source}, {most} at most; it begins with these{unbuilt}"))
}

/// Whom the service refuses.
fn protection(service: &Service) -> Vec<String> {
    let mut lines = Vec::new();
    let Lists { allow, deny, allow_file, deny_file } = &service.lists;
    for (word, prefixes, file) in [("allowed", allow, allow_file), ("denied", deny, deny_file)] {
        let mut those: Vec<String> = Vec::new();
        if !prefixes.is_empty() {
            let count = prefixes.len();
            those.push(if count == 1 {
                prefixes[0].to_string()
            } else {
                format!("{count} prefixes")
            });
        }
        those.extend(file.iter().map(|file| format!("those of {}", file.display())));
        if !those.is_empty() {
            lines.push(format!("{word}: {}", those.join(" and ")));
        }
    }
    if service.lists.allows() {
        lines.push("everybody else is denied".to_owned());
    }
    lines.extend(service.rate_limit.as_ref().map(|limit| rate(service, limit)));
    lines.extend(service.connection_limit.as_ref().map(|limit| connections(service, limit)));
    lines.extend(service.affinity.map(|time| {
        format!("a client's datagrams stay with their backend for {}", duration_text(time))
    }));
    lines.extend(service.quic.map(|quic| {
        format!("quic connection ids of configuration {} name the backend", quic.config_rotation)
    }));
    lines
}

fn rate(service: &Service, limit: &RateLimit) -> String {
    let v4 = service.addresses.iter().any(IpAddr::is_ipv4);
    let what = match service.protocol {
        Protocol::Tcp => "new connections",
        Protocol::Udp => "datagrams",
    };
    let length = if v4 { limit.prefix_ipv4 } else { limit.prefix_ipv6 };
    format!("{} {what} a second from each /{length}, {} at once", limit.per_second, limit.burst)
}

fn connections(service: &Service, limit: &ConnectionLimit) -> String {
    let v4 = service.addresses.iter().any(IpAddr::is_ipv4);
    let length = if v4 { limit.prefix_ipv4 } else { limit.prefix_ipv6 };
    format!("at most {} connections at one time from each /{length}", limit.per_source)
}

fn checks(health: &Health) -> String {
    if !health.enabled {
        return "not checked".to_owned();
    }
    let noticed = Schedule::of(health).noticed_within();
    let too_few = match health.minimum_healthy {
        0 => "with none healthy, new connections are refused".to_owned(),
        1 => "with none healthy, all are used".to_owned(),
        minimum => format!("with fewer than {minimum} healthy, all are used"),
    };
    let how = match &*health.check {
        Check::Script(script) => format!("checked by {}", script.path.display()),
        Check::Tcp | Check::Http(_) => "checked".to_owned(),
    };
    let slowly = match health.slow_start {
        Duration::ZERO => String::new(),
        lasts => format!("; one that comes back starts slowly, for {}", duration_text(lasts)),
    };
    format!(
        "{how} every {} (a dead backend is out after {} at most; {too_few}{slowly})",
        duration_text(health.interval),
        duration_text(noticed)
    )
}

fn delivery(config: &Config, backend: &Backend) -> String {
    match (backend.delivery, config.node_of(backend.address.ip())) {
        (DeliverySetting::Nat, _) => "nat, as set".to_owned(),
        (_, Some(node)) => format!("local on {0}, direct from elsewhere", node.name),
        (_, None) => "nat: no [[node]] has the address".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../../tests/fixtures/config/taken/vrrp.toml");

    #[test]
    fn an_election_is_told_in_one_line() {
        let told = |text: &str| {
            let config = Config::parse(text).expect("a fixture that is taken");
            election(&config.vrrp.expect("the table is there"))
        };
        assert_eq!(told(FILE), "version 2, router 51, every 2s, unicast, preemption after 1m30s");
        let shortened: Vec<&str> = FILE.lines().take_while(|line| *line != "version = 2").collect();
        assert_eq!(told(&shortened.join("\n")), "version 3, router 51, every 100ms, no preemption");
    }
}
