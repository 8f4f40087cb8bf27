//! `cargo xtask setup`: finds what building, testing, the lab and the demo need, and installs what
//! is missing. A second run finds everything and says so.

mod linker;
mod plan;
mod system;

use std::path::Path;
use std::process::Command;

use anyhow::bail;
use bpf_build::NIGHTLY;

use crate::command::{run_quietly, shown};
use crate::workspace;
use plan::{Step, plan};
use system::{PROGRAMS, System};

/// There where systemd runs.
const SYSTEMD: &str = "/run/systemd/system";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only say what is there and what is missing; fails where something is
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let system = System::look();
    report(&system);
    if system.is_complete() {
        eprintln!("nothing is missing");
        return Ok(());
    }
    if arguments.check {
        bail!("something is missing: run `cargo xtask setup`");
    }
    install(system)
}

/// What the other verbs begin with: silent where nothing is missing.
pub(crate) fn ensure() -> anyhow::Result<()> {
    let system = System::look();
    if system.is_complete() {
        return Ok(());
    }
    report(&system);
    install(system)
}

fn report(system: &System) {
    match &system.compiler {
        Some(compiler) => eprintln!("compiler for BPF: already there, {compiler}"),
        None => eprintln!("compiler for BPF: missing"),
    }
    match &system.linker {
        Some(linker) => eprintln!("bpf-linker: already there, {}", linker.display()),
        None => eprintln!("bpf-linker: missing"),
    }
    for (program, present) in &system.programs {
        let state = if *present { "already there" } else { "missing" };
        eprintln!("{}, {}: {state}", program.name, program.purpose);
    }
}

fn install(mut system: System) -> anyhow::Result<()> {
    if system.apt && workspace::is_root() {
        // Whether the archive has a package can only be asked after this: images come without lists.
        let update = run_quietly("fetching the package lists", apt().arg("update"));
        if let Err(error) = update {
            eprintln!("note: {error:#}\nnote: going on with the lists that are there");
        }
        system = System::look();
    }
    let steps = plan(&system)?;
    require_root_for(&steps)?;
    for step in &steps {
        take(step)?;
    }
    let after = System::look();
    if !after.is_complete() {
        report(&after);
        bail!("everything was installed, and yet something is missing: see above");
    }
    eprintln!("setup is complete");
    Ok(())
}

/// Without root nothing of the plan is begun, and the user sees what to type.
fn require_root_for(steps: &[Step]) -> anyhow::Result<()> {
    let packages = steps.iter().find_map(|step| match step {
        Step::Packages(packages) => Some(packages),
        _ => None,
    });
    match packages {
        Some(packages) if !workspace::is_root() => bail!(
            "packages can only be installed by root; run\n  sudo apt-get update\n  sudo {}\nand \
             then `cargo xtask setup` again",
            shown(&install_command(Command::new("apt-get"), packages))
        ),
        _ => Ok(()),
    }
}

fn take(step: &Step) -> anyhow::Result<()> {
    match step {
        Step::Packages(packages) => {
            let task = format!("installing {} packages", packages.len());
            run_quietly(&task, &mut install_command(apt(), packages))?;
            stop_services(packages)
        }
        Step::Nightly => {
            let mut rustup = Command::new("rustup");
            rustup.args(["toolchain", "install", NIGHTLY, "--profile", "minimal"]);
            rustup.args(["--component", "rust-src", "--no-self-update"]);
            run_quietly(&format!("installing the toolchain {NIGHTLY}"), &mut rustup)
        }
        Step::Linker => linker::install(),
    }
}

/// Ends what the new packages have just started, now and at every boot. What was installed before is
/// somebody's own and goes on.
fn stop_services(packages: &[&str]) -> anyhow::Result<()> {
    if !Path::new(SYSTEMD).is_dir() {
        return Ok(());
    }
    let new = PROGRAMS.iter().filter(|program| packages.contains(&program.package));
    for service in new.filter_map(|program| program.service) {
        let mut systemctl = Command::new("systemctl");
        systemctl.args(["disable", "--now", service]);
        run_quietly(&format!("stopping the service {service}"), &mut systemctl)?;
    }
    Ok(())
}

fn install_command(mut apt: Command, packages: &[&str]) -> Command {
    apt.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    apt
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    // Another apt may be at work, unattended upgrades for one.
    command.args(["--quiet", "--option", "DPkg::Lock::Timeout=300"]);
    command
}
