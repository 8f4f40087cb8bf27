//! What is held against what: verdict, action, bytes and state.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::Hash;

use anyhow::Result;
use lb_common::connection::CLOSED;
use lb_common::counter::{Outcome as Kind, Verdict};

use super::cast;
use super::machine::Machine;
use super::step::SECOND_NS;
use crate::model::state::{Open, State};
use crate::model::{Action, Outcome};
use crate::packet::checksum;
use crate::packet::scene::INTERFACE;
use crate::packet::syscall::Run;

/// What a program did.
pub(super) struct Seen {
    pub(super) run: Run,
    /// The verdicts' counters.
    pub(super) before: Vec<u64>,
    pub(super) after: Vec<u64>,
}

/// What differs: of a kind, which shrinking keeps, and in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Difference {
    pub(super) kind: String,
    pub(super) text: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind, self.text)
    }
}

pub(super) fn outcome(
    program: &str,
    came: &[u8],
    expected: &Outcome,
    seen: &Seen,
) -> Option<Difference> {
    let moved = moved(&seen.before, &seen.after);
    let wanted = expected.verdict.map_or("none", Verdict::name).to_owned();
    if moved != wanted {
        let kind = format!("the verdict is {moved}, the model says {wanted}");
        return Some(Difference { kind, text: String::new() });
    }
    let code = code(program, expected.action);
    if seen.run.action != code {
        let action = seen.run.action.cast_signed();
        let kind = format!("the answer is {action}, the model says {:?}", expected.action);
        return Some(Difference { kind, text: String::new() });
    }
    // A verdict's name promises what becomes of the packet.
    let promised = expected.verdict.map_or(Kind::Pass, Verdict::outcome);
    let keeps = match expected.action {
        Action::Pass => matches!(promised, Kind::Pass | Kind::Deliver),
        Action::Drop => promised == Kind::Drop,
        Action::Send(_) => promised == Kind::Forward,
    };
    if !keeps {
        let kind = format!("{wanted} promises {promised:?}, the model says {:?}", expected.action);
        return Some(Difference { kind, text: String::new() });
    }
    bytes(came, &expected.frame, &seen.run.frame)
}

/// Bytes must be the same. Where a checksum came in wrong, the two zeros of one's complement are:
/// nobody takes such a packet.
fn bytes(came: &[u8], expected: &[u8], left: &[u8]) -> Option<Difference> {
    let right = checksum::verify(came).is_ok();
    if expected == left {
        let error = checksum::verify(left).err().filter(|_| right)?;
        let kind = "a frame with right checksums leaves with a wrong one".to_owned();
        return Some(Difference { kind, text: format!(": {error:#}") });
    }
    if !right && expected.len() == left.len() && only_zeros_differ(expected, left) {
        return None;
    }
    let mut text = format!(" ({} bytes, the model says {})", left.len(), expected.len());
    for (at, (is, wants)) in left.iter().zip(expected).enumerate() {
        if is != wants {
            let before = came.get(at).copied().unwrap_or(0);
            let _ =
                write!(text, "\n    byte {at}: came {before:02x}, left {is:02x}, not {wants:02x}");
        }
    }
    Some(Difference { kind: "the frame leaves with other bytes".to_owned(), text })
}

fn only_zeros_differ(expected: &[u8], left: &[u8]) -> bool {
    let at: Vec<usize> = (0..left.len()).filter(|&at| left[at] != expected[at]).collect();
    let is_zero = |frame: &[u8], at: usize| matches!(frame[at..at + 2], [0, 0] | [0xff, 0xff]);
    at.chunks(2).all(|pair| {
        pair.len() == 2
            && pair[1] == pair[0] + 1
            && is_zero(expected, pair[0])
            && is_zero(left, pair[0])
    })
}

/// What the program returns for an action (include/uapi/linux/bpf.h, pkt_cls.h).
fn code(program: &str, action: Action) -> u32 {
    match (program, action) {
        ("lb_xdp", Action::Drop) => 1,
        ("lb_xdp", Action::Pass) => 2,
        ("lb_xdp", Action::Send(INTERFACE)) => 3,
        ("lb_xdp", Action::Send(_)) => 4,
        (_, Action::Drop) => 2,
        (_, Action::Pass) => u32::MAX,
        (_, Action::Send(_)) => 7,
    }
}

/// The counters that moved, by name; "none" where none did.
fn moved(before: &[u64], after: &[u64]) -> String {
    let mut names = Vec::new();
    for verdict in Verdict::ALL {
        match after[*verdict as usize] - before[*verdict as usize] {
            0 => {}
            1 => names.push(verdict.name().to_owned()),
            times => names.push(format!("{} {times} times", verdict.name())),
        }
    }
    if names.is_empty() { "none".to_owned() } else { names.join(" and ") }
}

