//! `thousand-backends`: one agent checks a thousand servers by HTTPS. The checks are spread over time from the first one
//! on, each server's turn comes in every round, and they cost little. A quarter that falls silent at once is out in
//! the promised time and delays nobody else's; when all fall silent, no more checks than the cap allows wait for them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lb_agent::control::api::{self, BackendState};
use lb_agent::health::Schedule;

use super::shape::{Family, NIC, address, sources, vip};
use super::stage::Stage;
use super::tally::{Tally, rounded};
use crate::backend::{Backend, Mode};
use crate::client::{Arguments, Connections, Load};
use crate::lab::agent::Agent;
use crate::lab::capture::{Capture, Direction, Recording};
use crate::lab::certificate::Certificate;
use crate::lab::{Host, Lab, processor_time};

/// With `--times` so many times as many, in as many times the interval.
const BACKENDS: u16 = 1000;
const INTERVAL: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(1);
const FALL: u32 = 2;
/// The first checks that the agent begins in a second.
const BEGUN_PER_SECOND: u32 = 1000;
/// Checks that may be in flight at one time: each holds a file descriptor.
const IN_FLIGHT: usize = 256;
/// The kernel does not list all sockets in one moment: one that goes and the one that comes after it may both be there.
const LISTED_TWICE: usize = 16;
/// Where the servers are, and those of them that fall silent: 256 of them, of the /22 and larger all.
const NETWORK: &str = "10.2.0.0/16";
const QUARTER: &str = "10.2.1.0/24";
const ALL: [&str; 2] = ["10.2.0.0/17", "10.2.128.0/17"];
/// By which checks are counted.
const SLICE: Duration = Duration::from_millis(100);
/// What this machine may delay a check.
const SLACK: Duration = Duration::from_millis(200);
/// What a check by HTTPS may cost the agent of a processor.
const COST: Duration = Duration::from_millis(2);
const NODE: &str = "master1";
const SERVER: &str = "server1";
const CLIENT: &str = "client1";
const REQUESTS: u64 = 500;
const LIMIT: Duration = Duration::from_secs(60);

struct Rig {
    // Before the hosts: they go first.
    agent: Agent,
    _backend: Backend,
    node: Host,
    server: Host,
    client: Host,
    certificate: Certificate,
    backends: u16,
    schedule: Schedule,
    lab: Lab,
}

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let (mut rig, capture) = Rig::start(stage)?;
    let checks = settle(stage, &mut rig, capture)?;
    begin(stage, &rig, &checks);
    spread(stage, &rig, &checks);
    rig.serves(stage, "all are healthy")?;
    quarter(stage, &rig)?;
    everybody(stage, &rig)?;
    rig.agent.stop()
}

impl Rig {
    /// With all of the wire before the servers recorded from before the first check on.
    fn start(stage: &mut Stage) -> Result<(Self, Capture)> {
        let lab = Lab::new(stage.tool())?;
        let host = |name: &str| {
            let own: Vec<String> = match name {
                CLIENT => sources(name, Family::V4).iter().map(|a| format!("{a}/24")).collect(),
                _ => vec![format!("{}/24", address(name, Family::V4))],
            };
            lab.host(name).interface(NIC, "lan", &own).start()
        };
        let (node, server, client) = (host(NODE)?, host(SERVER)?, host(CLIENT)?);
        // One machine has all of them, so that one next hop leads to them.
        let router = address(SERVER, Family::V4);
        server.namespace().ip(&format!("route add local {NETWORK} dev lo"))?;
        node.namespace().ip(&format!("route add {NETWORK} via {router}"))?;
        let certificate = Certificate::create(lab.directory(), &[vip(Family::V4)])?;
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 6443));
        let backend = Backend::start(&lab, &server, Mode::Https, &[listen], Some(&certificate))?;
        let times = stage.times();
        let backends = u16::try_from(u32::from(BACKENDS) * times).context("so many backends")?;
        let interval = INTERVAL * times;
        let schedule = Schedule { interval, timeout: TIMEOUT, rise: 1, fall: FALL };

        stage.step(&format!("the agent begins to check {backends} servers"));
        let capture = server.capture(NIC)?;
        let text = configuration(&certificate, backends, &schedule);
        let agent = Agent::start(&node, &text)?;
        let _backend = backend;
        let rig =
            Self { agent, _backend, node, server, client, certificate, backends, schedule, lab };
        Ok((rig, capture))
    }

    fn wait_for(&self, what: &str, holds: impl Fn(&api::Backend) -> bool) -> Result<()> {
        self.agent.wait_for_backends(what, LIMIT, |backends| {
            backends.len() == usize::from(self.backends) && backends.iter().all(&holds)
        })
    }

    fn serves(&self, stage: &mut Stage, when: &str) -> Result<()> {
        let arguments = Arguments {
            connections: Connections::PerRequest,
            concurrency: 8,
            count: REQUESTS,
            source: sources(CLIENT, Family::V4),
            ca: Some(self.certificate.authority.clone()),
            ..Arguments::new(SocketAddr::new(vip(Family::V4), 8443), Mode::Https)
        };
        let report = Load::complete(&self.lab, &self.client, &arguments)?;
        Tally::default().answered(stage, &format!("a client while {when}"), &report);
        Ok(())
    }

    /// Packets to a network get no answer; a route that is more specific than the servers' own sees to it, in the
    /// table that is asked first.
    fn silence(&self, verb: &str, network: &str) -> Result<()> {
        self.server.namespace().ip(&format!("route {verb} blackhole {network} table local"))
    }

    /// Checks that have a socket.
    fn in_flight(&self) -> Result<usize> {
        let state = ["state", "syn-sent", "state", "established", "dst", NETWORK];
        let listed = self.node.namespace().run("ss", &[&["-Htn"][..], &state].concat())?;
        Ok(listed.lines().count())
    }
}

