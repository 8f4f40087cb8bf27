//! One sequence: each step on the model, then on every machine, and what differs.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use lb_common::counter::COUNTERS;
use lb_common::nat::FROM_CLIENT;
use lb_common::service::UDP;

use super::compare::{self, Difference};
use super::machine::Machine;
use super::sockets::Open;
use super::step::{self, SECOND_NS, Step};
use super::{cast, compare::Seen};
use crate::model::state::State;
use crate::model::{Action, Outcome, deliver, leave, steer};
use crate::packet::frame::{Frame, Kind};
use crate::packet::scene::INTERFACE;

/// A sequence that takes longer by the real clock is tried again: its times may differ.
const LONGEST_NS: u64 = SECOND_NS * 2 / 5;
const TRIES: usize = 20;
/// A test run of tc takes frames of nearly a page. Longer ones are for XDP alone, and are not delivered.
const TC_MOST: usize = 3500;

/// Programs with maps of their own, and how they steer and deliver.
struct Bench {
    machine: Machine,
    steer: &'static str,
    deliver: &'static str,
}

pub(super) struct Benches {
    /// XDP, then tc.
    benches: Vec<Bench>,
    /// How many of them take the sequence's frames.
    used: usize,
    sockets: Open,
}

/// The first difference of a sequence.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// Of the step, from 0.
    pub(super) step: usize,
    pub(super) program: &'static str,
    pub(super) difference: Difference,
}

/// What a sequence that did not fail tried.
#[derive(Default, Debug)]
pub(super) struct Tried {
    /// Runs of programs on frames.
    pub(super) runs: u64,
    /// How often the model gave each verdict, by its index.
    pub(super) verdicts: Vec<u32>,
}

impl Benches {
    pub(super) fn load() -> Result<Self> {
        let bench =
            |steer, deliver| anyhow::Ok(Bench { machine: Machine::load()?, steer, deliver });
        let benches =
            vec![bench("lb_xdp", "lb_tc_deliver")?, bench("lb_tc_steer", "lb_tc_deliver_g")?];
        Ok(Self { used: benches.len(), benches, sockets: Open::default() })
    }

    /// Runs a sequence. The inner error is a difference.
    ///
    /// # Errors
    /// Where the kernel refuses what ought to work.
    pub(super) fn run(&mut self, steps: &[Step]) -> Result<Result<Tried, Failure>> {
        for _ in 0..TRIES {
            let outcome = self.run_once(steps)?;
            let mut longest_ns = 0;
            for bench in &self.benches[..self.used] {
                longest_ns = longest_ns.max(bench.machine.elapsed_ns()?);
            }
            if longest_ns < LONGEST_NS {
                return Ok(outcome);
            }
        }
        anyhow::bail!("a sequence of {} steps takes too long: this machine is busy", steps.len())
    }

    fn run_once(&mut self, steps: &[Step]) -> Result<Result<Tried, Failure>> {
        let mut state = cast::world()?;
        self.sockets.follow(&state.sockets)?;
        self.used = if steps.iter().any(is_large) { 1 } else { self.benches.len() };
        for bench in &mut self.benches[..self.used] {
            bench.machine.begin(&state)?;
        }
        let outcome = self.run_steps(&mut state, steps)?;
        for bench in &self.benches[..self.used] {
            bench.machine.forget_syns(&state, outcome.is_err())?;
        }
        Ok(outcome)
    }

    fn run_steps(&mut self, state: &mut State, steps: &[Step]) -> Result<Result<Tried, Failure>> {
        let mut tried = Tried::default();
        for (number, step) in steps.iter().enumerate() {
            let outcome = self.step(state, step, &mut tried);
            let outcome = outcome.with_context(|| format!("step {}: {step}", number + 1))?;
            if let Err((program, difference)) = outcome {
                return Ok(Err(Failure { step: number, program, difference }));
            }
        }
        Ok(Ok(tried))
    }

