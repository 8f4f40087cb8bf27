//! The project's commands: `cargo xtask VERB`. Thin: one file for each verb; what a verb proves or
//! shows lives in lb-tests, how the kernel side is built in bpf-build.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its commands speak to a terminal")]

mod bench;
mod build;
mod checks;
mod command;
mod demo;
mod fuzz;
mod lab;
mod progress;
mod setup;
mod test;
mod tidy;
mod verifier;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's commands
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = FIRST_STEPS)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

const FIRST_STEPS: &str = "\
From a fresh clone, as root:
  cargo xtask demo    nodes and clients in namespaces on this machine, an Active node that dies
  cargo xtask test    every test; its last line says how many passed and failed

Both find or install what they need first, as `cargo xtask setup` does. Nothing outside network
namespaces that they make themselves is touched.";

#[derive(Subcommand)]
enum Verb {
    /// Find or install what building, testing, the lab and the demo need
    Setup(setup::Arguments),
    /// Build the agent, lbctl and the lab
    Build(build::Arguments),
    /// Run every test, from formatting to the lab's scenarios (root)
    #[command(visible_alias = "ci")]
    Test(test::Arguments),
    /// Show a VIP at work: requests, then the death of the Active node under load (root)
    Demo(demo::Arguments),
    /// Run or list the scenarios of the lab
    Lab(lab::Arguments),
    /// Measure, beside a floor measured in the same run (root)
    Bench(bench::Arguments),
    /// Show what the kernel's verifier goes through for each program; fail where one nears a limit
    Verifier(verifier::Arguments),
    /// Make up what others may send, and look what becomes of it
    Fuzz(fuzz::Arguments),
    /// Check the house rules that a machine can check
    Tidy,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Setup(arguments) => setup::run(&arguments),
        Verb::Build(arguments) => build::run(&arguments),
        Verb::Test(arguments) => match test::run(&arguments) {
            // Its last line has said what there is to say.
            Ok(passed) => return if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE },
            Err(error) => Err(error),
        },
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Lab(arguments) => lab::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Verifier(arguments) => verifier::run(&arguments),
        Verb::Fuzz(arguments) => fuzz::run(&arguments),
        Verb::Tidy => tidy::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
