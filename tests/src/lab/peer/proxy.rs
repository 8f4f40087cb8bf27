//! Real proxies of TCP, with no more in their files than one service needs: what a measurement stands
//! beside.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use super::{await_some, directory, write};
use crate::lab::{Host, Process};

const LIMIT: Duration = Duration::from_secs(20);
/// How often a reload is asked for.
const TRIES: u32 = 10;
/// Debian's module.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// nginx's stream module.
    Nginx,
    Haproxy,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }
}

/// Owned: killed on drop.
#[derive(Debug)]
pub struct Proxy {
    process: Process,
    kind: Kind,
    listen: SocketAddr,
    directory: PathBuf,
}

impl Proxy {
    /// Starts it on a host that has the address, and waits until it accepts connections.
    ///
    /// # Errors
    /// Where it is not installed, or does not come up.
    pub fn start(
        host: &Host,
        kind: Kind,
        listen: SocketAddr,
        servers: &[SocketAddr],
    ) -> Result<Self> {
        let directory = directory(host, kind.name())?;
        let file = configure(kind, &directory, listen, servers)?;
        let mut command = Command::new(kind.name());
        match kind {
            Kind::Nginx => {
                command.arg("-p").arg(&directory).arg("-c").arg(file).args(["-e", "stderr"]);
            }
            // A master beside the worker, as systemd has it: it takes signals for reloads.
            Kind::Haproxy => {
                command.args(["-W", "-db", "-f"]).arg(file);
            }
        }
        command.current_dir(&directory);
        let mut process = host.spawn(kind.name(), command)?;
        await_some(&format!("{} serves", kind.name()), LIMIT, || {
            process.require_running()?;
            host.namespace().within(|| Ok(TcpStream::connect(listen).ok().map(drop)))
        })?;
        Ok(Self { process, kind, listen, directory })
    }

    /// Has it take over other servers, as its documentation says, and waits until a new worker is there.
    ///
    /// # Errors
    /// Where it ends, or none comes.
    pub fn reload(&mut self, servers: &[SocketAddr]) -> Result<()> {
        let before = self.process.children()?;
        configure(self.kind, &self.directory, self.listen, servers)?;
        let signal = match self.kind {
            Kind::Nginx => Signal::SIGHUP,
            Kind::Haproxy => Signal::SIGUSR2,
        };
        let what = format!("{} has a new worker", self.kind.name());
        let mut begun = false;
        for _ in 0..TRIES {
            // One that comes while haproxy's master begins anew is lost.
            self.process.signal(signal)?;
            let new = await_some(&what, LIMIT / TRIES, || {
                self.process.require_running()?;
                let now = self.process.children()?;
                Ok(now.iter().any(|child| !before.contains(child)).then_some(()))
            });
            begun = new.is_ok();
            if begun {
                break;
            }
        }
        ensure!(begun, "{what}: not within {LIMIT:?}: {}", self.process.log());
        Ok(())
    }

    /// Its processes, but for the first.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn workers(&self) -> Result<usize> {
        Ok(self.process.children()?.len())
    }
}

/// Writes its file.
fn configure(
    kind: Kind,
    directory: &Path,
    listen: SocketAddr,
    servers: &[SocketAddr],
) -> Result<PathBuf> {
    match kind {
        Kind::Nginx => write(directory, "nginx.conf", &nginx(directory, listen, servers)),
        Kind::Haproxy => write(directory, "haproxy.cfg", &haproxy(listen, servers)),
    }
}

fn nginx(directory: &Path, listen: SocketAddr, servers: &[SocketAddr]) -> String {
    let mut text = String::new();
    if Path::new(MODULE).exists() {
        let _ = writeln!(text, "load_module {MODULE};");
    }
    let _ = writeln!(
        text,
        "daemon off; user root; worker_processes auto; pid {}/pid;\n\
         events {{ worker_connections 10240; }}\nstream {{\n  upstream servers {{",
        directory.display()
    );
    for server in servers {
        let _ = writeln!(text, "    server {server};");
    }
    let _ = writeln!(text, "  }}\n  server {{ listen {listen}; proxy_pass servers; }}\n}}");
    text
}

fn haproxy(listen: SocketAddr, servers: &[SocketAddr]) -> String {
    let mut text = format!(
        "global\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 3s\n  timeout client 30s\n  \
         timeout server 30s\nlisten service\n  bind {listen}\n"
    );
    for (number, server) in servers.iter().enumerate() {
        let _ = writeln!(text, "  server s{number} {server}");
    }
    text
}
