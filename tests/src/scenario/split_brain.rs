//! `split-brain`: a Backup no longer hears the Active node and becomes Active too, under load. Then it
//! hears it again.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use lb_agent::control::api::VirtualRouter;

use super::cluster::{Cluster, SETTLE};
use super::failover::{median, sorted_ms, trial};
use super::shape::{Family, NIC, Shape, Vrrp, vip};
use super::stage::Stage;
use super::tally::{Tally, rounded};
use crate::backend::Mode;
use crate::client::{Arguments, Connections, Load, Ownership};
use crate::lab::Mac;
use crate::lab::capture::{Direction, Recording};

const INTERVAL: Duration = Duration::from_millis(100);
/// Odd, so that the median is a measured value.
const RUNS: usize = 3;
const STREAMS: u32 = 12;
const LIMIT: Duration = Duration::from_secs(30);
/// The one that wins by its priority, and the one that does not hear it.
const PAIR: [usize; 2] = [0, 1];
const VRRP: u8 = 112;
/// The winner advertises once in an interval, and the loser hears it.
const HEALED_WITHIN: Duration = INTERVAL.saturating_mul(2);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let shape = Shape {
        nodes: 4,
        clients: 3,
        vrrp: Some(Vrrp { interval: INTERVAL }),
        ..Shape::masters(&[Mode::Https])
    };
    let mut cluster = Cluster::start(stage, shape.with_members(&["master3", "master4"]))?;
    cluster.elect(PAIR[0], &PAIR)?;
    let mut loads = start_loads(&cluster)?;
    let mut healed = Vec::new();
    for number in 1..=RUNS {
        stage.step(&format!("split {number} of {RUNS}"));
        healed.push(split(stage, &cluster, &mut loads)?);
        cluster.settle()?;
    }
    let mut tally = Tally::default();
    tally.all_answered(stage, loads)?;
    tally.unbroken(stage, 2 * STREAMS);
    tally.moved(stage);
    let spans = |of: fn(&Healed) -> Duration| sorted_ms(healed.iter().map(of));
    stage.figure("healed_ms", rounded(median(&spans(|h| h.gave_up))));
    stage.figure("dual_answer_after_heal_ms", rounded(median(&spans(|h| h.last_answer))));
    stage.figure("neighbours_right_after_ms", rounded(median(&spans(|h| h.neighbours))));
    stage.figure("splits", RUNS);
    Ok(())
}

/// What happened after the loser could hear again, counted from then.
struct Healed {
    /// Until it had given up.
    gave_up: Duration,
    /// Until its last answer by ARP.
    last_answer: Duration,
    /// Until every client's neighbour table named the winner.
    neighbours: Duration,
}

fn split(stage: &mut Stage, cluster: &Cluster, loads: &mut [(String, Load)]) -> Result<Healed> {
    let [winner, loser] = PAIR.map(|index| &cluster.nodes[index]);
    let [winner_mac, loser_mac] = [winner.host.mac(NIC)?, loser.host.mac(NIC)?];
    let received = received(&winner.agent()?.vrrp()?);
    let asker = trial::ask(cluster)?;
    let wire = loser.host.capture(NIC)?;
    let deaf = loser.host.lose_heard(NIC, VRRP)?;
    await_both(cluster)?;
    for (_, load) in &mut *loads {
        load.run_for_requests(100, LIMIT)?;
    }
    say_rival(stage, &winner.agent()?.vrrp()?, received);

    drop(deaf);
    let (begun, healed_at) = (Instant::now(), SystemTime::now());
    let active = cluster.await_active(&PAIR)?;
    let gave_up = begun.elapsed();
    let mut known = Vec::new();
    for (client, family) in [("client1", Family::V4), ("client2", Family::V6)] {
        let host = cluster.host(client)?;
        known.push(host.await_neighbour(vip(family), winner_mac, SETTLE)? == Some(winner_mac));
    }
    let neighbours = begun.elapsed();
    for (_, load) in &mut *loads {
        load.run_for_requests(100, LIMIT)?;
    }
    let healed_at = healed_at.duration_since(SystemTime::UNIX_EPOCH)?;
    let text = "the one of higher priority alone is Active soon after the heal";
    let seen = format!("{} after {gave_up:.1?}", cluster.name_of(active));
    stage.claim(text, active == PAIR[0] && gave_up <= HEALED_WITHIN, seen);
    let text = "the clients' neighbour tables name it right after the heal";
    stage.claim(text, known == [true; 2], format!("{known:?} after {neighbours:.1?}"));
    silent_end(stage, &wire.stop()?, winner_mac, healed_at);
    let last_answer = sole_answers(stage, &asker.stop()?, [winner_mac, loser_mac], healed_at)?;
    let reasons: Vec<String> = loser.agent()?.vrrp()?.into_iter().map(|r| r.reason).collect();
    let told = reasons.iter().all(|reason| reason.ends_with("is active with priority 100"));
    stage.claim("`lbctl vrrp` says to whom the loser yielded", told, format!("{reasons:?}"));
    Ok(Healed { gave_up, last_answer, neighbours })
}

