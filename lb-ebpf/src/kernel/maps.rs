//! Every map of the programs. Their layout is lb-common's; the agent creates, pins and fills them.

#![expect(unsafe_code, reason = "references into maps")]

use core::arch::asm;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{
    Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf,
};
use aya_ebpf::macros::btf_map;
use lb_common::Address;
use lb_common::affinity::Affinity;
use lb_common::answers::Answers;
use lb_common::backend::{Backend, BackendCounters};
use lb_common::bucket::Bucket;
use lb_common::connection::{self, CLOSED, Connection};
use lb_common::counter::COUNTERS as COUNTER_COUNT;
use lb_common::deep::DeepPacket;
use lb_common::filter::AddressFilter;
use lb_common::flow::{Endpoint, Flow, FlowKey};
use lb_common::fragment::{Fragment, FragmentKey};
use lb_common::host::OriginKey;
use lb_common::interface::{Interface, SLOTS};
use lb_common::layout::size;
use lb_common::nat::NatEntry;
use lb_common::passive::{self, BackendFailures};
use lb_common::protection::{PrefixKey, Protection, SourceKey};
use lb_common::quic::ServerId;
use lb_common::service::{Service, ServiceKey, ServiceVersions};
use lb_common::settings::{PeerKey, Runtime, Settings};
use lb_common::syn_flood::SynFlood;
use lb_common::vip::Vip;

/// Of which a few elements are in use of many that there might be. They are added and removed, and
/// never replaced ([`ServiceVersions`] says why).
const FEW: usize = BPF_F_NO_PREALLOC as usize;

/// The agent writes their values where they lie, whole words at a time.
const IN_PLACE: usize = BPF_F_MMAPABLE as usize;

/// Lets the tables in `tables` have different sizes (kernel 5.10).
const ANY_SIZE: usize = 1 << 12;

/// A [`Bucket`].
type BucketWords = [u64; 2];

const _: () = assert!(size_of::<Bucket>() == size_of::<BucketWords>());
const _: () = assert!(align_of::<Bucket>() <= align_of::<BucketWords>());

#[btf_map(name = "settings")]
pub(crate) static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map(name = "address_filter")]
pub(crate) static ADDRESS_FILTER: Array<AddressFilter, 1> = Array::new();
#[btf_map(name = "vips")]
static VIPS: HashMap<Address, u32, { size::VIPS }, FEW> = HashMap::new();
#[btf_map(name = "leases")]
static LEASES: Array<Vip, { size::VIPS }, IN_PLACE> = Array::new();
#[btf_map(name = "interfaces")]
pub(crate) static INTERFACES: Array<Interface, { SLOTS as usize }> = Array::new();
#[btf_map(name = "peers")]
pub(crate) static PEERS: HashMap<PeerKey, u32, { size::PEERS }, FEW> = HashMap::new();
#[btf_map(name = "services")]
static SERVICES: HashMap<ServiceKey, u32, { size::SERVICES }, FEW> = HashMap::new();
#[btf_map(name = "svc_versions")]
static SERVICE_VERSIONS: Array<ServiceVersions, { size::SERVICES }, IN_PLACE> = Array::new();
/// Of words, not of buckets: before 6.2 (kernel commit db559117828d) a table fits only if it says as much
/// of its values as this does, and those that the agent makes say nothing. Of a struct the kernel
/// notes that it holds no timer, of an array nothing.
#[btf_map(name = "tables")]
static TABLES: ArrayOfMaps<Array<BucketWords, 1, ANY_SIZE>, { size::TABLES }> = ArrayOfMaps::new();
#[btf_map(name = "backends")]
pub(crate) static BACKENDS: Array<Backend, { size::BACKENDS }> = Array::new();
#[btf_map(name = "bkd_counters")]
pub(crate) static BACKEND_COUNTERS: PerCpuArray<BackendCounters, { size::BACKENDS }> =
    PerCpuArray::new();
#[btf_map(name = "counters")]
pub(crate) static COUNTERS: PerCpuArray<u64, COUNTER_COUNT> = PerCpuArray::new();
#[btf_map(name = "nat_flows")]
pub(crate) static NAT_FLOWS: HashMap<FlowKey, NatEntry, { size::NAT_FLOWS }> = HashMap::new();
#[btf_map(name = "udp_replies")]
pub(crate) static UDP_REPLIES: LruHashMap<FlowKey, Endpoint, { size::UDP_REPLIES }> =
    LruHashMap::new();
