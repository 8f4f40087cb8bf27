//! What the agent says where it cannot start: one sentence, a non-zero exit, and nothing half done.
//! The real binary, in a machine of the lab; needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_common::layout::LAYOUT_VERSION;
use lb_tests::lab::agent::LONE_NODE;
use lb_tests::lab::{self, Host, Lab, Offloads, Process, tool};

const TOOL: &str = env!("CARGO_BIN_EXE_lb-lab");
const NIC: &str = "ens33";
const LIMIT: Duration = Duration::from_secs(20);

struct Machine {
    host: Host,
    lab: Lab,
}

impl Machine {
    fn new() -> Result<Self> {
        let lab = Lab::new(Path::new(TOOL))?;
        let host = lab
            .host("node")
            .interface(NIC, "lan", &["192.168.139.133/24"])
            .offloads(Offloads::Off)
            .start()?;
        Ok(Self { host, lab })
    }

    /// The agent's command line, with a configuration.
    fn agent(&self, configuration: &str) -> Result<Command> {
        self.agent_at(configuration, &self.host.bpf_directory(), self.host.cgroup())
    }

    fn agent_at(&self, configuration: &str, bpf: &Path, cgroup: &Path) -> Result<Command> {
        let directory = self.host.directory();
        let file = directory.join("lb.toml");
        fs::write(&file, configuration)?;
        let mut command = Command::new(lab::agent::binary("lb-agent")?);
        command.arg("--config").arg(file);
        command.arg("--bpf-dir").arg(bpf);
        command.arg("--socket").arg(directory.join("lb.sock"));
        command.arg("--state-dir").arg(directory.join("state"));
        command.arg("--cgroup").arg(cgroup);
        command.args(["--metrics", "127.0.0.1:9633"]);
        Ok(command)
    }

    fn lbctl(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(lab::agent::binary("lbctl")?);
        command.arg("--socket").arg(self.host.directory().join("lb.sock")).args(arguments);
        Ok(command)
    }

    /// Starts a command that must end by itself, and returns its exit code and last line.
    fn refused(&self, command: Command) -> Result<(i32, String)> {
        let mut process = self.host.spawn("lb-agent", command)?;
        let status = process.wait(LIMIT)?;
        let log = process.log();
        let code = status.code().with_context(|| format!("killed by a signal\n{log}"))?;
        let last = log.lines().last().context("it said nothing")?.to_owned();
        ensure!(code != 0, "it started: {log}");
        ensure!(!log.contains("panicked"), "{log}");
        Ok((code, last))
    }

    /// Nothing of ours is attached, pinned or routed.
    fn is_untouched(&self) -> Result<()> {
        let links =
            self.host.namespace().within(|| tool::run("ip", &["-d", "link", "show", NIC]))?;
        ensure!(!links.contains("lb_xdp"), "XDP stayed: {links}");
        let pins = pins(self).join("links/if2");
        ensure!(!pins.exists(), "{} stayed", pins.display());
        let routes = self
            .host
            .namespace()
            .within(|| tool::run("ip", &["route", "show", "table", "local", "192.168.139.150"]))?;
        ensure!(routes.trim().is_empty(), "a route stayed: {routes}");
        Ok(())
    }

    fn running(&self, configuration: &str) -> Result<Process> {
        self.serving(self.agent(configuration)?)
    }

    fn serving(&self, agent: Command) -> Result<Process> {
        let process = self.host.spawn("lb-agent", agent)?;
        let socket = self.host.directory().join("lb.sock");
        let deadline = std::time::Instant::now() + LIMIT;
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            ensure!(std::time::Instant::now() < deadline, "it does not serve: {}", process.log());
            std::thread::yield_now();
        }
        Ok(process)
    }
}

