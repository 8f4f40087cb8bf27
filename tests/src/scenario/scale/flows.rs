//! A million translated flows at one time, opened through the loaded program. Then for each of them its
//! next packet and its reply: they must go where the first one went, under the same port, and come back as
//! what the client asked. Those that are carried to another node unchanged leave nothing behind.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::ProgressBar;
use lb_agent::dataplane::{FirstPort, NatTimeouts, Pins, Sweep};
use nix::time::{ClockId, clock_gettime};

use super::frames::{Seen, Segment, TTL, build};
use super::reckon::Ranked;
use super::rig::{self, CLIENT_MAC, NODE_MAC, ROUTER_MAC, Read, Rig, VIPS, carry, peer, steer};
use crate::lab::{Lab, Namespace};
use crate::scenario::stage::Stage;

pub(super) const FLOWS: u32 = 1_000_000;
/// For a thousand flows one backend in each family: an eighth of the ports is taken. With half of them a
/// few of so many flows would find none.
const FLOWS_OF_A_BACKEND: u32 = 1000;
const PEERS: u8 = 3;
const TRANSLATED: u16 = 8443;
const CARRIED: u16 = 8444;
/// Of as many flows as are translated. They have no state that their number could be too much for.
const CARRIED_PART: u32 = 4;
/// One in so many is looked at a last time.
const REST_PART: usize = 8;
/// The default of `nat.ports`.
const NAT_PORTS: std::ops::RangeInclusive<u16> = 61_000..=64_999;
/// Each worker has the clients of one family.
const WORKERS: usize = 2;
/// How long flows may take to be over that are over after a second.
const LIMIT: Duration = Duration::from_secs(30);

const TIMEOUTS: NatTimeouts = NatTimeouts {
    tcp_opening: Duration::from_secs(30),
    tcp_established: Duration::from_secs(7440),
    tcp_closing: Duration::from_secs(60),
    udp: Duration::from_secs(120),
};

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let flows = FLOWS * stage.times();
    let lab = Lab::new(stage.tool())?;
    let host = lab.host("flows").start()?;
    let pins = Pins::new(&host.bpf_directory());
    // On a thread of the namespace: it loads, applies and sweeps; the workers enter by themselves.
    host.namespace().within(|| measure(stage, pins, host.namespace(), flows))
}

fn configuration(flows: u32) -> String {
    let backends = (flows / FLOWS_OF_A_BACKEND).min(u32::from(u16::MAX)) as u16;
    let mut text = rig::head(PEERS);
    text.push_str(&format!("\n[nat]\nflows = {flows}\n"));
    text.push_str(&format!("\n[limits]\nbackends = {}\n", 3 * u32::from(backends)));
    for (family, vip) in VIPS.iter().enumerate() {
        let translated: Vec<_> = (0..backends).map(|n| (backend(family, n), 1)).collect();
        text.push_str(&rig::service(&format!("translated{family}"), vip, TRANSLATED, &translated));
        let carried: Vec<_> = (2..2 + PEERS)
            .map(|number| (SocketAddr::new(peer(number).0[family], 6443), 1))
            .collect();
        text.push_str(&rig::service(&format!("carried{family}"), vip, CARRIED, &carried));
    }
    text
}

/// One of the machines behind the router.
pub(super) fn backend(family: usize, number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    let address = match family {
        0 => IpAddr::from([10, 20, high, low]),
        _ => Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, number).into(),
    };
    SocketAddr::new(address, 6443)
}

/// The client's end of a flow: a few thousand clients, each with some hundred ports.
fn client(family: usize, number: u32) -> SocketAddr {
    let (machine, port) = (number >> 8, 20_000 + (number & 0xff) as u16);
    let address = match family {
        0 => IpAddr::from((0x0a40_0000 + machine).to_be_bytes()),
        _ => Ipv6Addr::from_bits((0xfd00_0040 << 96) + u128::from(machine)).into(),
    };
    SocketAddr::new(address, port)
}

