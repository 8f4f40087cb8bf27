//! Running the system's own tools (`ip`, `ethtool`, `lbctl`, `curl`) to their end, with errors that
//! name the command. Not for processes that keep running: those are [`super::process`].

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs `program` and returns its standard output.
///
/// # Errors
/// Where it is not installed or fails; the message holds the command and what it complained of.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| missing(program))?;
    accept(program, &arguments.join(" "), &output)
}

/// Runs the lines of `batch` through `ip -batch` in a named network namespace.
///
/// # Errors
/// At the first line that fails.
pub fn ip_batch(namespace: &str, batch: &str) -> Result<()> {
    let arguments = ["-n", namespace, "-batch", "-"];
    let mut child = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| missing("ip"))?;
    let mut input = child.stdin.take().context("ip takes no input")?;
    input.write_all(batch.as_bytes()).context("cannot write to ip")?;
    drop(input);
    let output = child.wait_with_output().context("cannot wait for ip")?;
    accept("ip", &format!("{} <<< {batch:?}", arguments.join(" ")), &output).map(drop)
}

fn missing(program: &str) -> String {
    let package = match program {
        "ip" | "tc" => "iproute2",
        other => other,
    };
    format!("cannot run `{program}`: install the package {package}")
}

fn accept(program: &str, arguments: &str, output: &Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    bail!("`{program} {arguments}` failed ({}): {}", output.status, complaint.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let error = format!("{:#}", run("no-such-tool-of-ours", &[]).unwrap_err());
        assert!(error.contains("install the package no-such-tool-of-ours"), "{error}");
    }

    #[test]
    fn a_failing_tool_is_quoted() {
        let error = format!("{:#}", run("ls", &["/no/such/place"]).unwrap_err());
        assert!(error.contains("/no/such/place") && error.contains("failed"), "{error}");
    }
}
