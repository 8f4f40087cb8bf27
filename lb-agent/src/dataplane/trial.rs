//! Synthetic packets through the loaded program, as if they had come in on an attached interface
//! (BPF_PROG_TEST_RUN): whether they get the verdict that the maps call for, and what becomes of any other.

use aya::programs::{
    ProgramError, SchedClassifier, TestRun as _, TestRunOptions, TestRunResult, Xdp,
};
use lb_common::counter::{Outcome, Verdict};
use thiserror::Error;

use super::attach::{Attached, STEER, XDP};
use super::{DataPlane, DataPlaneError};
use crate::config::Mode;

/// `struct xdp_md`, in words of 32 bits.
const XDP_CONTEXT: usize = 6;
const XDP_DATA_END: usize = 1;
const XDP_INGRESS_IFINDEX: usize = 3;
/// `struct __sk_buff` up to the interface's index; the kernel takes the rest as zero.
const TC_CONTEXT: usize = 11;
const TC_IFINDEX: usize = 10;

// include/uapi/linux/bpf.h and pkt_cls.h.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_UNSPEC: u32 = u32::MAX;

/// More than the program adds to a frame.
const ROOM: usize = 128;

/// What the program did with a frame.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Of its answer alone: what is delivered here is passed, too.
    pub outcome: Outcome,
    /// As it is then.
    pub frame: Vec<u8>,
    /// Verdicts that fell meanwhile. Those of others' packets are among them.
    pub rose: Vec<Verdict>,
}

/// Why a trial proves nothing good.
#[derive(Debug, Error)]
pub enum TrialError {
    #[error("the program is not loaded")]
    NotLoaded,
    #[error("the kernel does not run the program: {0}")]
    Run(#[source] ProgramError),
    #[error("reading the counters: {0}")]
    Counters(#[source] DataPlaneError),
    #[error("it went astray on {interface} ({found})")]
    Astray { interface: String, found: String },
}

impl DataPlane {
    /// Runs a frame from this node to itself through the program that steers on the interface.
    ///
    /// # Errors
    ///
    /// Where it cannot be run, or gets another verdict than [`Verdict::Trial`].
    pub fn try_frame(&self, on: &Attached, frame: &[u8]) -> Result<(), TrialError> {
        let ran = self.run(on, frame)?;
        if ran.outcome == Outcome::Drop && ran.rose.contains(&Verdict::Trial) {
            return Ok(());
        }
        let names: Vec<&str> = ran.rose.iter().map(|verdict| verdict.name()).collect();
        let found = format!("outcome {}, counted: {}", ran.outcome.name(), names.join(", "));
        Err(TrialError::Astray { interface: on.name.clone(), found })
    }

    /// Runs a frame as if it had come in on the interface. It counts and leaves traces as any other; what the
    /// program sends is not sent.
    ///
    /// # Errors
    ///
    /// Where it cannot be run.
    pub fn run(&self, on: &Attached, frame: &[u8]) -> Result<Ran, TrialError> {
        let count = || self.verdicts().map_err(TrialError::Counters);
        let before = count()?;
        let mut out = vec![0; frame.len() + ROOM];
        let result = self.run_frame(on, frame, &mut out)?;
        let after = count()?;
        let rose = |verdict: &Verdict| {
            let at = *verdict as usize;
            after.get(at) > before.get(at)
        };
        out.truncate(result.data_size_out as usize);
        let outcome = match (on.mode, result.return_value) {
            (Mode::Tc, TC_ACT_SHOT) | (Mode::Native | Mode::Generic, XDP_DROP) => Outcome::Drop,
            (Mode::Tc, TC_ACT_UNSPEC) | (Mode::Native | Mode::Generic, XDP_PASS) => Outcome::Pass,
            _ => Outcome::Forward,
        };
        let rose = Verdict::ALL.iter().copied().filter(rose).collect();
        Ok(Ran { outcome, frame: out, rose })
    }

    fn run_frame(
        &self,
        on: &Attached,
        frame: &[u8],
        out: &mut [u8],
    ) -> Result<TestRunResult, TrialError> {
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let name = if on.mode == Mode::Tc { STEER } else { XDP };
        let program = self.object.program(name).ok_or(TrialError::NotLoaded)?;
        let mut options =
            TestRunOptions { data_in: Some(frame), data_out: Some(out), ..TestRunOptions::new() };
        if on.mode == Mode::Tc {
            let mut words = [0u32; TC_CONTEXT];
            words[TC_IFINDEX] = on.index;
            let context = words.map(u32::to_ne_bytes).concat();
            options.ctx_in = Some(&context);
            let program: &SchedClassifier = program.try_into().map_err(TrialError::Run)?;
            program.test_run(options).map_err(TrialError::Run)
        } else {
            let mut words = [0u32; XDP_CONTEXT];
            words[XDP_DATA_END] = length;
            words[XDP_INGRESS_IFINDEX] = on.index;
            let context = words.map(u32::to_ne_bytes).concat();
            options.ctx_in = Some(&context);
            let program: &Xdp = program.try_into().map_err(TrialError::Run)?;
            program.test_run(options).map_err(TrialError::Run)
        }
    }
}
