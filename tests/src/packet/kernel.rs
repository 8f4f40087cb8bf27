//! The kernel object without the agent: loaded into a network namespace of its own, its maps filled
//! from a scene, its programs run on single frames.

use std::os::fd::{AsFd as _, BorrowedFd};

use anyhow::{Context as _, Result, bail};
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::programs::Program;
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader, Pod};
use lb_agent::dataplane::{connect_stages, monotonic_ns};
use lb_common::Address;
use lb_common::affinity::Affinity;
use lb_common::answers::Answers;
use lb_common::backend::Backend;
use lb_common::bucket::Bucket;
use lb_common::connection::Connection;
use lb_common::counter::{COUNTERS, Verdict};
use lb_common::filter::AddressFilter;
use lb_common::flow::{Endpoint, Flow, FlowKey};
use lb_common::fragment::{Fragment, FragmentKey};
use lb_common::interface::Interface;
use lb_common::layout::map;
use lb_common::nat::NatEntry;
use lb_common::passive::BackendFailures;
use lb_common::protection::{Protection, SourceKey};
use lb_common::quic::ServerId;
use lb_common::service::{ServiceKey, ServiceVersions};
use lb_common::settings::{PeerKey, Settings, peer_bit};
use lb_common::vip::Vip;
use lb_common::virtual_mac::{lease_key, virtual_mac};
use nix::sched::{CloneFlags, unshare};

use super::guard::Guard;
use super::names;
use super::scene::{INTERFACE, PROTOCOLS, ROUTER_ID, Scene, Sockets};
use super::syscall::{self, Run};
use crate::lab::tool;

/// The machines whose frames and sockets need an address on the loopback.
const ADDRESSES: [&str; 3] = ["client", "master1", "vip"];
const PEERS: [&str; 2] = ["master2", "master3"];

/// Runs `work` on a thread in a network namespace of its own, with the lab's addresses on its
/// loopback. The kernel removes the namespace with the thread.
///
/// # Errors
/// Where this process may not make one, or `work` fails.
pub fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .context("cannot make a network namespace; this needs root (CAP_SYS_ADMIN)")?;
            tool::run("ip", &["link", "set", "lo", "up"])?;
            for name in ADDRESSES {
                for family in [4u8, 6] {
                    let address = names::address(name, family)?.to_string();
                    tool::run("ip", &["address", "add", &address, "dev", "lo"])?;
                }
            }
            work()
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Has the programs answer as if they had not of late.
///
/// # Errors
/// Where the object has no such map.
pub fn forget_answers(object: &mut Ebpf) -> Result<()> {
    let cpus = nr_cpus().map_err(|(_, error)| error)?;
    let map = object.map_mut(map::ANSWERS).context("no map of answers")?;
    let mut answers = PerCpuArray::<&mut MapData, Answers>::try_from(map)?;
    Ok(answers.set(0, PerCpuValues::try_from(vec![Answers::default(); cpus])?, 0)?)
}

/// Loads the object, with every program for XDP and tc, into the calling thread's namespace. Nothing is
/// pinned.
///
/// # Errors
/// Where the kernel refuses; the message holds the verifier's last words.
pub fn load(loader: &mut EbpfLoader<'_>) -> Result<Ebpf> {
    let mut object = loader
        .load(lb_agent::dataplane::object())
        .context("cannot load the kernel object; this needs root (CAP_BPF, CAP_NET_ADMIN)")?;
    for (name, program) in object.programs_mut() {
        let result = match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            _ => continue,
        };
        result.with_context(|| format!("cannot load the program {name}"))?;
    }
    connect_stages(&mut object)?;
    Ok(object)
}

/// More than a scene has, of both families.
const SCENE_BACKENDS: u32 = 32;

/// The loaded object.
pub struct Kernel {
    object: Ebpf,
    sockets: Sockets,
    /// What the table holds; replacing it waits for every CPU.
    bucket: Option<Bucket>,
}

impl Kernel {
    /// Loads every program for XDP and tc into the calling thread's namespace. Nothing is pinned.
    ///
    /// # Errors
    /// Where the kernel refuses; the message holds the verifier's last words.
    pub fn load() -> Result<Self> {
        let object = load(&mut EbpfLoader::new())?;
        Ok(Self { object, sockets: Sockets::default(), bucket: None })
    }

    /// Fills the maps, forgetting the scene before.
    ///
    /// # Errors
    /// Where the scene names what does not exist, or a map does not take it.
    pub fn set(&mut self, scene: &Scene) -> Result<()> {
        // First gone, since the next may want the same ports.
        self.sockets = Sockets::default();
        self.sockets = scene.sockets()?;
        self.forget_flows()?;
        self.clear::<ServiceKey, u32>(map::SERVICES)?;
        self.clear::<ServerId, u32>(map::SERVER_IDS)?;
        self.set_globals(scene)?;
        self.set_interface(scene)?;
        self.set_peers()?;
        if !scene.unconfigured {
            self.set_services(scene)?;
        }
        Ok(())
    }

