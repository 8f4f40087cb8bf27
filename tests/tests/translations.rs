//! Flows that another node tells of, in a real map: which are taken, which give way, and how long they last. Needs
//! root.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_agent::dataplane::{
    Adopted, Capacity, DataPlane, FirstPort, NatTimeouts, Pins, Told, Translation, Translations,
};
use lb_common::Address;
use lb_common::flow::FlowKey;
use lb_common::nat::{FROM_BACKEND, FROM_CLIENT, NatEntry, SEEN_DATA, SEEN_FIN, SEEN_SYN};
use lb_common::service::TCP;
use lb_tests::lab::Lab;

const TOOL: &str = env!("CARGO_BIN_EXE_lb-lab");
const SEEN: [u8; 2] = [SEEN_SYN | SEEN_DATA, SEEN_DATA];
const HOUR: u64 = 3600 * 1_000_000_000;

/// A flow from this port of a client, by this port of the VIP, as another node tells of it.
fn told_of(client_port: u16, nat_port: u16, used_ns: u64) -> Translation {
    let address = |last| Address::from_v4([192, 168, 139, last]);
    let client = FlowKey {
        source: address(20),
        destination: address(150),
        source_port_be: client_port.to_be(),
        destination_port_be: 7000u16.to_be(),
        protocol: TCP,
        padding: [0; 3],
    };
    let forward = NatEntry {
        source: address(150),
        destination: address(201),
        source_port_be: nat_port.to_be(),
        destination_port_be: 7007u16.to_be(),
        direction: FROM_CLIENT,
        seen: SEEN[0],
        last_seen_ns: used_ns,
        told: NatEntry::mark(used_ns),
        ..NatEntry::EMPTY
    };
    let back = NatEntry {
        destination: client.source,
        source_port_be: client.destination_port_be,
        destination_port_be: client.source_port_be,
        direction: FROM_BACKEND,
        seen: SEEN[1],
        ..forward
    };
    Translation { client, forward, back }
}

/// The same as this node's programs make it.
fn own(flow: &Translation) -> Translation {
    let own = |entry: NatEntry| NatEntry { told: 0, ..entry };
    Translation { client: flow.client, forward: own(flow.forward), back: own(flow.back) }
}

const TIMEOUTS: NatTimeouts = NatTimeouts {
    tcp_opening: Duration::from_secs(30),
    tcp_established: Duration::from_secs(60),
    tcp_closing: Duration::from_secs(10),
    udp: Duration::from_secs(120),
};

/// Begins with an empty map.
fn with_flows(test: impl FnOnce(&DataPlane, &Translations) -> Result<()>) -> Result<()> {
    let lab = Lab::new(Path::new(TOOL))?;
    let host = lab.host("node").start()?;
    let data_path = DataPlane::open(Pins::new(&host.bpf_directory()), Capacity::default())?;
    let flows = data_path.translations()?;
    test(&data_path, &flows)
}

fn entries(flows: &Translations) -> Result<usize> {
    let mut entries = 0;
    flows.for_each(|_| {
        entries += 1;
        true
    })?;
    Ok(entries)
}

#[test]
fn what_this_node_uses_stays_and_what_it_was_only_told_of_gives_way() -> Result<()> {
    with_flows(|_, flows| {
        let told = Told { used_ns: HOUR, seen: SEEN };
        let adopt = |flow: &Translation| flows.adopt(flow, told);
        let (first, taken) = (told_of(1, 61_001, HOUR), told_of(2, 61_001, HOUR));
        ensure!(adopt(&first)? == Adopted::New);
        ensure!(adopt(&first)? == Adopted::Known);
        ensure!(flows.of(&first.client)? == Some(first), "{:?}", flows.of(&first.client)?);

        // The port is another flow's there by now.
        ensure!(adopt(&taken)? == Adopted::New);
        ensure!(flows.of(&first.client)?.is_none() && entries(flows)? == 2);
        // The client's connection has another port.
        let moved = told_of(2, 61_002, HOUR);
        ensure!(adopt(&moved)? == Adopted::New);
        ensure!(flows.of(&moved.client)? == Some(moved) && entries(flows)? == 2);

        // From now on packets of this node's own have used it.
        let used = own(&told_of(3, 61_003, HOUR));
        ensure!(adopt(&used)? == Adopted::New);
        ensure!(adopt(&told_of(4, 61_003, HOUR))? == Adopted::PortTaken);
        ensure!(adopt(&told_of(3, 61_004, HOUR))? == Adopted::Differs);
        ensure!(flows.of(&used.client)? == Some(used) && entries(flows)? == 4);
        // In one direction alone is enough.
        let half = told_of(5, 61_005, HOUR);
        let half = Translation { forward: own(&half).forward, ..half };
        ensure!(adopt(&half)? == Adopted::New);
        ensure!(adopt(&told_of(6, 61_005, HOUR))? == Adopted::PortTaken);
        ensure!(entries(flows)? == 6);
        Ok(())
    })
}

#[test]
fn a_flow_lasts_as_long_as_the_node_that_tells_of_it_says() -> Result<()> {
    with_flows(|data_path, flows| {
        let (sweeper, _stop) = data_path.sweeper()?;
        let now_ns = flows.now_ns();
        let old_ns = now_ns - TIMEOUTS.tcp_established.as_nanos() as u64 * 2;
        // Silent for too long: over, unless it was used there since.
        let (silent, used, ended) =
            (told_of(1, 61_001, old_ns), told_of(2, 61_002, old_ns), told_of(3, 61_003, now_ns));
        flows.adopt(&silent, Told { used_ns: old_ns, seen: SEEN })?;
        flows.adopt(&used, Told { used_ns: old_ns, seen: SEEN })?;
        flows.adopt(&used, Told { used_ns: now_ns, seen: SEEN })?;
        flows.adopt(&ended, Told { used_ns: now_ns, seen: SEEN })?;
        ensure!(sweeper.sweep(&TIMEOUTS, &FirstPort::default())?.removed == 1);
        ensure!(flows.of(&silent.client)?.is_none());
        ensure!(flows.of(&used.client)?.is_some());
        // Both ends have said that it is over, a while ago.
        let closed_ns = now_ns - 2 * TIMEOUTS.tcp_closing.as_nanos() as u64;
        let fins = SEEN.map(|seen| seen | SEEN_FIN);
        let closed = told_of(4, 61_004, closed_ns);
        flows.adopt(&closed, Told { used_ns: closed_ns, seen: SEEN })?;
        ensure!(sweeper.sweep(&TIMEOUTS, &FirstPort::default())?.removed == 0);
        flows.adopt(&closed, Told { used_ns: closed_ns, seen: fins })?;
        ensure!(sweeper.sweep(&TIMEOUTS, &FirstPort::default())?.removed == 1);
        ensure!(flows.of(&closed.client)?.is_none());
        Ok(())
    })
}
