//! The hooks for the node's own processes, on a cgroup.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{CgroupAttachMode, FdLink};
use aya::programs::{CgroupSockAddr, ProgramError};

use super::attach::{LinkFailure, explain};
use super::error::DataPlaneError;
use super::pins::Pins;

/// Program and pin name of each hook.
const HOOKS: [(&str, &str); 8] = [
    ("lb_connect4", "connect4"),
    ("lb_connect6", "connect6"),
    ("lb_sendmsg4", "sendmsg4"),
    ("lb_sendmsg6", "sendmsg6"),
    ("lb_recvmsg4", "recvmsg4"),
    ("lb_recvmsg6", "recvmsg6"),
    ("lb_getpeername4", "getpeername4"),
    ("lb_getpeername6", "getpeername6"),
];

/// Where the kernel's cgroup2 hierarchy is mounted, by `/proc/self/mounts`.
///
/// The pure half: `mounts` is that file's text.
fn cgroup2_in(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// Attaches the hooks to `cgroup`, or to the root of cgroup2; says where.
///
/// # Errors
///
/// One sentence on what is missing and what does not work without it. Nothing stays half attached.
pub(super) fn attach(
    object: &mut Ebpf,
    pins: &Pins,
    cgroup: Option<&Path>,
) -> Result<PathBuf, String> {
    let path = match cgroup {
        Some(path) => path.to_owned(),
        None => fs::read_to_string("/proc/self/mounts")
            .ok()
            .and_then(|mounts| cgroup2_in(&mounts))
            .ok_or("no cgroup2 is mounted, so this node's own processes cannot reach the VIP unless it is held here; mount it (mount -t cgroup2 none /sys/fs/cgroup/unified) and restart the agent")?,
    };
    let directory = File::open(&path)
        .map_err(|error| format!("opening the cgroup {}: {error}", path.display()))?;
    let folder = pins.cgroup();
    let result = fs::create_dir_all(&folder)
        .map_err(|error| format!("making {}: {error}", folder.display()))
        .and_then(|()| {
            HOOKS.iter().try_for_each(|(program, pin)| {
                hook(object, program, &folder.join(pin), &directory).map_err(|error| {
                    format!("hook {pin} on {}: {}", path.display(), explain(&error))
                })
            })
        });
    if let Err(error) = result {
        let _ = detach(pins);
        return Err(error);
    }
    Ok(path)
}

/// Attaches a hook, or puts this agent's program into the link that an earlier one pinned.
fn hook(object: &mut Ebpf, name: &str, pin: &Path, cgroup: &File) -> Result<(), LinkFailure> {
    let program: &mut CgroupSockAddr =
        object.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?;
    if pin.exists() {
        let fd = program.fd()?.as_fd();
        return Ok(super::links::replace(pin, fd)?);
    }
    // A link shares the cgroup with others by itself; the flag for that is refused for links.
    let id = program.attach(cgroup, CgroupAttachMode::Single)?;
    let link = FdLink::try_from(program.take_link(id)?)?;
    link.pin(pin)?;
    Ok(())
}

/// Detaches the hooks.
pub(super) fn detach(pins: &Pins) -> Result<(), DataPlaneError> {
    let folder = pins.cgroup();
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DataPlaneError::file("removing", &folder, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_beside_the_old_hierarchies() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid 0 0\n";
        assert_eq!(cgroup2_in(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_in("proc /proc proc rw 0 0\n"), None);
    }
}
