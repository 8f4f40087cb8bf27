//! Loading the kernel object: maps created or taken over, programs verified.

use std::path::PathBuf;

use aya::programs::{CgroupSockAddr, Program, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use lb_common::Address;
use lb_common::affinity::Affinity;
use lb_common::answers::Answers;
use lb_common::backend::{Backend, BackendCounters};
use lb_common::connection::{self, Connection};
use lb_common::counter::COUNTERS;
use lb_common::deep::DeepPacket;
use lb_common::filter::AddressFilter;
use lb_common::flow::{Endpoint, Flow, FlowKey};
use lb_common::fragment::{Fragment, FragmentKey};
use lb_common::host::OriginKey;
use lb_common::interface::{Interface, SLOTS};
use lb_common::layout::{map, size};
use lb_common::nat::NatEntry;
use lb_common::passive::BackendFailures;
use lb_common::protection::{Protection, SourceKey};
use lb_common::quic::ServerId;
use lb_common::service::{ServiceKey, ServiceVersions};
use lb_common::settings::{PeerKey, Runtime, Settings};
use lb_common::syn_flood::SynFlood;
use lb_common::vip::Vip;

use super::error::DataPlaneError;
use super::pins::{Pins, Shape};

/// The object of crate lb-ebpf, as the build script made it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_EBPF_OBJECT"));

/// The kernel object as the agent loads it, for whoever looks at the programs without an agent:
/// packet fixtures, measurements.
pub fn object() -> &'static [u8] {
    OBJECT
}

/// Sizes that the configuration decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub services: u32,
    pub backends: u32,
    /// Flows, each of two entries.
    pub nat_flows: u32,
    /// Sources of new connections, where their rate is limited.
    pub sources: u32,
    /// Connections that are counted, where a service limits them.
    pub connections: u32,
    /// Clients' tuples, where datagrams stay with their backend.
    pub datagram_flows: u32,
    /// Connections that are noted, so that clients can be told.
    pub flows: u32,
}

impl Capacity {
    pub(super) const fn tables(&self) -> u32 {
        2 * self.services
    }

    /// The one in use and the one being prepared, for each service.
    pub(super) const fn protections(&self) -> u32 {
        2 * self.services
    }

    const fn nat_entries(&self) -> u32 {
        2 * self.nat_flows
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            services: size::SERVICES as u32,
            backends: size::BACKENDS as u32,
            nat_flows: size::NAT_FLOWS as u32 / 2,
            sources: size::RATES as u32,
            connections: size::CONNECTIONS as u32,
            datagram_flows: size::AFFINITIES as u32,
            flows: size::FLOWS as u32,
        }
    }
}

/// The object in the kernel, and what this call pinned of its maps.
pub(super) struct Loaded {
    pub(super) object: Ebpf,
    pub(super) pinned: Vec<PathBuf>,
}

/// Loads the object, with its maps pinned under `pins`, or taken over from there. No program runs and no
/// map changes by that. The folders must be there. What steers at tc is loaded where `by_tc` says so.
///
/// # Errors
///
/// Everything that a user can mend is told apart: rights, the BPF file system, another layout.
/// What this call pinned is removed again if it fails.
pub(super) fn load(
    pins: &Pins,
    capacity: &Capacity,
    by_tc: bool,
) -> Result<Loaded, DataPlaneError> {
    for (name, shape) in shapes(capacity) {
        pins.check(name, &shape)?;
    }
    let pinned: Vec<PathBuf> =
        map::ALL.into_iter().map(|name| pins.map(name)).filter(|path| !path.exists()).collect();
    match load_object(pins, capacity, by_tc) {
        Ok(object) => Ok(Loaded { object, pinned }),
        Err(error) => {
            unpin(&pinned);
            Err(error)
        }
    }
}

/// Removes pins of maps that nobody uses yet. Best effort: what led to it is what matters.
pub(super) fn unpin(pinned: &[PathBuf]) {
    for path in pinned {
        let _ = std::fs::remove_file(path);
    }
}

fn load_object(pins: &Pins, capacity: &Capacity, by_tc: bool) -> Result<Ebpf, DataPlaneError> {
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries(map::SERVICES, capacity.services)
        .map_max_entries(map::SERVICE_VERSIONS, capacity.services)
        .map_max_entries(map::TABLES, capacity.tables())
        .map_max_entries(map::BACKENDS, capacity.backends)
        .map_max_entries(map::BACKEND_COUNTERS, capacity.backends)
        .map_max_entries(map::SYN_LEFT, capacity.backends)
        .map_max_entries(map::FAILURES, capacity.backends)
        .map_max_entries(map::NAT_FLOWS, capacity.nat_entries())
        .map_max_entries(map::PROTECTIONS, capacity.protections())
        .map_max_entries(map::LISTS, capacity.protections())
        .map_max_entries(map::RATES, capacity.sources)
        .map_max_entries(map::CONNECTIONS, capacity.connections)
        .map_max_entries(map::AFFINITIES, capacity.datagram_flows)
        .map_max_entries(map::FLOWS, capacity.flows)
        .map_max_entries(map::SERVER_IDS, capacity.backends);
    for name in map::ALL {
        loader.map_pin_path(name, pins.map(name));
    }
    let mut object = loader.load(OBJECT).map_err(object_error)?;
    for (name, program) in object.programs_mut() {
        if by_tc || !STEERING_BY_TC.contains(&name) {
            load_program(name, program)?;
        }
    }
    Ok(object)
}

