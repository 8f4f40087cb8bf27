//! Runs a script to its end, or to its timeout. It gets nothing of the agent's: not its environment,
//! groups or process group; and it leaves nothing behind: its whole group is killed at its end.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use super::output::Output;
use super::pidfd;
use super::trust::{self, Distrust, Identity};
use crate::config::duration_text;

/// Where a script finds programs, whatever the agent was started with.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a killed process may take to be gone. One that waits for a dead disk or file server
/// takes longer.
const GRACE: Duration = Duration::from_secs(1);

/// A script with its arguments and how to run it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script {
    /// Absolute.
    pub path: PathBuf,
    pub arguments: Vec<String>,
    /// The user that it runs as, with that user's own group; the agent's where absent.
    pub user: Option<String>,
    pub timeout: Duration,
}

/// What it gets besides what is configured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Input<'a> {
    /// Behind its own.
    pub arguments: &'a [String],
    pub variables: &'a [(&'a str, String)],
    /// Its standard input, which it need not read.
    pub bytes: &'a [u8],
}

/// How it ended by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ending {
    status: ExitStatus,
    /// Of its output, standard output and standard error together.
    last_line: String,
}

/// Why it did not end by itself.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Distrust(#[from] Distrust),
    #[error("{} does not start: {source}", path.display())]
    Start { path: PathBuf, source: io::Error },
    #[error("killed after {} without an end{}{}", duration_text(*after), still(*gone), said(last_line))]
    Late { after: Duration, gone: bool, last_line: String },
    #[error("an earlier run was killed and is not gone yet")]
    Stuck,
}

const fn still(gone: bool) -> &'static str {
    if gone { "" } else { ", but is not gone yet" }
}

fn said(last_line: &str) -> String {
    if last_line.is_empty() { String::new() } else { format!(", said: {last_line}") }
}

impl Ending {
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => write!(f, "exit status {code}")?,
            (None, Some(number)) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "killed by {signal}")?,
                Err(_) => write!(f, "killed by signal {number}")?,
            },
            (None, None) => write!(f, "{}", self.status)?,
        }
        f.write_str(&said(&self.last_line))
    }
}

/// Runs one script, never twice at a time.
#[derive(Debug)]
pub struct Runner {
    script: Script,
    /// Killed, and not gone.
    stuck: Option<Child>,
}

impl Runner {
    pub const fn new(script: Script) -> Self {
        Self { script, stuck: None }
    }

    pub const fn script(&self) -> &Script {
        &self.script
    }

    /// One run. It is killed where the future is dropped.
    ///
    /// # Errors
    ///
    /// Where it may not be run, cannot, or does not end in time.
    pub async fn run(&mut self, input: Input<'_>) -> Result<Ending, RunError> {
        let limit = self.script.timeout;
        if let Some(child) = &mut self.stuck {
            if timeout(limit, child.wait()).await.is_err() {
                return Err(RunError::Stuck);
            }
            self.stuck = None;
        }
        let identity = self.identity().await?;
        let failed = |source| RunError::Start { path: self.script.path.clone(), source };
        let (mut child, mut output) = start(&self.script, &identity, input).map_err(failed)?;
        let pid = child.id().ok_or_else(|| failed(io::Error::other("it has no process number")))?;
        let group = Group::of(pid);
        let stdin = child.stdin.take();
        let ended = timeout(limit, attend(pid, &mut output, stdin, input.bytes)).await;
        // Also where it has ended: what it left running would be more with each run.
        drop(group);
        let reaped = timeout(GRACE, child.wait()).await;
        output.finish();
        let last_line = output.last_line();
        let in_time = match ended {
            Ok(done) => done.map_err(failed).map(|()| true)?,
            Err(_) => false,
        };
        match reaped {
            Ok(status) if in_time => Ok(Ending { status: status.map_err(failed)?, last_line }),
            Ok(_) => Err(RunError::Late { after: limit, gone: true, last_line }),
            Err(_) => {
                self.stuck = Some(child);
                Err(RunError::Late { after: limit, gone: false, last_line })
            }
        }
    }

    /// On a thread where waiting is allowed: files and users may be known to a server only.
    async fn identity(&self) -> Result<Identity, RunError> {
        let script = self.script.clone();
        let looking = move || trust::check(&script.path, script.user.as_deref());
        match tokio::task::spawn_blocking(looking).await {
            Ok(checked) => Ok(checked?),
            Err(error) => {
                let (path, source) = (self.script.path.clone(), io::Error::other(error));
                Err(RunError::Start { path, source })
            }
        }
    }
}

fn start(script: &Script, identity: &Identity, input: Input<'_>) -> io::Result<(Child, Output)> {
    let (output, writer) = Output::new()?;
    let mut command = Command::new(&script.path);
    command
        .args(&script.arguments)
        .args(input.arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(input.variables.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(if input.bytes.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .kill_on_drop(true);
    if script.user.is_some() {
        // Setting the user drops the supplementary groups where this process may do so.
        command.uid(identity.uid).gid(identity.gid);
    }
    Ok((command.spawn()?, output))
}

/// Feeds it and reads what it says, until it has ended.
async fn attend(
    pid: u32,
    output: &mut Output,
    stdin: Option<ChildStdin>,
    input: &[u8],
) -> io::Result<()> {
    let ended = pidfd::ended(pid);
    let feeding = async {
        if let Some(mut stdin) = stdin {
            // A script that does not read its input is none the worse for it.
            let _ = stdin.write_all(input).await;
        }
    };
    tokio::pin!(ended, feeding);
    let mut fed = false;
    loop {
        tokio::select! {
            result = &mut ended => return result,
            () = &mut feeding, if !fed => fed = true,
            () = output.read_on(), if output.is_open() => {}
        }
    }
}

/// A process group that ends with this value. Its leader must not have been waited for: until then
/// the number is no other group's.
struct Group(Pid);

impl Group {
    fn of(leader: u32) -> Self {
        // Numbers of processes fit: the kernel's own type is i32.
        Self(Pid::from_raw(leader.cast_signed()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Nobody left in it is as good.
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}
