//! Measurements: ratios against something measured in the same run.

mod failover;
mod frames;
mod idle;
mod kernel;
mod packet;
mod rig;

use std::time::Duration;

use anyhow::Result;

use crate::scenario::stage::{Setting, Stage};

/// A measurement.
#[derive(Debug)]
pub struct Bench {
    pub name: &'static str,
    pub about: &'static str,
    /// One that takes longer hangs.
    pub limit: Duration,
    run: fn(&mut Stage) -> Result<()>,
}

/// Of most.
const LIMIT: Duration = Duration::from_secs(200);

pub static ALL: &[Bench] = &[
    Bench {
        name: "packet",
        about: "nanoseconds of the XDP program for one packet, by way (BPF_PROG_TEST_RUN)",
        limit: LIMIT,
        run: packet::run,
    },
    Bench {
        name: "failover",
        about: "how long the VIP is away when its node dies or resigns, beside keepalived",
        limit: failover::LIMIT,
        run: failover::run,
    },
    Bench {
        name: "idle",
        about: "what the agent costs when nothing happens",
        limit: LIMIT,
        run: idle::run,
    },
];

/// # Errors
/// Where there is none of that name; the message lists them.
pub fn find(name: &str) -> Result<&'static Bench> {
    let names: Vec<&str> = ALL.iter().map(|bench| bench.name).collect();
    ALL.iter()
        .find(|bench| bench.name == name)
        .ok_or_else(|| anyhow::anyhow!("no benchmark `{name}`; there are {}", names.join(", ")))
}

impl Bench {
    /// Runs it and tells the figures. False where it could not be done.
    ///
    /// # Errors
    /// Where the output is closed.
    pub fn run(&self, setting: &Setting) -> Result<bool> {
        let mut stage = Stage::open(self.name, self.about, setting)?;
        let outcome = (self.run)(&mut stage);
        stage.close(&outcome)
    }
}
