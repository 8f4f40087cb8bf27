//! `nat-failover`: thousands of connections to servers that run nothing of ours, some of which only listen, and
//! the VIP moves: its node resigns and takes it back, then dies and comes back.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::cluster::Cluster;
use super::failover::milliseconds;
use super::shape::{self, Family, Shape, Vrrp, sources};
use super::stage::Stage;
use super::tally::rounded;
use crate::backend::Mode;
use crate::client::{Flock, Manner, Survival};

/// Connections of each manner in each family; with `--times` so many times as many that are synchronised.
const EACH: usize = 1000;
const INTERVAL: Duration = Duration::from_millis(100);
/// For so long a connection may stand still and still be said to go on. TCP asks again after 0.2, 0.6, 1.4 and 3 s.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where many are lost, for whom it is waited in vain: three of those.
const SHORT_PATIENCE: Duration = Duration::from_secs(4);
/// After a move, until nobody's frames go to the former node.
const SETTLED: Duration = Duration::from_secs(1);
/// The node that is Active where both are well, and its partner.
const PAIR: [usize; 2] = [0, 1];

/// How the VIP moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Move {
    Resigned,
    TakenBack,
    Crashed,
    Returned,
}

impl Move {
    const ALL: [Self; 4] = [Self::Resigned, Self::TakenBack, Self::Crashed, Self::Returned];

    const fn name(self) -> &'static str {
        match self {
            Self::Resigned => "resigned",
            Self::TakenBack => "taken_back",
            Self::Crashed => "crashed",
            Self::Returned => "returned",
        }
    }

    /// Makes it, and waits until it is done.
    fn make(self, cluster: &mut Cluster) -> Result<()> {
        let [first, second] = PAIR;
        match self {
            Self::Resigned => drop(cluster.nodes[first].agent()?.lbctl(["vrrp", "hold"])?),
            Self::TakenBack => drop(cluster.nodes[first].agent()?.lbctl(["vrrp", "release"])?),
            Self::Crashed => cluster.crash(first)?,
            Self::Returned => cluster.boot(first)?,
        }
        match self {
            Self::Resigned | Self::Crashed => cluster.await_active(&[second]).map(drop),
            Self::TakenBack | Self::Returned => cluster.await_active(&[first]).map(drop),
        }
    }
}

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    by_hash_alone(stage)?;
    synchronised(stage)
}

/// What the hash of the first port does by itself: a client that talks has its flow made anew where that port was
/// free. One that only listens waits.
fn by_hash_alone(stage: &mut Stage) -> Result<()> {
    let mut cluster = start(stage, None)?;
    // Not so many times as many: what is lost is opened anew, and what it leaves has its ports for a minute.
    let outcomes = moves(stage, &mut cluster, EACH, SHORT_PATIENCE)?;
    for &(way, family, manner, survival) in &outcomes {
        report(stage, "hash", way, family, manner, survival);
    }
    let talking = outcomes.iter().filter(|(.., manner, _)| *manner == Manner::Talks);
    let (mut survived, mut all) = (0, 0);
    for (.., survival) in talking {
        survived += survival.survived;
        all += survival.all;
    }
    let text = "without synchronisation nine of ten clients that talk go on";
    stage.claim(text, survived * 10 >= all * 9, format!("{survived} of {all}"));
    Ok(())
}