fn measure(stage: &mut Stage, pins: Pins, place: &Namespace, flows: u32) -> Result<()> {
    stage.step("loading the programs");
    let read = Read::new(&configuration(flows))?;
    let mut rig = Rig::load(pins, &read, PEERS)?;
    let plan = rig.plan(&read, &[]);
    let ranked = rig::ranked(&plan);
    rig.data_path.apply(&plan)?;
    let program = rig.program()?;
    let parties = |port: u16| -> Result<Vec<Party>> {
        (0..WORKERS)
            .map(|family| {
                let vip: IpAddr = VIPS[family].parse()?;
                let at = SocketAddr::new(vip, port);
                let ranked = ranked.iter().find(|ranked| ranked.at == at);
                Ok(Party {
                    family,
                    flows: flows / 2,
                    ranked: ranked.context("no service")?.clone(),
                })
            })
            .collect()
    };
    let (translated, mut carried) = (parties(TRANSLATED)?, parties(CARRIED)?);
    for party in &mut carried {
        party.flows /= CARRIED_PART;
    }

    stage.step(&format!("{flows} flows are opened"));
    let begun = Instant::now();
    let bar = stage.bar(u64::from(flows) * 3 + u64::from(flows / CARRIED_PART));
    let opened = in_parallel(place, &translated, |party| party.open(program, &bar))?;
    let took = begun.elapsed();
    let wrong: u64 = opened.iter().map(|opened| opened.wrong.count).sum();
    let first = opened.iter().find_map(|opened| opened.wrong.first.clone()).unwrap_or_default();
    let text = "each flow goes to the backend of its bucket, under a port of its own";
    stage.claim(text, wrong == 0, format!("{wrong} of {flows} wrong {first}"));
    stage.figure("nat_flows_opened", flows);
    stage.figure("nat_open_us", micros(took, flows));

    let again = in_parallel(place, &translated, |party| {
        party.again(program, &opened[party.family].ports, &bar)
    })?;
    let wrong: u64 = again.iter().map(|wrong| wrong.count).sum();
    let first = again.iter().find_map(|wrong| wrong.first.clone()).unwrap_or_default();
    let text = "each flow's next packet goes there too, and its reply comes back to its client";
    stage.claim(text, wrong == 0, format!("{wrong} of {flows} wrong {first}"));
    stage.figure("nat_flows_wrong", wrong);

    let before = sweep(&rig, &TIMEOUTS)?;
    let text = "a sweep counts every flow, and ends none";
    let counted = (before.0.flows, before.0.removed);
    stage.claim(text, counted == (u64::from(flows), 0), format!("{before:?}"));
    stage.figure("nat_sweep_ms", millis(before.0.took));
    stage.figure("nat_sweep_cpu_ms", millis(before.1));

    let passed = in_parallel(place, &carried, |party| party.carried(program, &bar))?;
    let wrong: u64 = passed.iter().map(|wrong| wrong.count).sum();
    let first = passed.iter().find_map(|wrong| wrong.first.clone()).unwrap_or_default();
    let text = "flows to other nodes are carried there unchanged";
    stage.claim(text, wrong == 0, format!("{wrong} of {} wrong {first}", flows / CARRIED_PART));
    let after = sweep(&rig, &TIMEOUTS)?;
    let text = "and leave nothing behind";
    stage.claim(text, after.0.flows == u64::from(flows), format!("{} entries", after.0.flows));
    stage.figure("direct_flow_bytes", 0);

    memory(stage, &rig, flows)?;
    end_half(stage, &rig, place, &translated, &opened)
}

/// What the kernel takes for a flow, and what the documentation says of it.
fn memory(stage: &mut Stage, rig: &Rig, flows: u32) -> Result<()> {
    let maps = rig.data_path.memory()?;
    let map = maps.iter().find(|map| map.name == "nat_flows").context("no map of flows")?;
    let each = map.bytes.div_ceil(u64::from(flows));
    stage.figure("nat_map_bytes", map.bytes);
    stage.figure("nat_flow_bytes", each);
    super::documented(stage, "a translated flow", each)
}

