//! From the maps of one layout to those of another and back, with real maps of other sizes, and which of two layouts
//! an agent goes on with that finds both. Needs root.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use lb_agent::dataplane::{
    Capacity, Carry, Changed, DataPlane, DataPlaneError, Former, Layout, Loaded, resized,
};
use lb_common::flow::FlowKey;
use lb_common::layout::{LAYOUT_VERSION, map};
use lb_common::nat::NatEntry;
use lb_tests::lab::Lab;
use lb_tests::packet::syscall;

const TOOL: &str = env!("CARGO_BIN_EXE_lb-lab");

/// More than the kernel gives at once.
const FLOWS: u64 = 5_000;

/// A flow's value in the former layout: longer than now, and in another order.
type FormerEntry = [u64; 10];
const NOW: usize = size_of::<NatEntry>();

/// The next version, in which flows have become shorter: the number of a flow stands first.
static NEXT: Layout = Layout {
    version: LAYOUT_VERSION + 1,
    former: &[Former {
        version: LAYOUT_VERSION,
        changed: &[Changed { map: map::NAT_FLOWS, carry: Carry::Copied { up, down } }],
    }],
};

fn up(from: &[u8], to: &mut [u8]) {
    resized(&from[8..], to);
}

fn down(from: &[u8], to: &mut [u8]) {
    resized(from, &mut to[8..]);
}

fn former(number: u64) -> FormerEntry {
    std::array::from_fn(|word| if word == 0 { u64::MAX } else { number + word as u64 })
}

fn key(number: u64) -> [u64; 5] {
    [number, 1, 2, 3, 4]
}

fn pinned(base: &Path, version: u32, name: &str) -> PathBuf {
    base.join(format!("v{version}/maps/{name}"))
}

fn id(base: &Path, version: u32, name: &str) -> Result<u32> {
    Ok(MapData::from_pin(pinned(base, version, name))?.info()?.id())
}

/// Puts a map of the former layout in the place of the one that this version has made.
fn put_former(base: &Path, elements: u64) -> Result<()> {
    let entries = 2 * Capacity::default().nat_flows;
    let flows =
        syscall::hash(size_of::<FlowKey>() as u32, size_of::<FormerEntry>() as u32, entries)?;
    for number in 0..elements {
        syscall::update(flows.as_fd(), &key(number), &former(number))?;
    }
    let path = pinned(base, LAYOUT_VERSION, map::NAT_FLOWS);
    let _ = fs::remove_file(&path);
    MapData::from_fd(flows)?.pin(path)?;
    Ok(())
}

fn layouts(base: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(base)?.flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

#[test]
fn flows_go_to_another_layout_and_back_and_nothing_that_fails_stays() -> Result<()> {
    let lab = Lab::new(Path::new(TOOL))?;
    let host = lab.host("node").start()?;
    let base = host.bpf_directory();
    let (this, next) = (format!("v{LAYOUT_VERSION}"), format!("v{}", NEXT.version));
    let capacity = Capacity::default();
    drop(DataPlane::open(lb_agent::dataplane::Pins::new(&base), capacity)?);
    put_former(&base, FLOWS)?;
    assert_eq!(NOW, 72);

    // Loaded beside the one that runs: what is the same is the same map.
    let loaded = Loaded::load(&base, &NEXT, Some(LAYOUT_VERSION), capacity)?;
    ensure!(id(&base, NEXT.version, map::LEASES)? == id(&base, LAYOUT_VERSION, map::LEASES)?);
    ensure!(
        id(&base, NEXT.version, map::XDP_STAGES)? != id(&base, LAYOUT_VERSION, map::XDP_STAGES)?
    );
    drop(loaded);
    ensure!(layouts(&base)? == [this.clone()], "{:?}", layouts(&base)?);

    // Taken over, but not for good: whoever starts next begins again.
    drop(Loaded::load(&base, &NEXT, Some(LAYOUT_VERSION), capacity)?.open()?);
    ensure!(layouts(&base)? == [this.clone(), next.clone()], "{:?}", layouts(&base)?);
    let mut data_path = Loaded::load(&base, &NEXT, None, capacity)?.open()?;
    let flows = MapData::from_pin(pinned(&base, NEXT.version, map::NAT_FLOWS))?;
    let (keys, values) =
        syscall::lookup_batch::<[u64; 5], [u64; NOW / 8]>(flows.fd().as_fd(), 8192, 1)?;
    ensure!(keys.len() as u64 == FLOWS, "{} flows", keys.len());
    for (key, value) in keys.iter().zip(&values) {
        let expected: [u64; 9] = std::array::from_fn(|word| key[0] + 1 + word as u64);
        ensure!(*value == expected, "{key:?}: {value:?}");
    }
    data_path.settle()?;
    ensure!(layouts(&base)? == [next.clone()], "{:?}", layouts(&base)?);

    // An earlier version that knows nothing of it leaves it alone.
    let refused = Loaded::load(&base, &Layout::CURRENT, None, capacity).err();
    ensure!(matches!(refused, Some(DataPlaneError::OtherLayout { .. })), "{refused:?}");
    ensure!(layouts(&base)? == [next.clone()], "{:?}", layouts(&base)?);

    // Back: the newer one makes room, and copies.
    let successor = data_path.prepare_for(&NEXT, LAYOUT_VERSION)?;
    put_former(&base, 0)?;
    successor.hand_over()?;
    syscall::update(flows.fd().as_fd(), &key(FLOWS), &[7u64; NOW / 8])?;
    successor.hand_over_rest()?;
    let flows = MapData::from_pin(pinned(&base, LAYOUT_VERSION, map::NAT_FLOWS))?;
    let (keys, values) =
        syscall::lookup_batch::<[u64; 5], FormerEntry>(flows.fd().as_fd(), 8192, 1)?;
    ensure!(keys.len() as u64 == FLOWS + 1, "{} flows", keys.len());
    let at = keys.iter().position(|key| key[0] == 9).context("no flow 9")?;
    let expected: FormerEntry =
        std::array::from_fn(|word| if word == 0 { 0 } else { 9 + word as u64 });
    ensure!(values[at] == expected, "{:?}", values[at]);
    data_path.forget_successor(LAYOUT_VERSION)?;
    ensure!(layouts(&base)? == [next], "{:?}", layouts(&base)?);
    Ok(())
}
