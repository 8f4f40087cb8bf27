//! `rolling-restart`: the servers of all three nodes are restarted, one after the other, as an upgrade does. Clients
//! that wait come again by themselves and sit where they found somebody; `lbctl rebalance` moves them to where their
//! new connections go, evenly, and nobody else. Then the same without being asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use lb_agent::control::api::Rebalance;

use super::cluster::Cluster;
use super::shape::{Family, Shape, sources, target};
use super::stage::Stage;
use crate::backend::Mode;
use crate::client::{Arguments, Connections, End, Load, Returner, Returners, Watchers};
use crate::lab::agent::said;

/// Of `TERMS`: from one to the next.
const PAUSE: Duration = Duration::from_millis(250);
/// By so much a client may notice its end later than another one.
const JITTER: Duration = Duration::from_millis(120);
const STREAMS: u32 = 12;
const LIMIT: Duration = Duration::from_secs(20);
const TERMS: &str = "[service.rebalance]\nper_minute = 240\nidle = \"1s\"\nminimum_age = \"2s\"\n\
                     threshold = 0\nstable = \"1s\"\n";

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let shape =
        Shape { service_tables: TERMS.to_owned(), ..Shape::masters(&[Mode::Https, Mode::Tcp]) };
    let mut cluster = Cluster::start(stage, shape)?;
    let waiting = Waiting::start(&cluster)?;
    waiting.await_all(|_| true)?;
    let asking = asking(&cluster)?;
    for name in ["master1", "master2"] {
        restart(stage, &mut cluster, name, |_| Ok(()))?;
    }
    let talking = restart(stage, &mut cluster, "master3", |cluster| {
        waiting.await_all(|backend| backend != "master3")?;
        // Some of these belong to it.
        cluster.loads("talking", |arguments| Arguments {
            concurrency: 4,
            streams: STREAMS,
            pause_ms: 20,
            ..arguments
        })
    })?;
    claim_moved(stage, &cluster, &waiting)?;
    claim_talkers_stay(stage, &cluster, talking)?;
    claim_automatic(stage, &mut cluster, &waiting)?;
    for (who, load) in asking {
        let report = load.stop()?;
        let text = format!("every request of {who} is answered, from the first restart on");
        stage.claim(&text, report.failed == 0 && report.requests > 0, report.summary());
        stage.figure(&format!("requests_{}", who.replace(' ', "_")), report.requests);
    }
    Ok(())
}

