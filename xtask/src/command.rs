//! Running other programs: cargo in a clean environment, and long ones with their last words kept.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::{env, thread};

use anyhow::{Context, bail};

use crate::progress::Task;
use crate::workspace;

/// How much of a failed program's output is shown.
const LAST_LINES: usize = 25;

/// The cargo that runs us, in the workspace's root.
///
/// Variables that `cargo run` set for us are removed: build scripts that watch them would take
/// every change between this cargo and the user's own for a reason to run again.
pub(crate) fn cargo() -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a program whose output only matters when it fails, as one task of the progress display.
pub(crate) fn run_quietly(task: &str, command: &mut Command) -> anyhow::Result<()> {
    let task = Task::start(task);
    let mut last = VecDeque::new();
    let status = each_line(command, |line| {
        task.note(line);
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line.to_owned());
    })?;
    if status.success() {
        task.done();
        return Ok(());
    }
    let name = task.fail();
    let lines: Vec<_> = last.iter().map(|line| format!("  {line}")).collect();
    bail!("{name} failed ({status}); the last lines of `{}`:\n{}", shown(command), lines.join("\n"))
}

/// Runs a program and hands over each line of its standard output and standard error, in order.
pub(crate) fn each_line(
    command: &mut Command,
    mut take: impl FnMut(&str),
) -> anyhow::Result<ExitStatus> {
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    command.stdin(Stdio::null());
    command.stdout(writer.try_clone().context("cannot copy a pipe's end")?).stderr(writer);
    let name = shown(command);
    let mut child = command.spawn().with_context(|| format!("cannot run `{name}`"))?;
    // Our copies of the writing end go, so that the reader ends with the child.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).context("cannot read a program's output")? > 0 {
        take(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    child.wait().with_context(|| format!("cannot wait for `{name}`"))
}

/// Runs a program whose standard output is data and returns it; its standard error passes through.
pub(crate) fn stdout_of(command: &mut Command) -> anyhow::Result<(ExitStatus, String)> {
    let name = shown(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{name}`"))?;
    let stdout = child.stdout.take().context("the pipe was asked for")?;
    let reader = thread::spawn(move || io::read_to_string(stdout));
    let status = child.wait().with_context(|| format!("cannot wait for `{name}`"))?;
    let text = reader.join().map_err(|_| anyhow::anyhow!("the reader of `{name}` panicked"))??;
    Ok((status, text))
}

/// The same command, ended after a number of seconds, killed where that is not enough.
pub(crate) fn limited(command: &Command, seconds: u32) -> Command {
    let mut limited = Command::new("timeout");
    // In the foreground Ctrl-C still reaches the program.
    limited.args(["--foreground", "--kill-after=30", &seconds.to_string()]);
    limited.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        limited.current_dir(directory);
    }
    limited
}

/// A command as one would type it, without its environment.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_shows_the_last_lines_and_only_them() {
        let error = run_quietly("counting", &mut shell("seq 1 100 >&2; exit 3"));
        let text = error.expect_err("it failed").to_string();
        assert!(text.starts_with("counting failed (exit status: 3)"), "{text}");
        assert!(text.contains("\n  100") && !text.contains("\n  75\n"), "{text}");
    }

    #[test]
    fn lines_of_both_streams_arrive_in_order() {
        let mut lines = Vec::new();
        let status = each_line(&mut shell("echo a; echo b >&2; printf c"), |line| {
            lines.push(line.to_owned());
        });
        assert!(status.expect("sh runs").success());
        assert_eq!(lines, ["a", "b", "c"]);
    }

    #[test]
    fn a_limited_program_is_ended_and_keeps_its_environment() {
        let mut command = shell("test \"$KEPT\" = yes && test \"$PWD\" = / && exec sleep 60");
        command.env("KEPT", "yes").current_dir("/");
        let status = limited(&command, 1).status().expect("timeout runs");
        assert_eq!(status.code(), Some(124), "what timeout(1) says of a program that it ended");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run_quietly("nothing", &mut Command::new("/nonexistent/program"));
        let text = error.expect_err("it cannot run").to_string();
        assert_eq!(text, "cannot run `/nonexistent/program`");
    }
}
