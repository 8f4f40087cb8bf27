//! Real proxies of TCP, with no more in their files than one service needs: what a measurement stands
//! beside.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{await_some, directory, write};
use crate::lab::{Host, Process};

const LIMIT: Duration = Duration::from_secs(20);
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
    _process: Process,
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
        let mut command = match kind {
            Kind::Nginx => {
                let text = nginx(&directory, listen, servers);
                let file = write(&directory, "nginx.conf", &text)?;
                let mut command = Command::new("nginx");
                command.arg("-p").arg(&directory).arg("-c").arg(file).args(["-e", "stderr"]);
                command
            }
            Kind::Haproxy => {
                let file = write(&directory, "haproxy.cfg", &haproxy(listen, servers))?;
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(file);
                command
            }
        };
        command.current_dir(&directory);
        let mut process = host.spawn(kind.name(), command)?;
        await_some(&format!("{} serves", kind.name()), LIMIT, || {
            process.require_running()?;
            host.namespace().within(|| Ok(TcpStream::connect(listen).ok().map(drop)))
        })?;
        Ok(Self { _process: process })
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