    /// Forgets what the programs noted of the frames so far.
    ///
    /// # Errors
    /// Where a map cannot be emptied.
    pub fn forget_flows(&mut self) -> Result<()> {
        self.clear::<FlowKey, NatEntry>(map::NAT_FLOWS)?;
        self.clear::<SourceKey, u64>(map::RATES)?;
        self.forget_connections()?;
        self.clear::<FlowKey, Endpoint>(map::UDP_REPLIES)?;
        self.clear::<FragmentKey, Fragment>(map::FRAGMENTS)?;
        self.clear::<FlowKey, Affinity>(map::AFFINITIES)?;
        self.clear::<FlowKey, Flow>(map::FLOWS)?;
        forget_answers(&mut self.object)
    }

    fn forget_connections(&mut self) -> Result<()> {
        let map = self.hash::<FlowKey, Connection>(map::CONNECTIONS)?;
        let known = map.iter().collect::<Result<Vec<_>, MapError>>()?;
        for (flow, connection) in known {
            self.hash::<FlowKey, Connection>(map::CONNECTIONS)?.remove(&flow)?;
            for index in connection.counted {
                self.array::<u64>(map::OPEN)?.set(index, 0, 0)?;
            }
        }
        Ok(())
    }

    fn set_globals(&mut self, scene: &Scene) -> Result<()> {
        let (nat_port_first, nat_port_count) = scene.nat_ports.unwrap_or_default();
        let mut peers = 0;
        for peer in PEERS {
            peers |= peer_bit(&names::mac(peer)?);
        }
        let settings = Settings {
            peers,
            nat_key: 7,
            nat_port_first,
            nat_port_count,
            flags: scene.flags(),
            syn_interval_ns: 0,
            reserved: 0,
        };
        let mut filter = AddressFilter::EMPTY;
        let vip = Vip { lease_until_ns: if scene.lease { u64::MAX } else { 0 } };
        for family in [4, 6] {
            let address = Address::from(names::address("vip", family)?);
            filter.insert(&address);
            self.set_lease(address, u32::from(family), vip)?;
            let key = lease_key(virtual_mac(ROUTER_ID, family == 4));
            match scene.virtual_mac.until_ns(monotonic_ns()) {
                Some(lease_until_ns) => {
                    self.set_lease(key, u32::from(family) + 1, Vip { lease_until_ns })?;
                }
                // Absent: another scene may have had it.
                None => drop(self.hash::<Address, u32>(map::VIPS)?.remove(&key)),
            }
        }
        self.array::<AddressFilter>(map::ADDRESS_FILTER)?.set(0, filter, 0)?;
        self.array::<Settings>(map::SETTINGS)?.set(0, settings, 0)?;
        Ok(())
    }

    fn set_lease(&mut self, key: Address, place: u32, lease: Vip) -> Result<()> {
        self.array::<Vip>(map::LEASES)?.set(place, lease, 0)?;
        Ok(self.hash::<Address, u32>(map::VIPS)?.insert(key, place, 0)?)
    }

    fn set_interface(&mut self, scene: &Scene) -> Result<()> {
        let own = |family| anyhow::Ok(Address::from(names::address("master1", family)?));
        let interface = Interface {
            ifindex: INTERFACE,
            mac: names::mac("master1")?,
            address_v4_be: if scene.no_address { 0 } else { own(4)?.v4_word() },
            address_v6: own(6)?,
            mtu: scene.mtu,
        };
        let next = Interface { ifindex: INTERFACE + 1, mtu: scene.next_mtu, ..interface };
        let mut interfaces = self.array::<Interface>(map::INTERFACES)?;
        interfaces.set(INTERFACE, interface, 0)?;
        interfaces.set(INTERFACE + 1, next, 0)?;
        Ok(())
    }

    fn set_peers(&mut self) -> Result<()> {
        for peer in PEERS {
            let key = PeerKey { mac: names::mac(peer)?, padding: [0; 2] };
            self.hash::<PeerKey, u32>(map::PEERS)?.insert(key, 1, 0)?;
        }
        Ok(())
    }