/// The connections to services that limit them, and how many of each source are open.
fn connections(
    state: &State,
    machine: &Machine,
    whole: impl Fn(u64) -> u64,
) -> Result<Option<Difference>> {
    let found = machine.connections(state)?;
    let is = found.iter().map(|(key, it)| (*key, (it.stage, it.last_seen_ns))).collect();
    let wants: HashMap<_, _> = state
        .connections
        .iter()
        .map(|(key, it)| (*key, (it.stage, whole(it.last_seen_ns))))
        .collect();
    let differs = unlike("connections", &wants, &is);
    if differs.is_some() {
        return Ok(differs);
    }
    for (key, connection) in &found {
        let source = state.connections[key].source;
        let of_source = |it: &&Open| it.source == source && it.stage != CLOSED;
        let wants = state.connections.values().filter(of_source).count() as u64;
        for index in connection.counted {
            let is = machine.open(index)?;
            if is != wants {
                let text = format!(" of {source:?}: {is}, the model says {wants}");
                return Ok(Some(Difference { kind: "open connections".to_owned(), text }));
            }
        }
    }
    Ok(None)
}

/// The state after a frame.
pub(super) fn state(state: &State, machine: &Machine) -> Result<Option<Difference>> {
    let whole = |time_ns: u64| match time_ns {
        0 => 0,
        _ => cast::START_NS + (time_ns - cast::START_NS) / SECOND_NS * SECOND_NS,
    };
    let mut flows = state.nat_flows.clone();
    flows.values_mut().for_each(|entry| entry.last_seen_ns = whole(entry.last_seen_ns));
    let mut fragments = state.fragments.clone();
    fragments.values_mut().for_each(|first| first.seen_ns = whole(first.seen_ns));
    let mut affinities = state.affinities.clone();
    affinities.values_mut().for_each(|it| it.last_seen_ns = whole(it.last_seen_ns));
    let differs = unlike("nat_flows", &flows, &machine.nat_flows(state)?)
        .or(unlike("udp_replies", &state.udp_replies, &machine.udp_replies()?))
        .or(unlike("affinities", &affinities, &machine.affinities(state)?))
        .or(unlike("flows", &state.flows, &machine.flows()?))
        .or(unlike("fragments", &fragments, &machine.fragments(state)?))
        .or(unlike("rates", &state.rates, &machine.rates(state)?))
        .or(connections(state, machine, whole)?);
    if differs.is_some() {
        return Ok(differs);
    }
    let (is, wants) = (machine.backend_counters()?, &state.backend_counters);
    if is != *wants {
        let text = format!(": {is:?}, the model says {wants:?}");
        return Ok(Some(Difference { kind: "the backends' counters".to_owned(), text }));
    }
    let (is, wants) = (machine.failures()?, &state.failures);
    if is != *wants {
        let text = format!(": {is:?}, the model says {wants:?}");
        return Ok(Some(Difference { kind: "failed connections".to_owned(), text }));
    }
    let (is, wants) = (machine.flooded_until_ns(state)?, whole(state.syn_flood.flooded_until_ns));
    if is != wants {
        let text = format!(": {is}, the model says {wants}");
        return Ok(Some(Difference { kind: "syn_flood".to_owned(), text }));
    }
    let (is, wants) = (machine.runtime(state)?, whole(state.runtime.cookie_seen_ns));
    if is.cookie_seen_ns != wants {
        let text = format!(": {is:?}, the model says {wants}");
        return Ok(Some(Difference { kind: "runtime".to_owned(), text }));
    }
    Ok(None)
}

fn unlike<K: Eq + Hash + fmt::Debug, V: PartialEq + fmt::Debug>(
    map: &str,
    wants: &HashMap<K, V>,
    is: &HashMap<K, V>,
) -> Option<Difference> {
    if wants == is {
        return None;
    }
    let mut text = String::new();
    for (key, value) in wants {
        match is.get(key) {
            Some(other) if other == value => {}
            Some(other) => {
                let _ = write!(text, "\n    {key:?}\n      has  {other:?}\n      not  {value:?}");
            }
            None => {
                let _ = write!(text, "\n    {key:?} is missing:\n      {value:?}");
            }
        }
    }
    for (key, value) in is.iter().filter(|(key, _)| !wants.contains_key(key)) {
        let _ = write!(text, "\n    {key:?} is there:\n      {value:?}");
    }
    Some(Difference { kind: format!("the map {map} is another"), text })
}
