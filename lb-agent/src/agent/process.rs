//! The agent's process: arguments, logging, exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::error::AgentError;
use super::options::Options;
use super::{purge, read_config, run, take_over};
use crate::dataplane::Layout;
use crate::events::{Recorder, journal};

/// What makes one version of the agent another than the next.
#[derive(Clone, Copy, Debug)]
pub struct Edition {
    pub version: &'static str,
    pub layout: Layout,
}

impl Edition {
    /// This one.
    pub const CURRENT: Self = Self { version: env!("CARGO_PKG_VERSION"), layout: Layout::CURRENT };
}

/// Does what the command line says, until the end.
pub fn process(edition: &'static Edition) -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::try_from_env("LB_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // What cannot be written, as on a full disk, is lost: to complain of it on the same stream would
    // end the agent by a panic.
    let log = tracing_subscriber::fmt::layer().with_writer(io::stderr).log_internal_errors(false);
    let recorder = Recorder(journal()).with_filter(LevelFilter::INFO);
    tracing_subscriber::registry().with(log.with_filter(filter)).with(recorder).init();
    match start(edition, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "lb-agent: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn start(edition: &'static Edition, options: &Options) -> Result<(), AgentError> {
    if options.take_over {
        // Where something is wrong with the file, the agent that runs is to hear it.
        return runtime()?.block_on(take_over(edition, options));
    }
    let config = read_config(options)?;
    if options.check {
        return Ok(());
    }
    if options.purge {
        return runtime()?.block_on(purge(&config));
    }
    runtime()?.block_on(run(edition, options, config))
}

fn runtime() -> Result<tokio::runtime::Runtime, AgentError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.worker_threads(2).enable_all().build();
    built.map_err(|source| AgentError::System { operation: "starting the runtime", source })
}