#[btf_map(name = "host_origins")]
pub(crate) static HOST_ORIGINS: LruHashMap<OriginKey, Endpoint, { size::HOST_ORIGINS }> =
    LruHashMap::new();
#[btf_map(name = "fragments")]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, Fragment, { size::FRAGMENTS }> =
    LruHashMap::new();
#[btf_map(name = "deep")]
static DEEP: PerCpuArray<DeepPacket, 1> = PerCpuArray::new();
#[btf_map(name = "answers")]
static ANSWERS: PerCpuArray<Answers, 1> = PerCpuArray::new();
#[btf_map(name = "runtime")]
pub(crate) static RUNTIME: Array<Runtime, 1> = Array::new();
#[btf_map(name = "xdp_stages")]
pub(crate) static XDP_STAGES: Stages = ProgramArray::new();
#[btf_map(name = "tc_stages")]
pub(crate) static TC_STAGES: Stages = ProgramArray::new();

#[btf_map(name = "protections")]
pub(crate) static PROTECTIONS: Array<Protection, { size::PROTECTIONS }> = Array::new();
/// A trie for each list, so that another one takes its place at once, and one that nobody names any
/// more goes as a whole.
#[btf_map(name = "lists")]
static LISTS: ArrayOfMaps<LpmTrie<Address, u32, 1>, { size::LISTS }> = ArrayOfMaps::new();
#[btf_map(name = "rates")]
static RATES: LruHashMap<SourceKey, u64, { size::RATES }> = LruHashMap::new();
#[btf_map(name = "connections")]
static CONNECTIONS: HashMap<FlowKey, Connection, { size::CONNECTIONS }> = HashMap::new();
#[btf_map(name = "open")]
static OPEN: Array<u64, { connection::OPEN as usize }, IN_PLACE> = Array::new();

#[btf_map(name = "syn_flood")]
static SYN_FLOOD: Array<SynFlood, 1> = Array::new();
#[btf_map(name = "syn_left")]
static SYN_LEFT: Array<u64, { size::BACKENDS }> = Array::new();

#[btf_map(name = "affinities")]
static AFFINITIES: LruHashMap<FlowKey, Affinity, { size::AFFINITIES }> = LruHashMap::new();
#[btf_map(name = "server_ids")]
static SERVER_IDS: HashMap<ServerId, u32, { size::SERVER_IDS }, FEW> = HashMap::new();

#[btf_map(name = "flows")]
static FLOWS: LruHashMap<FlowKey, Flow, { size::FLOWS }> = LruHashMap::new();
#[btf_map(name = "failures")]
static FAILURES: PerCpuArray<BackendFailures, { size::BACKENDS }> = PerCpuArray::new();
#[btf_map(name = "syns")]
static SYNS: Array<u64, { size::SYNS }> = Array::new();
/// Indices of backends whose failures the agent is to look at.
#[btf_map(name = "bell")]
static BELL: RingBuf<u32, { size::BELL }> = RingBuf::new();

const _: () = assert!(size_of::<Key<Address>>() == size_of::<PrefixKey>());

pub(crate) type Stages = ProgramArray<{ size::STAGES }>;

/// Goes on with another program, and does not come back. Returns where that one is not there.
#[inline(always)]
pub(crate) fn go_on<C: EbpfContext>(stages: &Stages, context: &C, stage: u32) {
    // SAFETY: what this program leaves behind has no destructor.
    unsafe { stages.tail_call(context, stage) }
}

/// Leaves a packet to the program that this one goes on with.
#[inline(always)]
pub(crate) fn leave_deep(packet: &DeepPacket) {
    if let Some(slot) = DEEP.get_ptr_mut(0) {
        // SAFETY: the kernel gave this CPU's slot, which nothing else writes meanwhile.
        unsafe { *slot = *packet }
    }
}

/// The packet that the program before left.
#[inline(always)]
pub(crate) fn deep() -> Option<&'static DeepPacket> {
    DEEP.get(0)
}

/// Leaves to the program that answers what to say: the MTU, or 0 for a packet without a hop left.
#[inline(always)]
pub(crate) fn leave_mtu(mtu: u32) {
    if let Some(slot) = DEEP.get_ptr_mut(0) {
        // SAFETY: as in `leave_deep`.
        unsafe { (*slot).id = mtu }
    }
}

