//! `lbctl completions SHELL`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::arguments::Cli;
use super::failure::Failure;
use super::screen::Screen;

/// Print a completion script for a shell
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "Examples:\n  \
    lbctl completions bash > /etc/bash_completion.d/lbctl\n  \
    lbctl completions zsh > \"${fpath[1]}/_lbctl\"\n  \
    lbctl completions fish > ~/.config/fish/completions/lbctl.fish")]
pub struct Arguments {
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "lbctl", &mut script);
    screen.bytes(&script)
}
