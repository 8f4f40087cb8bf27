//! `packet`: what the XDP program costs for one packet on each of its ways, beside bare programs on
//! the same frame.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use anyhow::{Context as _, Result};

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

    let none = "no program lb_xdp";
    let [bare, protected, flooded] = [&bare, &protected, &flooded].map(|it| it.program("lb_xdp"));
    let (bare, protected, flooded) =
        (bare.context(none)?, protected.context(none)?, flooded.context(none)?);
    let segment = |from, port, kind| tcp([CLIENT_MAC, NODE_MAC], from, (VIP, port), kind);
    let (any, local) = ((CLIENT, 40_000), (own.ip().octets(), own.port()));
    let foreign = tcp([CLIENT_MAC, NODE_MAC], any, (rig::NODE, 22), Segment::Ack);
    let way = |name, program, frame: Vec<u8>, vary, repeat, expected| -> Result<Way> {
        let wrapper = Wrapper::new(&frame, program, vary)?;
        Ok(Way { name, wrapper, frame, repeat, expected, nanoseconds: Vec::new() })
    };
    let floor = |name, frame: &[u8], action| -> Result<Way> {
        let wrapper = Wrapper::new(frame, answer(action)?, Vary::Nothing)?;
        let frame = frame.to_vec();
        Ok(Way { name, wrapper, frame, repeat: REPEAT, expected: action, nanoseconds: Vec::new() })
    };
    let ack = |port| segment(any, port, Segment::Ack);
    let syn = |port| segment(any, port, Segment::Syn);
    let own_ack = segment(local, rig::LOCAL, Segment::Ack);
    let denied_ack = segment((rig::denied(0), 40_000), rig::MILLION, Segment::Ack);
    let (still, source) = (Vary::Nothing, Vary::Source);
    let mut ways = vec![
        floor("floor_tx", &ack(rig::DIRECT), XDP_TX)?,
        floor("floor_pass", &ack(rig::DIRECT), XDP_PASS)?,
        way("direct_established", bare, ack(rig::DIRECT), still, REPEAT, XDP_TX)?,
        // Where other services are protected, and the node is.
        way("off_established", protected, ack(rig::DIRECT), still, REPEAT, XDP_TX)?,
        way("flood_established", flooded, ack(rig::DIRECT), still, REPEAT, XDP_TX)?,
        way("direct_syn", bare, syn(rig::DIRECT), still, REPEAT, XDP_TX)?,
        way("off_syn", protected, syn(rig::DIRECT), still, REPEAT, XDP_TX)?,
        way("local_established", bare, own_ack, still, REPEAT, XDP_PASS)?,
        way("local_syn", bare, syn(rig::LOCAL), still, REPEAT, XDP_PASS)?,
        way("guarded_syn", protected, syn(rig::LOCAL), still, REPEAT, XDP_PASS)?,
        // The first repeat makes the entry.
        way("nat_established", bare, ack(rig::NAT), still, REPEAT, XDP_TX)?,
        way("nat_new", bare, syn(rig::NAT), source, REPEAT_NEW, XDP_TX)?,
        way("not_ours", bare, foreign, still, REPEAT, XDP_PASS)?,
        // Where every run is another client the frame goes through memory that no cache has.
        way("direct_any", bare, ack(rig::DIRECT), source, REPEAT, XDP_TX)?,
        way("direct_new_any", bare, syn(rig::DIRECT), source, REPEAT_NEW, XDP_TX)?,
        // With each protection, in turn with what is without.
        way("listed", protected, ack(rig::LISTED), still, REPEAT, XDP_TX)?,
        way("million", protected, ack(rig::MILLION), still, REPEAT, XDP_TX)?,
        way("million_any", protected, ack(rig::MILLION), source, REPEAT, XDP_TX)?,
        way("denied", protected, denied_ack, still, REPEAT, XDP_DROP)?,
        way("rated_established", protected, ack(rig::RATED), still, REPEAT, XDP_TX)?,
        way("rated_syn", protected, syn(rig::RATED), still, REPEAT, XDP_TX)?,
        way("rated_syn_any", protected, syn(rig::RATED), source, REPEAT, XDP_TX)?,
        way("rate_refused", protected, syn(rig::REFUSED), still, REPEAT, XDP_DROP)?,
        way("limited_established", protected, ack(rig::LIMITED), still, REPEAT, XDP_TX)?,
        way("limited_syn", protected, syn(rig::LIMITED), still, REPEAT, XDP_TX)?,
        way("limited_new_any", protected, syn(rig::LIMITED), source, REPEAT_NEW, XDP_TX)?,
        way("connection_refused", protected, syn(rig::FULL), still, REPEAT, XDP_DROP)?,
        way("syn_cookie", flooded, syn(rig::LOCAL), still, REPEAT, XDP_TX)?,
        way("flood_dropped", flooded, syn(rig::NAT), still, REPEAT, XDP_DROP)?,
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

/// What a protection adds to the same packet without it: its way, and the one without.
const COSTS: [(&str, &str); 11] = [
    ("off_established", "direct_established"),
    ("off_syn", "direct_syn"),
    ("listed", "direct_established"),
    ("million", "direct_established"),
    ("million_any", "direct_any"),
    ("rated_established", "direct_established"),
    ("rated_syn", "direct_syn"),
    ("limited_established", "direct_established"),
    ("limited_new_any", "direct_new_any"),
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