fn configuration(certificate: &Certificate, backends: u16, schedule: &Schedule) -> String {
    let backends: Vec<String> = (0..backends).map(|n| format!("{}:6443", backend(n))).collect();
    let (own, vip) = (address(NODE, Family::V4), vip(Family::V4));
    let mut text = format!(
        "interface = \"{NIC}\"\nvirtual_addresses = [\"{vip}\"]\nactive = \"{NODE}\"\n\
         [data_path]\nmodes = [\"native\"]\n\
         [[node]]\nname = \"{NODE}\"\naddress = \"{own}\"\n\
         [[service]]\nname = \"api\"\nport = 8443\nbackends = {backends:?}\n"
    );
    let Schedule { interval, timeout, rise, fall } = schedule;
    let _ = write!(
        text,
        "[service.health]\nhttps = \"/readyz\"\nca_file = {:?}\nserver_name = \"{vip}\"\n\
         interval = \"{}s\"\ntimeout = \"{}s\"\nrise = {rise}\nfall = {fall}\n",
        certificate.authority,
        interval.as_secs(),
        timeout.as_secs(),
    );
    text
}

fn backend(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 2, high, low).into()
}

/// When each server was checked, oldest first, and when the recording ended.
struct Checks {
    of: BTreeMap<IpAddr, Vec<Duration>>,
    end: Duration,
}

impl Checks {
    fn read(recording: &Recording) -> Self {
        let mut of: BTreeMap<IpAddr, Vec<Duration>> = BTreeMap::new();
        for frame in recording.frames.iter().filter(|f| f.direction == Direction::ToHost) {
            let Some(packet) = frame.packet().filter(|packet| packet.opens) else { continue };
            of.entry(packet.destination.ip()).or_default().push(frame.at);
        }
        let end = recording.frames.last().map_or(Duration::ZERO, |frame| frame.at);
        Self { of, end }
    }

    /// Of these moments the most within a slice of time.
    fn most(of: impl Iterator<Item = Duration>) -> usize {
        let mut slices: BTreeMap<u128, usize> = BTreeMap::new();
        of.for_each(|at| *slices.entry(at.as_nanos() / SLICE.as_nanos()).or_default() += 1);
        slices.into_values().max().unwrap_or(0)
    }
}

/// Waits until all are known, and then for more than two rounds in which nothing happens but checks.
fn settle(stage: &mut Stage, rig: &mut Rig, capture: Capture) -> Result<Checks> {
    rig.wait_for("all are healthy", |backend| backend.state == BackendState::Healthy)?;
    rig.agent.wait_until_active(LIMIT)?;
    stage.step("nothing happens but checks");
    let process = rig.agent.process().id();
    let (begun, before) = (Instant::now(), processor_time(process)?);
    // Rounds are what is looked at; nothing is awaited here.
    std::thread::sleep(2 * rig.schedule.interval + rig.schedule.interval / 5);
    let (elapsed, after) = (begun.elapsed(), processor_time(process)?);
    let checks = Checks::read(&capture.stop()?);
    let since = checks.end.saturating_sub(elapsed);
    let made = checks.of.values().flatten().filter(|at| **at >= since).count();
    let cost = (after - before).div_f64(made.max(1) as f64);
    stage.claim("a check costs the agent little", cost < COST, format!("{cost:.2?} of {COST:?}"));
    let share = (after - before).as_secs_f64() / elapsed.as_secs_f64();
    stage.figure("agent_cpu_percent", rounded(share * 100.0));
    stage.figure("checks_per_second", rounded(made as f64 / elapsed.as_secs_f64()));
    stage.figure("check_cpu_ms", rounded(cost.as_secs_f64() * 1000.0));
    let memory = rig.agent.status()?.memory.context("no figure of memory")?;
    stage.figure("agent_mib", rounded(memory.agent_bytes as f64 / f64::from(1 << 20)));
    Ok(checks)
}

