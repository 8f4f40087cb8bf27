//! Runs a script once and judges how it ends. It gets nothing of the agent's: not its environment,
//! groups or process group; and it leaves nothing behind: its whole group is killed at its end.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::judge::{Failure, Kind, Outcome};
use super::pidfd;
use super::trust::{self, Identity};
use crate::config::{Script, duration_text};

/// All that a script finds in its environment.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What is kept of the output: the end, where the last line stands.
const TAIL_BYTES: usize = 512;
/// What is shown of the last line.
const LINE_CHARS: usize = 160;
/// Reads after the end: more than a pipe holds, and less than a process that got away can write.
const LAST_READS: usize = 64;
/// How long a killed process may take to be gone. One that waits for a dead disk or file server
/// takes longer.
const GRACE: Duration = Duration::from_secs(1);

/// Runs one script, never twice at a time.
#[derive(Debug)]
pub(super) struct Runner {
    script: Script,
    /// Killed, and not gone.
    stuck: Option<Child>,
}

impl Runner {
    pub(super) fn new(script: Script) -> Self {
        Self { script, stuck: None }
    }

    /// One run, to its end or its timeout.
    pub(super) async fn run(&mut self) -> Outcome {
        match self.try_run().await {
            Ok(status) => Outcome::Good(status),
            Err(failure) => Outcome::Bad(failure),
        }
    }

    async fn try_run(&mut self) -> Result<String, Failure> {
        if let Some(child) = &mut self.stuck {
            if timeout(self.script.timeout, child.wait()).await.is_err() {
                let reason = "an earlier run was killed and is not gone yet".to_owned();
                return Err(Failure { kind: Kind::TimedOut, reason });
            }
            self.stuck = None;
        }
        let script = self.script.clone();
        // Looking at files and users may take as long as their servers do.
        let trusted = tokio::task::spawn_blocking(move || trust::check(&script.path, &script.user));
        let identity = match trusted.await {
            Ok(Ok(identity)) => identity,
            Ok(Err(distrust)) => return Err(refused(distrust)),
            Err(error) => return Err(refused(error)),
        };
        let (mut child, mut output) = start(&self.script, &identity).map_err(|error| {
            refused(format!("{} does not start: {error}", self.script.path.display()))
        })?;
        let Some(pid) = child.id() else {
            return Err(refused("it has no process number"));
        };
        let group = Group::of(pid);
        let ended = timeout(self.script.timeout, attend(pid, &mut output)).await;
        // Also where it has ended: what it left running would be more with each run.
        drop(group);
        let reaped = timeout(GRACE, child.wait()).await;
        output.finish();
        let in_time = match ended {
            Ok(Ok(())) => true,
            Ok(Err(error)) => return Err(refused(error)),
            Err(_) => false,
        };
        match reaped {
            Ok(Ok(status)) if in_time => judge(status, &output.last_line()),
            Ok(Ok(_)) => Err(self.timed_out(&output, "")),
            Ok(Err(error)) => Err(refused(error)),
            Err(_) => {
                self.stuck = Some(child);
                Err(self.timed_out(&output, ", but is not gone yet"))
            }
        }
    }

    fn timed_out(&self, output: &Output, further: &str) -> Failure {
        let after = duration_text(self.script.timeout);
        let reason =
            said(format!("killed after {after} without an end{further}"), &output.last_line());
        Failure { kind: Kind::TimedOut, reason }
    }
}

fn refused(why: impl ToString) -> Failure {
    Failure { kind: Kind::Refused, reason: why.to_string() }
}

fn start(script: &Script, identity: &Identity) -> io::Result<(Child, Output)> {
    let (reader, writer) = io::pipe()?;
    let reader = pipe::Receiver::from_owned_fd(reader.into())?;
    let mut command = Command::new(&script.path);
    command
        .args(&script.arguments)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        // Setting the user drops the supplementary groups where this process may do so.
        .uid(identity.uid)
        .gid(identity.gid)
        .kill_on_drop(true);
    let child = command.spawn()?;
    Ok((child, Output { reader, tail: Vec::new(), open: true }))
}

/// Reads what it says until it has ended.
async fn attend(pid: u32, output: &mut Output) -> io::Result<()> {
    let ended = pidfd::ended(pid);
    tokio::pin!(ended);
    loop {
        tokio::select! {
            result = &mut ended => return result,
            () = output.read_on(), if output.open => {}
        }
    }
}

fn judge(status: ExitStatus, last_line: &str) -> Result<String, Failure> {
    use std::os::unix::process::ExitStatusExt as _;
    if status.success() {
        return Ok(said("exit status 0".to_owned(), last_line));
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, None) => status.to_string(),
    };
    Err(Failure { kind: Kind::Failed, reason: said(how, last_line) })
}

fn said(what: String, last_line: &str) -> String {
    if last_line.is_empty() { what } else { format!("{what}, said: {last_line}") }
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

/// What a script says, of which the end is kept.
struct Output {
    reader: pipe::Receiver,
    tail: Vec<u8>,
    open: bool,
}

impl Output {
    async fn read_on(&mut self) {
        if self.reader.readable().await.is_err() {
            self.open = false;
            return;
        }
        self.read();
    }

    /// False where nothing is there.
    fn read(&mut self) -> bool {
        let mut piece = [0; 1024];
        match self.reader.try_read(&mut piece) {
            Ok(0) => {
                self.open = false;
                false
            }
            Ok(length) => {
                self.tail.extend_from_slice(&piece[..length]);
                let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
                self.tail.drain(..surplus);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => {
                self.open = false;
                false
            }
        }
    }

    /// Reads what was still in the pipe.
    fn finish(&mut self) {
        for _ in 0..LAST_READS {
            if !self.open || !self.read() {
                return;
            }
        }
    }

    /// The last line that says something, fit for a terminal.
    fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let harmless = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        line.unwrap_or_default().chars().take(LINE_CHARS).map(harmless).collect()
    }
}
