//! Synthetic packets through the loaded program, as if they had come in on an attached interface
//! (BPF_PROG_TEST_RUN): whether they get the verdict that the maps call for.

use aya::programs::{
    ProgramError, SchedClassifier, TestRun as _, TestRunOptions, TestRunResult, Xdp,
};
use lb_common::counter::Verdict;
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
const TC_ACT_SHOT: u32 = 2;

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
        let count = || self.verdicts().map_err(TrialError::Counters);
        let before = count()?;
        let result = self.run_frame(on, frame)?;
        let after = count()?;
        let rose = |verdict: Verdict| after.get(verdict as usize) > before.get(verdict as usize);
        let dropped = if on.mode == Mode::Tc { TC_ACT_SHOT } else { XDP_DROP };
        if result.return_value == dropped && rose(Verdict::Trial) {
            return Ok(());
        }
        // Clients' packets of the same moment are among them.
        let names = Verdict::ALL.iter().filter(|v| rose(**v)).map(|v| v.name());
        let found = format!(
            "action {}, counted: {}",
            result.return_value,
            names.collect::<Vec<_>>().join(", ")
        );
        Err(TrialError::Astray { interface: on.name.clone(), found })
    }

    fn run_frame(&self, on: &Attached, frame: &[u8]) -> Result<TestRunResult, TrialError> {
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let name = if on.mode == Mode::Tc { STEER } else { XDP };
        let program = self.object.program(name).ok_or(TrialError::NotLoaded)?;
        let mut options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
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
