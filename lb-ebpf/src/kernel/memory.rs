//! Packet memory: the only file that dereferences it.

#![expect(unsafe_code, reason = "packet memory")]

use aya_ebpf::bindings::bpf_hdr_start_off::BPF_HDR_START_MAC;
use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, xdp_md};
use aya_ebpf::helpers::generated::{
    bpf_l4_csum_replace, bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_change_type,
    bpf_skb_load_bytes_relative, bpf_skb_pull_data, bpf_skb_store_bytes, bpf_xdp_adjust_head,
    bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
};
use lb_common::checksum::Difference;
use lb_ebpf::environment::Frame;
use lb_ebpf::wire::Mac;

// Whose a frame is by its destination MAC (include/uapi/linux/if_packet.h).
const PACKET_HOST: u32 = 0;
const PACKET_OTHERHOST: u32 = 3;

/// Reads `T` at `offset` between `data` and `end`.
///
/// The pointer is computed once, so that the bound that the verifier sees is the one that is used.
/// BPF programs read packet memory unaligned where the processor can (all that we support).
#[inline(always)]
fn load<T: Copy>(data: usize, end: usize, offset: usize) -> Option<T> {
    let start = data + offset;
    if start + size_of::<T>() > end {
        return None;
    }
    // SAFETY: inside the frame, as just checked; any bytes are a valid `T`.
    Some(unsafe { *(start as *const T) })
}

/// A frame in several buffers has more than this in the first one, so that the others need not be asked for.
const LEAST_BUFFER: u32 = 1024;

/// A frame in XDP.
pub(crate) struct XdpFrame {
    pub(crate) context: *mut xdp_md,
}

