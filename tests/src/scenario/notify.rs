//! `notify`: a script and a server are told of every change of a node's role, in order and none left
//! out, although both are of no use for most of the time and the agent is killed in between. What the
//! hooks do costs VRRP nothing.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lb_agent::control::api::{NotifyHook, VrrpState};
use serde_json::Value;

use super::shape::{Family, NIC, address, networks, vip};
use super::stage::Stage;
use super::tally::rounded;
use crate::backend::receiver::{Received, Receiver};
use crate::lab::agent::Agent;
use crate::lab::{Host, Lab};

const LIMIT: Duration = Duration::from_secs(60);
const OURS: &str = "master1";
const PEER: &str = "master2";
/// Has the webhook's server.
const WATCHER: &str = "client1";
const PORT: u16 = 8080;
/// A timer that is so late costs nobody the role: half of the advertisement interval.
const LATENESS_MAX_MS: f64 = 50.0;
const INTERVAL_MS: u64 = 100;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    stage.step("making the machines");
    let lab = Lab::new(stage.tool())?;
    let host = |name: &str| lab.host(name).interface(NIC, "lan", &networks(name)).start();
    let (ours, peer, watcher) = (host(OURS)?, host(PEER)?, host(WATCHER)?);
    let script = Script::new(&ours)?;
    let told = Told { ours, peer, script, expected: Vec::new(), lateness_max_ms: 0.0 };
    let mut told = told;

    stage.step("both hooks work");
    let receiver = Receiver::start(&lab, &watcher, webhook())?;
    let agent = told.start()?;
    told.await_state(&agent, VrrpState::Active)?;
    let other = Agent::start(&told.peer, &told.configuration(false))?;
    told.move_away_and_back(&agent, &other)?;
    told.await_hooks(&agent, "they are told all", |hook| hook.waiting == 0)?;
    let mut posted = receiver.received()?;

    stage.step("the server is gone, the script hangs");
    drop(receiver);
    told.script.is("sleep 600")?;
    for _ in 0..3 {
        told.move_away_and_back(&agent, &other)?;
    }
    told.await_hooks(&agent, "they fail", |hook| hook.failing_since.is_some())?;
    told.hooks_are_shown(stage, &agent)?;

    stage.step("the Active agent is killed and comes back");
    told.kill(agent)?;
    told.await_peer(&other)?;
    let agent = told.start()?;
    told.script.is("exit 3")?;
    other.lbctl(["vrrp", "hold"])?;
    told.await_state(&agent, VrrpState::Active)?;
    other.lbctl(["vrrp", "release"])?;
    told.move_away_and_back(&agent, &other)?;

    stage.step("it is killed again, as Backup");
    agent.lbctl(["vrrp", "hold"])?;
    told.await_state(&agent, VrrpState::Backup)?;
    told.kill(agent)?;
    let agent = told.start()?;
    other.lbctl(["vrrp", "hold"])?;
    told.await_state(&agent, VrrpState::Active)?;
    other.lbctl(["vrrp", "release"])?;

    stage.step("both hooks work again");
    let receiver = Receiver::start(&lab, &watcher, webhook())?;
    told.script.is(&told.script.note())?;
    told.await_hooks(&agent, "they are told all", |hook| hook.waiting == 0)?;
    told.move_away_and_back(&agent, &other)?;
    told.await_hooks(&agent, "and the last", |hook| hook.waiting == 0)?;
    told.note_lateness(&agent)?;
    stage.step("the agent ends");
    agent.stop()?;
    told.became("backup");
    told.became("initialize");
    posted.extend(receiver.received()?);
    told.judge(stage, &posted)?;
    other.stop()
}

fn webhook() -> SocketAddr {
    SocketAddr::new(address(WATCHER, Family::V4), PORT)
}

/// The hook that is a script, and the file that it notes notices in.
struct Script {
    directory: PathBuf,
}

impl Script {
    fn new(host: &Host) -> Result<Self> {
        let script = Self { directory: host.directory().to_owned() };
        script.is(&script.note())?;
        Ok(script)
    }

    fn path(&self) -> PathBuf {
        self.directory.join("on-change")
    }

    fn notes(&self) -> PathBuf {
        self.directory.join("told")
    }

    fn note(&self) -> String {
        format!("cat >>{}", self.notes().display())
    }

