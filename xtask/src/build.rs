//! `cargo xtask build`: the agent, lbctl and the lab, after setup.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, bail};

use crate::command::{cargo, stdout_of};
use crate::setup;

/// The binary that holds the lab's scenarios, the demo and the benchmarks.
const LAB: &str = "lb-lab";
/// What is built: package and binary. The next agent is what a scenario upgrades to.
const BINARIES: [(&str, &str); 4] = [
    ("lb-agent", "lb-agent"),
    ("lb-agent", "lbctl"),
    ("lb-tests", LAB),
    ("lb-tests", "lb-agent-next"),
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Optimised, as the lab, the demo and the benchmarks run it
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    setup::ensure()?;
    for path in binaries(arguments.release)?.values() {
        eprintln!("built {}", path.display());
    }
    Ok(())
}

/// The lab's program, optimised, with the agent and lbctl beside it.
pub(crate) fn lab() -> anyhow::Result<PathBuf> {
    setup::ensure()?;
    binaries(true)?.remove(LAB).with_context(|| format!("cargo built no {LAB}"))
}

/// Builds them and returns where they lie. Standard output stays free for a result.
fn binaries(release: bool) -> anyhow::Result<HashMap<String, PathBuf>> {
    let mut command = cargo();
    command.args(["build", "--message-format=json-render-diagnostics"]);
    for (package, binary) in BINARIES {
        command.args(["--package", package, "--bin", binary]);
    }
    if release {
        command.arg("--release");
    }
    let (status, messages) = stdout_of(command.stderr(Stdio::inherit()))?;
    if !status.success() {
        bail!("the workspace does not build: see above");
    }
    let built: HashMap<_, _> = messages.lines().filter_map(executable).collect();
    match BINARIES.iter().find(|(_, binary)| !built.contains_key(*binary)) {
        Some((package, binary)) => bail!("cargo built no {binary} from {package}"),
        None => Ok(built),
    }
}

/// The binary that one of cargo's messages announces.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let path = PathBuf::from(message.get("executable")?.as_str()?);
    let name = message.get("target")?.get("name")?.as_str()?.to_owned();
    Some((name, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_is_read_from_cargos_message() {
        let message = r#"{"reason":"compiler-artifact","target":{"name":"lbctl"},"executable":"/t/release/lbctl"}"#;
        assert_eq!(executable(message), Some(("lbctl".into(), "/t/release/lbctl".into())));
    }

    #[test]
    fn libraries_and_other_messages_are_none() {
        for message in
            [r#"{"target":{"name":"a"},"executable":null}"#, r#"{"reason":"build-finished"}"#, ""]
        {
            assert_eq!(executable(message), None, "{message}");
        }
    }
}
