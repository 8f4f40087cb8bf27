//! `packet`: what the XDP program costs for one packet on each of its ways, beside bare programs on
//! the same frame.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use lb_agent::dataplane::DataPlane;

use super::frames::{Segment, tcp};
use super::kernel::{Vary, Wrapper, XDP_DROP, XDP_PASS, XDP_TX, answer};
use super::rig::{self, CLIENT_MAC, NODE_MAC, Protected, VIP};
use crate::lab::Lab;
use crate::scenario::stage::Stage;

const RUNS: usize = 9;
const REPEAT: u32 = 1_000_000;
/// The kernel tells whole nanoseconds.
const RESOLUTION_NS: i64 = 1;
/// Every new flow keeps one of the backend's 40,000 ports: fewer repeats, so that in the last run
/// still few of the ports that are tried are taken.
const REPEAT_NEW: u32 = 1_000;

const CLIENT: [u8; 4] = [192, 168, 139, 10];

/// One way, measured again and again.
struct Way {
    name: &'static str,
    wrapper: Wrapper,
    frame: Vec<u8>,
    repeat: u32,
    /// What the program must answer, or the figure is of something else.
    expected: u32,
    nanoseconds: Vec<u32>,
}

impl Way {
    fn new(
        name: &'static str,
        program: impl AsFd,
        frame: Vec<u8>,
        vary: Vary,
        repeat: u32,
        expected: u32,
    ) -> Result<Self> {
        let wrapper = Wrapper::new(&frame, program, vary)?;
        Ok(Self { name, wrapper, frame, repeat, expected, nanoseconds: Vec::new() })
    }

    /// Of sorted runs.
    fn median(&self) -> u32 {
        self.nanoseconds[self.nanoseconds.len() / 2]
    }

    /// From the fastest run to the slowest.
    fn spread(&self) -> u32 {
        let (first, last) = (self.nanoseconds.first(), self.nanoseconds.last());
        last.zip(first).map_or(0, |(last, first)| last - first)
    }
}

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let lab = Lab::new(stage.tool())?;
    let addresses = ["192.168.139.133/24", "192.168.139.150/32", "192.168.139.10/32"];
    let host = lab.host("node").interface("ens33", "lan", &addresses).start()?;
    let directory = host.bpf_directory();
    host.namespace().within(|| measure(stage, &directory))
}

fn measure(stage: &mut Stage, directory: &Path) -> Result<()> {
    let open = |name, protected| rig::open(&directory.join(name), protected);
    let bare = open("bare", Protected::Nothing)?;
    let protected = open("protected", Protected::Services)?;
    let flooded = open("flooded", Protected::Flooded)?;
    for (name, count) in bare.verified_instructions() {
        stage.figure(&format!("verified_{name}"), count);
    }
    // A connection whose local end is VIP and port, as delivery makes them.
    let listener = TcpListener::bind(SocketAddr::from((VIP, rig::LOCAL)))?;
    let connection = TcpStream::connect(SocketAddr::from((VIP, rig::LOCAL)))?;
    let SocketAddr::V4(own) = connection.local_addr()? else { unreachable!("an IPv4 address") };
    let _accepted = listener.accept()?;
    // Whom delivery gives SYNs to.
    let _backend = TcpListener::bind(SocketAddr::from((rig::NODE, rig::BACKEND_PORT)))?;

    let (bare, protected, flooded) = (xdp(&bare)?, xdp(&protected)?, xdp(&flooded)?);
    let segment = |from, port, kind| tcp([CLIENT_MAC, NODE_MAC], from, (VIP, port), kind);
    let (any, local) = ((CLIENT, 40_000), (own.ip().octets(), own.port()));
    let foreign = tcp([CLIENT_MAC, NODE_MAC], any, (rig::NODE, 22), Segment::Ack);
    let ack = |port| segment(any, port, Segment::Ack);
    let syn = |port| segment(any, port, Segment::Syn);
    let push = |port| segment(any, port, Segment::Push);
    let own_ack = segment(local, rig::LOCAL, Segment::Ack);
    let denied_ack = segment((rig::denied(0), 40_000), rig::MILLION, Segment::Ack);
    // The same packet again and again; one of another client each time; and few of these, each kept.
    let (still, source) = (Vary::Nothing, Vary::Source);
    let hot =
        |name, program, frame, expected| Way::new(name, program, frame, still, REPEAT, expected);
    let varied = |name, program, frame| Way::new(name, program, frame, source, REPEAT, XDP_TX);
    let fresh = |name, program, frame| Way::new(name, program, frame, source, REPEAT_NEW, XDP_TX);
    let floor =
        |name, action| Way::new(name, answer(action)?, ack(rig::DIRECT), still, REPEAT, action);
    let mut ways = vec![
        floor("floor_tx", XDP_TX)?,
        floor("floor_pass", XDP_PASS)?,
        hot("direct_established", bare, ack(rig::DIRECT), XDP_TX)?,
        // Where other services are protected, and the node is.
        hot("off_established", protected, ack(rig::DIRECT), XDP_TX)?,
        hot("flood_established", flooded, ack(rig::DIRECT), XDP_TX)?,
        hot("direct_syn", bare, syn(rig::DIRECT), XDP_TX)?,
        hot("off_syn", protected, syn(rig::DIRECT), XDP_TX)?,
        hot("local_established", bare, own_ack, XDP_PASS)?,
        hot("local_syn", bare, syn(rig::LOCAL), XDP_PASS)?,
        hot("guarded_syn", protected, syn(rig::LOCAL), XDP_PASS)?,
        // The first repeat makes the entry.
        hot("nat_established", bare, ack(rig::NAT), XDP_TX)?,
        fresh("nat_new", bare, syn(rig::NAT))?,
        hot("not_ours", bare, foreign, XDP_PASS)?,
        // Where every run is another client the frame goes through memory that no cache has.
        varied("direct_any", bare, ack(rig::DIRECT))?,
        fresh("direct_new_any", bare, syn(rig::DIRECT))?,
        // With each protection, in turn with what is without.
        hot("listed", protected, ack(rig::LISTED), XDP_TX)?,
        hot("million", protected, ack(rig::MILLION), XDP_TX)?,
        varied("million_any", protected, ack(rig::MILLION))?,
        hot("denied", protected, denied_ack, XDP_DROP)?,
        hot("rated_established", protected, ack(rig::RATED), XDP_TX)?,
        hot("rated_syn", protected, syn(rig::RATED), XDP_TX)?,
        varied("rated_syn_any", protected, syn(rig::RATED))?,
        hot("rate_refused", protected, syn(rig::REFUSED), XDP_DROP)?,
        hot("limited_established", protected, ack(rig::LIMITED), XDP_TX)?,
        hot("limited_syn", protected, syn(rig::LIMITED), XDP_TX)?,
        fresh("limited_new_any", protected, syn(rig::LIMITED))?,
        hot("noted_established", protected, ack(rig::NOTING), XDP_TX)?,
        hot("noted_push", protected, push(rig::NOTING), XDP_TX)?,
        varied("noted_push_any", protected, push(rig::NOTING))?,
        hot("connection_refused", protected, syn(rig::FULL), XDP_DROP)?,
        hot("syn_cookie", flooded, syn(rig::LOCAL), XDP_TX)?,
        hot("flood_dropped", flooded, syn(rig::NAT), XDP_DROP)?,
    ];
    for run in 0..RUNS {
        for way in &mut ways {
            stage.step(&format!("run {} of {RUNS}: {}", run + 1, way.name));
            let (action, nanoseconds) = way.wrapper.time(&way.frame, way.repeat)?;
            let text = format!("{} answers as expected", way.name);
            if action != way.expected {
                stage.claim(&text, false, format!("{action} instead of {}", way.expected));
            }
            way.nanoseconds.push(nanoseconds);
        }
    }
    tell(stage, &mut ways);
    Ok(())
}