    fn step(
        &mut self,
        state: &mut State,
        step: &Step,
        tried: &mut Tried,
    ) -> Result<Result<(), (&'static str, Difference)>> {
        let resolved;
        let arriving = match step {
            Step::Arrive(frame) => Some(frame),
            Step::Reply(number, frame) => match reply(state, *number, frame) {
                Some(frame) => {
                    resolved = frame;
                    Some(&resolved)
                }
                None => return Ok(Ok(())),
            },
            _ => None,
        };
        if let Some(frame) = arriving {
            // Too short for any run: shrinking comes upon these.
            let bytes = frame.bytes()?;
            ensure!(bytes.len() >= 14, "a frame of {} bytes", bytes.len());
            let expected = steer(state, &bytes, INTERFACE);
            let steered = self.hold(state, &bytes, &expected, |bench| bench.steer, tried)?;
            if steered.is_err() || expected.action != Action::Pass || bytes.len() > TC_MOST {
                return Ok(steered);
            }
            // The packet of a test run is not where sockets can be assigned to one, for the kernel.
            let expected = deliver(state, &bytes, false);
            return self.hold(state, &bytes, &expected, |bench| bench.deliver, tried);
        }
        if let Step::Leave(frame) = step {
            let bytes = frame.bytes()?;
            ensure!(bytes.len() >= 14, "a frame of {} bytes", bytes.len());
            let expected = leave(state, &bytes, INTERFACE);
            return self.hold(state, &bytes, &expected, |_| "lb_tc_egress", tried);
        }
        step.change(state)?;
        self.sockets.follow(&state.sockets)?;
        for bench in &mut self.benches[..self.used] {
            match step {
                Step::Wait(seconds) => bench.machine.wait(state, *seconds)?,
                Step::Forget(..) => bench.machine.forget(state)?,
                _ => {}
            }
            bench.machine.follow(state)?;
        }
        Ok(Ok(()))
    }

    /// Runs a program of every machine on a frame, and holds it against what the model says.
    fn hold(
        &self,
        state: &State,
        bytes: &[u8],
        expected: &Outcome,
        program: impl Fn(&Bench) -> &'static str,
        tried: &mut Tried,
    ) -> Result<Result<(), (&'static str, Difference)>> {
        if let Some(verdict) = expected.verdict {
            tried.verdicts.resize(COUNTERS, 0);
            tried.verdicts[verdict as usize] += 1;
        }
        for bench in &self.benches[..self.used] {
            let name = program(bench);
            let before = bench.machine.counters()?;
            let Some(run) = bench.machine.run(name, bytes)? else { continue };
            tried.runs += 1;
            let seen = Seen { run, before, after: bench.machine.counters()? };
            let difference = compare::outcome(name, bytes, expected, &seen);
            let difference = match difference {
                None => compare::state(state, &bench.machine)?,
                some => some,
            };
            if let Some(difference) = difference {
                return Ok(Err((name, difference)));
            }
        }
        Ok(Ok(()))
    }
}

fn is_large(step: &Step) -> bool {
    let (Step::Arrive(frame) | Step::Leave(frame) | Step::Reply(_, frame)) = step else {
        return false;
    };
    // One that cannot be made fails where it is to be used.
    frame.bytes().is_ok_and(|bytes| bytes.len() > TC_MOST)
}

/// The frame with addresses and ports of who answers the entry; to a client's entry, its client's
/// next packet. Nothing where there is no entry.
fn reply(state: &State, number: usize, frame: &Frame) -> Option<Frame> {
    let key = step::flow(state, number)?;
    let text = |address| IpAddr::from(address).to_string();
    let from_client = state.nat_flows[&key].direction == FROM_CLIENT;
    Some(Frame {
        kind: if key.protocol == UDP { Kind::Udp } else { Kind::Tcp },
        family: if key.source.is_v4() { 4 } else { 6 },
        mac_from: if from_client { "client".to_owned() } else { frame.mac_from.clone() },
        from: text(key.source),
        to: text(key.destination),
        port_from: u16::from_be(key.source_port_be),
        port_to: u16::from_be(key.destination_port_be),
        cut: None,
        ..frame.clone()
    })
}
