//! `doctor`: faults made on purpose in a node's namespace, and on its link, are each found by `lbctl doctor`, and gone
//! once the remedy that it names was typed. A sound node gives no finding, without an agent and with one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_agent::control::api::TrackState;
use serde::Deserialize;

use super::shape::{Family, NIC, address, backend, vip};
use super::stage::Stage;
use crate::backend::{Backend, Mode};
use crate::lab::agent::{Agent, binary};
use crate::lab::certificate::Certificate;
use crate::lab::peer::keepalived::Keepalived;
use crate::lab::{Host, Lab, Pass};

const LIMIT: Duration = Duration::from_secs(20);
const NODE: &str = "master1";
const PARTNER: &str = "master2";
const STRANGER: &str = "client1";
/// The node's other interface, by which it has its default route in the end.
const BACK: &str = "ens34";
/// What a machine of the lab cannot help: its kernel, and a clock that nobody keeps.
const OF_THE_MACHINE: [&str; 2] = ["kernel", "clock"];

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let ward = Ward::open(stage)?;
    stage.step("a sound machine, before installation");
    let sound = ward.write("sound.toml", &File::default().text())?;
    let found = ward.examine(&ward.node, &sound, &["--try-attach"])?;
    claim_sound(stage, "a sound machine without an agent", &found);
    let tried = found.findings.iter().find(|finding| finding.name == "xdp_mode");
    let natively = tried.is_some_and(|finding| finding.found.contains("natively"));
    stage.claim("native XDP is tried where that was asked for", natively, format!("{tried:?}"));
    let mended = ward.many_at_once(stage)?;
    ward.by_themselves(stage)?;
    ward.with_an_agent(stage, &mended.text)?;
    mended.partner.stop()
}

/// One finding of `lbctl doctor -o json`.
#[derive(Clone, Debug, Deserialize)]
struct Finding {
    name: String,
    subject: String,
    severity: String,
    found: String,
    remedy: Option<String>,
}

/// An examination.
#[derive(Debug)]
struct Found {
    findings: Vec<Finding>,
    failed: bool,
}

impl Found {
    /// What is doubtful or bad, but for what the lab's machine cannot help.
    fn wrong(&self) -> impl Iterator<Item = &Finding> {
        let wrong =
            self.findings.iter().filter(|f| matches!(f.severity.as_str(), "doubtful" | "bad"));
        wrong.filter(|finding| !OF_THE_MACHINE.contains(&finding.name.as_str()))
    }

    fn names(&self) -> BTreeSet<&str> {
        self.wrong().map(|finding| finding.name.as_str()).collect()
    }

    /// The first that is wrong under a name, and whose subject has the word.
    fn one(&self, name: &str, word: &str) -> Result<&Finding> {
        let found =
            self.wrong().find(|finding| finding.name == name && finding.subject.contains(word));
        found.with_context(|| format!("no {name} of {word} among {:?}", self.names()))
    }

    /// What a person types of its remedy: the command, up to where it says what else would do.
    fn command(&self, name: &str, word: &str) -> Result<String> {
        let remedy = self.one(name, word)?.remedy.as_deref().context("no remedy")?;
        let command = remedy.split(", ").next().unwrap_or(remedy);
        Ok(command.trim_end_matches(" here").to_owned())
    }
}

fn claim_sound(stage: &mut Stage, who: &str, found: &Found) {
    let wrong: Vec<&Finding> = found.wrong().collect();
    let seen = format!("{} looked at; {wrong:?}", found.findings.len());
    stage.claim(&format!("{who} gives no finding"), wrong.is_empty() && !found.failed, seen);
}

/// What the file says, as far as faults are in it.
struct File {
    router_id: u8,
    priorities: [u8; 2],
    preempt: bool,
    scripts: Vec<PathBuf>,
    /// The authority by which the backend is checked by HTTPS.
    authority: Option<PathBuf>,
    /// More tables.
    more: String,
    family: Family,
}

impl Default for File {
    fn default() -> Self {
        let (scripts, authority, more) = (Vec::new(), None, String::new());
        Self {
            router_id: 51,
            priorities: [100, 90],
            preempt: false,
            scripts,
            authority,
            more,
            family: Family::V4,
        }
    }
}

