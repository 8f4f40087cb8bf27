//! A process that runs in a simulated host: in its network namespace and its cgroup, killed when
//! its owner drops it or dies. Not `ip netns exec`, which remounts /sys and hides bpffs and cgroups.

#![expect(unsafe_code, reason = "a child enters its namespace between fork and exec")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::unistd::{SysconfVar, sysconf};

/// Lines that a process may be ahead of its reader: progress lines come ten a second.
const LINES_MAX: usize = 65_536;

/// How much of a log an error quotes.
const LOG_QUOTE_BYTES: usize = 2_000;

/// Where a process is put.
pub(super) struct Place<'a> {
    pub(super) namespace: BorrowedFd<'a>,
    pub(super) cgroup: &'a Path,
    /// Standard error goes here.
    pub(super) log: PathBuf,
}

/// How long a process that another one follows takes to end.
const LEAVE: Duration = Duration::from_secs(5);

/// What runs.
#[derive(Debug)]
enum Body {
    Child(Child),
    /// A child of a child, which became this process' own when that ended.
    Adopted(libc::pid_t),
    Reaped(ExitStatus),
}

impl Body {
    fn id(&self) -> u32 {
        match self {
            Self::Child(child) => child.id(),
            Self::Adopted(pid) => pid.cast_unsigned(),
            Self::Reaped(_) => 0,
        }
    }

    fn kill(&mut self) -> std::io::Result<()> {
        match self {
            Self::Child(child) => child.kill(),
            // SAFETY: no memory is involved, and the number is this process' until it is reaped.
            Self::Adopted(pid) => match unsafe { libc::kill(*pid, libc::SIGKILL) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            },
            Self::Reaped(_) => Ok(()),
        }
    }

    fn try_wait(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.reap(libc::WNOHANG)
    }

    fn wait(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.reap(0)
    }

