//! `idle`: what the agent's process costs when nothing happens, by the interval of its advertisements.
//!
//! In the lab the kernel carries a frame over the switch and into the other machines in the sender's
//! time, which a network card would not. So a thread sends frames like the advertisements, as often and
//! to as many, and does nothing else: the floor.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use etherparse::PacketBuilder;
use lb_agent::announce::{Interface, LinkSocket};
use nix::net::if_::if_nametoindex;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use serde_json::json;

use crate::backend::Mode;
use crate::scenario::cluster::Cluster;
use crate::scenario::shape::{NIC, Shape, Vrrp};
use crate::scenario::stage::Stage;

/// Between advertisements.
const INTERVALS: [(&str, Duration); 2] =
    [("10ms", Duration::from_millis(10)), ("100ms", Duration::from_millis(100))];
/// A tick of the kernel's account is 10 ms: 0.05 % of it.
const SPAN: Duration = Duration::from_secs(20);
const FLOOR_SPAN: Duration = Duration::from_secs(5);
/// Of a core.
const BAR_PERCENT: f64 = 1.0;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    for (name, interval) in INTERVALS {
        stage.step(&format!("{name}: starting"));
        let vrrp = Some(Vrrp { interval });
        let mut cluster = Cluster::start(stage, Shape { vrrp, ..Shape::masters(&[Mode::Https]) })?;
        cluster.elect(0, &[0, 1, 2])?;
        cluster.settle()?;
        stage.step(&format!("{name}: nothing happens for {SPAN:?}"));
        let (begun, before) = (Instant::now(), used(&cluster)?);
        std::thread::sleep(SPAN);
        let (elapsed, after) = (begun.elapsed(), used(&cluster)?);
        let percent: Vec<f64> = before
            .iter()
            .zip(&after)
            .map(|(before, after)| {
                let share = (*after - *before).as_secs_f64() / elapsed.as_secs_f64();
                (share * 1e4).round() / 1e2
            })
            .collect();
        let active = cluster.active(&[0, 1, 2])?;
        let text = format!("{name}: the agent takes less than {BAR_PERCENT} % of a core");
        let holds = active == [0] && percent.iter().all(|percent| *percent < BAR_PERCENT);
        stage.claim(&text, holds, format!("Active, Backup, Backup: {percent:?} %"));
        let [active, backups @ ..] = &percent[..] else { continue };
        stage.step(&format!("{name}: only frames, for {FLOOR_SPAN:?}"));
        let figure = json!({
            "active_cpu_percent": active,
            "backup_cpu_percent": backups,
            "frames_alone_cpu_percent": floor(&cluster, interval)?,
        });
        stage.figure(&format!("at_{name}"), figure);
    }
    Ok(())
}

/// The share of a core that the frames of both families take by themselves, in percent.
fn floor(cluster: &Cluster, interval: Duration) -> Result<f64> {
    let host = &cluster.nodes[0].host;
    let mac = host.mac(NIC)?;
    let mut frames = [Vec::new(), Vec::new()];
    let [v4, v6] = &mut frames;
    let payload = [0; 4];
    let four = PacketBuilder::ethernet2(mac, [0x01, 0, 0x5e, 0, 0, 0x12]);
    four.ipv4([192, 168, 139, 133], [224, 0, 0, 18], 255).udp(9, 9).write(v4, &payload)?;
    let six = PacketBuilder::ethernet2(mac, [0x33, 0x33, 0, 0, 0, 0x12]);
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12).octets();
    let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).octets();
    six.ipv6(own, group, 255).udp(9, 9).write(v6, &payload)?;
    // On a thread of its own, whose time is read.
    host.namespace().within(|| {
        let index = if_nametoindex(NIC)?;
        let interface = Interface { index, name: NIC.to_owned(), mac };
        let mut socket = LinkSocket::sender(&interface)?;
        let used = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
        let (begun, before) = (Instant::now(), used()?);
        while begun.elapsed() < FLOOR_SPAN {
            frames.iter().try_for_each(|frame| socket.send(frame))?;
            std::thread::sleep(interval);
        }
        let share = (used()? - before).as_secs_f64() / begun.elapsed().as_secs_f64();
        Ok((share * 1e4).round() / 1e2)
    })
}

/// Time on a core, in user space and in the kernel, of each node's agent.
fn used(cluster: &Cluster) -> Result<Vec<Duration>> {
    let nodes = cluster.nodes.iter();
    nodes.map(|node| process_time(node.agent()?.process().id())).collect()
}

/// utime and stime of proc_pid_stat(5).
fn process_time(id: u32) -> Result<Duration> {
    let path = format!("/proc/{id}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The second field is a name in parentheses that may hold anything; the third follows it.
    let (_, rest) = text.rsplit_once(')').context("a stat file without a name")?;
    let fields = rest.split_ascii_whitespace().skip(14 - 3).take(2);
    let ticks = fields.map(|field| field.parse::<u64>().context("a time")).sum::<Result<u64>>()?;
    let a_second = sysconf(SysconfVar::CLK_TCK)?.context("no CLK_TCK")?;
    Ok(Duration::from_secs_f64(ticks as f64 / a_second as f64))
}
