//! Socket look-ups: the only file that holds references to sockets. Each is released in the
//! function that took it.

#![expect(unsafe_code, reason = "helpers on sockets")]

use core::ffi::c_void;

use aya_ebpf::bindings::{
    bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as TupleV4,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as TupleV6, tcphdr,
};
use aya_ebpf::helpers::generated::{
    bpf_sk_assign, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie,
};
use lb_common::backend::Backend;
use lb_common::flow::FlowKey;
use lb_ebpf::environment::Owner;
use lb_ebpf::parse::Packet;
use lb_ebpf::wire::{Ipv4, Ipv6, Tcp};

/// The network namespace of the interface (`BPF_F_CURRENT_NETNS`).
const THIS_NETNS: u64 = u64::MAX;

// include/net/tcp_states.h
const TCP_TIME_WAIT: u32 = 6;
const TCP_LISTEN: u32 = 10;

/// The tuple for the helpers, and its size, by which they tell the family.
#[inline(always)]
fn tuple(flow: &FlowKey, v4: bool) -> (bpf_sock_tuple, u32) {
    // SAFETY: integers only; all zero is valid. The helper gets no uninitialised stack.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    if v4 {
        tuple.__bindgen_anon_1.ipv4 = TupleV4 {
            saddr: flow.source.v4_word(),
            daddr: flow.destination.v4_word(),
            sport: flow.source_port_be,
            dport: flow.destination_port_be,
        };
        (tuple, size_of::<TupleV4>() as u32)
    } else {
        tuple.__bindgen_anon_1.ipv6 = TupleV6 {
            saddr: flow.source.words,
            daddr: flow.destination.words,
            sport: flow.source_port_be,
            dport: flow.destination_port_be,
        };
        (tuple, size_of::<TupleV6>() as u32)
    }
}

/// The packet's tuple as if the client had asked for the backend's own address and port.
#[inline(always)]
fn towards(packet: &Packet, local: &Backend) -> FlowKey {
    FlowKey { destination: local.address, destination_port_be: local.port_be, ..packet.flow }
}

#[inline(always)]
fn tcp(context: *mut c_void, flow: &FlowKey, v4: bool) -> *mut bpf_sock {
    let (mut tuple, size) = tuple(flow, v4);
    // SAFETY: the helper reads `size` bytes of the tuple; the result is checked by each caller.
    unsafe { bpf_skc_lookup_tcp(context, &raw mut tuple, size, THIS_NETNS, 0) }
}

/// The listener that would take a connection from the packet's source at `local`, or null.
#[inline(always)]
fn listener(context: *mut c_void, packet: &Packet, local: &Backend) -> *mut bpf_sock {
    let mut key = towards(packet, local);
    // Port 0 is nobody's: the look-up cannot hit a connection that the client has with the
    // backend's own address.
    key.source_port_be = 0;
    tcp(context, &key, packet.v4)
}

#[inline(always)]
pub(crate) fn tcp_owner(context: *mut c_void, packet: &Packet) -> Owner {
    let socket = tcp(context, &packet.flow, packet.v4);
    if socket.is_null() {
        return Owner::Nobody;
    }
    // SAFETY: not null; the state may be read until the reference is released.
    let state = unsafe {
        let state = (*socket).state;
        bpf_sk_release(socket.cast());
        state
    };
    match state {
        TCP_LISTEN => Owner::Nobody,
        TCP_TIME_WAIT => Owner::TimeWait,
        _ => Owner::Connection,
    }
}

#[inline(always)]
pub(crate) fn tcp_listener(context: *mut c_void, packet: &Packet, local: &Backend) -> bool {
    let socket = listener(context, packet, local);
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null.
    unsafe { bpf_sk_release(socket.cast()) };
    true
}

#[inline(always)]
pub(crate) fn udp_socket(context: *mut c_void, packet: &Packet, local: &Backend) -> bool {
    let (mut tuple, size) = tuple(&towards(packet, local), packet.v4);
    // SAFETY: as in `tcp`.
    let socket = unsafe { bpf_sk_lookup_udp(context, &raw mut tuple, size, THIS_NETNS, 0) };
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null.
    unsafe { bpf_sk_release(socket.cast()) };
    true
}

/// Whether the segment in packet memory, which `memory` bounds, acknowledges a SYN cookie of the listener
/// at `local`.
#[inline(always)]
pub(crate) fn tcp_cookie(
    context: *mut c_void,
    memory: impl FnOnce() -> (usize, usize),
    packet: &Packet,
    local: &Backend,
) -> bool {
    let socket = listener(context, packet, local);
    if socket.is_null() {
        return false;
    }
    // Bounded behind the look-up, so that the stack need not keep pointers meanwhile: here it is deepest.
    let (data, end) = memory();
    let (ip, tcp) = (data + packet.network, data + packet.transport);
    let ip_length = if packet.v4 { size_of::<Ipv4>() } else { size_of::<Ipv6>() };
    let whole = ip + size_of::<Ipv6>() <= end && tcp + size_of::<Tcp>() <= end;
    // SAFETY: the socket is not null; both headers are inside the frame where they are looked at.
    unsafe {
        let valid = whole
            && bpf_tcp_check_syncookie(
                socket.cast(),
                ip as *mut c_void,
                ip_length as u32,
                tcp as *mut tcphdr,
                size_of::<Tcp>() as u32,
            ) == 0;
        bpf_sk_release(socket.cast());
        valid
    }
}

/// Hands the segment in `context` (tc ingress) to the listener at `local`.
#[inline(always)]
pub(crate) fn assign(context: *mut c_void, packet: &Packet, local: &Backend) -> bool {
    // With the client's own port first: listeners that share a port spread by it.
    let mut socket = tcp(context, &towards(packet, local), packet.v4);
    if !socket.is_null() {
        // SAFETY: not null.
        let state = unsafe { (*socket).state };
        if state != TCP_LISTEN {
            // SAFETY: not null.
            unsafe { bpf_sk_release(socket.cast()) };
            socket = listener(context, packet, local);
        }
    }
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null; released after the assignment, which takes its own reference.
    unsafe {
        let result = bpf_sk_assign(context, socket.cast(), 0);
        bpf_sk_release(socket.cast());
        result == 0
    }
}
