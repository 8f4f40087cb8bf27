//! The load balancer's agent in a simulated host, with paths of its own, and its control API.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use lb_agent::control::api::{
    Backend, Node, NotifyHook, Reload, Role, Service, Status, Track, Upgrade, VirtualRouter,
};
use serde::de::DeserializeOwned;

use super::{Host, Process};

/// Loading and verifying the programs takes seconds on a loaded machine.
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);

/// Between two looks at what only polling tells.
const POLL: Duration = Duration::from_millis(20);

/// The directory with the binaries of the same build as this one, or `LB_BIN_DIR`.
///
/// # Errors
/// Where it has no such binary.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program")?;
    // A test's binary lies in `deps`, one below the others.
    let directories = own.ancestors().skip(1).take(2).map(Path::to_owned);
    let directories =
        std::env::var_os("LB_BIN_DIR").map(PathBuf::from).into_iter().chain(directories);
    directories.map(|directory| directory.join(name)).find(|path| path.is_file()).with_context(
        || format!("{name} is not built: run `cargo build -p lb-agent`, or set LB_BIN_DIR"),
    )
}

/// The configuration of a node that is alone and active. Nobody listens where its backend should.
pub const LONE_NODE: &str = r#"
interface = "ens33"
virtual_addresses = ["192.168.139.150"]
active = "node"

[[node]]
name = "node"
address = "192.168.139.133"

[[service]]
name = "api"
port = 8443
backends = ["192.168.139.133:6443"]
"#;

/// A copy of a binary that root alone can change, as an agent wants of the one that is to follow it: a checkout may be
/// anybody's.
///
/// # Errors
/// Where it is not built, or cannot be copied.
pub fn trusted_binary(name: &str, directory: &Path) -> Result<PathBuf> {
    let copy = directory.join(name);
    std::fs::copy(binary(name)?, &copy).with_context(|| format!("cannot copy {name}"))?;
    Ok(copy)
}

/// A running agent. Owned: killed on drop; [`stop`](Self::stop) ends it cleanly.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    socket: PathBuf,
    /// Its configuration.
    file: PathBuf,
}

impl Agent {
    /// Starts it with a configuration and waits until its API answers.
    ///
    /// # Errors
    /// Where it does not come up; its log is quoted.
    pub fn start(host: &Host, configuration: &str) -> Result<Self> {
        let directory = host.directory();
        let file = directory.join("lb.toml");
        std::fs::write(&file, configuration).context("cannot write the configuration")?;
        let socket = directory.join("lb.sock");
        let mut command = Command::new(binary("lb-agent")?);
        command.arg("--config").arg(&file).args(["--node", host.name()]);
        command.arg("--bpf-dir").arg(host.bpf_directory());
        command.arg("--socket").arg(&socket);
        command.arg("--state-dir").arg(directory.join("state"));
        command.arg("--cgroup").arg(host.cgroup());
        let mut agent = Self { process: host.spawn("lb-agent", command)?, socket, file };
        agent.wait_until("the agent answers", START, |_| true)?;
        Ok(agent)
    }

    /// # Errors
    /// Where it does not answer.
    pub fn status(&self) -> Result<Status> {
        self.read("/v1/status")
    }

    /// # Errors
    /// Where it does not answer.
    pub fn backends(&self) -> Result<Vec<Backend>> {
        self.read("/v1/backends")
    }

    /// # Errors
    /// Where it does not answer.
    pub fn services(&self) -> Result<Vec<Service>> {
        self.read("/v1/services")
    }

    /// # Errors
    /// Where it does not answer.
    pub fn vrrp(&self) -> Result<Vec<VirtualRouter>> {
        self.read("/v1/vrrp")
    }

    /// # Errors
    /// Where it does not answer.
    pub fn nodes(&self) -> Result<Vec<Node>> {
        self.read("/v1/nodes")
    }

    /// # Errors
    /// Where it does not answer.
    pub fn notify(&self) -> Result<Vec<NotifyHook>> {
        self.read("/v1/notify")
    }

    /// # Errors
    /// Where it does not answer.
    pub fn tracks(&self) -> Result<Vec<Track>> {
        self.read("/v1/tracks")
    }

