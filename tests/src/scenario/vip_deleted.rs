//! `vip-deleted`: somebody deletes the VIPs from the Active node's interface, again and again, under
//! load. They come back, and nobody notices.

use std::time::{Duration, Instant};

use anyhow::Result;
use lb_agent::control::api::VirtualRouter;

use super::cluster::Cluster;
use super::failover::{median, sorted_ms, trial};
use super::shape::{Family, NIC, Shape, Vrrp, vip};
use super::stage::Stage;
use super::tally::{Tally, rounded};
use crate::backend::Mode;
use crate::client::{Arguments, Connections, Load};

const INTERVAL: Duration = Duration::from_millis(100);
const STREAMS: u32 = 12;
const LIMIT: Duration = Duration::from_secs(30);
/// Times that each VIP is deleted one by one, and all of them at once without a pause.
const SINGLE: usize = 5;
const BURSTS: usize = 3;
const IN_A_BURST: usize = 5;
const WITHIN: Duration = Duration::from_secs(1);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let vrrp = Some(Vrrp { interval: INTERVAL });
    let shape = Shape { clients: 3, vrrp, ..Shape::masters(&[Mode::Https]) };
    let mut cluster = Cluster::start(stage, shape)?;
    cluster.elect(0, &[0, 1, 2])?;
    let before = transitions(&cluster.nodes[0].agent()?.vrrp()?);
    let mut loads = start_loads(&cluster)?;
    let asker = trial::ask(&cluster)?;
    let mut away = Vec::new();
    for number in 1..=SINGLE {
        for family in Family::BOTH {
            stage.step(&format!("the {} VIP is deleted, {number} of {SINGLE}", family.name()));
            away.push(cluster.nodes[0].host.delete_address(NIC, vip(family), WITHIN)?);
            for (_, load) in &mut loads {
                load.run_for_requests(20, LIMIT)?;
            }
        }
    }
    let (mut bursts, mut in_time) = (Vec::new(), true);
    for number in 1..=BURSTS {
        stage.step(&format!("{IN_A_BURST} times within a second, {number} of {BURSTS}"));
        let begun = Instant::now();
        for _ in 0..IN_A_BURST {
            for family in Family::BOTH {
                bursts.push(cluster.nodes[0].host.delete_address(NIC, vip(family), WITHIN)?);
            }
        }
        in_time &= begun.elapsed() < WITHIN;
        for (_, load) in &mut loads {
            load.run_for_requests(50, LIMIT)?;
        }
    }
    let seen = asker.stop()?;
    cluster.settle()?;
    conclude(stage, &cluster, before, (away, bursts, in_time))?;
    let owners = seen.owners();
    let own = cluster.nodes[0].host.mac(NIC)?;
    stage.claim("one node answers ARP all the time", owners == [own], format!("{owners:02x?}"));
    let mut tally = Tally::default();
    tally.all_answered(stage, loads)?;
    tally.unbroken(stage, 2 * STREAMS);
    tally.moved(stage);
    Ok(())
}

fn conclude(
    stage: &mut Stage,
    cluster: &Cluster,
    before: Vec<u64>,
    (away, bursts, in_time): (Vec<Duration>, Vec<Duration>, bool),
) -> Result<()> {
    let (away_ms, bursts_ms) = (sorted_ms(away.into_iter()), sorted_ms(bursts.into_iter()));
    let seen = format!("{away_ms:.1?} ms one by one, {bursts_ms:.1?} ms in a row");
    stage.claim("every deleted VIP is restored, several times within a second too", in_time, seen);
    let now = transitions(&cluster.nodes[0].agent()?.vrrp()?);
    let active = cluster.active(&[0, 1, 2])?;
    let seen = format!("Active {active:?}, transitions {before:?}, then {now:?}");
    stage.claim("the role stays where it is", active == [0] && now == before, seen);
    let last = |sorted: &[f64]| sorted.last().copied().unwrap_or_default();
    stage.figure("deleted", away_ms.len() + bursts_ms.len());
    stage.figure("restored_ms", rounded(median(&away_ms)));
    stage.figure("restored_max_ms", rounded(last(&away_ms).max(last(&bursts_ms))));
    Ok(())
}

fn transitions(routers: &[VirtualRouter]) -> Vec<u64> {
    routers.iter().map(|router| router.transitions).collect()
}

fn start_loads(cluster: &Cluster) -> Result<Vec<(String, Load)>> {
    cluster.loads("new", |arguments| Arguments {
        concurrency: 4,
        streams: STREAMS,
        pause_ms: 10,
        connections: Connections::PerRequest,
        ..arguments
    })
}