/// What steers at tc, which few interfaces need, and which is half of what the verifier has to do: loaded for
/// the first of them.
const STEERING_BY_TC: [&str; 5] =
    ["lb_tc_steer", "lb_tc_rare", "lb_tc_deep", "lb_tc_answer", "lb_tc_stay"];

/// Loads what steers at tc, unless that is done. It is to be [connected](super::connect_stages) then.
///
/// # Errors
/// Where the kernel refuses a program.
pub(super) fn load_steering_by_tc(object: &mut Ebpf) -> Result<(), DataPlaneError> {
    for name in STEERING_BY_TC {
        let missing = || DataPlaneError::Object { detail: format!("program {name} is missing") };
        let program = object.program_mut(name).ok_or_else(missing)?;
        if matches!(program.fd(), Err(ProgramError::NotLoaded)) {
            load_program(name, program)?;
        }
    }
    Ok(())
}

/// Loads one program into the kernel.
fn load_program(name: &str, program: &mut Program) -> Result<(), DataPlaneError> {
    let result = match program {
        Program::Xdp(program) => Xdp::load(program),
        Program::SchedClassifier(program) => SchedClassifier::load(program),
        Program::CgroupSockAddr(program) => CgroupSockAddr::load(program),
        other => {
            let detail = format!("unexpected type {:?}", other.prog_type());
            return Err(DataPlaneError::Load { program: name.to_owned(), detail });
        }
    };
    result.map_err(|error| match error {
        ProgramError::LoadError { io_error, .. }
            if io_error.raw_os_error() == Some(libc::EPERM) =>
        {
            DataPlaneError::NotPermitted
        }
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let last: Vec<&str> = log.lines().rev().take(3).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            DataPlaneError::Load {
                program: name.to_owned(),
                detail: format!("{io_error}; the verifier says: {}", last.join(" / ")),
            }
        }
        other => DataPlaneError::Load { program: name.to_owned(), detail: other.to_string() },
    })
}

fn object_error(error: EbpfError) -> DataPlaneError {
    let mut source: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            match io.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => return DataPlaneError::NotPermitted,
                Some(libc::ENOSYS) => return DataPlaneError::NoBpf,
                _ => {}
            }
        }
        source = error.source();
    }
    let mut detail = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        detail = format!("{detail}: {inner}");
        source = inner.source();
    }
    DataPlaneError::Object { detail }
}

/// The sizes of every map, as lb-common's types and the capacity say.
fn shapes(capacity: &Capacity) -> [(&'static str, Shape); 34] {
    const fn shape<K, V>(entries: usize) -> Shape {
        Shape {
            key_size: size_of::<K>() as u32,
            value_size: size_of::<V>() as u32,
            max_entries: entries as u32,
        }
    }
    let backends = capacity.backends as usize;
    [
        (map::SETTINGS, shape::<u32, Settings>(1)),
        (map::ADDRESS_FILTER, shape::<u32, AddressFilter>(1)),
        (map::VIPS, shape::<Address, u32>(size::VIPS)),
        (map::LEASES, shape::<u32, Vip>(size::VIPS)),
        (map::INTERFACES, shape::<u32, Interface>(SLOTS as usize)),
        (map::PEERS, shape::<PeerKey, u32>(size::PEERS)),
        (map::SERVICES, shape::<ServiceKey, u32>(capacity.services as usize)),
        (map::SERVICE_VERSIONS, shape::<u32, ServiceVersions>(capacity.services as usize)),
        (map::TABLES, shape::<u32, u32>(capacity.tables() as usize)),
        (map::BACKENDS, shape::<u32, Backend>(backends)),
        (map::BACKEND_COUNTERS, shape::<u32, BackendCounters>(backends)),
        (map::COUNTERS, shape::<u32, u64>(COUNTERS)),
        (map::NAT_FLOWS, shape::<FlowKey, NatEntry>(capacity.nat_entries() as usize)),
        (map::UDP_REPLIES, shape::<FlowKey, Endpoint>(size::UDP_REPLIES)),
        (map::HOST_ORIGINS, shape::<OriginKey, Endpoint>(size::HOST_ORIGINS)),
        (map::FRAGMENTS, shape::<FragmentKey, Fragment>(size::FRAGMENTS)),
        (map::DEEP, shape::<u32, DeepPacket>(1)),
        (map::ANSWERS, shape::<u32, Answers>(1)),
        (map::RUNTIME, shape::<u32, Runtime>(1)),
        (map::XDP_STAGES, shape::<u32, u32>(size::STAGES)),
        (map::TC_STAGES, shape::<u32, u32>(size::STAGES)),
        (map::PROTECTIONS, shape::<u32, Protection>(capacity.protections() as usize)),
        (map::LISTS, shape::<u32, u32>(capacity.protections() as usize)),
        (map::RATES, shape::<SourceKey, u64>(capacity.sources as usize)),
        (map::CONNECTIONS, shape::<FlowKey, Connection>(capacity.connections as usize)),
        (map::OPEN, shape::<u32, u64>(connection::OPEN as usize)),
        (map::SYN_FLOOD, shape::<u32, SynFlood>(1)),
        (map::SYN_LEFT, shape::<u32, u64>(backends)),
        (map::AFFINITIES, shape::<FlowKey, Affinity>(capacity.datagram_flows as usize)),
        (map::SERVER_IDS, shape::<ServerId, u32>(backends)),
        (map::FLOWS, shape::<FlowKey, Flow>(capacity.flows as usize)),
        (map::FAILURES, shape::<u32, BackendFailures>(backends)),
        (map::SYNS, shape::<u32, u64>(size::SYNS)),
        (map::BELL, shape::<(), ()>(size::BELL)),
    ]
}
