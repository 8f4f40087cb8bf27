//! Running a script to its end, or to its timeout.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, User};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::file::{Unsafe, inspect};
use super::output::Output;

/// Where a script finds programs, whatever the agent was started with.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long its last words may take to be read once it has ended.
const LAST_WORDS: Duration = Duration::from_millis(100);

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

/// How it ended by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ending {
    status: ExitStatus,
    /// Of its output, standard output and standard error together.
    pub last_line: String,
}

/// Why it did not end by itself.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Unsafe(#[from] Unsafe),
    #[error("there is no user {0}: create it, or name another one in the configuration")]
    NoUser(String),
    #[error("cannot look up the user {user}: {source}")]
    Lookup { user: String, source: io::Error },
    #[error("cannot run {}: {source}", path.display())]
    Start { path: PathBuf, source: io::Error },
    #[error("it took longer than {after:?} and was killed{}", said(last_line))]
    Late { after: Duration, last_line: String },
}

impl Ending {
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => write!(f, "it ended with status {code}")?,
            (None, Some(signal)) => write!(f, "it was killed by signal {signal}")?,
            (None, None) => f.write_str("it ended")?,
        }
        f.write_str(&said(&self.last_line))
    }
}

fn said(last_line: &str) -> String {
    if last_line.is_empty() { String::new() } else { format!(", saying: {last_line}") }
}

/// Everything of it, killed when the run ends, however it ends. A group's number is not given away
/// while anything is in it; an empty one's is not within the moment after its end.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Nothing is left of it: as good.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

impl Script {
    /// Runs it with more arguments behind its own, these variables, and `input` as its standard
    /// input, which it need not read. Killed where the future is dropped.
    ///
    /// # Errors
    ///
    /// Where it may not be run, cannot, or does not end in time.
    pub async fn run(
        &self,
        arguments: &[String],
        variables: &[(&str, String)],
        input: &[u8],
    ) -> Result<Ending, RunError> {
        let user = self.look_up_user().await?;
        inspect(&self.path, user.as_ref().map(|user| user.uid.as_raw()))?;
        let failed = |source| RunError::Start { path: self.path.clone(), source };
        let (writer, reader) = pipe::pipe().map_err(failed)?;
        let writer = writer.into_blocking_fd().map_err(failed)?;
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).args(arguments).current_dir("/");
        command.env_clear().env("PATH", PATH);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(writer.try_clone().map_err(failed)?).stderr(writer);
        command.process_group(0).kill_on_drop(true);
        if let Some(user) = user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let child = command.spawn().map_err(failed)?;
        // The command holds the pipe's writing end: while it lives the output has no end.
        drop(command);
        self.attend(child, reader, input).await
    }

    async fn attend(
        &self,
        mut child: Child,
        mut reader: pipe::Receiver,
        input: &[u8],
    ) -> Result<Ending, RunError> {
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let group = Group(leader);
        let stdin = child.stdin.take();
        let mut output = Output::default();
        let feeding = async {
            if let Some(mut stdin) = stdin {
                // A script that does not read its input is none the worse for it.
                let _ = stdin.write_all(input).await;
            }
        };
        let ended = {
            let reading = read(&mut reader, &mut output);
            tokio::pin!(reading, feeding);
            let ending = async {
                let (mut fed, mut read) = (false, false);
                loop {
                    tokio::select! {
                        status = child.wait() => return status,
                        () = &mut feeding, if !fed => fed = true,
                        () = &mut reading, if !read => read = true,
                    }
                }
            };
            tokio::time::timeout(self.timeout, ending).await
        };
        drop(group);
        // Somebody whom it has left behind in another group may hold its output open.
        let _ = tokio::time::timeout(LAST_WORDS, read(&mut reader, &mut output)).await;
        let last_line = output.last_line();
        match ended {
            Ok(Ok(status)) => Ok(Ending { status, last_line }),
            Ok(Err(source)) => Err(RunError::Start { path: self.path.clone(), source }),
            Err(_) => {
                // Killed with its group; reaped here, unless the kernel holds it.
                let _ = tokio::time::timeout(LAST_WORDS, child.wait()).await;
                Err(RunError::Late { after: self.timeout, last_line })
            }
        }
    }

    /// On a thread where waiting is allowed: users may be known to a server only.
    async fn look_up_user(&self) -> Result<Option<User>, RunError> {
        let Some(name) = self.user.clone() else { return Ok(None) };
        let user = name.clone();
        let found = tokio::task::spawn_blocking(move || User::from_name(&name)).await;
        match found {
            Ok(Ok(Some(found))) => Ok(Some(found)),
            Ok(Ok(None)) => Err(RunError::NoUser(user)),
            Ok(Err(errno)) => Err(RunError::Lookup { user, source: errno.into() }),
            Err(error) => Err(RunError::Lookup { user, source: io::Error::other(error) }),
        }
    }
}

/// Until the output's end.
async fn read(reader: &mut pipe::Receiver, output: &mut Output) {
    let mut bytes = [0; 1024];
    while let Ok(count @ 1..) = reader.read(&mut bytes).await {
        output.push(&bytes[..count]);
    }
}
