//! A real nginx with its stream module, as masters run it today before the API servers: the files
//! are the clusters' own, the paths the lab's.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{await_some, directory, today, write};
use crate::lab::{Host, Process};

const LIMIT: Duration = Duration::from_secs(20);
/// Debian's module.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

const PID: &str = "nginx.pid";

/// Owned: killed on drop.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    directory: PathBuf,
}

impl Nginx {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start(host: &Host) -> Result<Self> {
        let directory = directory(host, "nginx")?;
        let file = write(&directory, "conf/nginx.conf", today::NGINX)?;
        write(&directory, "conf/stream/stream.conf", today::NGINX_STREAM)?;
        write(&directory, "conf/mime.types", "types {}\n")?;
        // Included by the file; without it nginx would make directories of the system's.
        write(&directory, "conf/conf.d/lab.conf", &temporary_paths(&directory))?;
        std::fs::create_dir_all(directory.join("logs"))?;
        let pid = directory.join(PID);
        let globals = format!(
            "{} daemon off; user root; pid {};",
            if Path::new(MODULE).exists() {
                format!("load_module {MODULE};")
            } else {
                String::new()
            },
            pid.display(),
        );
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&directory).arg("-c").arg(&file).args(["-g", &globals]);
        command.args(["-e", "stderr"]);
        let mut nginx = Self { process: host.spawn("nginx", command)?, directory };
        // Written once its listeners are open.
        await_some("nginx serves", LIMIT, || {
            nginx.process.require_running()?;
            Ok(pid.exists().then_some(()))
        })?;
        Ok(nginx)
    }

    /// A script for keepalived that succeeds while this nginx runs, as the clusters' own does.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn check(&self) -> Result<PathBuf> {
        let pid = self.directory.join(PID);
        let text = format!("#!/bin/sh\nkill -0 \"$(cat {})\"\n", pid.display());
        let path = write(&self.directory, "check_nginx.sh", &text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// Its quick end; proxied connections break.
    ///
    /// # Errors
    /// Where it does not end.
    pub fn end(mut self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(LIMIT).map(drop)
    }
}

fn temporary_paths(directory: &Path) -> String {
    let directory = directory.display();
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {directory}/{kind};\n"))
        .concat()
}