fn xdp(path: &DataPlane) -> Result<BorrowedFd<'_>> {
    path.program("lb_xdp").context("no program lb_xdp")
}

/// What a protection adds to the same packet without it: its way, and the one without.
const COSTS: [(&str, &str); 14] = [
    ("off_established", "direct_established"),
    ("off_syn", "direct_syn"),
    ("listed", "direct_established"),
    ("million", "direct_established"),
    ("million_any", "direct_any"),
    ("rated_established", "direct_established"),
    ("rated_syn", "direct_syn"),
    ("limited_established", "direct_established"),
    ("limited_new_any", "direct_new_any"),
    ("noted_established", "direct_established"),
    ("noted_push", "direct_established"),
    ("noted_push_any", "direct_any"),
    ("guarded_syn", "local_syn"),
    ("flood_established", "direct_established"),
];

/// Medians of the differences of each run, whose ways follow one another. What is off costs something where
/// all runs but one are slower: of nine runs without a difference, fifty to one against it.
fn costs(stage: &mut Stage, ways: &[Way]) {
    for (with, without) in COSTS {
        let find = |name| ways.iter().find(|way| way.name == name).map(|way| &way.nanoseconds);
        let (Some(with_it), Some(without)) = (find(with), find(without)) else { continue };
        let runs = with_it.iter().zip(without);
        let mut costs: Vec<i64> = runs.map(|(a, b)| i64::from(*a) - i64::from(*b)).collect();
        costs.sort_unstable();
        stage.figure(&format!("{with}_cost_ns"), costs[costs.len() / 2]);
        if with.starts_with("off_") {
            let slower = costs.iter().filter(|cost| **cost > RESOLUTION_NS).count();
            let text = format!("{with}: what others are protected by costs nothing measurable");
            stage.claim(&text, slower + 1 < RUNS, format!("{costs:?} ns in {RUNS} runs"));
        }
    }
}

/// Medians, spread, and ratios to the floor with the same answer.
fn tell(stage: &mut Stage, ways: &mut [Way]) {
    costs(stage, ways);
    for way in ways.iter_mut() {
        way.nanoseconds.sort_unstable();
    }
    let floors = [XDP_TX, XDP_PASS]
        .map(|action| ways.iter().find(|way| way.expected == action).map_or(1, Way::median).max(1));
    for way in ways.iter() {
        let ns = way.median();
        stage.figure(&format!("{}_ns", way.name), ns);
        stage.figure(&format!("{}_spread_ns", way.name), way.spread());
        if !way.name.starts_with("floor") {
            let floor = if way.expected == XDP_TX { floors[0] } else { floors[1] };
            let ratio = (f64::from(ns) / f64::from(floor) * 100.0).round() / 100.0;
            stage.figure(&format!("{}_ratio", way.name), ratio);
        }
    }
    stage.claim("every way was measured", true, format!("{RUNS} interleaved runs"));
    stage.figure("runs", RUNS);
    stage.figure("repeat", REPEAT);
    stage.figure("repeat_new", REPEAT_NEW);
    stage.figure("prefixes", rig::PREFIXES);
    stage.figure("flows", "one hot flow each; nat_new and .._any another client each time");
    if let Ok(release) = std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        stage.figure("kernel", release.trim());
    }
    if let Ok(cores) = std::thread::available_parallelism() {
        stage.figure("cores", cores.get());
    }
}
