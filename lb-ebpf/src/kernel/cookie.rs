//! What only XDP needs to answer a SYN: the kernel's cookie, and the way back to who sent it.

#![expect(unsafe_code, reason = "helpers on copies of headers, and on the route")]

use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as Route, xdp_md};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_tcp_raw_gen_syncookie_ipv4, bpf_tcp_raw_gen_syncookie_ipv6,
    bpf_xdp_load_bytes,
};
use lb_ebpf::environment::{Cookies, SynCookie};
use lb_ebpf::parse::Packet;
use lb_ebpf::wire::{Ipv4, Ipv6, Mac, PROTOCOL_TCP};

use super::node::Kernel;

/// The longest TCP header, as far as the verifier can tell.
const TCP_MAX: usize = 84;

// include/linux/socket.h
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

impl Cookies for Kernel<'_, *mut xdp_md> {
    #[inline(always)]
    fn cookie(&self, packet: &Packet, tcp_length: u64) -> Option<SynCookie> {
        // A copy: the verifier wants all of what the length can be within the frame, and the frame has
        // mostly less.
        let mut tcp = [0u32; TCP_MAX / 4];
        let tcp_length = tcp_length as u32;
        let context = self.context();
        // SAFETY: the helper writes as many bytes as it is told, which the copy has.
        let result = unsafe {
            bpf_xdp_load_bytes(
                context,
                packet.transport as u32,
                tcp.as_mut_ptr().cast(),
                tcp_length,
            )
        };
        if result != 0 {
            return None;
        }
        let made = if packet.v4 {
            let mut ip = [0u8; size_of::<Ipv4>()];
            load(context, packet.network, &mut ip)?;
            // SAFETY: whole headers, as long as is said.
            unsafe {
                bpf_tcp_raw_gen_syncookie_ipv4(
                    ip.as_mut_ptr().cast(),
                    tcp.as_mut_ptr().cast(),
                    tcp_length,
                )
            }
        } else {
            let mut ip = [0u8; size_of::<Ipv6>()];
            load(context, packet.network, &mut ip)?;
            // SAFETY: as above.
            unsafe {
                bpf_tcp_raw_gen_syncookie_ipv6(
                    ip.as_mut_ptr().cast(),
                    tcp.as_mut_ptr().cast(),
                    tcp_length,
                )
            }
        };
        (made >= 0).then_some(SynCookie { sequence: made as u32, segment: (made >> 32) as u16 })
    }

    #[inline(always)]
    fn way(&self, packet: &Packet, interface: u32) -> Option<(Mac, Mac, u32)> {
        // SAFETY: integers only; all zero is valid.
        let mut route: Route = unsafe { core::mem::zeroed() };
        route.l4_protocol = PROTOCOL_TCP;
        route.ifindex = interface;
        let (from, to) = (&packet.flow.destination, &packet.flow.source);
        if packet.v4 {
            route.family = AF_INET;
            route.__bindgen_anon_3.ipv4_src = from.v4_word();
            route.__bindgen_anon_4.ipv4_dst = to.v4_word();
        } else {
            route.family = AF_INET6;
            route.__bindgen_anon_3.ipv6_src = from.words;
            route.__bindgen_anon_4.ipv6_dst = to.words;
        }
        // SAFETY: the helper reads and writes the route, of the size that it is told.
        let found = unsafe {
            bpf_fib_lookup(self.context().cast(), &raw mut route, size_of::<Route>() as i32, 0)
        };
        (found == BPF_FIB_LKUP_RET_SUCCESS as i64).then_some((
            Mac::from_bytes(route.dmac),
            Mac::from_bytes(route.smac),
            route.ifindex,
        ))
    }
}

#[inline(always)]
fn load<const N: usize>(context: *mut xdp_md, offset: usize, to: &mut [u8; N]) -> Option<()> {
    // SAFETY: the helper writes as many bytes as the array has.
    let result =
        unsafe { bpf_xdp_load_bytes(context, offset as u32, to.as_mut_ptr().cast(), N as u32) };
    (result == 0).then_some(())
}