/// Whether this CPU may send one more ICMP error in this second.
#[inline(always)]
pub(crate) fn may_answer(second: u64) -> bool {
    // SAFETY: as in `count`.
    ANSWERS.get_ptr_mut(0).is_some_and(|answers| unsafe { (*answers).take(second) })
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub(crate) fn count(index: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: the kernel gave this CPU's slot; programs of one CPU don't preempt one another
        // in the same hook, and a lost increment between hooks is only a lost count.
        unsafe { *counter += 1 }
    }
}

/// Adds a packet to a backend's counters of this CPU.
#[inline(always)]
pub(crate) fn count_backend(index: u32, bytes: u32, new: bool) {
    if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(index) {
        // SAFETY: as in `count`.
        let counters = unsafe { &mut *counters };
        counters.packets += 1;
        counters.bytes += bytes as u64;
        counters.connections += new as u64;
    }
}

#[inline(always)]
pub(crate) fn vip(address: &Address) -> Option<&'static Vip> {
    // SAFETY: the agent removes an element, and waits for the programs before its place is used again.
    let place = *unsafe { VIPS.get(address) }?;
    LEASES.get(place)
}

#[inline(always)]
pub(crate) fn is_peer(key: &PeerKey) -> bool {
    PEERS.get_ptr(key).is_some()
}

#[inline(always)]
pub(crate) fn service(key: &ServiceKey) -> Option<&'static Service> {
    // SAFETY: as in `vip`.
    let place = *unsafe { SERVICES.get(key) }?;
    let versions = SERVICE_VERSIONS.get(place)?;
    // SAFETY: a reference; volatile, since the agent writes it meanwhile. What it leads to the agent does
    // not write before every program has ended that runs now.
    let current = unsafe { core::ptr::read_volatile(&raw const versions.current) };
    Some(&versions.versions[(current & 1) as usize])
}

#[inline(always)]
pub(crate) fn bucket(table: u32, slot: u32) -> Option<&'static Bucket> {
    let words: &BucketWords = TABLES.get_value(table, &slot)?;
    // SAFETY: as large and as aligned, and any bytes are a bucket.
    Some(unsafe { &*core::ptr::from_ref(words).cast() })
}

#[inline(always)]
pub(crate) fn nat_entry(key: &FlowKey) -> Option<&'static NatEntry> {
    // SAFETY: the element may be reused for another flow while it is read, if the agent removes it
    // after hours of silence in this very moment; the packet is then one that came too late.
    unsafe { NAT_FLOWS.get(key) }
}

#[inline(always)]
pub(crate) fn nat_insert(key: &FlowKey, entry: &NatEntry) -> Result<(), i32> {
    NAT_FLOWS.insert(key, entry, BPF_NOEXIST as u64)
}

/// Notes a packet on an entry. Races between CPUs can lose a flag for one packet; the next one
/// brings the time, and a connection that ends sends more than one.
#[inline(always)]
pub(crate) fn nat_touch(key: &FlowKey, seen: u8, last_seen_ns: u64) {
    // Looked up once more, for writing: what lies behind a reference the compiler takes for constant,
    // and leaves the write out. It happens once for each flag and second.
    if let Some(entry) = NAT_FLOWS.get_ptr_mut(key) {
        // SAFETY: the kernel gave the element, which the program may write.
        unsafe {
            (*entry).seen = seen;
            (*entry).last_seen_ns = last_seen_ns;
        }
    }
}

#[inline(always)]
pub(crate) fn udp_reply(key: &FlowKey) -> Option<&'static Endpoint> {
    // SAFETY: the element may be reused while it is read; one datagram is then turned back wrongly
    // only if the map turned over in this moment, which its size rules out in practice.
    unsafe { UDP_REPLIES.get(key) }
}

#[inline(always)]
pub(crate) fn affinity(flow: &FlowKey) -> Option<&'static Affinity> {
    // SAFETY: as in `udp_reply`: a datagram may go to another flow's backend once.
    unsafe { AFFINITIES.get(flow) }
}

#[inline(always)]
pub(crate) fn affinity_note(flow: &FlowKey, affinity: &Affinity) {
    // An LRU map makes room; under contention this one is not noted, and goes by its hash.
    let _ = AFFINITIES.insert(flow, affinity, 0);
}

