//! What goes on being configured is there at every moment: a lease that is renewed as fast as that can
//! be done, and a service whose settings change as fast as that can be done, while the program is asked
//! for them.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use indicatif::ProgressBar;
use lb_agent::dataplane::{Pins, monotonic_ns};

use super::frames::{Seen, Segment, TTL, build};
use super::rig::{self, CLIENT_MAC, NODE_MAC, Read, Rig, VIPS, peer};
use crate::lab::{Lab, Namespace};
use crate::packet::syscall;
use crate::scenario::stage::Stage;

/// Frames for each of the two. Without the indirection from the hash maps to what changes
/// (docs/packet-path.md, maps) a few of so many miss it.
const FRAMES: u64 = 4_000_000;
const PEERS: u8 = 3;
/// The first of the services' ports, and how many there are.
const CARRIED: u16 = 7000;
const SERVICES: u16 = 64;
/// Of a service that is translated, without which there are no NAT ports.
const TRANSLATED: u16 = 8443;
/// A client in some other network.
const CLIENT: [&str; 2] = ["10.80.0.1", "fd00:50::1"];
/// Of the range of NAT ports: no flow has it, so that all depends on whether the destination is a VIP.
const NAT_PORT: u16 = 61_500;

const XDP_DROP: u32 = 1;
const XDP_TX: u32 = 3;
const FOREVER_NS: u64 = u64::MAX / 2;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let lab = Lab::new(stage.tool())?;
    let host = lab.host("steady").start()?;
    let pins = Pins::new(&host.bpf_directory());
    host.namespace().within(|| measure(stage, pins, host.namespace()))
}

fn configuration(by_port: bool) -> String {
    let mut text = rig::head(PEERS);
    for (family, vip) in VIPS.iter().enumerate() {
        let backends: Vec<_> = (2..2 + PEERS)
            .map(|number| (SocketAddr::new(peer(number).0[family], 6443), 1))
            .collect();
        for port in CARRIED..CARRIED + SERVICES {
            text.push_str(&rig::service(&format!("s{family}-{port}"), vip, port, &backends));
        }
    }
    let backend = (SocketAddr::from(([10, 20, 0, 1], 6443)), 1);
    text.push_str(&rig::service("translated", VIPS[0], TRANSLATED, &[backend]));
    if by_port { text } else { text.replace("\"source-port\"", "\"source\"") }
}

fn measure(stage: &mut Stage, pins: Pins, place: &Namespace) -> Result<()> {
    let [read, other] = [true, false].map(|by_port| Read::new(&configuration(by_port)));
    let (read, other) = (read?, other?);
    let mut rig = Rig::load(pins, &read, PEERS)?;
    let plans = [rig.plan(&read, &[]), rig.plan(&other, &[])];
    rig.data_path.apply(&plans[0])?;
    let program = rig.program()?.try_clone_to_owned()?;
    let program = program.as_fd();
    let frames = FRAMES * u64::from(stage.times());
    let bar = stage.bar(2 * frames);

    stage.step("leases are renewed under traffic");
    let leases = rig.data_path.leases();
    let vips: Vec<IpAddr> = VIPS.iter().map(|vip| Ok(vip.parse()?)).collect::<Result<_>>()?;
    let renew = |number: u64| {
        let until_ns = monotonic_ns() + FOREVER_NS + number;
        vips.iter().try_for_each(|vip| Ok(leases.set(*vip, Some(until_ns))?))
    };
    let (renewed, missed) = beside(place, program, (NAT_PORT, XDP_DROP), frames, &bar, renew)?;
    let seen = format!("{missed} of {frames} frames missed it, {renewed} renewals");
    stage.claim("a VIP is there while its lease is renewed", missed == 0 && renewed > 0, seen);
    stage.figure("lease_renewals", renewed);

    stage.step("services change under traffic");
    let change = |number: u64| Ok(rig.data_path.apply(&plans[(number % 2) as usize])?);
    let (changed, missed) = beside(place, program, (CARRIED, XDP_TX), frames, &bar, change)?;
    let seen = format!("{missed} of {frames} frames missed it, {changed} changes");
    stage.claim("a service is there while it changes", missed == 0 && changed > 0, seen);
    stage.figure("service_changes", changed);
    Ok(())
}

/// Does `work` again and again while frames to a port of the VIPs go through the program. Returns how
/// often, and how many frames were not treated as they should be.
fn beside(
    place: &Namespace,
    program: BorrowedFd<'_>,
    (port, action): (u16, u32),
    frames: u64,
    bar: &ProgressBar,
    mut work: impl FnMut(u64) -> Result<()>,
) -> Result<(u64, u64)> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let missed = place.within(|| ask(program, port, action, frames, bar));
            over.store(true, Ordering::Release);
            missed
        });
        let mut done = 0;
        while !over.load(Ordering::Acquire) {
            done += 1;
            work(done)?;
        }
        let missed = match asked.join() {
            Ok(missed) => missed?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok((done, missed))
    })
}

fn ask(
    program: BorrowedFd<'_>,
    port: u16,
    action: u32,
    frames: u64,
    bar: &ProgressBar,
) -> Result<u64> {
    let frame = |family: usize| {
        let from = SocketAddr::new(CLIENT[family].parse()?, 40_000);
        let to = SocketAddr::new(VIPS[family].parse()?, port);
        let seen = Seen { from_mac: CLIENT_MAC, to_mac: NODE_MAC, from, to, ttl: TTL };
        build(&seen, Segment::Data)
    };
    let both = [frame(0)?, frame(1)?];
    let mut missed = 0;
    for number in 0..frames {
        let run = syscall::test_run(program, &both[(number % 2) as usize]);
        missed += u64::from(run.context("BPF_PROG_TEST_RUN")?.action != action);
        if number % 4096 == 0 {
            bar.inc(4096.min(frames - number));
        }
    }
    Ok(missed)
}