impl File {
    fn text(&self) -> String {
        let Self { router_id, preempt, family, .. } = self;
        let mut text = format!(
            "interface = \"{NIC}\"\nvirtual_addresses = [\"{}\"]\n\
             [vrrp]\nrouter_id = {router_id}\npreempt = {preempt}\n",
            vip(*family)
        );
        for (name, priority) in [NODE, PARTNER].into_iter().zip(self.priorities) {
            let own = address(name, *family);
            let _ = write!(
                text,
                "[[node]]\nname = \"{name}\"\naddress = \"{own}\"\npriority = {priority}\n"
            );
        }
        let server = backend(PARTNER, Mode::Https, *family);
        let _ =
            write!(text, "[[service]]\nname = \"api\"\nport = 8443\nbackends = [\"{server}\"]\n");
        if let Some(authority) = &self.authority {
            let _ =
                write!(text, "[service.health]\nhttps = \"/readyz\"\nca_file = {authority:?}\n");
        }
        for (number, script) in self.scripts.iter().enumerate() {
            let _ = write!(
                text,
                "[[track]]\nname = \"script{number}\"\nscript = [{script:?}]\nweight = -1\n"
            );
        }
        text.push_str(&self.more);
        text
    }
}

/// What makes the faults.
struct Faults {
    file: File,
    partner: Agent,
    serving: Backend,
    keepalived: Keepalived,
    pass: Pass,
}

/// What is there once the remedies were applied.
struct Mended {
    text: String,
    partner: Agent,
    _serving: Backend,
    _keepalived: Keepalived,
}

/// The machines.
struct Ward {
    node: Host,
    partner: Host,
    stranger: Host,
    lab: Lab,
}

impl Ward {
    fn open(stage: &Stage) -> Result<Self> {
        let lab = Lab::new(stage.tool())?;
        let own = |name: &str| {
            Family::BOTH.map(|family| {
                let length = if family == Family::V4 { 24 } else { 64 };
                format!("{}/{length}", address(name, family))
            })
        };
        let host = |name: &str| lab.host(name).interface(NIC, "lan", &own(name));
        let node = host(NODE).interface(BACK, "back", &["10.9.0.1/24"]).start()?;
        Ok(Self { node, partner: host(PARTNER).start()?, stranger: host(STRANGER).start()?, lab })
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.lab.directory().join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {name}"))?;
        Ok(path)
    }

    /// A script with these permissions.
    fn script(&self, name: &str, mode: u32) -> Result<PathBuf> {
        let path = self.write(name, "#!/bin/sh\nexit 0\n")?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        Ok(path)
    }

    /// `lbctl doctor` in a machine.
    fn examine(&self, host: &Host, file: &Path, more: &[&str]) -> Result<Found> {
        let mut command = Command::new(binary("lbctl")?);
        command.args(self.arguments(host, file)).args(more);
        self.findings(host, command)
    }

    fn arguments(&self, host: &Host, file: &Path) -> Vec<String> {
        let words =
            ["-o", "json", "--socket", &host.directory().join("lb.sock").display().to_string()]
                .map(str::to_owned);
        let doctor = ["doctor".to_owned(), "--config".to_owned(), file.display().to_string()];
        words.into_iter().chain(doctor).collect()
    }

    /// A shell's line with `lbctl doctor` at its end, for what comes before it there.
    fn line(&self, host: &Host, file: &Path, before: &str) -> Result<String> {
        let lbctl = binary("lbctl")?.display().to_string();
        Ok(format!("{before} {lbctl} {} --seconds 0", self.arguments(host, file).join(" ")))
    }

    fn findings(&self, host: &Host, command: Command) -> Result<Found> {
        let mut process = host.spawn("doctor", command)?;
        let mut text = String::new();
        // It ends with its output.
        while let Ok(line) = process.line(LIMIT) {
            text.push_str(&line);
        }
        let status = process.wait(LIMIT)?;
        #[derive(Deserialize)]
        struct Diagnosis {
            findings: Vec<Finding>,
        }
        let diagnosis: Diagnosis = serde_json::from_str(&text)
            .with_context(|| format!("no diagnosis ({status}): {text} {}", process.log()))?;
        Ok(Found { findings: diagnosis.findings, failed: status.code() == Some(1) })
    }