fn await_both(cluster: &Cluster) -> Result<()> {
    let deadline = Instant::now() + SETTLE;
    while cluster.active(&PAIR)? != PAIR {
        ensure!(Instant::now() < deadline, "the one that hears nothing does not become Active");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn received(routers: &[VirtualRouter]) -> Vec<u64> {
    routers.iter().map(|router| router.received).collect()
}

/// An Active router that hears another one names it.
fn say_rival(stage: &mut Stage, routers: &[VirtualRouter], before: Vec<u64>) {
    let now = received(routers);
    let heard: Vec<_> = routers.iter().map(|router| router.heard.as_ref()).collect();
    let named = heard.iter().all(|heard| heard.is_some_and(|heard| heard.priority == 90));
    let counted = now.len() == before.len() && now.iter().zip(&before).all(|(now, b)| now > b);
    let seen = format!("heard {heard:?}, received {before:?}, then {now:?}");
    stage.claim("`lbctl vrrp` on the other names the rival and counts", named && counted, seen);
}

/// From the first advertisement on that the loser could hear it sends none, not even a resignation.
fn silent_end(stage: &mut Stage, wire: &Recording, winner: Mac, healed_at: Duration) {
    let mut counts = Vec::new();
    for version in [4, 6] {
        let adverts =
            wire.frames.iter().filter(|frame| frame.ip_protocol() == Some((version, VRRP)));
        let heard = adverts.clone().find(|frame| {
            let to_it = frame.direction == Direction::ToHost;
            to_it && frame.source_mac() == Some(winner) && frame.at >= healed_at
        });
        let sent = heard.map(|heard| {
            let own = adverts.filter(|frame| frame.direction == Direction::FromHost);
            own.filter(|frame| frame.at > heard.at).count()
        });
        counts.push(sent);
    }
    let text = "the loser sends nothing from what it hears first on";
    stage.claim(text, counts == [Some(0); 2], format!("IPv4 and IPv6: {counts:?}"));
}

/// Returns how long after the heal the loser answered last.
fn sole_answers(
    stage: &mut Stage,
    seen: &Ownership,
    [winner, loser]: [Mac; 2],
    healed_at: Duration,
) -> Result<Duration> {
    let last = seen.last_answer(loser).context("the loser answered nobody by ARP")?;
    let after = last.saturating_sub(healed_at);
    let (own, other) = seen.answers(healed_at + HEALED_WITHIN, winner);
    let text = "the winner alone answers ARP soon after the heal";
    let seen = format!("the loser last after {after:.1?}, then {own} to {other} answers");
    stage.claim(text, after <= HEALED_WITHIN && own > 0 && other == 0, seen);
    Ok(after)
}

fn start_loads(cluster: &Cluster) -> Result<Vec<(String, Load)>> {
    let each = |arguments| Arguments { concurrency: 4, pause_ms: 10, ..arguments };
    let mut loads =
        cluster.loads("kept", |arguments| Arguments { streams: STREAMS, ..each(arguments) })?;
    loads.extend(cluster.loads("new", |arguments| Arguments {
        connections: Connections::PerRequest,
        ..each(arguments)
    })?);
    Ok(loads)
}
