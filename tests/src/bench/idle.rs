//! `idle`: what the agent's process costs when nothing happens, by the interval of its advertisements.
//!
//! In the lab the kernel carries a frame over the switch and into the other machines in the sender's
//! time, which a network card would not, and waking a thread costs what this machine's clock costs. So
//! beside it, in the same run, threads do nothing else: one sends frames like the advertisements, as often
//! and to as many, and one on a Backup takes them. What remains above these floors is the agent's.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use etherparse::{IpNumber, PacketBuilder};
use lb_agent::announce::{Interface, LinkSocket};
use lb_agent::vrrp::identity::{Priority, RouterId, Version};
use lb_agent::vrrp::packet::{Advertisement, Authentication, Checksum, PROTOCOL};
use nix::net::if_::if_nametoindex;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use serde_json::json;

use crate::backend::Mode;
use crate::lab::Host;
use crate::scenario::cluster::Cluster;
use crate::scenario::shape::{Family, NIC, Shape, Vrrp, address};
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
const FLOOR_SPAN: Duration = Duration::from_secs(5);
/// Of the frames that are only sent; the lab has 51.
const OTHER_ROUTER: u8 = 200;
/// `ETH_P_IP` (linux/if_ether.h).
const ETHERTYPE_IPV4: u16 = 0x0800;
/// Of a core.
const BAR_PERCENT: f64 = 1.0;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    for Case { name, interval, families } in CASES {
        stage.step(&format!("{name}: starting"));
        let vrrp = Some(Vrrp { interval });
        let shape = Shape { vrrp, families, checks: "", ..Shape::masters(&[Mode::Https]) };
        let mut cluster = Cluster::start(stage, shape)?;
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
        stage.step(&format!("{name}: only frames, for {FLOOR_SPAN:?}"));
        let floors = floors(&cluster, interval, families)?;
        let own: Vec<f64> = percent
            .iter()
            .enumerate()
            .map(|(node, percent)| {
                let floor = if node == 0 { floors.sending } else { floors.receiving };
                ((percent - floor).max(0.0) * 1e2).round() / 1e2
            })
            .collect();
        let text = format!(
            "{name}: besides what the frames cost here, the agent takes less than {BAR_PERCENT} % of a core"
        );
        let holds = active == [0] && own.iter().all(|own| *own < BAR_PERCENT);
        let seen = format!("Active, Backup, Backup: {own:?} % of {percent:?} % in all; {floors:?}");
        stage.claim(&text, holds, seen);
        let [active, backups @ ..] = &percent[..] else { continue };
        let [active_own, backups_own @ ..] = &own[..] else { continue };
        let figure = json!({
            "active_cpu_percent": active,
            "backup_cpu_percent": backups,
            "active_own_cpu_percent": active_own,
            "backup_own_cpu_percent": backups_own,
            "sending_alone_cpu_percent": floors.sending,
            "receiving_alone_cpu_percent": floors.receiving,
        });
        stage.figure(&format!("at_{name}"), figure);
    }
    Ok(())
}

/// Shares of a core that the frames of all families take by themselves, in percent.
#[derive(Debug)]
struct Floors {
    sending: f64,
    receiving: f64,
}

fn floors(cluster: &Cluster, interval: Duration, families: &[Family]) -> Result<Floors> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let backup = &cluster.nodes[1].host;
        let receiver = scope.spawn(|| receive(backup, &done));
        let sending = send(cluster, interval, families);
        done.store(true, Ordering::Relaxed);
        let receiving = match receiver.join() {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok(Floors { sending: sending?, receiving })
    })
}

/// The same frames, one family after the other, each as often as its router advertises.
fn send(cluster: &Cluster, interval: Duration, families: &[Family]) -> Result<f64> {
    let host = &cluster.nodes[0].host;
    let mac = host.mac(NIC)?;
    let frames = families
        .iter()
        .map(|family| match family {
            Family::V4 => frame(mac, address("master1", *family), IpAddr::from([224, 0, 0, 18])),
            Family::V6 => frame(mac, "fe80::1".parse()?, "ff02::12".parse()?),
        })
        .collect::<Result<Vec<_>>>()?;
    let pause = interval / u32::try_from(frames.len())?;
    // On a thread of its own, whose time is read.
    host.namespace().within(|| {
        let index = if_nametoindex(NIC)?;
        let interface = Interface { index, name: NIC.to_owned(), mac };
        let mut socket = LinkSocket::sender(&interface)?;
        share(FLOOR_SPAN, |begun| {
            while begun.elapsed() < FLOOR_SPAN {
                for frame in &frames {
                    socket.send(frame)?;
                    std::thread::sleep(pause);
                }
            }
            Ok(())
        })
    })
}

/// An advertisement of a virtual router that nobody else has: all hear it, as they hear ours.
fn frame(mac: [u8; 6], from: IpAddr, to: IpAddr) -> Result<Vec<u8>> {
    let advertisement = Advertisement {
        router_id: RouterId::new(OTHER_ROUTER).context("0 is no router")?,
        priority: Priority(100),
        interval: Duration::from_secs(1),
        addresses: vec![from],
        authentication: Authentication::None,
    };
    let payload = advertisement.build(Version::V3, from, to, Checksum::PseudoHeader)?;
    let mut frame = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            PacketBuilder::ethernet2(mac, [0x01, 0, 0x5e, 0, 0, 0x12])
                .ipv4(from.octets(), to.octets(), 255)
                .write(&mut frame, IpNumber(PROTOCOL), &payload)?;
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            PacketBuilder::ethernet2(mac, [0x33, 0x33, 0, 0, 0, 0x12])
                .ipv6(from.octets(), to.octets(), 255)
                .write(&mut frame, IpNumber(PROTOCOL), &payload)?;
        }
        _ => anyhow::bail!("{from} and {to} are of two families"),
    }
    Ok(frame)
}

/// A thread on a Backup that is woken for as many frames, and reads each: the IPv4 ones of both the agent
/// and [`send`].
fn receive(host: &Host, done: &AtomicBool) -> Result<f64> {
    let mac = host.mac(NIC)?;
    host.namespace().within(|| {
        let index = if_nametoindex(NIC)?;
        let interface = Interface { index, name: NIC.to_owned(), mac };
        let wait = Duration::from_secs(1);
        let mut socket = LinkSocket::receiver(&interface, ETHERTYPE_IPV4, wait)?;
        share(FLOOR_SPAN, |_| {
            while !done.load(Ordering::Relaxed) {
                socket.receive()?;
            }
            Ok(())
        })
    })
}

/// The share of a core that this thread takes for the work, in percent.
fn share(span: Duration, work: impl FnOnce(Instant) -> Result<()>) -> Result<f64> {
    let used = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let (begun, before) = (Instant::now(), used()?);
    work(begun)?;
    let elapsed = begun.elapsed().max(span);
    Ok(((used()? - before).as_secs_f64() / elapsed.as_secs_f64() * 1e4).round() / 1e2)
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