    fn shell(&self, host: &Host, line: &str) -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        let mut process = host.spawn("typed", command)?;
        let status = process.wait(LIMIT)?;
        ensure!(status.success(), "`{line}` failed ({status}): {}", process.log());
        Ok(())
    }

    /// Faults that do not hide one another, in one examination; and then their remedies.
    fn many_at_once(&self, stage: &mut Stage) -> Result<Mended> {
        stage.step("making faults");
        let faults = self.make_faults()?;
        stage.step("looking for them");
        let file = self.write("faults.toml", &faults.file.text())?;
        let found = self.examine(&self.node, &file, &[])?;
        claim_found(stage, &found);
        stage.step("typing the remedies");
        let mended = self.mend(faults, &found)?;
        let file = self.write("mended.toml", &mended.text)?;
        let after = self.examine(&self.node, &file, &[])?;
        claim_sound(stage, "the machine with all remedies applied", &after);
        Ok(mended)
    }

    fn make_faults(&self) -> Result<Faults> {
        let (vip, server) = (vip(Family::V4), backend(PARTNER, Mode::Https, Family::V4));
        let wrong = Certificate::create(self.partner.directory(), &[server.ip()])?;
        let serving =
            Backend::start(&self.lab, &self.partner, Mode::Https, &[server], Some(&wrong))?;
        let keepalived = Keepalived::start(&self.stranger, &another_group())?;
        let other_id = File { router_id: 52, ..File::default() };
        let mut partner = Agent::start(&self.partner, &other_id.text())?;
        partner.wait_until_active(LIMIT)?;
        self.stranger.namespace().ip(&format!("address add {vip}/32 dev {NIC}"))?;
        self.node.namespace().ip(&format!(
            "link set dev {NIC} mtu 9000\naddress add {vip}/32 dev {BACK}\n\
             route add default via 10.9.0.2 dev {BACK}"
        ))?;
        self.node.namespace().sysctl(&format!("net.ipv4.conf.{NIC}.rp_filter"), "1")?;
        let pass = self.node.namespace().within(|| Pass::attach(NIC))?;
        self.shell(
            &self.node,
            &format!(
                "tc qdisc add dev {NIC} clsact && \
                 tc filter add dev {NIC} ingress pref 7 bpf bytecode '1,6 0 0 0,' && \
                 nft 'add table inet guard; \
                 add chain inet guard in {{ type filter hook input priority 0; }}; \
                 add rule inet guard in meta l4proto 112 drop'"
            ),
        )?;
        let scripts = vec![self.script("open.sh", 0o777)?, self.script("closed.sh", 0o644)?];
        let file = File {
            priorities: [100, 100],
            preempt: true,
            scripts,
            authority: Some(wrong.authority),
            ..File::default()
        };
        keepalived.await_master()?;
        Ok(Faults { file, partner, serving, keepalived, pass })
    }

    fn mend(&self, faults: Faults, found: &Found) -> Result<Mended> {
        let Faults { mut file, partner, serving, keepalived, pass } = faults;
        for (name, word) in [
            ("path_mtu", PARTNER),
            ("vip_place", "this node"),
            ("rp_filter", NIC),
            ("foreign_program", "tc ingress"),
            ("vrrp_filtered", "firewall"),
            ("script", "script0"),
            ("script", "script1"),
        ] {
            self.shell(&self.node, &found.command(name, word)?)?;
        }
        let elsewhere = found.command("vip_holders", "answers")?;
        let elsewhere = elsewhere.rsplit(": ").next().unwrap_or_default().replace("INTERFACE", NIC);
        self.shell(&self.stranger, &elsewhere)?;
        // `xdp off` is not for what a link holds: whoever made that ends.
        ensure!(found.command("foreign_program", "XDP")?.starts_with("bpftool link detach id"));
        drop(pass);
        file.router_id = number(&found.command("router_id_differs", PARTNER)?, "router_id = ")?;
        let other = found.one("preemption", "priorities")?.remedy.as_deref().unwrap_or_default();
        file.priorities[1] = number(other, "priority = ")?;
        file.preempt = false;
        serving.kill()?;
        let (vip, server) = (vip(Family::V4), backend(PARTNER, Mode::Https, Family::V4));
        let right = Certificate::create(self.partner.directory(), &[server.ip(), vip])?;
        let serving =
            Backend::start(&self.lab, &self.partner, Mode::Https, &[server], Some(&right))?;
        Ok(Mended { text: file.text(), partner, _serving: serving, _keepalived: keepalived })
    }

    /// Faults of a process' surroundings, each in surroundings of its own. Nobody listens: that was looked at.
    fn by_themselves(&self, stage: &mut Stage) -> Result<()> {
        stage.step("no BPF file system, no cgroup2, no rights, no IPv6");
        let pins = self.lab.directory().join("pins");
        let more = format!("[paths]\nbpf = {pins:?}\n[host]\ncgroup = \"/proc\"\n");
        let bare = self.write("bare.toml", &File { more, ..File::default() }.text())?;
        let file = self.write("good.toml", &File::default().text())?;
        let of_v6 = File { family: Family::V6, ..File::default() };
        let of_v6 = self.write("ipv6.toml", &of_v6.text())?;
        let private = "for place in $(findmnt -rno TARGET -t cgroup2); do umount -l $place; done;";
        let limited = "setpriv --bounding-set=-net_raw --inh-caps=-net_raw";
        let shown = self.lab.directory().join("lbctl");
        std::fs::copy(binary("lbctl")?, &shown).context("a copy that anybody may run")?;
        let ordinary = self.arguments(&self.node, &file).join(" ");
        let ordinary = format!(
            "exec setpriv --reuid=65534 --regid=65534 --clear-groups {} {ordinary} --seconds 0",
            shown.display()
        );
        let lines = [
            self.line(&self.node, &bare, private)?,
            self.line(&self.node, &file, limited)?,
            ordinary,
        ];
        self.partner.namespace().sysctl(&format!("net.ipv6.conf.{NIC}.disable_ipv6"), "1")?;
        let (of_lines, without_v6) = std::thread::scope(|scope| {
            let threads: Vec<_> =
                lines.iter().map(|line| scope.spawn(|| self.privately(&self.node, line))).collect();
            let without_v6 = self.examine(&self.partner, &of_v6, &["--seconds", "0"]);
            (threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>(), without_v6)
        });
        let mut of_lines = of_lines.into_iter().map(|found| found.expect("no panic"));
        let mut next = || of_lines.next().context("an examination")?;
        let (bare_found, limited_found, ordinary_found) = (next()?, next()?, next()?);
        let without_v6 = without_v6?;
        for name in ["pins", "cgroup", "cgroup2"] {
            claim_one(stage, &bare_found, name);
        }
        claim_one(stage, &limited_found, "capabilities");
        claim_one(stage, &without_v6, "ipv6");
        claim_ordinary(stage, &ordinary_found);

        stage.step("typing the remedies");
        let mend: Vec<String> = ["pins", "cgroup2"]
            .iter()
            .map(|name| bare_found.command(name, ""))
            .collect::<Result<_>>()?;
        let mended = self.line(&self.node, &bare, &format!("{private} {};", mend.join("; ")))?;
        self.shell(&self.partner, &without_v6.command("ipv6", "")?)?;
        let (after, with_v6) = std::thread::scope(|scope| {
            let after = scope.spawn(|| self.privately(&self.node, &mended));
            let with_v6 = self.examine(&self.partner, &of_v6, &["--seconds", "0"]);
            (after.join().expect("no panic"), with_v6)
        });
        let (after, with_v6) = (after?, with_v6?);
        for (found, name) in [(&after, "pins"), (&after, "cgroup2"), (&with_v6, "ipv6")] {
            let gone = !found.names().contains(name);
            stage.claim(
                &format!("{name}: gone once its remedy was typed"),
                gone,
                format!("{:?}", found.names()),
            );
        }
        Ok(())
    }

    /// Runs a shell's line, which ends with `lbctl doctor`, with mounts of its own.
    fn privately(&self, host: &Host, line: &str) -> Result<Found> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", line]);
        self.findings(host, command)
    }

    fn with_an_agent(&self, stage: &mut Stage, text: &str) -> Result<()> {
        stage.step("with an agent");
        let file = self.write("agent.toml", text)?;
        let agent = Agent::start(&self.node, text)?;
        let well = |agent: &Agent| {
            agent.wait_for_track("data-path", LIMIT, |track| track.state == TrackState::Good)?;
            agent.wait_for_warnings("it warns of nothing", LIMIT, <[String]>::is_empty)
        };
        well(&agent)?;
        claim_sound(stage, "a node with an agent", &self.examine(&self.node, &file, &[])?);

        stage.step("an interface that is not attached");
        agent.lbctl(["detach", NIC])?;
        let found = self.examine(&self.node, &file, &["--seconds", "0"])?;
        claim_one(stage, &found, "attachment");
        let command = found.command("attachment", NIC)?;
        agent.lbctl(command.split(' ').skip(1))?;
        well(&agent)?;
        let after = self.examine(&self.node, &file, &["--seconds", "0"])?;
        claim_sound(stage, "a node whose interface is attached again", &after);
        agent.stop()
    }
}

