//! `vrrp-track`: what the Active node tracks fails, one thing after the other, and it resigns; then,
//! with `preempt`, it lowers its priority. Three nodes balance for one another, under load. Each
//! node has a script, a second interface and a server of its own to watch.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use aya::maps::{HashMap, Map, MapData, MapError};
use lb_agent::control::api::{Role, Track, TrackState};
use lb_common::layout::{LAYOUT_VERSION, map};
use lb_common::service::ServiceKey;

use super::cluster::{Cluster, SETTLE};
use super::shape::{Family, Shape, Vrrp, address, backend, priority};
use super::stage::Stage;
use super::tally::{Tally, rounded};
use crate::backend::Mode;
use crate::client::{Arguments, Load};
use crate::lab::Host;
use crate::lab::agent::Agent;

const INTERVAL: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(30);
/// Tracked, and not attached to; its other end is in the same machine.
const UPLINK: &str = "ens34";
const UPLINK_END: &str = "ens34-end";
/// Has a server that nobody else's clients use.
const SERVER: &str = "server1";
/// Of the service that has it.
const CANARY_PORT: u16 = 7000;
const STREAMS: u32 = 8;

/// What is made to fail, and how it shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// What the script looks for disappears.
    Missing,
    /// The script does not end.
    Hanging,
    /// Others could change the script.
    Writable,
    /// The second interface loses its carrier.
    Interface,
    /// Too few backends answer this node.
    Backends,
    /// Somebody takes a service out of the maps behind the agent's back.
    Maps,
}

impl Fault {
    const ALL: [Self; 6] =
        [Self::Missing, Self::Hanging, Self::Writable, Self::Interface, Self::Backends, Self::Maps];

    const fn name(self) -> &'static str {
        match self {
            Self::Missing => "a script fails",
            Self::Hanging => "a script hangs",
            Self::Writable => "a script is writable by others",
            Self::Interface => "an interface loses its carrier",
            Self::Backends => "too few backends are healthy",
            Self::Maps => "a service is missing from the maps",
        }
    }

    const fn track(self) -> &'static str {
        match self {
            Self::Missing | Self::Hanging | Self::Writable => "check",
            Self::Interface => "uplink",
            Self::Backends => "canary",
            Self::Maps => "synthetic-packet",
        }
    }

    /// The kind of failure that counts it, and a part of the reason.
    const fn expected(self) -> (&'static str, &'static str) {
        match self {
            Self::Missing => ("failed", "exit status 1, said: the well is gone"),
            Self::Hanging => ("timed_out", "killed after 400ms without an end"),
            Self::Writable => ("refused", "is writable by others than its owner (mode 0757)"),
            Self::Interface => ("failed", "ens34 has no carrier"),
            Self::Backends => ("failed", "0 of 1 backends of canary are healthy, not 1"),
            Self::Maps => ("failed", "counted: no_service"),
        }
    }

    fn set(self, on: &Host, failing: bool) -> Result<()> {
        let [script, well, hang] = ["check", "well", "hang"].map(|name| file(on, name));
        match self {
            Self::Missing if failing => fs::remove_file(well)?,
            Self::Missing => fs::write(well, "")?,
            Self::Hanging if failing => fs::write(hang, "")?,
            Self::Hanging => fs::remove_file(hang)?,
            Self::Writable => {
                let mode = if failing { 0o757 } else { 0o755 };
                fs::set_permissions(script, fs::Permissions::from_mode(mode))?;
            }
            Self::Interface => {
                let state = if failing { "down" } else { "up" };
                on.namespace().ip(&format!("link set {UPLINK_END} {state}"))?;
            }
            Self::Backends => {
                let what = if failing { "add" } else { "del" };
                let server = address(SERVER, Family::V4);
                on.namespace().ip(&format!("route {what} unreachable {server}/32"))?;
            }
            Self::Maps => move_service(on, failing)?,
        }
        Ok(())
    }
}

/// Moves a service in the pinned map to another port, or back.
fn move_service(on: &Host, away: bool) -> Result<()> {
    let [here, there] = [CANARY_PORT, CANARY_PORT + 1].map(u16::to_be);
    let (from, to) = if away { (here, there) } else { (there, here) };
    let pin = format!("v{LAYOUT_VERSION}/maps/{}", map::SERVICES);
    let data = MapData::from_pin(on.bpf_directory().join(pin))?;
    let mut services = HashMap::<_, ServiceKey, u32>::try_from(Map::from_map_data(data)?)?;
    let entries = services.iter().collect::<Result<Vec<_>, MapError>>()?;
    let found = entries.into_iter().find(|(key, _)| key.port_be == from);
    let (key, place) = found.context("the service is not in the map")?;
    services.insert(ServiceKey { port_be: to, ..key }, place, 0)?;
    services.remove(&key)?;
    Ok(())
}

