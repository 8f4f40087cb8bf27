//! `idle`: what the agent's process costs when nothing happens, by the interval of its advertisements, and
//! beside it what the process of a keepalived costs that is Active for as many VIPs on a switch of its own.
//!
//! A veth's frames are carried over the switch and into the other machines in their sender's time, which
//! would be counted as the agent's. So the switch works on threads of its own here, as behind a card.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use crate::backend::Mode;
use crate::lab::peer::await_some;
use crate::lab::peer::keepalived::Keepalived;
use crate::lab::{Host, processor_time};
use crate::scenario::cluster::Cluster;
use crate::scenario::shape::{Family, NIC, Shape, Vrrp};
use crate::scenario::stage::Stage;

/// What runs while nothing happens: three nodes, one service with the checks that a file without a word
/// of them has.
struct Case {
    name: &'static str,
    /// Between advertisements of each family's virtual router.
    interval: Duration,
    families: &'static [Family],
}

const CASES: [Case; 3] = [
    Case { name: "10ms_ipv4", interval: Duration::from_millis(10), families: &[Family::V4] },
    Case { name: "10ms", interval: Duration::from_millis(10), families: &Family::BOTH },
    Case { name: "100ms", interval: Duration::from_millis(100), families: &Family::BOTH },
];
/// A tick of the kernel's account is 10 ms: 0.05 % of it.
const SPAN: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(10);
/// Of a core.
const BAR_PERCENT: f64 = 1.0;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    for Case { name, interval, families } in CASES {
        stage.step(&format!("{name}: starting"));
        let vrrp = Some(Vrrp { interval });
        let shape =
            Shape { vrrp, families, checks: String::new(), ..Shape::masters(&[Mode::Https]) };
        let mut cluster = Cluster::start(stage, shape)?;
        cluster.elect(0, &[0, 1, 2])?;
        cluster.settle()?;
        let peer = Peer::start(&cluster, interval, families)?;
        cluster.lab.switch_on_threads()?;
        stage.step(&format!("{name}: nothing happens for {SPAN:?}"));
        let (begun, before) = (Instant::now(), used(&cluster, &peer)?);
        std::thread::sleep(SPAN);
        let (elapsed, after) = (begun.elapsed(), used(&cluster, &peer)?);
        let percent: Vec<f64> = before
            .iter()
            .zip(&after)
            .map(|(before, after)| {
                let share = (*after - *before).as_secs_f64() / elapsed.as_secs_f64();
                (share * 1e4).round() / 1e2
            })
            .collect();
        let [keepalived, agents @ ..] = &percent[..] else { continue };
        let active = cluster.active(&[0, 1, 2])?;
        let text = format!("{name}: the agent takes less than {BAR_PERCENT} % of a core");
        let holds = active == [0] && agents.iter().all(|percent| *percent < BAR_PERCENT);
        let seen = format!("Active, Backup, Backup: {agents:?} %, keepalived {keepalived} %");
        stage.claim(&text, holds, seen);
        let [active, backups @ ..] = agents else { continue };
        let figure = json!({
            "active_cpu_percent": active,
            "backup_cpu_percent": backups,
            "keepalived_active_cpu_percent": keepalived,
        });
        stage.figure(&format!("at_{name}"), figure);
    }
    Ok(())
}

/// A machine with a keepalived, and one that its advertisements reach.
struct Peer {
    // Before the hosts: it goes first.
    keepalived: Keepalived,
    _hosts: [Host; 2],
}

impl Peer {
    fn start(cluster: &Cluster, interval: Duration, families: &[Family]) -> Result<Self> {
        let host = |name: &str, last: u8| {
            let own = [format!("192.0.2.{last}/24"), format!("2001:db8::{last}/64")];
            cluster.lab.host(name).interface(NIC, "keepers", &own).start()
        };
        let hosts = [host("keeper", 1)?, host("listener", 2)?];
        let keepalived = Keepalived::start(&hosts[0], &configuration(interval, families))?;
        for family in families {
            let held = || Ok(hosts[0].holds(NIC, peer_vip(*family))?.then_some(()));
            await_some("keepalived's VIP", LIMIT, held)?;
        }
        Ok(Self { keepalived, _hosts: hosts })
    }
}

fn peer_vip(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, 100).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100).into(),
    }
}

/// A virtual router for each family, as the agents have.
fn configuration(interval: Duration, families: &[Family]) -> String {
    let seconds = interval.as_secs_f64();
    let instance = |(number, family): (usize, &Family)| {
        format!(
            "vrrp_instance VI_{number} {{\n state MASTER\n interface {NIC}\n version 3\n \
             virtual_router_id {number}\n priority 200\n advert_int {seconds}\n \
             virtual_ipaddress {{ {} }}\n}}\n",
            peer_vip(*family)
        )
    };
    (1..).zip(families).map(instance).collect()
}

/// Time on a core, in user space and in the kernel: of keepalived, then of each node's agent.
fn used(cluster: &Cluster, peer: &Peer) -> Result<Vec<Duration>> {
    let mut used = vec![processor_time(peer.keepalived.child()?.as_raw().cast_unsigned())?];
    for node in &cluster.nodes {
        used.push(processor_time(node.agent()?.process().id())?);
    }
    Ok(used)
}