/// keepalived's file for a group with our router_id and another virtual address.
fn another_group() -> String {
    format!(
        "vrrp_instance OTHER {{\n state BACKUP\n interface {NIC}\n version 3\n virtual_router_id 51\n \
         priority 50\n advert_int 0.1\n virtual_ipaddress {{\n 192.168.139.160\n }}\n}}\n"
    )
}

/// Each fault is found, with a remedy.
fn claim_found(stage: &mut Stage, found: &Found) {
    for (name, word, fault) in [
        ("path_mtu", PARTNER, "an MTU that the other node does not have"),
        ("foreign_program", "XDP", "somebody else's XDP program"),
        ("foreign_program", "tc ingress", "somebody else's filter at tc"),
        ("vrrp_filtered", "firewall", "a rule of nftables that drops protocol 112"),
        (
            "vrrp_filtered",
            "advertisements",
            "advertisements that the firewall keeps from the sockets",
        ),
        ("router_id_in_use", "51", "a real keepalived of another group with this router_id"),
        ("router_id_differs", PARTNER, "another node's agent with another router_id"),
        ("vip_place", "this node", "the VIP on a wrong interface"),
        ("vip_holders", "answers", "several machines that answer for the VIP"),
        ("rp_filter", NIC, "a strict reverse-path filter, and another way back"),
        ("script", "script0", "a script that others can change"),
        ("script", "script1", "a script that is not executable"),
        ("certificate_vip", "6443", "a certificate that does not cover the VIP"),
        ("preemption", "priorities", "equal priorities"),
        ("preemption", "preempt", "preemption at once"),
    ] {
        let one = found.one(name, word).ok();
        let remedy = one.is_some_and(|finding| finding.remedy.is_some());
        let seen =
            one.map_or_else(|| format!("{:?}", found.names()), |finding| finding.found.clone());
        stage.claim(&format!("found, with a remedy: {fault}"), remedy, seen);
    }
    let holders = found.one("vip_holders", "answers").map_or("", |finding| finding.found.as_str());
    let all = holders.starts_with("3 machines: this node and ") && holders.contains(PARTNER);
    stage.claim("all three that answer for the VIP are told", all, holders);
    stage.claim("exit status 1 says that something is bad", found.failed, found.failed);
    stage.figure("faults at once", found.wrong().count());
}