fn file(on: &Host, name: &str) -> PathBuf {
    on.directory().join(name)
}

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let shape = Shape {
        servers: 1,
        vrrp: Some(Vrrp { interval: INTERVAL }),
        ..Shape::masters(&[Mode::Https, Mode::Udp])
    };
    let mut cluster = Cluster::machines(stage, shape)?;
    cluster.start_backend(SERVER, Mode::Tcp)?;
    for node in &cluster.nodes {
        furnish(&node.host)?;
    }
    let mut tally = Tally::default();
    stage.step("starting the agents");
    start(&mut cluster, &tracks(""), false, &[])?;
    by_resignation(stage, &mut cluster, &mut tally)?;
    stage.step("starting the agents anew, with weights and preempt");
    start(&mut cluster, &tracks("weight = -20"), true, &[])?;
    by_weight(stage, &mut cluster, &mut tally)?;
    for modes in [&["generic"], &["tc"]] {
        stage.step(&format!("starting the agents anew, in mode {}", modes[0]));
        start(&mut cluster, &tracks(""), false, modes)?;
        in_mode(stage, &cluster, modes[0])?;
    }
    tally.unbroken(stage, 4 * STREAMS);
    tally.figures(stage);
    Ok(())
}

/// What a node has to watch.
fn furnish(host: &Host) -> Result<()> {
    let (script, directory) = (file(host, "check"), host.directory().display());
    let body = format!(
        "#!/bin/sh\n[ ! -e {directory}/hang ] || sleep 600\n\
         [ -e {directory}/well ] || {{ echo the well is gone; exit 1; }}\n"
    );
    fs::write(&script, body)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    fs::write(file(host, "well"), "")?;
    host.namespace().ip(&format!(
        "link add {UPLINK} type veth peer name {UPLINK_END}\nlink set {UPLINK} up\n\
         link set {UPLINK_END} up"
    ))
}

/// The tables of the file, with a line for the script. Directories are put in for each node.
fn tracks(of_script: &str) -> String {
    let canary = backend(SERVER, Mode::Tcp, Family::V4);
    format!(
        "\n[[service]]\nname = \"canary\"\naddress = \"{}\"\nport = {CANARY_PORT}\nbackends = [\"{canary}\"]\n\
         [service.health]\ninterval = \"200ms\"\ntimeout = \"200ms\"\nrise = 2\nfall = 2\n\
         [[track]]\nname = \"check\"\nscript = [\"DIRECTORY/check\"]\ninterval = \"500ms\"\n\
         timeout = \"400ms\"\n{of_script}\n\
         [[track]]\nname = \"uplink\"\ninterface = \"{UPLINK}\"\n{}\n\
         [[track]]\nname = \"canary\"\nhealthy_backends = 1\nservice = \"canary\"\n",
        super::shape::vip(Family::V4),
        // One that never moves anything.
        if of_script.is_empty() { "" } else { "weight = -5" },
    )
}

