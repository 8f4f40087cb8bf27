//! `packet`: what the XDP program costs for one packet on each of its ways, beside bare programs on
//! the same frame.

use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, Result};
use lb_agent::dataplane::Pins;

use super::frames::{Segment, tcp};
use super::kernel::{Vary, Wrapper, XDP_DROP, XDP_PASS, XDP_TX, answer};
use super::rig::{self, CLIENT_MAC, NODE_MAC, VIP};
use crate::lab::Lab;
use crate::scenario::stage::Stage;

const RUNS: usize = 9;
const REPEAT: u32 = 1_000_000;
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

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let lab = Lab::new(stage.tool())?;
    let addresses = ["192.168.139.133/24", "192.168.139.150/32", "192.168.139.10/32"];
    let host = lab.host("node").interface("ens33", "lan", &addresses).start()?;
    let pins = Pins::new(&host.bpf_directory());
    host.namespace().within(|| measure(stage, pins))
}

fn measure(stage: &mut Stage, pins: Pins) -> Result<()> {
    let data_path = rig::open(pins)?;
    for (name, count) in data_path.verified_instructions() {
        stage.figure(&format!("verified_{name}"), count);
    }
    // A connection whose local end is VIP and port, as delivery makes them.
    let listener = TcpListener::bind(SocketAddr::from((VIP, rig::LOCAL)))?;
    let connection = TcpStream::connect(SocketAddr::from((VIP, rig::LOCAL)))?;
    let SocketAddr::V4(own) = connection.local_addr()? else { unreachable!("an IPv4 address") };
    let _accepted = listener.accept()?;

    let program = data_path.program("lb_xdp").context("no program lb_xdp")?;
    let segment = |from, port, kind| tcp([CLIENT_MAC, NODE_MAC], from, (VIP, port), kind);
    let (any, local) = ((CLIENT, 40_000), (own.ip().octets(), own.port()));
    let foreign = tcp([CLIENT_MAC, NODE_MAC], any, (rig::NODE, 22), Segment::Ack);
    let way = |name, frame: Vec<u8>, vary, repeat, expected| -> Result<Way> {
        let wrapper = Wrapper::new(&frame, program, vary)?;
        Ok(Way { name, wrapper, frame, repeat, expected, nanoseconds: Vec::new() })
    };
    let floor = |name, frame: &[u8], action| -> Result<Way> {
        let wrapper = Wrapper::new(frame, answer(action)?, Vary::Nothing)?;
        let frame = frame.to_vec();
        Ok(Way { name, wrapper, frame, repeat: REPEAT, expected: action, nanoseconds: Vec::new() })
    };
    let direct = segment(any, rig::DIRECT, Segment::Ack);
    let (still, source) = (Vary::Nothing, Vary::Source);
    let denied = (rig::denied(0), 40_000);
    let mut ways = vec![
        floor("floor_tx", &direct, XDP_TX)?,
        floor("floor_pass", &direct, XDP_PASS)?,
        way("direct_established", direct, still, REPEAT, XDP_TX)?,
        way("direct_syn", segment(any, rig::DIRECT, Segment::Syn), still, REPEAT, XDP_TX)?,
        way(
            "local_established",
            segment(local, rig::LOCAL, Segment::Ack),
            still,
            REPEAT,
            XDP_PASS,
        )?,
        // The first repeat makes the entry.
        way("nat_established", segment(any, rig::NAT, Segment::Ack), still, REPEAT, XDP_TX)?,
        way("nat_new", segment(any, rig::NAT, Segment::Syn), Vary::Source, REPEAT_NEW, XDP_TX)?,
        way("not_ours", foreign, still, REPEAT, XDP_PASS)?,
        // The same with each protection: `direct_established` and `direct_syn` are without. Where every
        // run is another client the frame goes through memory that no cache has.
        way("direct_any", segment(any, rig::DIRECT, Segment::Ack), source, REPEAT, XDP_TX)?,
        way("listed", segment(any, rig::LISTED, Segment::Ack), still, REPEAT, XDP_TX)?,
        way("million", segment(any, rig::MILLION, Segment::Ack), still, REPEAT, XDP_TX)?,
        way("million_any", segment(any, rig::MILLION, Segment::Ack), source, REPEAT, XDP_TX)?,
        way("denied", segment(denied, rig::MILLION, Segment::Ack), still, REPEAT, XDP_DROP)?,
        way("rated_established", segment(any, rig::RATED, Segment::Ack), still, REPEAT, XDP_TX)?,
        way("rated_syn", segment(any, rig::RATED, Segment::Syn), still, REPEAT, XDP_TX)?,
        way("rated_syn_any", segment(any, rig::RATED, Segment::Syn), source, REPEAT, XDP_TX)?,
        way("rate_refused", segment(any, rig::REFUSED, Segment::Syn), still, REPEAT, XDP_DROP)?,
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

/// Medians, spread, and ratios to the floor with the same answer.
fn tell(stage: &mut Stage, ways: &mut [Way]) {
    for way in ways.iter_mut() {
        way.nanoseconds.sort_unstable();
    }
    let median = |way: &Way| way.nanoseconds[way.nanoseconds.len() / 2];
    let floors = [XDP_TX, XDP_PASS]
        .map(|action| ways.iter().find(|way| way.expected == action).map_or(1, median).max(1));
    for way in ways.iter() {
        let ns = median(way);
        stage.figure(&format!("{}_ns", way.name), ns);
        let (first, last) = (way.nanoseconds.first(), way.nanoseconds.last());
        stage.figure(&format!("{}_spread_ns", way.name), last.zip(first).map_or(0, |(l, f)| l - f));
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
