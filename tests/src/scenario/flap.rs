//! `flap`: the Active node's link goes down and up, several times in a row, faster than anybody's timer
//! and slower, under load.

use std::time::Duration;

use anyhow::Result;
use lb_agent::control::api::VirtualRouter;

use super::cluster::{Cluster, SETTLE};
use super::failover::{milliseconds, trial};
use super::shape::{NIC, Shape, Vrrp};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::client::{Arguments, Load};

const INTERVAL: Duration = Duration::from_millis(100);
/// Three intervals: for so long a node that nobody hears any more may think itself Active.
const LEASE: Duration = INTERVAL.saturating_mul(3);
const STREAMS: u32 = 12;
const LIMIT: Duration = Duration::from_secs(30);
const PAIR: [usize; 2] = [0, 1];

/// How the link goes: how often, and how long it is down each time and up again. The fast one is
/// shorter than an interval, the middle one about what the others wait for, the slow one longer.
const FLAPS: [(&str, u32, Duration); 3] = [
    ("fast", 6, Duration::from_millis(30)),
    ("middling", 4, Duration::from_millis(320)),
    ("slow", 3, Duration::from_millis(900)),
];

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
    let mut active = PAIR[0];
    let mut dual = Duration::ZERO;
    for (pace, times, each) in FLAPS {
        stage.step(&format!("the link of {} flaps: {pace}", cluster.name_of(active)));
        let before = transitions(&cluster)?;
        let asker = trial::ask(&cluster)?;
        for _ in 0..times {
            for plugged in [false, true] {
                cluster.nodes[active].host.set_cable(NIC, plugged)?;
                // The pace of the flaps is what is tested; nothing is awaited here.
                std::thread::sleep(each);
            }
        }
        let struck = active;
        active = cluster.await_active(&PAIR)?;
        for (_, load) in &mut loads {
            load.run_for_requests(100, LIMIT)?;
        }
        let seen = asker.stop()?;
        let longest = seen.dual();
        dual = dual.max(longest);
        let text = format!("{pace} flaps: no two nodes answer ARP beyond a lease");
        stage.claim(
            &text,
            longest <= LEASE,
            format!("{longest:?} of {} questions", seen.questions()),
        );
        steady(stage, &cluster, pace, (struck, active), before)?;
    }
    cluster.settle()?;
    let mut tally = Tally::default();
    tally.all_answered(stage, loads)?;
    tally.unbroken(stage, 2 * STREAMS);
    tally.moved(stage);
    stage.figure("dual_answer_ms", milliseconds(dual));
    Ok(())
}

/// The role moves once where the link was away for longer than the others wait, and stays there.
fn steady(
    stage: &mut Stage,
    cluster: &Cluster,
    pace: &str,
    (struck, active): (usize, usize),
    before: [Vec<u64>; 2],
) -> Result<()> {
    let now = transitions(cluster)?;
    let seen = format!(
        "from {} to {}, transitions {before:?}, then {now:?}",
        cluster.name_of(struck),
        cluster.name_of(active)
    );
    let moved: Vec<u64> =
        before.iter().flatten().zip(now.iter().flatten()).map(|(b, n)| n - b).collect();
    let text = format!("{pace} flaps: the role moves once at most, and stays with the successor");
    // Each router of both families: once to Active, or once to Backup.
    stage.claim(&text, moved.iter().all(|&moves| moves <= 1), seen);
    Ok(())
}

/// Of the pair, by router.
fn transitions(cluster: &Cluster) -> Result<[Vec<u64>; 2]> {
    let of = |index: usize| -> Result<Vec<u64>> {
        let routers: Vec<VirtualRouter> = cluster.nodes[index].agent()?.vrrp()?;
        Ok(routers.iter().map(|router| router.transitions).collect())
    };
    let [one, other] = PAIR;
    Ok([of(one)?, of(other)?])
}

fn start_loads(cluster: &Cluster) -> Result<Vec<(String, Load)>> {
    let timeout_ms = u64::try_from(SETTLE.as_millis())?;
    cluster.loads("kept", |arguments| Arguments {
        concurrency: 4,
        streams: STREAMS,
        pause_ms: 10,
        timeout_ms,
        ..arguments
    })
}