fn claim_one(stage: &mut Stage, found: &Found, name: &str) {
    let one = found.one(name, "").ok();
    let holds = one.is_some_and(|finding| finding.remedy.is_some());
    let seen = one.map_or_else(|| format!("{:?}", found.names()), |finding| finding.found.clone());
    stage.claim(&format!("found, with a remedy: {name}"), holds, seen);
}

/// Who may not look is told so, and not that all is well.
fn claim_ordinary(stage: &mut Stage, found: &Found) {
    let unseen = found.findings.iter().filter(|finding| finding.severity == "not_looked_at");
    let names: BTreeSet<&str> = unseen.map(|finding| finding.name.as_str()).collect();
    let told = ["capabilities", "foreign_program", "vrrp_filtered", "vip_holders", "path_mtu"];
    let all = told.iter().all(|name| names.contains(name));
    let seen = format!("not looked at: {names:?}; wrong: {:?}", found.names());
    stage.claim("an ordinary user is told what was not looked at", all && !found.failed, seen);
}

/// The number behind a word.
fn number(text: &str, word: &str) -> Result<u8> {
    let (_, behind) = text.split_once(word).with_context(|| format!("no `{word}` in `{text}`"))?;
    let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().with_context(|| format!("no number behind `{word}` in `{text}`"))
}
