//! What can go wrong between the agent and the kernel, each with its remedy.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use thiserror::Error;

/// A failure of the data path's set-up or of a change to it.
#[derive(Debug, Error)]
pub enum DataPlaneError {
    #[error(
        "{path} is not on a BPF file system: mount one (mount -t bpf bpf /sys/fs/bpf), or set paths.bpf to where one is"
    )]
    NoBpfFileSystem { path: PathBuf },

    #[error(
        "loading BPF programs needs root (or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON): run the agent as root"
    )]
    NotPermitted,

    #[error(
        "this kernel has no bpf system call: the load balancer needs Linux 6.1 or later with CONFIG_BPF_SYSCALL"
    )]
    NoBpf,

    #[error("cannot load the kernel program {program}: {detail}")]
    Load { program: String, detail: String },

    #[error("cannot read the kernel object that this agent was built with: {detail}")]
    Object { detail: String },

    #[error(
        "the pinned map {path} has {found}, this version needs {expected}: another version or other limits made it; stop that agent, run `lb-agent --purge` (connections through NAT are lost), and start again"
    )]
    Layout { path: PathBuf, found: String, expected: String },

    #[error(
        "{path} holds the maps of another layout version: stop the agent that uses them, or remove them with `lb-agent --purge`"
    )]
    OtherLayout { path: PathBuf },

    #[error(
        "nobody here knows the layout {version} of the maps: stop the agent, remove its maps with `lb-agent --purge`, and start the other version"
    )]
    UnknownLayout { version: u32 },

    #[error("no interface {name}: `ip link` lists those of this node")]
    NoInterface { name: String },

    #[error(
        "interface {name} has another XDP program, or an interface above it has one (a VLAN's, a macvlan's), and the kernel takes no second: detach it (ip link set dev {name} xdp off), or set data_path.modes to [\"tc\"]"
    )]
    ForeignProgram { name: String },

    #[error("cannot attach to {name}: {tried}")]
    Attach { name: String, tried: String },

    #[error(
        "cannot attach to {name}: its index {index} shares a slot with {other}, which is attached; detach that one first"
    )]
    SlotTaken { name: String, index: u32, other: String },

    #[error("the maps do not hold the VIP {vip}; see why they are not up to date")]
    NoVip { vip: IpAddr },

    #[error("interface {name} is not attached")]
    NotAttached { name: String },

    #[error(
        "the configuration needs {needed} {what}, the maps were made for {limit}: raise limits.{what} and restart after `lb-agent --purge`"
    )]
    Limit { what: &'static str, needed: u64, limit: u64 },

    #[error("{operation} on map {map}: {source}")]
    Map { operation: &'static str, map: String, source: io::Error },

    /// A defect of ours.
    #[error("the plan of the maps contradicts itself: {0}")]
    Inconsistent(&'static str),

    #[error("{operation} {path}: {source}")]
    File { operation: &'static str, path: PathBuf, source: io::Error },
}

impl DataPlaneError {
    pub(super) fn map(operation: &'static str, map: &str, error: aya::maps::MapError) -> Self {
        let source = match error {
            aya::maps::MapError::SyscallError(error) => error.io_error,
            other => io::Error::other(other),
        };
        Self::Map { operation, map: map.to_owned(), source }
    }

    pub(super) fn io(operation: &'static str, map: &str, source: io::Error) -> Self {
        Self::Map { operation, map: map.to_owned(), source }
    }

    pub(super) fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
        source: io::Error,
    ) -> Self {
        Self::File { operation, path: path.into(), source }
    }
}