/// The nodes tell one another of their flows.
fn synchronised(stage: &mut Stage) -> Result<()> {
    let mut cluster = start(stage, Some("a key of the lab's that nobody guesses"))?;
    let each = EACH * stage.times() as usize;
    for (way, family, manner, survival) in moves(stage, &mut cluster, each, PATIENCE)? {
        report(stage, "told", way, family, manner, survival);
        let (name, family) = (way.name(), family.name());
        let text =
            format!("{name}: 99 of 100 {family} connections go on of which one side {manner:?}");
        let Survival { all, survived, .. } = survival;
        stage.claim(&text, survived * 100 >= all * 99, format!("{survived} of {all}"));
    }
    let (mut adopted, mut refused) = (Vec::new(), 0);
    for index in PAIR {
        for sync in cluster.nodes[index].agent()?.nodes()?.into_iter().filter_map(|n| n.nat_sync) {
            adopted.push(sync.adopted);
            refused += sync.refused.values().sum::<u64>();
            let name = cluster.name_of(index).to_owned();
            stage.say(&format!("{name}: {sync:?}"));
            let connected = sync.connected && sync.heard;
            let text = format!("{name} tells and hears at the end");
            stage.claim(&text, connected, format!("{connected}: {}", sync.reason));
        }
    }
    let learnt = adopted.len() == PAIR.len() && adopted.iter().all(|&count| count > 0);
    stage.claim("each has learnt of flows from the other", learnt, format!("{adopted:?}"));
    stage.figure("told_refused", refused);
    Ok(())
}

/// With a key the nodes synchronise.
fn start(stage: &Stage, key: Option<&str>) -> Result<Cluster> {
    let shape = Shape {
        hash: "source-port",
        vrrp: Some(Vrrp { interval: INTERVAL }),
        preempt: true,
        ..Shape::pair(&[Mode::Tcp])
    };
    let mut cluster = Cluster::machines(stage, shape)?;
    if let Some(key) = key {
        let path = cluster.lab.directory().join("peers.key");
        fs::write(&path, key).context("cannot write a key")?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).context("chmod 600")?;
        cluster.shape.further = format!("\n[peers]\nkey_file = {path:?}\n");
    }
    stage.step("starting the agents");
    cluster.start_agents()?;
    cluster.settle()?;
    cluster.await_active(&PAIR[..1])?;
    Ok(cluster)
}

/// What became of the connections in each move.
type Outcome = (Move, Family, Manner, Survival);

fn moves(
    stage: &mut Stage,
    cluster: &mut Cluster,
    each: usize,
    patience: Duration,
) -> Result<Vec<Outcome>> {
    stage.step(&format!("opening {} connections", each * Manner::ALL.len() * Family::BOTH.len()));
    let (mut flocks, mut moved) = (Vec::new(), Instant::now());
    for (client, family) in [("client1", Family::V4), ("client2", Family::V6)] {
        let (host, target) = (cluster.host(client)?, shape::target(Mode::Tcp, family));
        flocks.push((client, family, Flock::start(host, target, &sources(client, family), each)?));
    }
    let mut outcomes = Vec::new();
    for way in Move::ALL {
        stage.step(&format!("all connections go on before the VIP moves: {}", way.name()));
        for (client, _, flock) in &mut flocks {
            flock.replace_lost(cluster.host(client)?, moved)?;
            flock.survival(Instant::now(), PATIENCE);
            flock.measure_anew();
        }
        stage.step(&format!("the VIP moves: {}", way.name()));
        way.make(cluster)?;
        // What the former node still passed on says nothing.
        moved = Instant::now() + SETTLED;
        for (_, family, flock) in &flocks {
            let left = patience.saturating_sub(moved.elapsed());
            for (manner, survival) in flock.survival(moved, left) {
                outcomes.push((way, *family, manner, survival));
            }
        }
    }
    Ok(outcomes)
}

fn report(
    stage: &mut Stage,
    kind: &str,
    way: Move,
    family: Family,
    manner: Manner,
    survival: Survival,
) {
    let family = family.name().to_lowercase();
    let name = format!("{kind}_{}_{family}_{manner:?}", way.name()).to_lowercase();
    let Survival { all, survived, ended, longest } = survival;
    let longest_ms = rounded(milliseconds(longest));
    stage.say(&format!("{name}: {survived} of {all}, {ended} ended, the longest {longest_ms} ms"));
    stage.figure(&format!("{name}_survived"), survived as u64);
    stage.figure(&format!("{name}_of"), all as u64);
    stage.figure(&format!("{name}_longest_ms"), longest_ms);
}