/// Clients of the echo servers that wait, one for each address of each client.
struct Waiting(Vec<(&'static str, Family, Returners)>);

impl Waiting {
    fn start(cluster: &Cluster) -> Result<Self> {
        let mut groups = Vec::new();
        for (client, family) in groups_of_clients() {
            let (host, from) = (cluster.host(client)?, sources(client, family));
            groups.push((
                client,
                family,
                Returners::start(host, target(Mode::Tcp, family), &from)?,
            ));
        }
        Ok(Self(groups))
    }

    fn await_all(&self, meant: impl Fn(&str) -> bool) -> Result<()> {
        self.0.iter().try_for_each(|(_, _, group)| group.await_all(LIMIT, &meant))
    }

    /// All of them, by client, family and address.
    fn all(&self) -> Vec<(Family, Returner)> {
        let of = |(_, family, group): &(_, Family, Returners)| {
            group.all().into_iter().map(|one| (*family, one)).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }

    /// How many each backend has.
    fn shares(&self) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for backend in self.all().into_iter().filter_map(|(_, one)| one.backend) {
            *shares.entry(backend).or_default() += 1;
        }
        shares
    }

    /// Where a new connection from each of their addresses goes now, in the same order: the kernel is asked.
    fn fresh(&self, cluster: &Cluster) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for (client, family, _) in &self.0 {
            let (host, from) = (cluster.host(client)?, sources(client, *family));
            let new = Watchers::start(host, target(Mode::Tcp, *family), &from, from.len())?;
            all.extend(new.backends().map(str::to_owned));
        }
        Ok(all)
    }

    /// Waits until each is where it belongs.
    fn await_placed(&self, fresh: &[String]) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let all = self.all();
            let wrong =
                all.iter().zip(fresh).filter(|((_, one), to)| one.backend.as_ref() != Some(to));
            match wrong.count() {
                0 => return Ok(()),
                wrong if Instant::now() > deadline => {
                    bail!("{wrong} are elsewhere after {LIMIT:?}")
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

fn groups_of_clients() -> impl Iterator<Item = (&'static str, Family)> {
    ["client1", "client2"]
        .into_iter()
        .flat_map(|client| Family::BOTH.map(|family| (client, family)))
}

/// Clients that open a connection for each request, all the time.
fn asking(cluster: &Cluster) -> Result<Vec<(String, Load)>> {
    let mut loads = Vec::new();
    for (client, family) in [("client1", Family::V4), ("client2", Family::V6)] {
        let arguments = Arguments {
            connections: Connections::PerRequest,
            concurrency: 2,
            pause_ms: 20,
            source: sources(client, family),
            ..cluster.arguments(Mode::Https, family)
        };
        loads.push((format!("{client} over {}", family.name()), cluster.load(client, &arguments)?));
    }
    Ok(loads)
}

fn service(mode: Mode, family: Family) -> String {
    let name = if mode == Mode::Https { "kube-apiserver" } else { "echo" };
    format!("{name}-{}", family.name().to_lowercase())
}

/// Drains a node everywhere, waits for its requests, restarts its servers, and enables it. `meanwhile` it is gone.
fn restart<T>(
    stage: &Stage,
    cluster: &mut Cluster,
    name: &str,
    meanwhile: impl FnOnce(&Cluster) -> Result<T>,
) -> Result<T> {
    stage.step(&format!("{name} is restarted"));
    let own = cluster.nodes.iter().position(|node| node.host.name() == name).context("no node")?;
    for node in &cluster.nodes {
        node.agent()?.lbctl(["backends", "drain", name])?;
    }
    for family in Family::BOTH {
        let https = service(Mode::Https, family);
        let wait = ["backends", "drain", name, "--service", &https, "--wait", "--timeout", "2s"];
        // Talkers stay longer than a restart waits.
        drop(cluster.nodes[own].agent()?.lbctl(wait));
    }
    for mode in [Mode::Https, Mode::Tcp] {
        let server = cluster.backends.remove(&(name.to_owned(), mode));
        server.context("no server")?.kill()?;
    }
    let result = meanwhile(cluster)?;
    for mode in [Mode::Https, Mode::Tcp] {
        cluster.start_backend(name, mode)?;
    }
    for node in &cluster.nodes {
        node.agent()?.lbctl(["backends", "enable", name])?;
    }
    cluster.wait_for_verdicts(name, true)?;
    Ok(result)
}

fn rebalance(cluster: &Cluster, node: usize, service: &str, how: &str) -> Result<Rebalance> {
    let told = cluster.nodes[node].agent()?.lbctl(["-o", "json", "rebalance", service, how])?;
    serde_json::from_str(&told).context("not the JSON that was agreed on")
}

/// Of the services of a mode, on each node.
fn looks(cluster: &Cluster, mode: Mode, how: &str) -> Result<Vec<Rebalance>> {
    let mut all = Vec::new();
    for node in 0..cluster.nodes.len() {
        for family in Family::BOTH {
            all.push(rebalance(cluster, node, &service(mode, family), how)?);
        }
    }
    Ok(all)
}

/// How many are misplaced, and how many can be moved, in sum.
fn sums(looks: &[Rebalance]) -> (u64, u64) {
    let looks = looks.iter().filter_map(|told| told.look.as_ref());
    looks.fold((0, 0), |(misplaced, movable), look| {
        (misplaced + look.misplaced, movable + look.movable)
    })
}

fn claim_moved(stage: &mut Stage, cluster: &Cluster, waiting: &Waiting) -> Result<()> {
    let skewed = waiting.shares();
    stage.figure("shares_after_restarts", serde_json::to_value(&skewed)?);
    let text = "after the restarts the last one has nobody, though all are well";
    stage.claim(text, !skewed.contains_key("master3"), format!("{skewed:?}"));
    let fresh = waiting.fresh(cluster)?;
    let before = waiting.all();
    let elsewhere: Vec<bool> =
        before.iter().zip(&fresh).map(|((_, one), to)| one.backend.as_ref() != Some(to)).collect();
    let misplaced = elsewhere.iter().filter(|elsewhere| **elsewhere).count() as u64;
    let told = await_movable(cluster)?;
    let text = "the agents find just those whose new connections go elsewhere";
    stage.claim(text, told == misplaced && misplaced > 0, format!("{told}, {misplaced}"));

    stage.step("they are moved");
    let begun = SystemTime::now();
    let moved = move_all(cluster)?;
    waiting.await_all(|_| true)?;
    let took = begun.elapsed().unwrap_or_default();
    let after = waiting.all();
    let placed = after.iter().zip(&fresh).filter(|((_, one), to)| one.backend.as_ref() == Some(to));
    let placed = placed.count();
    let shares = waiting.shares();
    let text = "then each is where a new connection of its goes";
    stage.claim(text, placed == after.len(), format!("{placed} of {}: {shares:?}", after.len()));
    let (left, _) = sums(&looks(cluster, Mode::Tcp, "--dry-run")?);
    stage.claim("and the agents find none that is misplaced", left == 0, left);
    claim_resets(stage, &after, &elsewhere, begun);
    stage.claim("lbctl says how many were moved", moved == misplaced, format!("{moved}"));
    claim_pace(stage, &after, begun);
    stage.figure("waiting", after.len());
    stage.figure("misplaced", misplaced);
    stage.figure("shares_rebalanced", serde_json::to_value(&shares)?);
    stage.figure("rebalanced_in_ms", took.as_millis() as u64);
    Ok(())
}

/// Waits until all that is misplaced is old enough and idle. Returns how many that are.
fn await_movable(cluster: &Cluster) -> Result<u64> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let told = looks(cluster, Mode::Tcp, "--dry-run")?;
        let (misplaced, movable) = sums(&told);
        if misplaced == movable {
            return Ok(misplaced);
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "{movable} of {misplaced} can be moved: {told:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// On all nodes at once; how many were moved.
fn move_all(cluster: &Cluster) -> Result<u64> {
    let mut commands = Vec::new();
    for node in &cluster.nodes {
        for family in Family::BOTH {
            let words = ["-o", "json", "rebalance", &service(Mode::Tcp, family), "--wait"];
            commands.push(node.agent()?.lbctl_command(words)?);
        }
    }
    let told = std::thread::scope(|scope| {
        let waits: Vec<_> =
            commands.iter_mut().map(|lbctl| scope.spawn(move || said(lbctl))).collect();
        let ended = waits.into_iter().map(|wait| match wait.join() {
            Ok(told) => told,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        ended.collect::<Result<Vec<String>>>()
    })?;
    let told: Vec<Rebalance> =
        told.iter().map(|told| serde_json::from_str(told)).collect::<Result<_, _>>()?;
    Ok(told.iter().map(|told| told.moved).sum())
}

fn ends(one: &Returner, since: SystemTime) -> impl Iterator<Item = &(SystemTime, String, End)> {
    one.ends.iter().filter(move |(at, _, _)| *at >= since)
}

/// Each that was elsewhere had one reset, and nobody else had anything.
fn claim_resets(
    stage: &mut Stage,
    after: &[(Family, Returner)],
    elsewhere: &[bool],
    since: SystemTime,
) {
    let (mut once, mut disturbed) = (0, 0);
    for ((_, one), elsewhere) in after.iter().zip(elsewhere) {
        let hows: Vec<End> = ends(one, since).map(|(_, _, how)| *how).collect();
        match elsewhere {
            true => once += usize::from(hows == [End::Reset]),
            false => disturbed += hows.len(),
        }
    }
    let all = elsewhere.iter().filter(|elsewhere| **elsewhere).count();
    let text = "each that was elsewhere had one reset";
    stage.claim(text, once == all, format!("{once} of {all}"));
    stage.claim("none that was placed right was disturbed", disturbed == 0, disturbed);
}

/// As the clients saw it: of each service on each node one in a quarter of a second.
fn claim_pace(stage: &mut Stage, after: &[(Family, Returner)], since: SystemTime) {
    let mut times: BTreeMap<(Family, &str), Vec<SystemTime>> = BTreeMap::new();
    for (family, one) in after {
        for (at, backend, _) in ends(one, since) {
            times.entry((*family, backend)).or_default().push(*at);
        }
    }
    let mut shortest = Duration::MAX;
    let mut kept = true;
    let mut most = 0;
    for times in times.values_mut() {
        times.sort_unstable();
        most = most.max(times.len());
        for (at, &first) in times.iter().enumerate() {
            for (further, &later) in times[at..].iter().enumerate().skip(1) {
                let between = later.duration_since(first).unwrap_or_default();
                kept &= between + JITTER >= PAUSE * further as u32;
            }
        }
        let gaps = times.windows(2).map(|p| p[1].duration_since(p[0]).unwrap_or_default());
        shortest = gaps.fold(shortest, Duration::min);
    }
    let seen = format!("{most} of one service and node, the two nearest {shortest:.0?} apart");
    stage.claim("the budget of a minute is held, evenly", kept && most > 1, &seen);
    stage.figure("shortest_pause_ms", shortest.as_millis() as u64);
}

/// Streams and connections that talk, and belong elsewhere too.
fn claim_talkers_stay(
    stage: &mut Stage,
    cluster: &Cluster,
    talking: Vec<(String, Load)>,
) -> Result<()> {
    stage.step("those that talk stay");
    let told = looks(cluster, Mode::Https, "--wait")?;
    let (misplaced, movable) = sums(&told);
    let busy: u64 = told.iter().filter_map(|told| Some(told.look.as_ref()?.busy)).sum();
    let moved: u64 = told.iter().map(|told| told.moved).sum();
    let text = "those that talk are found elsewhere, and not moved";
    let holds = busy > 0 && movable == 0 && moved == 0;
    stage.claim(text, holds, format!("{misplaced} misplaced, {busy} not idle, {moved} moved"));
    for (who, mut load) in talking {
        load.run_for_requests(50, LIMIT)?;
        let report = load.stop()?;
        let broken = report.streams.broken + report.connections_broken() + report.failed;
        let opened = report.streams.opened == u64::from(STREAMS);
        stage.claim(&format!("nothing of {who} is cut"), broken == 0 && opened, report.summary());
    }
    stage.figure("busy_elsewhere", busy);
    Ok(())
}

fn claim_automatic(stage: &mut Stage, cluster: &mut Cluster, waiting: &Waiting) -> Result<()> {
    stage.step("once more, and nobody asks");
    let fresh = waiting.fresh(cluster)?;
    cluster.shape.service_tables = format!("{TERMS}automatic = true\n");
    let text = cluster.shape.configuration();
    for node in &mut cluster.nodes {
        node.agent_mut()?.reload_with(&text)?;
    }
    let asked: u64 = looks(cluster, Mode::Tcp, "--dry-run")?.iter().map(|told| told.moved).sum();
    restart(stage, cluster, "master2", |_| waiting.await_all(|backend| backend != "master2"))?;
    let begun = Instant::now();
    waiting.await_placed(&fresh)?;
    let took = begun.elapsed();
    let told = looks(cluster, Mode::Tcp, "--dry-run")?;
    let moved = told.iter().map(|told| told.moved).sum::<u64>() - asked;
    let automatic = told.iter().filter_map(|told| told.job.as_ref()).filter(|job| job.automatic);
    let jobs = automatic.count();
    let text =
        "without being asked each goes where it belongs, once nothing has changed for a while";
    stage.claim(text, jobs > 0 && moved > 0, format!("{moved} moved by {jobs} jobs in {took:.1?}"));
    stage.figure("automatic_moved", moved);
    stage.figure("automatic_ms", took.as_millis() as u64);
    Ok(())
}
