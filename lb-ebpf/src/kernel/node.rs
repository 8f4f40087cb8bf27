//! The node as the programs see it: maps, sockets and clock behind the pure half's traits.

#![expect(unsafe_code, reason = "the helper for the clock")]

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use lb_common::Address;
use lb_common::affinity::Affinity;
use lb_common::backend::Backend;
use lb_common::bucket::Bucket;
use lb_common::connection::Connection;
use lb_common::counter::Verdict;
use lb_common::flow::{Endpoint, Flow, FlowKey};
use lb_common::fragment::{Fragment, FragmentKey};
use lb_common::interface::{Interface, SLOTS};
use lb_common::nat::{NatEntry, SEEN_SYN};
use lb_common::protection::{Protection, SourceKey};
use lb_common::quic::ServerId;
use lb_common::service::{Service, ServiceKey};
use lb_common::settings::{COOKIE_WATCH_NS, PeerKey, Settings};
use lb_common::syn_flood::LEAVE_EVERY_NS;
use lb_common::vip::Vip;
use lb_ebpf::environment::{Assign, InsertError, Node, Owner};
use lb_ebpf::parse::Packet;
use lb_ebpf::wire::Mac;

use super::memory::{SkbFrame, XdpFrame};
use super::{maps, sockets};

/// A second: the precision of an entry's last use. Writing it for each packet would take its cache
/// line away from other CPUs.
const TOUCH_NS: u64 = 1_000_000_000;

const EEXIST: i32 = -17;

/// The node, seen from a program's context.
pub(crate) struct Kernel<'a, C> {
    context: &'a C,
}

impl<'a, C: Context> Kernel<'a, C> {
    #[inline(always)]
    pub(crate) const fn new(context: &'a C) -> Self {
        Self { context }
    }
}

impl Kernel<'_, *mut aya_ebpf::bindings::xdp_md> {
    #[inline(always)]
    pub(super) const fn context(&self) -> *mut aya_ebpf::bindings::xdp_md {
        *self.context
    }
}

/// What look-ups need of a program's context.
pub(crate) trait Context {
    fn pointer(&self) -> *mut c_void;
    /// Where packet memory begins and ends.
    fn memory(&self) -> (usize, usize);
}

impl Context for *mut aya_ebpf::bindings::xdp_md {
    #[inline(always)]
    fn pointer(&self) -> *mut c_void {
        self.cast()
    }

    #[inline(always)]
    fn memory(&self) -> (usize, usize) {
        XdpFrame { context: *self }.data()
    }
}

impl Context for *mut aya_ebpf::bindings::__sk_buff {
    #[inline(always)]
    fn pointer(&self) -> *mut c_void {
        self.cast()
    }

    #[inline(always)]
    fn memory(&self) -> (usize, usize) {
        SkbFrame { context: *self }.data()
    }
}

impl Context for *mut aya_ebpf::bindings::bpf_sock_addr {
    #[inline(always)]
    fn pointer(&self) -> *mut c_void {
        self.cast()
    }

    #[inline(always)]
    fn memory(&self) -> (usize, usize) {
        (0, 0)
    }
}

