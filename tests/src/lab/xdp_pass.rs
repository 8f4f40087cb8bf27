//! The smallest XDP program, "pass everything", on a switch port. A veth transmits what its peer's
//! XDP program bounces (XDP_TX) only where it has a program itself; the port stands for a physical
//! switch, which has no such wish.

#![expect(unsafe_code, reason = "bpf(2) by hand: two instructions need no object file")]

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
/// `BPF_F_XDP_HAS_FRAGS`: it takes frames in several buffers, as jumbo frames are.
const XDP_HAS_FRAGS: u32 = 1 << 5;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// `r0 = 2 (XDP_PASS); exit`: opcode, registers, offset (2 bytes), immediate (4 bytes).
const PASS: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

const LICENCE: &core::ffi::CStr = c"MIT";

/// The head of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct LoadAttribute {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The head of `union bpf_attr` for BPF_LINK_CREATE.
#[repr(C)]
struct LinkAttribute {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The link: the program leaves the interface when this is dropped, or with the process.
#[derive(Debug)]
pub struct Pass {
    _link: OwnedFd,
}

impl Pass {
    /// Attaches to an interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// Where there is none of that name, or the kernel refuses.
    pub fn attach(interface: &str) -> Result<Self> {
        let index = nix::net::if_::if_nametoindex(interface)
            .with_context(|| format!("no interface {interface}"))?;
        let load = LoadAttribute {
            prog_type: BPF_PROG_TYPE_XDP,
            insn_cnt: PASS.len() as u32,
            insns: PASS.as_ptr() as u64,
            license: LICENCE.as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: XDP_HAS_FRAGS,
        };
        let program = bpf(BPF_PROG_LOAD, &load).context("the kernel refuses an XDP program")?;
        let link = LinkAttribute {
            prog_fd: program.as_raw_fd().cast_unsigned(),
            target_ifindex: index,
            attach_type: BPF_XDP,
            flags: XDP_FLAGS_DRV_MODE,
        };
        let link = bpf(BPF_LINK_CREATE, &link)
            .with_context(|| format!("cannot attach XDP to the switch port {interface}"))?;
        Ok(Self { _link: link })
    }
}

/// Calls bpf(2) for a command that returns a descriptor.
fn bpf<T>(command: libc::c_long, attribute: &T) -> std::io::Result<OwnedFd> {
    // SAFETY: the attribute is a prefix of `union bpf_attr` of the size given; the kernel takes the
    // rest as zero. What it points to outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attribute), size_of::<T>())
    };
    match i32::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(std::io::Error::last_os_error()),
    }
}