/// Looked up once more, for writing: as in `nat_touch`.
#[inline(always)]
pub(crate) fn affinity_touch(flow: &FlowKey, now_ns: u64) {
    if let Some(affinity) = AFFINITIES.get_ptr_mut(flow) {
        // SAFETY: one aligned word of the map's element.
        unsafe { (*affinity).last_seen_ns = now_ns }
    }
}

#[inline(always)]
pub(crate) fn server(id: &ServerId) -> Option<u32> {
    // SAFETY: the agent removes an element once the service's version is not in use any more; it may then be
    // another one's, and the datagram goes to that one's place.
    unsafe { SERVER_IDS.get(id) }.copied()
}

/// Whether it is there.
#[inline(always)]
pub(crate) fn flow_touch(key: &FlowKey, sequence_be: u32, acknowledged_be: u32, now: u32) -> bool {
    let Some(flow) = FLOWS.get_ptr_mut(key) else { return false };
    // SAFETY: aligned words of the map's element. It may be another flow's by now, which is then asked with
    // numbers that its client answers all the same.
    unsafe {
        (*flow).sequence_be = sequence_be;
        (*flow).acknowledged_be = acknowledged_be;
        (*flow).seen = now;
    }
    true
}

#[inline(always)]
pub(crate) fn flow_add(key: &FlowKey, flow: &Flow) {
    // Another CPU may have been faster. An LRU map makes room; under contention this one is not noted now.
    let _ = FLOWS.insert(key, flow, BPF_NOEXIST as u64);
}

#[inline(always)]
pub(crate) fn flow_forget(key: &FlowKey) {
    // It may never have been noted.
    let _ = FLOWS.remove(key);
}

#[inline(always)]
pub(crate) fn fragment(key: &FragmentKey) -> Option<&'static Fragment> {
    // SAFETY: as in `udp_reply`.
    unsafe { FRAGMENTS.get(key) }
}

#[inline(always)]
pub(crate) fn host_origin(key: &OriginKey) -> Option<&'static Endpoint> {
    // SAFETY: as in `udp_reply`.
    unsafe { HOST_ORIGINS.get(key) }
}

/// What the list's longest prefix that has the address says; 0 where none has it.
#[inline(always)]
pub(crate) fn listed(list: u32, address: &Address) -> u32 {
    let key = Key::new(u128::BITS, *address);
    match LISTS.get_value_ptr_mut(list, &key) {
        // SAFETY: the trie and its elements outlive the program's run (RCU); nobody changes a value.
        Some(value) => unsafe { *value },
        None => 0,
    }
}

/// Gives `decide` what is stored for a source, or 0, and stores its answer. Of two CPUs that do this for
/// one source in the same moment, one's answer is lost: the source then has one connection more.
#[inline(always)]
pub(crate) fn spend(source: &SourceKey, decide: impl Fn(u64) -> Option<u64>) -> bool {
    let stored = RATES.get_ptr_mut(source);
    // SAFETY: the kernel gave the element, which the program may read and write. It may be another
    // source's by now, if the map turned over in this moment: that one's rate is then wrong once.
    let answer = decide(stored.map_or(0, |value| unsafe { *value }));
    let Some(answer) = answer else { return false };
    match stored {
        // SAFETY: as above.
        Some(value) => unsafe { *value = answer },
        // An LRU map makes room; under contention the source is not counted this time.
        None => drop(RATES.insert(source, &answer, 0)),
    }
    true
}

#[inline(always)]
pub(crate) fn connection(flow: &FlowKey) -> Option<&'static Connection> {
    // SAFETY: as in `nat_entry`: an element that is removed in this very moment may be another one's.
    unsafe { CONNECTIONS.get(flow) }
}

#[inline(always)]
pub(crate) fn connection_begin(flow: &FlowKey, connection: &Connection) {
    if CONNECTIONS.insert(flow, connection, BPF_NOEXIST as u64).is_ok() {
        count_open(connection.counted, 1);
    }
}

/// Whoever removes the element takes it off the counts; of two CPUs, or a CPU and the agent, one.
#[inline(always)]
pub(crate) fn connection_close(flow: &FlowKey, connection: &Connection, now_ns: u64) {
    let counted = connection.counted;
    if CONNECTIONS.remove(flow).is_ok() {
        count_open(counted, u64::MAX);
        let closed = Connection { counted, last_seen_ns: now_ns, stage: CLOSED, padding: 0 };
        // Without it a late acknowledgement is counted, and goes once it was silent.
        let _ = CONNECTIONS.insert(flow, &closed, BPF_NOEXIST as u64);
    }
}