/// Half of the flows are reset; the sweep takes just these.
fn end_half(
    stage: &mut Stage,
    rig: &Rig,
    place: &Namespace,
    parties: &[Party],
    opened: &[Opened],
) -> Result<()> {
    stage.step("every second flow is reset");
    let program = rig.program()?;
    in_parallel(place, parties, |party| party.reset_half(program, &opened[party.family].ports))?;
    let flows: u64 = parties.iter().map(|party| u64::from(party.flows)).sum();
    // A reset flow is over after a second of silence: waited for by looking.
    let timeouts = NatTimeouts { tcp_closing: Duration::from_secs(1), ..TIMEOUTS };
    let (deadline, mut removed, mut longest) = (Instant::now() + LIMIT, 0, Duration::ZERO);
    let (flows_left, cpu) = loop {
        let (found, cpu) = sweep(rig, &timeouts)?;
        removed += found.removed;
        longest = longest.max(found.took);
        if removed >= flows / 2 {
            break (found.flows, cpu);
        }
        ensure!(Instant::now() < deadline, "only {removed} of {} flows are over", flows / 2);
        std::thread::sleep(Duration::from_millis(50));
    };
    let text = "the sweep ends the flows that were reset, and no other";
    let seen = format!("{removed} removed, {flows_left} left");
    stage.claim(text, (removed, flows_left) == (flows / 2, flows - flows / 2), seen);
    stage.figure("nat_sweep_removing_ms", millis(longest));
    stage.figure("nat_sweep_removing_cpu_ms", millis(cpu));
    let rest =
        in_parallel(place, parties, |party| party.rest(program, &opened[party.family].ports))?;
    let wrong: u64 = rest.iter().map(|wrong| wrong.count).sum();
    let first = rest.iter().find_map(|wrong| wrong.first.clone()).unwrap_or_default();
    stage.claim("the others go on as before", wrong == 0, format!("{wrong} wrong {first}"));
    Ok(())
}

/// A sweep as the agent makes it, and the processor's time that this thread took for it.
fn sweep(rig: &Rig, timeouts: &NatTimeouts) -> Result<(Sweep, Duration)> {
    let (sweeper, _stop) = rig.data_path.sweeper()?;
    let used = || -> Result<Duration> {
        Ok(Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?))
    };
    let before = used()?;
    let found = sweeper.sweep(timeouts, &FirstPort::default())?;
    Ok((found, used()? - before))
}

/// The clients of one family, and whom they talk to.
struct Party {
    family: usize,
    flows: u32,
    ranked: Ranked,
}

struct Opened {
    /// Of the VIP, towards the backend: one for each flow.
    ports: Vec<u16>,
    wrong: Wrong,
}

/// What went wrong, and the first of it in words.
#[derive(Default)]
struct Wrong {
    count: u64,
    first: Option<String>,
}

impl Wrong {
    fn note(&mut self, flow: u32, result: Result<()>) {
        if let Err(error) = result {
            self.count += 1;
            self.first.get_or_insert_with(|| format!("(flow {flow}: {error:#})"));
        }
    }
}

impl Party {
    fn segment(&self, number: u32, segment: Segment) -> Result<Vec<u8>> {
        let seen = Seen {
            from_mac: CLIENT_MAC,
            to_mac: NODE_MAC,
            from: client(self.family, number),
            to: self.ranked.at,
            ttl: TTL,
        };
        build(&seen, segment)
    }

    /// The first segment of each flow.
    fn open(&self, program: BorrowedFd<'_>, bar: &ProgressBar) -> Result<Opened> {
        let members: std::collections::HashMap<SocketAddr, u16> =
            self.ranked.members.iter().copied().zip(0..).collect();
        let ports = usize::from(NAT_PORTS.end() - NAT_PORTS.start()) + 1;
        let mut taken = vec![false; members.len() * ports];
        let mut opened = Opened { ports: Vec::new(), wrong: Wrong::default() };
        for number in 0..self.flows {
            let seen = steer(program, &self.segment(number, Segment::Syn)?)?;
            let member = members.get(&seen.to).copied().unwrap_or(u16::MAX);
            let port = seen.from.port();
            opened.wrong.note(number, self.is_towards_backend(number, &seen, port));
            if NAT_PORTS.contains(&port) && usize::from(member) < members.len() {
                let at = usize::from(member) * ports + usize::from(port - NAT_PORTS.start());
                if std::mem::replace(&mut taken[at], true) {
                    opened.wrong.note(number, Err(anyhow::anyhow!("port {port} is another's")));
                }
            }
            opened.ports.push(port);
            tick(bar, number);
        }
        Ok(opened)
    }

    /// The next segment of each flow, and a reply to it.
    fn again(&self, program: BorrowedFd<'_>, ports: &[u16], bar: &ProgressBar) -> Result<Wrong> {
        let mut wrong = Wrong::default();
        for (number, port) in (0..self.flows).zip(ports) {
            wrong.note(number, self.both_ways(program, number, *port));
            tick(bar, number);
            tick(bar, number);
        }
        Ok(wrong)
    }

