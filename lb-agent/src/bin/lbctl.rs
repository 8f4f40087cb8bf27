//! `lbctl`: hands the process' arguments and streams to [`lb_agent::cli`].

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use lb_agent::cli::{self, Surroundings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let variable = |name| std::env::var_os(name);
    let mut out = std::io::stdout();
    let surroundings = Surroundings {
        colour: cli::wants_colour(
            out.is_terminal(),
            variable("NO_COLOR").as_deref(),
            variable("TERM").as_deref(),
        ),
        now: SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |since| since.as_secs_f64()),
    };
    let mut err = std::io::stderr();
    let outcome = cli::run(std::env::args_os(), surroundings, &mut out, &mut err).await;
    // A stream that is closed by now has nobody who could be told.
    let _ = out.flush();
    ExitCode::from(outcome as u8)
}