    /// Puts another configuration in the place of its own, in one step, without a word to it.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_configuration(&self, text: &str) -> Result<()> {
        let next = self.file.with_extension("next");
        std::fs::write(&next, text).context("cannot write the configuration")?;
        std::fs::rename(next, &self.file).context("cannot replace the configuration")
    }

    /// Has it take over another configuration, by `lbctl`.
    ///
    /// # Errors
    /// Where it is refused.
    pub fn reload_with(&self, text: &str) -> Result<Reload> {
        self.write_configuration(text)?;
        let said = self.lbctl(["reload", "-o", "json"])?;
        serde_json::from_str(&said).context("not the JSON that was agreed on")
    }

    /// Waits until its warnings satisfy the condition.
    ///
    /// # Errors
    /// Where they do not in time.
    pub fn wait_for_warnings(
        &self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&[String]) -> bool,
    ) -> Result<()> {
        poll(what, limit, || Ok(condition(&self.status()?.warnings).then_some(())))
    }

    /// Waits until one of its tracks satisfies the condition, and returns it.
    ///
    /// # Errors
    /// Where it has none of that name, or it does not in time.
    pub fn wait_for_track(
        &self,
        name: &str,
        limit: Duration,
        condition: impl Fn(&Track) -> bool,
    ) -> Result<Track> {
        let what = format!("track {name}");
        poll(&what, limit, || {
            let found = self.tracks()?.into_iter().find(|track| track.name == name);
            Ok(Some(found.with_context(|| format!("no track {name}"))?).filter(&condition))
        })
        .with_context(|| format!("the agent has {:?}", self.tracks()))
    }

    /// The value of a data path's counter.
    ///
    /// # Errors
    /// Where it does not answer, or has no such counter.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let status = self.status()?;
        status.counters.get(name).copied().with_context(|| format!("no counter {name}"))
    }

    /// Waits until its status satisfies the condition.
    ///
    /// # Errors
    /// Where it has ended, or the condition does not hold in time.
    pub fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        poll(what, limit, || {
            self.process.require_running()?;
            Ok(self.status().ok().filter(&condition))
        })
    }

    /// Waits until it is Active and holds every VIP.
    ///
    /// # Errors
    /// Where it has ended, or does not in time.
    pub fn wait_until_active(&mut self, limit: Duration) -> Result<Status> {
        self.wait_until("it is Active and holds every VIP", limit, |status| {
            status.role == Role::Active && status.virtual_addresses.iter().all(|vip| vip.held)
        })
    }

    /// Waits until all its backends satisfy the condition.
    ///
    /// # Errors
    /// Where they do not in time.
    pub fn wait_for_backends(
        &self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&[Backend]) -> bool,
    ) -> Result<()> {
        poll(what, limit, || Ok(condition(&self.backends()?).then_some(())))
            .with_context(|| format!("the agent has {:?}", self.backends()))
    }

    /// Moves the role by hand, as a person would: by `lbctl`.
    ///
    /// # Errors
    /// Where `lbctl` fails.
    pub fn set_role(&self, role: Role) -> Result<()> {
        let role = match role {
            Role::Active => "active",
            Role::Backup => "backup",
        };
        self.lbctl(["role", role]).map(drop)
    }

    /// Runs `lbctl` against this agent and returns its output.
    ///
    /// # Errors
    /// Where it fails; what it complained of is quoted.
    pub fn lbctl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        said(&mut self.lbctl_command(arguments)?)
    }

    /// `lbctl` for this agent, to be run by [`said`].
    ///
    /// # Errors
    /// Where it is not built.
    pub fn lbctl_command<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Command> {
        let mut command = Command::new(binary("lbctl")?);
        command.arg("--socket").arg(&self.socket).args(arguments);
        Ok(command)
    }

    /// Has another version follow, by `lbctl upgrade`, and goes on as its handle.
    ///
    /// # Errors
    /// Where it does not follow; what `lbctl` complained of is quoted.
    pub fn upgrade<A: AsRef<OsStr>>(
        &mut self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Upgrade> {
        let mut command = self.lbctl_command(["-o", "json", "upgrade"])?;
        let told = said(command.args(arguments))?;
        let upgrade: Upgrade =
            serde_json::from_str(&told).context("not the JSON that was agreed on")?;
        if let Some(pid) = upgrade.pid {
            self.process.adopt(pid)?;
        }
        Ok(upgrade)
    }

    /// SIGKILL: nothing is tidied up.
    ///
    /// # Errors
    /// Where it had ended before.
    pub fn kill(self) -> Result<()> {
        self.process.kill()
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// Where it does not end, or not with success.
    pub fn stop(mut self) -> Result<()> {
        self.process.signal(nix::sys::signal::Signal::SIGTERM)?;
        let status = self.process.wait(STOP)?;
        if !status.success() {
            bail!("the agent ended with {status}: {}", self.process.log());
        }
        Ok(())
    }

    pub const fn process(&self) -> &Process {
        &self.process
    }

    fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(get(&self.socket, path)).with_context(|| format!("GET {path}"))
    }
}

/// Runs `lbctl` and returns its output.
///
/// # Errors
/// Where it fails; what it complained of is quoted.
pub fn said(lbctl: &mut Command) -> Result<String> {
    let output = lbctl.output().context("cannot run lbctl")?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("lbctl failed ({}): {}", output.status, complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn poll<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(POLL);
    }
}

async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T> {
    let stream = tokio::net::UnixStream::connect(socket).await.context("no agent listens")?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Its error reaches whoever waits for the answer.
        let _ = connection.await;
    });
    let request = hyper::Request::get(path)
        .header(hyper::header::HOST, "localhost")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("{status}: {}", String::from_utf8_lossy(&body));
    }
    serde_json::from_slice(&body).context("not the JSON that was agreed on")
}

/// Removes what an agent left, as a person would.
///
/// # Errors
/// Where it fails, or takes longer than a person waits.
pub fn purge(host: &Host) -> Result<()> {
    let mut command = Command::new(binary("lb-agent")?);
    command.arg("--purge").arg("--config").arg(host.directory().join("lb.toml"));
    command.arg("--bpf-dir").arg(host.bpf_directory());
    let mut process = host.spawn("purge", command)?;
    let status = process.wait(STOP)?;
    if !status.success() {
        bail!("lb-agent --purge failed ({status}): {}", process.log());
    }
    Ok(())
}