/// The agent's first checks come at a pace.
fn begin(stage: &mut Stage, rig: &Rig, checks: &Checks) {
    let first = || checks.of.values().filter_map(|of| of.first().copied());
    let (begun, ended) = (first().min().unwrap_or_default(), first().max().unwrap_or_default());
    let bound = Duration::from_secs(1) * u32::from(rig.backends) / BEGUN_PER_SECOND + SLACK;
    let took = ended - begun;
    let holds = first().count() == usize::from(rig.backends) && took < bound;
    let seen = format!("{} in {took:.2?} of {bound:?}", first().count());
    stage.claim("all are checked for the first time soon", holds, seen);
    let (most, average) = (Checks::most(first()), BEGUN_PER_SECOND / 10);
    let seen = format!("at most {most} in {SLICE:?}, to be {average} on average");
    stage.claim("but not all at once", most < 2 * average as usize, seen);
    stage.figure("all_checked_after_s", rounded(took.as_secs_f64()));
}

/// Later ones come one after the other, and each server's turn comes in every round.
fn spread(stage: &mut Stage, rig: &Rig, checks: &Checks) {
    let interval = rig.schedule.interval;
    let last = || checks.of.values().flatten().copied().filter(|at| *at + interval >= checks.end);
    let mean = f64::from(rig.backends) * SLICE.as_secs_f64() / interval.as_secs_f64();
    let most = Checks::most(last());
    let seen = format!(
        "{} in {interval:?}, at most {most} in {SLICE:?}, {mean} on average",
        last().count()
    );
    let whole = f64::from(rig.backends);
    let holds =
        (0.9 * whole..1.1 * whole).contains(&(last().count() as f64)) && (most as f64) < 2.0 * mean;
    stage.claim("as many checks as servers in a round, spread over it", holds, seen);
    stage.figure("most_checks_in_100_ms", most);
    // Up to the end of the recording, for who is never asked again.
    let longest = checks.of.values().flat_map(|of| {
        let next = of.iter().skip(1).copied().chain([checks.end]);
        of.iter().zip(next).map(|(at, next)| next.saturating_sub(*at))
    });
    let longest = longest.max().unwrap_or_default();
    let bound = interval.mul_f64(1.1) + SLACK;
    let seen = format!("{longest:.2?} of {bound:?}");
    stage.claim("no server waits longer for its turn than it may", longest < bound, seen);
}

/// Every check of a quarter of them takes as long as it may.
fn quarter(stage: &mut Stage, rig: &Rig) -> Result<()> {
    stage.step(&format!("{QUARTER} falls silent"));
    let is_silent = |backend: &api::Backend| match backend.address.ip() {
        IpAddr::V4(v4) => v4.octets()[2] == 1,
        IpAddr::V6(_) => false,
    };
    rig.silence("add", QUARTER)?;
    let begun = Instant::now();
    rig.wait_for("those are down, and no other", |backend| {
        (backend.state == BackendState::Down) == is_silent(backend)
    })?;
    let (noticed, promised) = (begun.elapsed(), rig.schedule.noticed_within());
    let seen = format!("{noticed:.2?} of {promised:.2?}");
    let text = "all that are silent are out in the promised time";
    stage.claim(text, noticed < promised + SLACK, seen);
    stage.figure("silent_noticed_s", rounded(noticed.as_secs_f64()));
    let changes = rig.agent.backends()?;
    let changes: u64 = changes.iter().filter(|b| !is_silent(b)).map(|b| b.transitions).sum();
    let others = u64::from(rig.backends) - 256;
    let seen = format!("{changes} changes of {others}, all to healthy");
    stage.claim("no other's state has changed since it was known", changes == others, seen);
    rig.serves(stage, "a quarter is silent")
}

/// Then there are more checks to be made than may be in flight.
fn everybody(stage: &mut Stage, rig: &Rig) -> Result<()> {
    stage.step("all fall silent");
    ALL.iter().try_for_each(|network| rig.silence("add", network))?;
    let begun = Instant::now();
    let (mut most, mut looks) = (0, 0);
    while begun.elapsed() < 2 * rig.schedule.timeout {
        most = most.max(rig.in_flight()?);
        looks += 1;
    }
    let seen = format!("{most} of {IN_FLIGHT}, in {looks} looks");
    let holds = (IN_FLIGHT..=IN_FLIGHT + LISTED_TWICE).contains(&most);
    stage.claim("as many checks wait for answers as may, and no more", holds, seen);
    stage.figure("most_in_flight", most);
    ALL.iter().chain([&QUARTER]).try_for_each(|network| rig.silence("del", network))?;
    let begun = Instant::now();
    rig.wait_for("all are healthy again", |backend| backend.state == BackendState::Healthy)?;
    stage.figure("all_well_again_after_s", rounded(begun.elapsed().as_secs_f64()));
    Ok(())
}
