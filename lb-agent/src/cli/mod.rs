//! `lbctl`: what a person types. One file for each verb; each asks the control API and shows the
//! answer. Nothing here touches the kernel's maps.
//!
//! [`run`] takes its arguments and its streams, so that tests are a process without being one.

mod arguments;
mod attach;
mod backends;
mod bar;
mod check;
mod completions;
mod detach;
mod doctor;
mod events;
mod explain;
mod failure;
mod figures;
mod flows;
mod import;
mod nodes;
mod rebalance;
mod reload;
mod role;
mod screen;
mod services;
mod status;
mod table;
mod upgrade;
mod vrrp;

use std::ffi::{OsStr, OsString};
use std::io::Write;

use clap::Parser;
use clap::error::ErrorKind;

use crate::control::client::Client;

pub use arguments::{Cli, Format, Verb};
use failure::Failure;
use screen::{Screen, Tone};

/// The process' result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    Done = 0,
    /// It was understood, and failed.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Misused = 2,
}

/// Where it runs.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// Colours may be used.
    pub colour: bool,
    /// Seconds since the Unix epoch, for "since".
    pub now: f64,
}

/// Colours are for terminals, and for people who did not decline them (no-color.org).
pub fn wants_colour(is_terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    is_terminal
        && no_color.is_none_or(OsStr::is_empty)
        && term.is_none_or(|term| term != OsStr::new("dumb"))
}

/// Does what the arguments (the program's name first) say.
pub async fn run(
    arguments: impl IntoIterator<Item = OsString>,
    surroundings: Surroundings,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Outcome {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, surroundings, out, err),
    };
    let mut screen = Screen::new(out, cli.output, surroundings);
    let result = obey(&cli, &mut screen, &mut Screen::new(err, cli.output, surroundings)).await;
    match result {
        Ok(outcome) => outcome,
        // Somebody closed the pipe (`lbctl .. | head`): they have what they wanted.
        Err(failure) if failure.is_broken_pipe() => Outcome::Done,
        Err(failure) => {
            let label = Tone::Bad.paint("error:", surroundings.colour);
            // Where even this cannot be written, the outcome still tells.
            let _ = writeln!(err, "{label} {failure}");
            Outcome::Failed
        }
    }
}

/// What clap has to say: help and version are answers, anything else is a mistake.
fn refuse<'s>(
    error: &clap::Error,
    surroundings: Surroundings,
    out: &'s mut dyn Write,
    err: &'s mut dyn Write,
) -> Outcome {
    let styled = error.render();
    let text = if surroundings.colour { styled.ansi().to_string() } else { styled.to_string() };
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // Where it cannot be written, the outcome still tells.
    let _ = write!(if asked_for { out } else { err }, "{text}");
    if asked_for { Outcome::Done } else { Outcome::Misused }
}

/// `aside` is for what does not belong to the answer.
async fn obey(
    cli: &Cli,
    screen: &mut Screen<'_>,
    aside: &mut Screen<'_>,
) -> Result<Outcome, Failure> {
    let client = Client::new(&cli.socket);
    match &cli.verb {
        Verb::Attach(arguments) => attach::run(arguments, &client, screen).await?,
        Verb::Detach(arguments) => detach::run(arguments, &client, screen).await?,
        Verb::Status => status::run(&client, screen).await?,
        Verb::Services => services::run(&client, screen).await?,
        Verb::Backends(arguments) => backends::run(arguments, &client, screen).await?,
        Verb::Rebalance(arguments) => rebalance::run(arguments, &client, screen).await?,
        Verb::Flows(arguments) => flows::run(arguments, &client, screen).await?,
        Verb::Explain(arguments) => return explain::run(arguments, &client, screen).await,
        Verb::Events(arguments) => events::run(arguments, &client, screen).await?,
        Verb::Nodes => nodes::run(&client, screen).await?,
        Verb::Reload(arguments) => reload::run(arguments, &client, screen).await?,
        Verb::Role(arguments) => role::run(arguments, &client, screen).await?,
        Verb::Upgrade(arguments) => upgrade::run(arguments, &client, screen).await?,
        Verb::Vrrp(arguments) => vrrp::run(arguments, &client, screen).await?,
        Verb::Doctor(arguments) => return doctor::run(arguments, &cli.socket, screen).await,
        Verb::Check(arguments) => return check::run(arguments, screen),
        Verb::Import(arguments) => return import::run(arguments, screen, aside),
        Verb::Completions(arguments) => completions::run(arguments, screen)?,
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_need_a_terminal_and_consent() {
        let set = |text: &'static str| Some(OsStr::new(text));
        assert!(wants_colour(true, None, set("xterm")));
        assert!(wants_colour(true, set(""), None), "an empty NO_COLOR does not count");
        assert!(!wants_colour(false, None, set("xterm")));
        assert!(!wants_colour(true, set("1"), set("xterm")));
        assert!(!wants_colour(true, None, set("dumb")));
    }
}