    /// Replaced in one step: a file that is being written cannot be run.
    fn is(&self, body: &str) -> Result<()> {
        let new = self.path().with_extension("new");
        fs::write(&new, format!("#!/bin/sh\n{body}\n")).context("cannot write the script")?;
        fs::set_permissions(&new, Permissions::from_mode(0o755))?;
        fs::rename(new, self.path()).context("cannot replace the script")
    }

    fn told(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.notes()).context("the script noted nothing")?;
        text.lines().map(|line| serde_json::from_str(line).context("no notice")).collect()
    }
}

/// The node that tells, and what it must have told.
struct Told {
    ours: Host,
    peer: Host,
    script: Script,
    /// The states that the scenario made it take, one after the other.
    expected: Vec<&'static str>,
    lateness_max_ms: f64,
}

impl Told {
    fn configuration(&self, hooks: bool) -> String {
        let [ours, peer] = [OURS, PEER].map(|name| address(name, Family::V4));
        let mut text = format!(
            "interface = \"{NIC}\"\nvirtual_addresses = [\"{}\"]\n\
             [vrrp]\nrouter_id = 51\nadvertisement_interval = \"{INTERVAL_MS}ms\"\n\
             [[node]]\nname = \"{OURS}\"\naddress = \"{ours}\"\npriority = 100\n\
             [[node]]\nname = \"{PEER}\"\naddress = \"{peer}\"\npriority = 90\n\
             [[service]]\nname = \"api\"\nport = 8443\nbackends = [\"{ours}:6443\"]\n",
            vip(Family::V4),
        );
        if hooks {
            let (script, url) = (self.script.path(), webhook());
            text.push_str(&format!(
                "[[notify]]\nname = \"script\"\nscript = [{script:?}]\nevents = [\"role\"]\n\
                 timeout = \"500ms\"\n\
                 [[notify]]\nname = \"web\"\nurl = \"http://{url}/hook\"\nevents = [\"role\"]\n",
            ));
        }
        text
    }

    fn start(&mut self) -> Result<Agent> {
        let agent = Agent::start(&self.ours, &self.configuration(true))?;
        // It takes part some moments after its API answers.
        self.await_states(&agent, "it takes part", |state| state != VrrpState::Initialize)?;
        self.became("initialize");
        self.became("backup");
        Ok(agent)
    }

    fn became(&mut self, state: &'static str) {
        self.expected.push(state);
    }