impl XdpFrame {
    #[inline(always)]
    pub(crate) fn data(&self) -> (usize, usize) {
        // SAFETY: the kernel passes a valid context.
        unsafe { ((*self.context).data as usize, (*self.context).data_end as usize) }
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn load<T: Copy>(&self, offset: usize) -> Option<T> {
        let (data, end) = self.data();
        load(data, end, offset)
    }

    #[inline(always)]
    fn store<T: Copy>(&mut self, offset: usize, value: T) -> Option<()> {
        let (data, end) = self.data();
        let start = data + offset;
        if start + size_of::<T>() > end {
            return None;
        }
        // SAFETY: inside the frame, as just checked.
        unsafe { *(start as *mut T) = value };
        Some(())
    }

    #[inline(always)]
    fn correct_checksum(
        &mut self,
        offset: usize,
        pseudo: Difference,
        body: Difference,
        udp: bool,
    ) -> Option<()> {
        let mut sum = pseudo.and(body).apply(self.load(offset)?);
        if udp && sum == 0 {
            // Zero means "no checksum" (RFC 768).
            sum = 0xffff;
        }
        self.store(offset, sum)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        let (data, end) = self.data();
        let first = (end - data) as u32;
        if first <= LEAST_BUFFER {
            return first;
        }
        // SAFETY: a helper on a valid context.
        unsafe { bpf_xdp_get_buff_len(self.context) as u32 }
    }

    #[inline(always)]
    fn interface_index(&self) -> u32 {
        // SAFETY: as in `data`.
        unsafe { (*self.context).ingress_ifindex }
    }

    #[inline(always)]
    fn grow(&mut self, bytes: usize) -> Option<()> {
        // SAFETY: a helper on a valid context, which it leaves alone where there is no room.
        let result = unsafe { bpf_xdp_adjust_head(self.context, -(bytes as i32)) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn end_at(&mut self, length: usize) -> Option<()> {
        // SAFETY: helpers on a valid context; the second checks what it is told.
        let result = unsafe {
            let whole = bpf_xdp_get_buff_len(self.context);
            bpf_xdp_adjust_tail(self.context, length as i32 - whole as i32)
        };
        (result == 0).then_some(())
    }
}

/// A frame in tc.
pub(crate) struct SkbFrame {
    pub(crate) context: *mut __sk_buff,
}

/// The longest headers that are read: Ethernet, two tags, IPv4 with options, TCP.
const HEADERS: u32 = 14 + 8 + 60 + 20;

impl SkbFrame {
    /// Makes the headers readable directly; a frame may lie in pieces.
    #[inline(always)]
    pub(crate) fn new(context: *mut __sk_buff) -> Self {
        Self::reaching(context, HEADERS)
    }

    /// Makes so many bytes readable, as far as the frame has them.
    #[inline(always)]
    pub(crate) fn reaching(context: *mut __sk_buff, bytes: u32) -> Self {
        let frame = Self { context };
        let (data, end) = frame.data();
        let (have, length) = ((end - data) as u32, frame.length());
        if have < bytes && have < length {
            // SAFETY: a helper on a valid context. Its failure leaves the frame as it was, and
            // reading past the first piece then fails by the bound.
            unsafe { bpf_skb_pull_data(context, if length < bytes { length } else { bytes }) };
        }
        frame
    }

    #[inline(always)]
    pub(crate) fn data(&self) -> (usize, usize) {
        // SAFETY: the kernel passes a valid context.
        unsafe { ((*self.context).data as usize, (*self.context).data_end as usize) }
    }

    /// The frame's ethertype, as the kernel noted it.
    #[inline(always)]
    pub(crate) fn protocol_be(&self) -> u16 {
        // SAFETY: as in `data`.
        unsafe { (*self.context).protocol as u16 }
    }

    /// Whether the kernel takes the frame for another machine's.
    #[inline(always)]
    pub(crate) fn is_another_host_s(&self) -> bool {
        // SAFETY: as in `data`.
        unsafe { (*self.context).pkt_type == PACKET_OTHERHOST }
    }

    /// Whether the data begin with the link header, by comparing them with it.
    #[inline(always)]
    pub(crate) fn has_link_header(&self) -> bool {
        let mut link = Mac([0; 3]);
        // SAFETY: the helper writes as many bytes as it is told to the stack.
        let result = unsafe {
            bpf_skb_load_bytes_relative(
                self.context.cast(),
                0,
                (&raw mut link).cast(),
                size_of::<Mac>() as u32,
                BPF_HDR_START_MAC,
            )
        };
        result == 0 && self.load::<Mac>(0).is_some_and(|first| first.same(link))
    }
}

impl Frame for SkbFrame {
    #[inline(always)]
    fn load<T: Copy>(&self, offset: usize) -> Option<T> {
        let (data, end) = self.data();
        load(data, end, offset)
    }

    #[inline(always)]
    fn store<T: Copy>(&mut self, offset: usize, value: T) -> Option<()> {
        // SAFETY: the helper copies `T` from the stack and checks the offset.
        let result = unsafe {
            bpf_skb_store_bytes(
                self.context,
                offset as u32,
                core::ptr::from_ref(&value).cast(),
                size_of::<T>() as u32,
                0,
            )
        };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn correct_checksum(
        &mut self,
        offset: usize,
        pseudo: Difference,
        body: Difference,
        udp: bool,
    ) -> Option<()> {
        let mangled = if udp { BPF_F_MARK_MANGLED_0 as u64 } else { 0 };
        // With a size of zero in the flags and nothing to replace, the helper adds a difference.
        // SAFETY: helpers on a valid context; they check the offset.
        let result = unsafe {
            bpf_l4_csum_replace(
                self.context,
                offset as u32,
                0,
                pseudo.folded() as u64,
                BPF_F_PSEUDO_HDR as u64 | mangled,
            ) | bpf_l4_csum_replace(self.context, offset as u32, 0, body.folded() as u64, mangled)
        };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: as in `data`.
        unsafe { (*self.context).len }
    }

    #[inline(always)]
    fn interface_index(&self) -> u32 {
        // SAFETY: as in `data`.
        unsafe { (*self.context).ifindex }
    }

    #[inline(always)]
    fn grow(&mut self, bytes: usize) -> Option<()> {
        // SAFETY: as in XDP's.
        let result = unsafe { bpf_skb_change_head(self.context, bytes as u32, 0) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn end_at(&mut self, length: usize) -> Option<()> {
        // SAFETY: as in XDP's.
        let result = unsafe { bpf_skb_change_tail(self.context, length as u32, 0) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn is_joined(&self) -> bool {
        // SAFETY: as in `data`.
        unsafe { (*self.context).gso_size != 0 }
    }

    #[inline(always)]
    fn has_tag_aside(&self) -> bool {
        // SAFETY: as in `data`.
        unsafe { (*self.context).vlan_present != 0 }
    }

    #[inline(always)]
    fn readdressed(&mut self) {
        // SAFETY: a helper on a valid context. It refuses what is no unicast frame, which stays as
        // it is.
        unsafe { bpf_skb_change_type(self.context, PACKET_HOST) };
    }
}
