//! The agent's process: arguments, logging, exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use lb_agent::agent::{self, AgentError, Options};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::try_from_env("LB_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // What cannot be written, as on a full disk, is lost: to complain of it on the same stream would
    // end the agent by a panic.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    log.log_internal_errors(false).init();
    match start(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "lb-agent: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn start(options: &Options) -> Result<(), AgentError> {
    let config = agent::read_config(options)?;
    if options.check {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| AgentError::System { operation: "starting the runtime", source })?;
    if options.purge {
        return runtime.block_on(agent::purge(&config));
    }
    runtime.block_on(agent::run(options, config))
}