/// Ends the agents that run, and starts all with this configuration.
fn start(
    cluster: &mut Cluster,
    further: &str,
    preempt: bool,
    modes: &'static [&'static str],
) -> Result<()> {
    for node in &mut cluster.nodes {
        if let Some(agent) = node.agent.take() {
            agent.stop()?;
        }
    }
    let shape = Shape { further: further.to_owned(), preempt, modes, ..cluster.shape.clone() };
    let configuration = shape.configuration();
    std::thread::scope(|scope| {
        let starting: Vec<_> = cluster
            .nodes
            .iter_mut()
            .map(|node| {
                let directory = node.host.directory().display().to_string();
                let own = configuration.replace("DIRECTORY", &directory);
                scope.spawn(move || -> Result<()> {
                    node.agent = Some(Agent::start(&node.host, &own)?);
                    Ok(())
                })
            })
            .collect();
        starting.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    cluster.settle()
}

fn loads(cluster: &Cluster) -> Result<Vec<(String, Load)>> {
    cluster.loads("kept", |arguments| Arguments {
        concurrency: 2,
        streams: STREAMS,
        pause_ms: 20,
        ..arguments
    })
}

fn finish(stage: &mut Stage, loads: Vec<(String, Load)>, tally: &mut Tally) -> Result<()> {
    tally.all_answered(stage, loads)?;
    Ok(())
}

/// A client that asks by datagram, and does not wait for an answer that is late.
fn probe(cluster: &Cluster) -> Result<Load> {
    let arguments =
        Arguments { timeout_ms: 3, pause_ms: 1, ..cluster.arguments(Mode::Udp, Family::V4) };
    let mut prober = cluster.load("client2", &arguments)?;
    prober.run_for_requests(100, LIMIT)?;
    Ok(prober)
}

fn by_resignation(stage: &mut Stage, cluster: &mut Cluster, tally: &mut Tally) -> Result<()> {
    let mut active = gather(cluster)?;
    let loads = loads(cluster)?;
    let mut gaps_ms = Vec::new();
    for fault in Fault::ALL {
        stage.step(&format!("{} on {}", fault.name(), cluster.name_of(active)));
        let before = transitions(cluster)?;
        let mut prober = probe(cluster)?;
        fault.set(&cluster.nodes[active].host, true)?;
        let next = await_active(cluster, |index| index != active)?;
        prober.run_for_requests(100, LIMIT)?;
        gaps_ms.push(prober.stop()?.longest_gap_ms);
        let moved = transitions(cluster)?;
        judge_failing(stage, cluster, fault, active)?;
        fault.set(&cluster.nodes[active].host, false)?;
        let agent = cluster.nodes[active].agent()?;
        agent.wait_for_track(fault.track(), LIMIT, |t| t.state == TrackState::Good)?;
        // In which one that wants the VIPs back would take them.
        more_advertisements(cluster, next, 20)?;
        let after = transitions(cluster)?;
        let text = format!("{}: the VIPs move once, and stay when it is well again", fault.name());
        let both_families = before + 4;
        stage.claim(
            &text,
            moved == both_families && after == moved,
            format!("{before} transitions before, {moved} after the move, {after} at last"),
        );
        active = next;
    }
    finish(stage, loads, tally)?;
    gaps_ms.sort_by(f64::total_cmp);
    let median = gaps_ms[gaps_ms.len() / 2];
    let skew_ms = INTERVAL.as_secs_f64() * 1000.0 * (256.0 - f64::from(priority(1))) / 256.0;
    let seen = format!("median {median:.1} ms of {gaps_ms:.1?}, bound {skew_ms:.1} ms");
    stage.claim("the moves wait for no timer", median <= skew_ms, seen);
    stage.figure("vip_gap_ms", rounded(median));
    stage.figure("moves", gaps_ms.len());
    Ok(())
}

/// What a node says of what fails on it.
fn judge_failing(stage: &mut Stage, cluster: &Cluster, fault: Fault, on: usize) -> Result<()> {
    let agent = cluster.nodes[on].agent()?;
    let (kind, reason) = fault.expected();
    let counted = |track: &Track| track.failures.get(kind).copied().unwrap_or(0);
    let track = agent.wait_for_track(fault.track(), LIMIT, |track| {
        track.state == TrackState::Failing && track.reason.contains(reason)
    })?;
    let seen = format!("{}, {kind} {}", track.reason, counted(&track));
    stage.claim(
        &format!("{}: it is counted, with the reason", fault.name()),
        counted(&track) > 0,
        seen,
    );
    let said = agent.lbctl(["vrrp"])?;
    let line = said.lines().find(|line| line.contains(&format!("track {}", fault.track())));
    let holds = line.is_some_and(|line| line.contains(reason) && line.contains("stays Backup"));
    let text = format!("{}: lbctl vrrp says it", fault.name());
    stage.claim(&text, holds, line.unwrap_or("no line of it"));
    Ok(())
}

fn by_weight(stage: &mut Stage, cluster: &mut Cluster, tally: &mut Tally) -> Result<()> {
    // By preemption the first, in both families.
    let first = await_active(cluster, |index| index == 0)?;
    let loads = loads(cluster)?;
    stage.step("a weight that is too small");
    Fault::Interface.set(&cluster.nodes[first].host, true)?;
    cluster.nodes[first]
        .agent()?
        .wait_for_track("uplink", LIMIT, |t| t.state == TrackState::Failing)?;
    await_priority(cluster, first, priority(1) - 5)?;
    more_advertisements(cluster, first, 20)?;
    let still = await_active(cluster, |_| true)?;
    let seen = format!("{} is Active", cluster.name_of(still));
    stage.claim("95 is above 90: the VIPs stay", still == first, seen);
    let file = cluster.nodes[first].host.directory().join("lb.toml");
    let checked = cluster.nodes[first].agent()?.lbctl([&"check".into(), &file])?;
    let expected = "master1 has 100 - 5 = 95, still above master2's 90";
    let line = checked.lines().find(|line| line.contains(expected));
    stage.claim("lbctl check has said so", line.is_some(), line.unwrap_or(&checked));
    Fault::Interface.set(&cluster.nodes[first].host, false)?;
    await_priority(cluster, first, priority(1))?;

    stage.step("a weight that suffices");
    Fault::Missing.set(&cluster.nodes[first].host, true)?;
    let second = await_active(cluster, |index| index != first)?;
    let seen = format!("{} is Active", cluster.name_of(second));
    stage.claim("100 - 20 is below 90: the second takes over", second == 1, seen);
    let said = cluster.nodes[first].agent()?.lbctl(["vrrp"])?;
    let line = said.lines().find(|line| line.contains("track check"));
    let holds = line.is_some_and(|line| line.contains("priority -20"));
    stage.claim("lbctl vrrp says the weight", holds, line.unwrap_or(&said));
    Fault::Missing.set(&cluster.nodes[first].host, false)?;
    let last = await_active(cluster, |index| index == first)?;
    let seen = format!("{} is Active", cluster.name_of(last));
    stage.claim("well again, the first preempts", last == first, seen);
    finish(stage, loads, tally)
}

/// The synthetic packet finds its way in another mode than XDP in the driver, or not where it must not.
fn in_mode(stage: &mut Stage, cluster: &Cluster, mode: &str) -> Result<()> {
    let active = gather(cluster)?;
    let agent = cluster.nodes[active].agent()?;
    let track = agent
        .wait_for_track(Fault::Maps.track(), LIMIT, |track| track.state == TrackState::Good)?;
    let tried = track.reason.contains("its way") || track.reason.contains("their way");
    stage.claim(&format!("{mode}: a packet finds its way"), tried, track.reason);
    Fault::Maps.set(&cluster.nodes[active].host, true)?;
    await_active(cluster, |index| index != active)?;
    judge_failing(stage, cluster, Fault::Maps, active)
}

/// Brings both families' VIPs to the first node, wherever the start has left them.
fn gather(cluster: &Cluster) -> Result<usize> {
    for node in &cluster.nodes[1..] {
        node.agent()?.lbctl(["vrrp", "hold"])?;
    }
    let active = await_active(cluster, |index| index == 0)?;
    for node in &cluster.nodes[1..] {
        node.agent()?.lbctl(["vrrp", "release"])?;
    }
    Ok(active)
}

/// Waits until one node is Active with both VIPs, and no other one with any.
fn await_active(cluster: &Cluster, wanted: impl Fn(usize) -> bool) -> Result<usize> {
    let deadline = Instant::now() + SETTLE;
    while Instant::now() < deadline {
        let mut holders = Vec::new();
        for (index, node) in cluster.nodes.iter().enumerate() {
            let status = node.agent()?.status()?;
            let held = status.virtual_addresses.iter().filter(|vip| vip.held).count();
            if held > 0 || status.role == Role::Active {
                holders.push((index, held == status.virtual_addresses.len()));
            }
        }
        if let [(index, true)] = holders[..]
            && wanted(index)
        {
            return Ok(index);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let logs: Vec<String> =
        cluster.nodes.iter().filter_map(|n| Some(n.agent.as_ref()?.process().log())).collect();
    bail!("not one node alone is Active within {SETTLE:?}:\n{}", logs.join("\n"))
}

fn await_priority(cluster: &Cluster, on: usize, wanted: u8) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let routers = cluster.nodes[on].agent()?.vrrp()?;
        if routers.iter().all(|router| router.priority == wanted) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the priority is not {wanted}: {routers:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Of all nodes and families: two for each family that moves.
fn transitions(cluster: &Cluster) -> Result<u64> {
    Ok(cluster.vrrp_transitions()?.iter().sum())
}

/// Waits until the Active node has advertised so many times more.
fn more_advertisements(cluster: &Cluster, active: usize, more: u64) -> Result<()> {
    let agent = cluster.nodes[active].agent()?;
    let sent = || -> Result<u64> { Ok(agent.vrrp()?.first().context("no router")?.sent) };
    let goal = sent()? + more;
    let deadline = Instant::now() + LIMIT;
    while sent()? < goal {
        if Instant::now() > deadline {
            bail!("{} does not advertise", cluster.name_of(active));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
