//! Asking the running kernel what it can do, with programs of two instructions that are gone at once.

#![expect(unsafe_code, reason = "bpf(2), for flags that aya has no question for")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use aya::programs::{ProgramType, SchedClassifier, TcAttachType};
use aya::sys::{BpfHelper, is_helper_supported};

use super::feature::Question;
use super::finding::{Surroundings, findings, summary};
use crate::finding::Finding;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
// include/uapi/linux/bpf.h
const XDP: u32 = 6;
const CGROUP_SOCK_ADDR: u32 = 18;
const XDP_HAS_FRAGS: u32 = 1 << 5;
const INET4_GETPEERNAME: u32 = 29;
const BPF_XDP: u32 = 37;
// include/uapi/linux/if_link.h
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// XDP_PASS.
const PASS: u32 = 2;

const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// What is known of this kernel.
#[derive(Clone, Debug)]
pub struct Knowledge {
    pub release: String,
    pub findings: Vec<Finding>,
}

impl Knowledge {
    /// Asks. Without root, features are judged by version.
    pub fn gather() -> Self {
        let release = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
        let mounts = read("/proc/self/mounts").unwrap_or_default();
        let jit = read("/proc/sys/net/core/bpf_jit_enable");
        let surroundings = Surroundings {
            cgroup2: mount_of(&mounts, "cgroup2"),
            // Beside the old hierarchies, where those are.
            cgroup2_place: match Path::new(UNIFIED).is_dir() {
                true => UNIFIED,
                false => "/sys/fs/cgroup",
            },
            bpf: mount_of(&mounts, "bpf").or_else(|| {
                let place = Path::new("/sys/fs/bpf");
                place.is_dir().then(|| format!("the agent mounts one at {}", place.display()))
            }),
            jit: jit.and_then(|text| text.parse().ok()),
        };
        let findings = findings(&release, ask, &surroundings);
        Self { release, findings }
    }

    /// One sentence.
    pub fn summary(&self) -> String {
        summary(&self.release, &self.findings)
    }
}

/// Nothing where the kernel gives no answer: not permitted, or no question.
fn ask(question: Question) -> Option<bool> {
    let helper = |kind, helper| is_helper_supported(kind, helper).ok();
    match question {
        Question::None => None,
        Question::XdpFragments => loads(XDP, 0, XDP_HAS_FRAGS),
        Question::SocketLookupInXdp => helper(ProgramType::Xdp, BpfHelper::BPF_FUNC_skc_lookup_tcp),
        Question::SocketAssign => {
            helper(ProgramType::SchedClassifier, BpfHelper::BPF_FUNC_sk_assign)
        }
        Question::CoarseClock => helper(ProgramType::Xdp, BpfHelper::BPF_FUNC_ktime_get_coarse_ns),
        Question::SynCookies => {
            helper(ProgramType::Xdp, BpfHelper::BPF_FUNC_tcp_raw_gen_syncookie_ipv4)
        }
        Question::PeerNameHook => loads(CGROUP_SOCK_ADDR, INET4_GETPEERNAME, 0),
        // Who may not load may not query either.
        Question::Tcx => {
            loads(XDP, 0, 0)?;
            Some(SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok())
        }
    }
}

/// The member of `union bpf_attr` for BPF_PROG_LOAD, as far as it is used.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

/// Whether the kernel takes a program that only returns 1; nothing where it takes none from us.
fn loads(kind: u32, attach_type: u32, flags: u32) -> Option<bool> {
    match load(kind, attach_type, flags, 1) {
        Ok(_) => Some(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINVAL | libc::E2BIG) => Some(false),
            _ => None,
        },
    }
}

/// Loads a program that only returns a number.
fn load(kind: u32, attach_type: u32, flags: u32, returns: u32) -> io::Result<OwnedFd> {
    // r0 = returns; exit
    let instructions: [u64; 2] = [u64::from(returns) << 32 | 0xb7, 0x95];
    let attributes = LoadAttributes {
        kind,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags,
        name: [0; 16],
        ifindex: 0,
        attach_type,
    };
    // SAFETY: the attributes are the command's member of `union bpf_attr`, of which the kernel takes
    // the rest as zero; what they point to outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            std::ptr::from_ref(&attributes),
            size_of::<LoadAttributes>(),
        )
    };
    descriptor(result)
}

/// What the system call made.
fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: a new descriptor that nobody else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The member of `union bpf_attr` for BPF_LINK_CREATE, as far as it is used.
#[repr(C)]
struct LinkAttributes {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program that passes everything to an interface natively, and lets it go at once. With some drivers
/// the link goes down for a moment.
///
/// # Errors
/// Why the kernel or the driver refuses.
pub fn try_native_xdp(ifindex: u32) -> io::Result<()> {
    let program = load(XDP, 0, XDP_HAS_FRAGS, PASS)?;
    let attributes = LinkAttributes {
        program: program.as_raw_fd().cast_unsigned(),
        ifindex,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    // SAFETY: the attributes are the command's member of `union bpf_attr`, of which the kernel takes
    // the rest as zero, and outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_CREATE,
            std::ptr::from_ref(&attributes),
            size_of::<LinkAttributes>(),
        )
    };
    descriptor(result).map(drop)
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The first place where a file system of this kind is mounted.
fn mount_of(mounts: &str, kind: &str) -> Option<String> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next()? == kind).then(|| place.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_xdp_is_tried_and_a_refusal_has_its_errno() {
        use crate::netlink::Netlink;
        use crate::netlink::testbed::{isolated, veth};
        isolated(|| async {
            let (left, _) = veth(&Netlink::connect().unwrap()).await;
            // Twice: nothing stays attached.
            assert!(try_native_xdp(left.index).is_ok() && try_native_xdp(left.index).is_ok());
            let refused = try_native_xdp(1).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP), "lo: {refused}");
        });
    }

    #[test]
    fn mounts_are_found_by_their_kind() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n";
        assert_eq!(mount_of(mounts, "cgroup2").as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mount_of(mounts, "bpf").as_deref(), Some("/sys/fs/bpf"));
        assert_eq!(mount_of("proc /proc proc rw 0 0\n", "bpf"), None);
    }
}