impl<C: Context> Node for Kernel<'_, C> {
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        maps::SETTINGS.get(0)
    }

    #[inline(always)]
    fn may_be_ours(&self, address: &Address) -> bool {
        maps::ADDRESS_FILTER.get(0).is_some_and(|filter| filter.may_contain(address))
    }

    #[inline(always)]
    fn interface(&self, index: u32) -> Option<&Interface> {
        maps::INTERFACES.get(index % SLOTS).filter(|interface| interface.ifindex == index)
    }

    #[inline(always)]
    fn vip(&self, address: &Address) -> Option<&Vip> {
        maps::vip(address)
    }

    #[inline(always)]
    fn is_peer(&self, mac: Mac) -> bool {
        maps::is_peer(&PeerKey { mac: mac.bytes(), padding: [0; 2] })
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        maps::service(key)
    }

    #[inline(always)]
    fn bucket(&self, table: u32, slot: u32) -> Option<&Bucket> {
        maps::bucket(table, slot)
    }

    #[inline(always)]
    fn backend(&self, index: u32) -> Option<&Backend> {
        maps::BACKENDS.get(index)
    }

    #[inline(always)]
    fn protection(&self, index: u32) -> Option<&Protection> {
        maps::PROTECTIONS.get(index)
    }

    #[inline(always)]
    fn listed(&self, list: u32, source: &Address) -> u32 {
        maps::listed(list, source)
    }

    #[inline(always)]
    fn spend(&self, source: &SourceKey, decide: impl Fn(u64) -> Option<u64>) -> bool {
        maps::spend(source, decide)
    }

    #[inline(always)]
    fn connection(&self, flow: &FlowKey) -> Option<&Connection> {
        maps::connection(flow)
    }

    #[inline(always)]
    fn connection_begin(&self, flow: &FlowKey, connection: &Connection) {
        maps::connection_begin(flow, connection);
    }

    #[inline(always)]
    fn connection_touch(&self, flow: &FlowKey, connection: &Connection, stage: u32) {
        let now_ns = self.now_ns();
        // A SYN that is sent again does not take an established one back.
        let stage = if stage > connection.stage { stage } else { connection.stage };
        if stage != connection.stage || now_ns.wrapping_sub(connection.last_seen_ns) >= TOUCH_NS {
            maps::connection_touch(flow, stage, now_ns);
        }
    }

    #[inline(always)]
    fn connection_close(&self, flow: &FlowKey, connection: &Connection) {
        maps::connection_close(flow, connection, self.now_ns());
    }

    #[inline(always)]
    fn connection_forget(&self, flow: &FlowKey) {
        maps::connection_forget(flow);
    }

    #[inline(always)]
    fn open_connections(&self, counted: [u32; 2]) -> u64 {
        maps::open_connections(counted)
    }

    #[inline(always)]
    fn syn_flood(&self, interval_ns: u32) -> bool {
        maps::syn_flood(self.now_ns(), interval_ns as u64)
    }

    #[inline(always)]
    fn leave_syn(&self, index: u32) -> bool {
        maps::leave_syn(index, self.now_ns(), LEAVE_EVERY_NS)
    }

    #[inline(always)]
    fn note_refused(&self, index: u32) {
        maps::note_failure(index, self.now_ns(), |failures| &mut failures.refused);
    }

    #[inline(always)]
    fn note_unanswered(&self, index: u32) {
        maps::note_failure(index, self.now_ns(), |failures| &mut failures.unanswered);
    }

    #[inline(always)]
    fn syn_again(&self, hash: u64) -> bool {
        maps::syn_again(hash, self.now_ns())
    }

    #[inline(always)]
    fn tcp_owner(&self, packet: &Packet) -> Owner {
        sockets::tcp_owner(self.context.pointer(), packet)
    }

    #[inline(always)]
    fn tcp_listener(&self, packet: &Packet, local: &Backend) -> bool {
        sockets::tcp_listener(self.context.pointer(), packet, local)
    }

    #[inline(always)]
    fn tcp_cookie(&self, packet: &Packet, local: &Backend) -> bool {
        sockets::tcp_cookie(self.context.pointer(), || self.context.memory(), packet, local)
    }

    #[inline(always)]
    fn udp_socket(&self, packet: &Packet, local: &Backend) -> bool {
        sockets::udp_socket(self.context.pointer(), packet, local)
    }

    #[inline(always)]
    fn nat_entry(&self, key: &FlowKey) -> Option<&NatEntry> {
        maps::nat_entry(key)
    }

    #[inline(always)]
    fn nat_insert(&self, key: &FlowKey, entry: &NatEntry) -> Result<(), InsertError> {
        maps::nat_insert(key, entry)
            .map_err(|error| if error == EEXIST { InsertError::Exists } else { InsertError::Full })
    }

    #[inline(always)]
    fn nat_remove(&self, key: &FlowKey) {
        // Gone already is as good.
        let _ = maps::NAT_FLOWS.remove(key);
    }

    #[inline(always)]
    fn nat_touch(&self, key: &FlowKey, entry: &NatEntry, seen: u8, now_ns: u64, restart: bool) {
        let seen = if restart { SEEN_SYN } else { entry.seen | seen };
        if seen != entry.seen || now_ns.wrapping_sub(entry.last_seen_ns) > TOUCH_NS {
            maps::nat_touch(key, seen, now_ns);
        }
    }

    #[inline(always)]
    fn affinity(&self, flow: &FlowKey) -> Option<&Affinity> {
        maps::affinity(flow)
    }

    #[inline(always)]
    fn affinity_note(&self, flow: &FlowKey, affinity: &Affinity) {
        maps::affinity_note(flow, affinity);
    }

    #[inline(always)]
    fn affinity_touch(&self, flow: &FlowKey, affinity: &Affinity) {
        let now_ns = self.now_ns();
        if now_ns.wrapping_sub(affinity.last_seen_ns) >= TOUCH_NS {
            maps::affinity_touch(flow, now_ns);
        }
    }

    #[inline(always)]
    fn server(&self, id: &ServerId) -> Option<u32> {
        maps::server(id)
    }

    #[inline(always)]
    fn flow_touch(&self, flow: &FlowKey, sequence_be: u32, acknowledged_be: u32) -> bool {
        maps::flow_touch(flow, sequence_be, acknowledged_be, Flow::time(self.now_ns()))
    }

    #[inline(always)]
    fn flow_add(&self, flow: &FlowKey, backend: u32, sequence_be: u32, acknowledged_be: u32) {
        let now = Flow::time(self.now_ns());
        let noted = Flow { backend, sequence_be, acknowledged_be, seen: now, since: now };
        maps::flow_add(flow, &noted);
    }

    #[inline(always)]
    fn flow_forget(&self, flow: &FlowKey) {
        maps::flow_forget(flow);
    }

    #[inline(always)]
    fn udp_reply(&self, reply: &FlowKey) -> Option<&Endpoint> {
        maps::udp_reply(reply)
    }

    #[inline(always)]
    fn udp_remember(&self, reply: &FlowKey, service: &Endpoint) {
        // An LRU map makes room; under contention one datagram's reply is lost, as UDP allows.
        let _ = maps::UDP_REPLIES.insert(reply, service, 0);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<&Fragment> {
        maps::fragment(key)
    }

    #[inline(always)]
    fn fragment_remember(&self, key: &FragmentKey, first: &Fragment) {
        // As in `udp_remember`: the following ones are then passed to the stack, and counted.
        let _ = maps::FRAGMENTS.insert(key, first, 0);
    }

    #[inline(always)]
    fn fragment_forget(&self, key: &FragmentKey) {
        // Mostly none is there.
        let _ = maps::FRAGMENTS.remove(key);
    }

    #[inline(always)]
    fn may_answer(&self) -> bool {
        maps::may_answer(self.now_ns() / 1_000_000_000)
    }

    #[inline(always)]
    fn note_cookie(&self) {
        maps::note_cookie(self.now_ns());
    }

    #[inline(always)]
    fn cookies_about(&self) -> bool {
        maps::RUNTIME.get(0).is_some_and(|runtime| {
            runtime.cookie_seen_ns != 0
                && self.now_ns().wrapping_sub(runtime.cookie_seen_ns) < COOKIE_WATCH_NS
        })
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn count(&self, verdict: Verdict) {
        maps::count(verdict as u32);
    }

    #[inline(always)]
    fn count_backend(&self, index: u32, bytes: u32, new: bool) {
        maps::count_backend(index, bytes, new);
    }
}

impl Assign for Kernel<'_, *mut aya_ebpf::bindings::__sk_buff> {
    #[inline(always)]
    fn assign_listener(&self, packet: &Packet, local: &Backend) -> bool {
        sockets::assign(self.context.pointer(), packet, local)
    }
}