    fn set_services(&mut self, scene: &Scene) -> Result<()> {
        if self.bucket != Some(scene.bucket()) {
            self.set_table(scene.bucket())?;
        }
        let (mut base, mut place) = (0, 0);
        for family in [4, 6] {
            let entries = scene.entries(family)?;
            for (at, entry) in entries.iter().enumerate() {
                self.array::<Backend>(map::BACKENDS)?.set(base + at as u32, entry, 0)?;
            }
            for protocol in PROTOCOLS {
                let (key, service) = scene.service(family, protocol, base)?;
                let versions = ServiceVersions::new(service);
                self.array::<ServiceVersions>(map::SERVICE_VERSIONS)?.set(place, versions, 0)?;
                self.hash::<ServiceKey, u32>(map::SERVICES)?.insert(key, place, 0)?;
                place += 1;
            }
            for place in 0..entries.len() as u32 {
                let id = ServerId { backends: base, padding: 0, id: place.into() };
                self.hash::<ServerId, u32>(map::SERVER_IDS)?.insert(id, place, 0)?;
            }
            base += entries.len() as u32;
            if let Some(guard) = &scene.guard {
                self.set_guard(guard, family)?;
            }
        }
        Ok(())
    }

    fn set_guard(&mut self, guard: &Guard, family: u8) -> Result<()> {
        let index = u32::from(family);
        self.array::<Protection>(map::PROTECTIONS)?.set(index, guard.rules(index), 0)?;
        let entries = guard.list(family)?;
        let fd = syscall::list(entries.len().max(1) as u32)?;
        for (key, value) in &entries {
            syscall::update(fd.as_fd(), key, value)?;
        }
        let list =
            LpmTrie::<MapData, Address, u32>::try_from(Map::from_map_data(MapData::from_fd(fd)?)?)?;
        let lists = self.object.map_mut(map::LISTS).context("no map of lists")?;
        ArrayOfMaps::<&mut MapData, LpmTrie<MapData, Address, u32>>::try_from(lists)?
            .set(index, &list, 0)?;
        Ok(())
    }

    /// The one table, of one bucket.
    fn set_table(&mut self, bucket: Bucket) -> Result<()> {
        let table =
            syscall::map(syscall::ARRAY, size_of::<Bucket>() as u32, 1, syscall::INNER_MAP)?;
        let table = Map::from_map_data(MapData::from_fd(table)?)?;
        let mut table = Array::<MapData, Bucket>::try_from(table)?;
        table.set(0, bucket, 0)?;
        let tables = self.object.map_mut(map::TABLES).context("no map of tables")?;
        ArrayOfMaps::<&mut MapData, Array<MapData, Bucket>>::try_from(tables)?.set(0, &table, 0)?;
        self.bucket = Some(bucket);
        Ok(())
    }

    /// Runs a program once on a frame.
    ///
    /// # Errors
    /// Where there is no such program, or the kernel refuses the frame.
    pub fn run(&self, program: &str, frame: &[u8]) -> Result<Run> {
        syscall::test_run(self.program(program)?, frame)
            .with_context(|| format!("the kernel does not run {program} on the frame"))
    }

    fn program(&self, name: &str) -> Result<BorrowedFd<'_>> {
        let program = self.object.program(name).with_context(|| format!("no program {name}"))?;
        Ok(program.fd()?.as_fd())
    }

    /// The verdicts' counters, summed over the CPUs.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn counters(&self) -> Result<Vec<u64>> {
        let map = self.object.map(map::COUNTERS).context("no map of counters")?;
        let counters = PerCpuArray::<&MapData, u64>::try_from(map)?;
        (0..COUNTERS as u32)
            .map(|index| Ok(counters.get(&index, 0)?.iter().sum()))
            .collect::<Result<_>>()
    }

    /// New connections that any backend refused, summed over the CPUs.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn refused(&self) -> Result<u64> {
        let map = self.object.map(map::FAILURES).context("no map of failures")?;
        let failures = PerCpuArray::<&MapData, BackendFailures>::try_from(map)?;
        let of = |index| -> Result<u64> {
            Ok(failures.get(&index, 0)?.iter().map(|it| it.refused).sum())
        };
        (0..SCENE_BACKENDS).map(of).sum()
    }

    fn clear<K: Pod, V: Pod>(&mut self, name: &str) -> Result<()> {
        let mut map = self.hash::<K, V>(name)?;
        let keys = map.keys().collect::<Result<Vec<K>, MapError>>()?;
        for key in keys {
            map.remove(&key)?;
        }
        Ok(())
    }

    fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> Result<HashMap<&mut MapData, K, V>> {
        let map = self.object.map_mut(name).with_context(|| format!("no map {name}"))?;
        HashMap::try_from(map).with_context(|| format!("the map {name}"))
    }

    fn array<V: Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, V>> {
        let map = self.object.map_mut(name).with_context(|| format!("no map {name}"))?;
        Array::try_from(map).with_context(|| format!("the map {name}"))
    }
}

/// The verdict of a name.
///
/// # Errors
/// Where there is none.
pub fn verdict(name: &str) -> Result<Verdict> {
    match Verdict::ALL.iter().find(|verdict| verdict.name() == name) {
        Some(verdict) => Ok(*verdict),
        None => bail!("no verdict is called {name}"),
    }
}