    fn await_states(
        &self,
        agent: &Agent,
        what: &str,
        condition: impl Fn(VrrpState) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let routers = agent.vrrp()?;
            if !routers.is_empty() && routers.iter().all(|router| condition(router.state)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{what}: not within {LIMIT:?}: {routers:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The node changes to this state next.
    fn await_state(&mut self, agent: &Agent, state: VrrpState) -> Result<()> {
        self.await_states(agent, &format!("it is {state:?}"), |now| now == state)?;
        self.became(if state == VrrpState::Active { "active" } else { "backup" });
        Ok(())
    }

    fn await_peer(&self, other: &Agent) -> Result<()> {
        self.await_states(other, "the other is Active", |now| now == VrrpState::Active)
    }

    fn move_away_and_back(&mut self, agent: &Agent, other: &Agent) -> Result<()> {
        agent.lbctl(["vrrp", "hold"])?;
        self.await_state(agent, VrrpState::Backup)?;
        self.await_peer(other)?;
        agent.lbctl(["vrrp", "release"])?;
        other.lbctl(["vrrp", "hold"])?;
        self.await_state(agent, VrrpState::Active)?;
        other.lbctl(["vrrp", "release"])?;
        Ok(())
    }

    fn await_hooks(
        &self,
        agent: &Agent,
        what: &str,
        condition: impl Fn(&NotifyHook) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let hooks = agent.notify()?;
            if hooks.len() == 2 && hooks.iter().all(&condition) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{what}: not within {LIMIT:?}: {hooks:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL, once what it has to tell is on disk: the moment before is what docs/api.md excepts.
    fn kill(&mut self, agent: Agent) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let hooks = agent.notify()?;
            let saved = |hook: &NotifyHook| self.files(&hook.name) == hook.waiting;
            if hooks.iter().all(|hook| hook.waiting > 0 && saved(hook)) {
                break;
            }
            if Instant::now() > deadline {
                bail!("what waits is not on disk: {hooks:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.note_lateness(&agent)?;
        agent.kill()
    }

    /// Notices of a hook that are on disk.
    fn files(&self, hook: &str) -> u64 {
        let spool = self.ours.directory().join("state").join("notify").join(hook);
        let names = fs::read_dir(spool).into_iter().flatten().flatten();
        let notices = names.filter(|entry| entry.path().extension().is_some_and(|e| e == "json"));
        notices.count() as u64
    }

    fn note_lateness(&mut self, agent: &Agent) -> Result<()> {
        for router in agent.vrrp()? {
            self.lateness_max_ms = self.lateness_max_ms.max(router.lateness_max_seconds * 1000.0);
        }
        Ok(())
    }

    fn hooks_are_shown(&self, stage: &mut Stage, agent: &Agent) -> Result<()> {
        let said = agent.lbctl(["status"])?;
        let line = |hook: &str, why: &str| {
            let begin = format!("notify hook {hook} has failed for ");
            said.lines().any(|line| line.contains(&begin) && line.contains(why))
        };
        let shown =
            line("script", "killed after 500ms without an end") && line("web", "cannot connect to");
        let warnings: Vec<&str> = said.lines().filter(|line| line.contains("notify")).collect();
        stage.claim("lbctl status shows what fails and why", shown, warnings.join("; "));
        Ok(())
    }

    fn judge(&self, stage: &mut Stage, posted: &[Received]) -> Result<()> {
        let by_script = self.script.told()?;
        let by_post: Vec<Value> = posted.iter().map(|received| received.body.clone()).collect();
        for (hook, notices) in [("the script", &by_script), ("the server", &by_post)] {
            let (told, again) = first_times(notices);
            let states = chain(&told);
            let text = format!("{hook} was told of every change, in order");
            let seen = format!("{} changes: {}", told.len(), states.join(" "));
            stage.claim(&text, states == self.expected, seen);
            let numbers: Vec<u64> =
                told.iter().filter_map(|notice| notice["sequence"].as_u64()).collect();
            let text = format!("{hook} got them numbered without a gap, over three runs");
            let gapless = numbers.iter().copied().eq(1..=told.len() as u64);
            stage.claim(&text, gapless && runs(&told) == 3, format!("{numbers:?}"));
            stage.figure(&format!("told_again_{}", &hook[4..]), again);
        }
        let keys = posted.iter().all(|received| {
            let (run, number) = (&received.body["run"], &received.body["sequence"]);
            received.key == format!("\"{}-{number}\"", run.as_str().unwrap_or_default())
        });
        stage.claim("each post had its key", keys, posted.len());
        let lateness = self.lateness_max_ms;
        let seen = format!("{lateness:.2} ms, with advertisements every {INTERVAL_MS} ms");
        stage.claim("no timer of VRRP was late for it", lateness < LATENESS_MAX_MS, seen);
        stage.figure("changes", self.expected.len());
        stage.figure("lateness_max_ms", rounded(lateness));
        Ok(())
    }
}

/// Without those that were told before, and how many these were.
fn first_times(notices: &[Value]) -> (Vec<Value>, usize) {
    let mut first: Vec<Value> = Vec::new();
    for notice in notices {
        let same = |known: &&Value| {
            (&known["run"], &known["sequence"]) == (&notice["run"], &notice["sequence"])
        };
        if !first.iter().any(|known| same(&known)) {
            first.push(notice.clone());
        }
    }
    let again = notices.len() - first.len();
    (first, again)
}

/// The states one after the other: where a change does not begin with what the last one ended with,
/// as in another run, the beginning too.
fn chain(notices: &[Value]) -> Vec<&str> {
    let mut states: Vec<&str> = Vec::new();
    for notice in notices {
        for end in ["from", "to"] {
            let state = notice[end].as_str().unwrap_or("?");
            if end == "to" || states.last() != Some(&state) {
                states.push(state);
            }
        }
    }
    states
}

fn runs(notices: &[Value]) -> usize {
    let mut runs: Vec<&str> = notices.iter().filter_map(|notice| notice["run"].as_str()).collect();
    runs.dedup();
    runs.len()
}