    fn reap(&mut self, flags: libc::c_int) -> std::io::Result<Option<ExitStatus>> {
        let pid = match self {
            Self::Child(child) if flags == 0 => return child.wait().map(Some),
            Self::Child(child) => return child.try_wait(),
            Self::Reaped(status) => return Ok(Some(*status)),
            Self::Adopted(pid) => *pid,
        };
        let mut status = 0;
        // SAFETY: the status is written to a variable of the right type.
        match unsafe { libc::waitpid(pid, &raw mut status, flags) } {
            0 => Ok(None),
            reaped if reaped == pid => {
                let status = ExitStatus::from_raw(status);
                *self = Self::Reaped(status);
                Ok(Some(status))
            }
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}

/// Owned: killed (SIGKILL) and reaped on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    body: Body,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Process {
    pub(super) fn start(name: &str, mut command: Command, place: &Place<'_>) -> Result<Self> {
        let log = File::create(&place.log)
            .with_context(|| format!("cannot make the log {}", place.log.display()))?;
        let members = File::options()
            .write(true)
            .open(place.cgroup.join("cgroup.procs"))
            .with_context(|| format!("cannot open the cgroup {}", place.cgroup.display()))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        enter_before_exec(&mut command, place.namespace, members)?;
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child =
            spawn_from_lasting_thread(command).with_context(|| format!("cannot run {program}"))?;
        let output = child.stdout.take().context("the child has no output")?;
        let (sender, lines) = mpsc::sync_channel(LINES_MAX);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        let body = Body::Child(child);
        Ok(Self { name: name.to_owned(), body, input, lines, log: place.log.clone() })
    }

    pub fn id(&self) -> u32 {
        self.body.id()
    }

    /// Goes on as another process that it has begun, once it has ended by itself.
    ///
    /// # Errors
    /// Where it does not end, or not with success.
    pub fn adopt(&mut self, pid: u32) -> Result<()> {
        let status = self.wait(LEAVE)?;
        if !status.success() {
            bail!("{} ended with {status}{}", self.name, self.quote());
        }
        self.body = Body::Adopted(pid.cast_signed());
        self.require_running()
    }

    /// The next line of its standard output.
    ///
    /// # Errors
    /// Where none comes in time, or it has ended; the end of its log is quoted.
    pub fn line(&self, limit: Duration) -> Result<String> {
        self.lines.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                anyhow::anyhow!("{} said nothing for {limit:?}{}", self.name, self.quote())
            }
            RecvTimeoutError::Disconnected => {
                anyhow::anyhow!("{} has ended{}", self.name, self.quote())
            }
        })
    }

    /// A line that is there already.
    pub fn try_line(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// Ends its standard input: our own tools take it as the request to finish.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    /// Where it no longer reads.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("the input is closed")?;
        writeln!(input, "{line}").with_context(|| format!("{} does not listen", self.name))
    }

    /// The processes that it has begun and that run.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn children(&self) -> Result<Vec<u32>> {
        let pid = self.id();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        text.split_whitespace().map(|child| Ok(child.parse()?)).collect()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        let pid = i32::try_from(self.id()).context("a process id beyond the kernel's")?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// SIGKILL, as a crash would end it. It is reaped before this returns.
    ///
    /// # Errors
    /// Where it has ended before: then it did not live as long as the caller thinks.
    pub fn kill(mut self) -> Result<()> {
        self.require_running()?;
        self.body.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.body.wait().map(drop).with_context(|| format!("cannot reap {}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where it does not end in time.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.body.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} does not end within {limit:?}{}", self.name, self.quote());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.require_running().is_ok()
    }

    /// # Errors
    /// Where it has ended; how, and the end of its log, are in the message.
    pub fn require_running(&mut self) -> Result<()> {
        match self.body.try_wait().with_context(|| format!("cannot look at {}", self.name))? {
            None => Ok(()),
            Some(status) => bail!("{} has ended ({status}){}", self.name, self.quote()),
        }
    }

    /// The whole of its standard error.
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| file.read_to_end(&mut text));
        match read {
            Ok(_) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("(no log: {error})"),
        }
    }

    fn quote(&self) -> String {
        let log = self.log();
        let start = log.len().saturating_sub(LOG_QUOTE_BYTES);
        let start = (start..log.len()).find(|&at| log.is_char_boundary(at)).unwrap_or(0);
        match log[start..].trim() {
            "" => String::new(),
            end => format!("; its log ends: {end}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.body.kill();
        let _ = self.body.wait();
    }
}

fn enter_before_exec(
    command: &mut Command,
    namespace: BorrowedFd<'_>,
    members: File,
) -> Result<()> {
    let namespace = namespace.try_clone_to_owned().context("cannot keep a namespace open")?;
    let parent = nix::unistd::getpid();
    let enter = move || {
        // SAFETY: plain system calls on descriptors that the closure owns; nothing allocates.
        unsafe {
            if libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) != 0
                || libc::write(members.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1
                || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0
            {
                return Err(std::io::Error::last_os_error());
            }
            // The parent may have died before the request above.
            if libc::getppid() != parent.as_raw() {
                libc::_exit(1);
            }
        }
        Ok(())
    };
    // SAFETY: the closure calls async-signal-safe functions only.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

type Request = (Command, Sender<std::io::Result<Child>>);

/// Forks on a thread that never ends: PR_SET_PDEATHSIG fires when the *thread* that forked dies,
/// and tests run on threads that do.
fn spawn_from_lasting_thread(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        // Children of children that end become this process' own: an agent that another one follows.
        // SAFETY: no memory is involved. Where it fails, adopting fails.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
        std::thread::spawn(move || {
            for (mut command, answer) in requests {
                // Nobody waits for the answer only where the requester has panicked.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, child) = mpsc::channel();
    spawner.send((command, answer)).ok().context("the thread that starts processes is gone")?;
    Ok(child.recv().context("the thread that starts processes is gone")??)
}

/// What a process has taken of a core until now: utime and stime of proc_pid_stat(5).
///
/// # Errors
/// Where there is no such process.
pub fn processor_time(id: u32) -> Result<Duration> {
    let path = format!("/proc/{id}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The second field is a name in parentheses that may hold anything; the third follows it.
    let (_, rest) = text.rsplit_once(')').context("a stat file without a name")?;
    let fields = rest.split_ascii_whitespace().skip(14 - 3).take(2);
    let ticks = fields.map(|field| field.parse::<u64>().context("a time")).sum::<Result<u64>>()?;
    let a_second = sysconf(SysconfVar::CLK_TCK)?.context("no CLK_TCK")?;
    Ok(Duration::from_secs_f64(ticks as f64 / a_second as f64))
}