#[test]
fn a_missing_interface_is_named() -> Result<()> {
    let machine = Machine::new()?;
    let agent = machine.agent(&LONE_NODE.replace("ens33", "ens34"))?;
    let (code, said) = machine.refused(agent)?;
    ensure!(code == 1 && said.contains("no interface ens34"), "{code}: {said}");
    machine.is_untouched()
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() -> Result<()> {
    let machine = Machine::new()?;
    let agent = machine.agent(&LONE_NODE.replace("backends", "backend"))?;
    let mut process = machine.host.spawn("lb-agent", agent)?;
    let status = process.wait(LIMIT)?;
    let said = process.log();
    ensure!(status.code() == Some(2), "{status}: {said}");
    ensure!(said.contains(":13:1") && said.contains("backends"), "{said}");
    machine.is_untouched()
}

#[test]
fn a_foreign_xdp_program_is_left_alone() -> Result<()> {
    // The lab's own pass-all program stands for another product's.
    let machine = Machine::new()?;
    let _foreign = machine.host.namespace().within(|| lab::Pass::attach(NIC))?;
    let (code, said) = machine.refused(machine.agent(LONE_NODE)?)?;
    ensure!(code == 1 && said.contains("another XDP program"), "{code}: {said}");
    ensure!(said.contains("xdp off"), "the remedy is missing: {said}");
    let links =
        machine.host.namespace().within(|| tool::run("ip", &["-d", "link", "show", NIC]))?;
    ensure!(links.contains("xdp"), "the foreign program is gone: {links}");
    machine.is_untouched()
}

#[test]
fn a_second_agent_leaves_the_first_alone() -> Result<()> {
    let machine = Machine::new()?;
    let mut first = machine.running(LONE_NODE)?;
    let (code, said) = machine.refused(machine.agent(LONE_NODE)?)?;
    ensure!(code == 1 && said.contains("another agent answers"), "{code}: {said}");
    first.require_running()
}

#[test]
fn a_metrics_address_in_use_is_named() -> Result<()> {
    let machine = Machine::new()?;
    let _busy =
        machine.host.namespace().within(|| Ok(std::net::TcpListener::bind("127.0.0.1:9633")?))?;
    let (code, said) = machine.refused(machine.agent(LONE_NODE)?)?;
    ensure!(code == 1 && said.contains("127.0.0.1:9633"), "{code}: {said}");
    machine.is_untouched()
}

#[test]
fn another_layout_is_not_touched() -> Result<()> {
    let machine = Machine::new()?;
    let other = machine.host.bpf_directory().join("v999/maps");
    fs::create_dir_all(&other)?;
    let (code, said) = machine.refused(machine.agent(LONE_NODE)?)?;
    ensure!(code == 1 && said.contains("another layout version"), "{code}: {said}");
    ensure!(said.contains("--purge") && other.exists(), "{said}");
    machine.is_untouched()
}

#[test]
fn without_root_it_says_so() -> Result<()> {
    let machine = Machine::new()?;
    let agent = machine.agent(LONE_NODE)?;
    // Root but for its capabilities: the folders of a test run are not everybody's.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-all", "--inh-caps", "-all", "--"]);
    command.arg(agent.get_program()).args(agent.get_args());
    let (code, said) = machine.refused(command)?;
    ensure!(code == 1 && said.contains("needs root"), "{code}: {said}");
    machine.is_untouched()
}

#[test]
fn a_vip_of_another_machine_is_not_taken() -> Result<()> {
    let machine = Machine::new()?;
    let other = machine.lab.host("other").interface(NIC, "lan", &["192.168.139.150/24"]).start()?;
    // Configured as the active one, and then told to by hand.
    let mut agent = machine.running(LONE_NODE)?;
    let (code, said) = machine.refused(machine.lbctl(&["role", "active"])?)?;
    let holder = lab::format_mac(other.mac(NIC)?);
    ensure!(code == 1 && said.contains("held by another machine"), "{code}: {said}");
    ensure!(said.contains(&holder), "{holder} is not named: {said}");
    ensure!(!machine.host.holds(NIC, "192.168.139.150".parse()?)?, "the address was taken");
    agent.require_running()
}

#[test]
fn without_a_bpf_file_system_it_says_what_to_mount() -> Result<()> {
    let machine = Machine::new()?;
    let ordinary = machine.host.directory().join("bpf");
    let agent = machine.agent_at(LONE_NODE, &ordinary, machine.host.cgroup())?;
    let (code, said) = machine.refused(agent)?;
    ensure!(code == 1 && said.contains("mount -t bpf"), "{code}: {said}");
    machine.is_untouched()
}

#[test]
fn without_cgroup2_it_serves_and_says_what_does_not_work() -> Result<()> {
    let machine = Machine::new()?;
    // An ordinary folder, as where no cgroup2 is mounted.
    let ordinary = machine.host.directory();
    let agent = machine.agent_at(LONE_NODE, &machine.host.bpf_directory(), ordinary)?;
    let _agent = machine.serving(agent)?;
    let output = machine.lbctl(&["status", "-o", "json"])?.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("host hooks are off"), "{said}");
    ensure!(said.contains(&ordinary.display().to_string()), "{said}");
    Ok(())
}

/// The configuration of an agent that leaves nothing when it ends.
fn removed() -> String {
    format!("{LONE_NODE}\n[data_path]\non_stop = \"remove\"\n")
}

#[test]
fn a_clean_end_leaves_nothing_behind() -> Result<()> {
    let machine = Machine::new()?;
    let mut agent = machine.running(&removed())?;
    agent.signal(nix::sys::signal::Signal::SIGTERM)?;
    let status = agent.wait(LIMIT)?;
    ensure!(status.success(), "{status}: {}", agent.log());
    ensure!(!pins(&machine).exists(), "pins stayed");
    ensure!(!machine.host.holds(NIC, "192.168.139.150".parse()?)?, "the address stayed");
    ensure!(!machine.host.directory().join("lb.sock").exists(), "the socket stayed");
    machine.is_untouched()
}

/// Where programs, links and maps of this version are pinned.
fn pins(machine: &Machine) -> PathBuf {
    machine.host.bpf_directory().join(format!("v{LAYOUT_VERSION}"))
}

#[test]
fn an_agent_that_ends_leaves_the_data_path_to_the_next() -> Result<()> {
    let machine = Machine::new()?;
    for _ in 0..2 {
        let mut agent = machine.running(LONE_NODE)?;
        agent.signal(nix::sys::signal::Signal::SIGTERM)?;
        let status = agent.wait(LIMIT)?;
        ensure!(status.success(), "{status}: {}", agent.log());
        ensure!(agent.log().contains("--purge"), "not told: {}", agent.log());
        ensure!(pins(&machine).exists(), "the pins are gone");
        ensure!(!machine.host.holds(NIC, "192.168.139.150".parse()?)?, "the address stayed");
        ensure!(!machine.host.directory().join("lb.sock").exists(), "the socket stayed");
    }
    lab::agent::purge(&machine.host)?;
    ensure!(!pins(&machine).exists(), "pins stayed");
    machine.is_untouched()
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() -> Result<()> {
    let machine = Machine::new()?;
    let agent = machine.agent(&removed())?;
    // As on a full disk: each write fails with ENOSPC.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>/dev/full", "sh"]);
    command.arg(agent.get_program()).args(agent.get_args());
    let mut agent = machine.serving(command)?;
    agent.signal(nix::sys::signal::Signal::SIGTERM)?;
    let status = agent.wait(LIMIT)?;
    ensure!(status.success(), "{status}");
    machine.is_untouched()
}