#[inline(always)]
pub(crate) fn connection_forget(flow: &FlowKey) {
    // Another CPU may have been faster.
    let _ = CONNECTIONS.remove(flow);
}

/// Looked up once more, for writing: as in `nat_touch`.
#[inline(always)]
pub(crate) fn connection_touch(flow: &FlowKey, stage: u32, now_ns: u64) {
    if let Some(connection) = CONNECTIONS.get_ptr_mut(flow) {
        // SAFETY: the kernel gave the element, which the program may write.
        unsafe {
            (*connection).stage = stage;
            (*connection).last_seen_ns = now_ns;
        }
    }
}

#[inline(always)]
pub(crate) fn open_connections(counted: [u32; 2]) -> u64 {
    let of = |index: u32| OPEN.get(index).copied().unwrap_or(0);
    let (one, other) = (of(counted[0]), of(counted[1]));
    if one < other { one } else { other }
}

/// Adds to the two words of a source; `u64::MAX` takes one off.
#[inline(always)]
fn count_open(counted: [u32; 2], change: u64) {
    for index in counted {
        if let Some(word) = OPEN.get_ptr_mut(index) {
            // SAFETY: an aligned word of the map's element.
            unsafe { add(word, change) }
        }
    }
}

/// Adds to a word that other CPUs and the agent add to in the same moment. By the instruction itself
/// (`BPF_ATOMIC`): for this target Rust has no atomic additions.
///
/// # Safety
/// `word` can be written, and is aligned.
#[inline(always)]
unsafe fn add(word: *mut u64, change: u64) {
    // SAFETY: as the caller says.
    unsafe { asm!("lock *(u64 *)({} + 0) += {}", in(reg) word, in(reg) change) }
}

/// Counts a SYN; whether it is one of a flood. CPUs that count in the same moment lose SYNs, of which a
/// flood has more than enough.
#[inline(always)]
pub(crate) fn syn_flood(now_ns: u64, interval_ns: u64) -> bool {
    let Some(state) = SYN_FLOOD.get_ptr_mut(0) else { return false };
    // SAFETY: the kernel gave the element, of two aligned words that each make sense by themselves.
    let (next, flood) = unsafe { *state }.note(now_ns, interval_ns);
    if let Some(next) = next {
        // SAFETY: as above.
        unsafe { *state = next }
    }
    flood
}

/// Whether so much time went by since this was last true for the backend.
#[inline(always)]
pub(crate) fn leave_syn(index: u32, now_ns: u64, every_ns: u64) -> bool {
    let Some(left_ns) = SYN_LEFT.get_ptr_mut(index) else { return false };
    // SAFETY: one aligned word of the map's element.
    unsafe {
        let due = now_ns.wrapping_sub(*left_ns) >= every_ns;
        if due {
            *left_ns = now_ns;
        }
        due
    }
}

#[inline(always)]
pub(crate) fn note_cookie(now_ns: u64) {
    if let Some(runtime) = RUNTIME.get_ptr_mut(0) {
        // SAFETY: one aligned store into the map's element.
        unsafe { (*runtime).cookie_seen_ns = now_ns }
    }
}

/// Counts a failure of a backend, of which `count` is the counter, and tells the agent, but not of each of many.
#[inline(always)]
pub(crate) fn note_failure(
    index: u32,
    now_ns: u64,
    count: impl FnOnce(&mut BackendFailures) -> &mut u64,
) {
    let Some(failures) = FAILURES.get_ptr_mut(index) else { return };
    // SAFETY: as in `count`.
    let failures = unsafe { &mut *failures };
    *count(failures) += 1;
    if !failures.is_due(now_ns) {
        return;
    }
    match BELL.output(index, 0) {
        Ok(()) => failures.told_ns = now_ns,
        // Nobody reads it, or too slowly: the next failure rings again.
        Err(_) => failures.untold += 1,
    }
}

/// Notes a SYN; whether it came again. CPUs that note two in one place in the same moment lose one.
#[inline(always)]
pub(crate) fn syn_again(hash: u64, now_ns: u64) -> bool {
    let Some(place) = SYNS.get_ptr_mut(passive::syn_place(hash)) else { return false };
    // SAFETY: one aligned word of the map's element.
    let (next, again) = passive::note_syn(unsafe { *place }, hash, now_ns);
    if let Some(next) = next {
        // SAFETY: as above.
        unsafe { *place = next }
    }
    again
}