    fn both_ways(&self, program: BorrowedFd<'_>, number: u32, port: u16) -> Result<()> {
        let seen = steer(program, &self.segment(number, Segment::Data)?)?;
        self.is_towards_backend(number, &seen, port)?;
        let reply =
            Seen { from_mac: ROUTER_MAC, to_mac: NODE_MAC, from: seen.to, to: seen.from, ttl: TTL };
        let back = steer(program, &build(&reply, Segment::Data)?)?;
        let expected = Seen {
            from_mac: NODE_MAC,
            to_mac: CLIENT_MAC,
            from: self.ranked.at,
            to: client(self.family, number),
            ttl: TTL - 1,
        };
        ensure!(back == expected, "the reply becomes {back:?} instead of {expected:?}");
        Ok(())
    }

    /// Whether a segment left for the flow's backend, with the VIP and the flow's port as its source.
    fn is_towards_backend(&self, number: u32, seen: &Seen, port: u16) -> Result<()> {
        let chosen = self.ranked.backend(client(self.family, number), |_| true);
        let expected = Seen {
            from_mac: NODE_MAC,
            to_mac: ROUTER_MAC,
            from: SocketAddr::new(self.ranked.at.ip(), port),
            to: chosen.context("nobody in the client's bucket")?,
            ttl: TTL - 1,
        };
        ensure!(*seen == expected, "it becomes {seen:?} instead of {expected:?}");
        ensure!(NAT_PORTS.contains(&port), "port {} is not for it", port);
        Ok(())
    }

    /// A segment of each of as many flows to backends on other nodes.
    fn carried(&self, program: BorrowedFd<'_>, bar: &ProgressBar) -> Result<Wrong> {
        let mut wrong = Wrong::default();
        for number in 0..self.flows {
            let seen = carry(program, &self.segment(number, Segment::Data)?)?;
            wrong.note(number, self.is_carried(number, &seen));
            tick(bar, number);
        }
        Ok(wrong)
    }

    fn is_carried(&self, number: u32, seen: &Seen) -> Result<()> {
        let from = client(self.family, number);
        let chosen = self.ranked.backend(from, |_| true).context("nobody in the bucket")?;
        let to_mac = (2..2 + PEERS)
            .map(peer)
            .find(|(addresses, _)| addresses.contains(&chosen.ip()))
            .map(|(_, mac)| mac);
        let Some(to_mac) = to_mac else { bail!("{chosen} is on no node") };
        let to = self.ranked.at;
        let expected = Seen { from_mac: NODE_MAC, to_mac, from, to, ttl: TTL - 1 };
        ensure!(*seen == expected, "it becomes {seen:?} instead of {expected:?}");
        Ok(())
    }

    fn reset_half(&self, program: BorrowedFd<'_>, ports: &[u16]) -> Result<Wrong> {
        let mut wrong = Wrong::default();
        for (number, port) in (0..self.flows).zip(ports).step_by(2) {
            let seen = steer(program, &self.segment(number, Segment::Reset)?)?;
            wrong.note(number, self.is_towards_backend(number, &seen, *port));
        }
        Ok(wrong)
    }

    /// Of the flows that were not reset, one in so many.
    fn rest(&self, program: BorrowedFd<'_>, ports: &[u16]) -> Result<Wrong> {
        let mut wrong = Wrong::default();
        for (number, port) in (0..self.flows).zip(ports).skip(1).step_by(2 * REST_PART) {
            wrong.note(number, self.both_ways(program, number, *port));
        }
        Ok(wrong)
    }
}

fn tick(bar: &ProgressBar, number: u32) {
    const STEP: u32 = 4096;
    if number.is_multiple_of(STEP) {
        bar.inc(u64::from(STEP));
    }
}

/// One worker for each party, in the namespace.
fn in_parallel<T: Send>(
    place: &Namespace,
    parties: &[Party],
    work: impl Fn(&Party) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> =
            parties.iter().map(|party| scope.spawn(move || place.within(|| work(party)))).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Result<T>>| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        workers.into_iter().map(join).collect()
    })
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

fn micros(duration: Duration, count: u32) -> f64 {
    (duration.as_secs_f64() * 1e8 / f64::from(count)).round() / 100.0
}
