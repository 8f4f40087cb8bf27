//! The programs on a cgroup: connect, sendmsg, recvmsg and getpeername of both families.

#![expect(unsafe_code, reason = "the socket address context")]

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use lb_common::Address;
use lb_common::counter::Verdict;
use lb_common::flow::Endpoint;
use lb_common::host::OriginKey;
use lb_ebpf::environment::Node;
use lb_ebpf::host::backend_for;

use crate::kernel::maps;
use crate::kernel::node::Kernel;

/// The call goes on, with whatever address it has now.
const ALLOW: i32 = 1;

/// The address family of a hook: which fields of the context it may touch.
trait Family {
    fn read(context: *mut bpf_sock_addr) -> Endpoint;
    fn write(context: *mut bpf_sock_addr, to: &Endpoint);
}

struct V4;
struct V6;

/// The port field is 32 bits wide with the 16 bits as they go on the wire in front.
#[inline(always)]
fn port(context: *mut bpf_sock_addr) -> u16 {
    // SAFETY: the kernel passes a valid context.
    unsafe { (*context).user_port as u16 }
}

impl Family for V4 {
    #[inline(always)]
    fn read(context: *mut bpf_sock_addr) -> Endpoint {
        // SAFETY: as in `port`.
        let word = unsafe { (*context).user_ip4 };
        Endpoint { address: Address::from_v4_word(word), port_be: port(context), padding: [0; 2] }
    }

    #[inline(always)]
    fn write(context: *mut bpf_sock_addr, to: &Endpoint) {
        // SAFETY: as in `port`; the fields are writable in these hooks.
        unsafe {
            (*context).user_ip4 = to.address.v4_word();
            (*context).user_port = to.port_be as u32;
        }
    }
}

impl Family for V6 {
    #[inline(always)]
    fn read(context: *mut bpf_sock_addr) -> Endpoint {
        // SAFETY: as in `port`. Word by word: the verifier allows no wider access.
        let words = unsafe {
            [
                core::ptr::read_volatile(&raw const (*context).user_ip6[0]),
                core::ptr::read_volatile(&raw const (*context).user_ip6[1]),
                core::ptr::read_volatile(&raw const (*context).user_ip6[2]),
                core::ptr::read_volatile(&raw const (*context).user_ip6[3]),
            ]
        };
        Endpoint { address: Address { words }, port_be: port(context), padding: [0; 2] }
    }

    #[inline(always)]
    fn write(context: *mut bpf_sock_addr, to: &Endpoint) {
        let words = to.address.words;
        // SAFETY: as in `read`.
        unsafe {
            core::ptr::write_volatile(&raw mut (*context).user_ip6[0], words[0]);
            core::ptr::write_volatile(&raw mut (*context).user_ip6[1], words[1]);
            core::ptr::write_volatile(&raw mut (*context).user_ip6[2], words[2]);
            core::ptr::write_volatile(&raw mut (*context).user_ip6[3], words[3]);
            (*context).user_port = to.port_be as u32;
        }
    }
}

#[inline(always)]
fn cookie(context: *mut bpf_sock_addr) -> u64 {
    // SAFETY: a helper on a valid context.
    unsafe { bpf_get_socket_cookie(context.cast()) }
}

#[inline(always)]
const fn origin_key(cookie: u64, peer: &Endpoint) -> OriginKey {
    OriginKey { cookie, address: peer.address, port_be: peer.port_be, padding: [0; 6] }
}

/// A socket names a service: it gets a backend, and what it named is remembered.
#[inline(always)]
fn outward<F: Family>(context: &SockAddrContext, verdict: Verdict) -> i32 {
    let raw = context.sock_addr;
    let node = Kernel::new(&raw);
    let asked = F::read(raw);
    if !node.may_be_ours(&asked.address) {
        return ALLOW;
    }
    // SAFETY: as in `port`.
    let protocol = unsafe { (*raw).protocol } as u8;
    let cookie = cookie(raw);
    if let Some(backend) = backend_for(&node, cookie, &asked, protocol) {
        let key = origin_key(cookie, &backend);
        if maps::host_origin(&key) != Some(&asked) {
            // An LRU map makes room; at worst the process sees the backend instead of the VIP.
            let _ = maps::HOST_ORIGINS.insert(key, asked, 0);
        }
        F::write(raw, &backend);
        node.count(verdict);
    }
    ALLOW
}

/// A socket asks whom it talks to, or from whom a datagram came: it sees what it named.
#[inline(always)]
fn inward<F: Family>(context: &SockAddrContext, verdict: Option<Verdict>) -> i32 {
    let raw = context.sock_addr;
    let peer = F::read(raw);
    if let Some(asked) = maps::host_origin(&origin_key(cookie(raw), &peer)) {
        F::write(raw, asked);
        if let Some(verdict) = verdict {
            maps::count(verdict as u32);
        }
    }
    ALLOW
}

#[cgroup_sock_addr(connect4)]
pub(crate) fn lb_connect4(context: SockAddrContext) -> i32 {
    outward::<V4>(&context, Verdict::HostConnect)
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn lb_connect6(context: SockAddrContext) -> i32 {
    outward::<V6>(&context, Verdict::HostConnect)
}

#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn lb_sendmsg4(context: SockAddrContext) -> i32 {
    outward::<V4>(&context, Verdict::HostSend)
}

#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn lb_sendmsg6(context: SockAddrContext) -> i32 {
    outward::<V6>(&context, Verdict::HostSend)
}

#[cgroup_sock_addr(recvmsg4)]
pub(crate) fn lb_recvmsg4(context: SockAddrContext) -> i32 {
    inward::<V4>(&context, Some(Verdict::HostReceive))
}

#[cgroup_sock_addr(recvmsg6)]
pub(crate) fn lb_recvmsg6(context: SockAddrContext) -> i32 {
    inward::<V6>(&context, Some(Verdict::HostReceive))
}

#[cgroup_sock_addr(getpeername4)]
pub(crate) fn lb_getpeername4(context: SockAddrContext) -> i32 {
    inward::<V4>(&context, None)
}

#[cgroup_sock_addr(getpeername6)]
pub(crate) fn lb_getpeername6(context: SockAddrContext) -> i32 {
    inward::<V6>(&context, None)
}
