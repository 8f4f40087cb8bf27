//! `vrrp-virtual-mac`: the virtual router has a MAC of its own (RFC 9568, 7.3). No client's neighbour
//! table changes when the role moves by a resignation, by a node's and by an agent's death, and nobody
//! but the Active node uses it. Servers are on nodes that take the role, too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lb_agent::control::api::Role;
use lb_common::virtual_mac::virtual_mac;

use super::cluster::{Cluster, SETTLE};
use super::failover::trial;
use super::shape::{Family, NIC, Shape, Vrrp, address, sources, vip};
use super::stage::Stage;
use super::tally::Tally;
use super::vrrp_keepalived::of_version_3;
use crate::backend::Mode;
use crate::client::{Arguments, Connections, Load};
use crate::lab::agent::{Agent, purge};
use crate::lab::capture::{Capture, Direction, Frame};
use crate::lab::peer::keepalived::Keepalived;
use crate::lab::{Host, Lab, Mac, Offloads, format_mac};

const INTERVAL: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(30);
const STREAMS: u32 = 12;
const ROUTER_ID: u8 = 51;
/// The nodes that take turns. The second one has servers, which live on.
const PAIR: [usize; 2] = [0, 1];

/// Who hands over answers until it has heard its successor.
const HANDOVER: Duration = Duration::from_millis(20);

const VRRP: u8 = 112;
const ICMPV6: u8 = 58;
/// Behind IPv6's hop-by-hop header: MLD (RFC 3810, 5).
const HOP_BY_HOP: u8 = 0;

fn mac_of(family: Family) -> Mac {
    virtual_mac(ROUTER_ID, family == Family::V4)
}

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    moves(stage)?;
    // Where the kernel looks at a frame's MAC before the program does.
    for modes in [&["generic"], &["tc"]] {
        in_mode(stage, modes)?;
    }
    Ok(())
}

fn shape() -> Shape {
    let shape = Shape {
        clients: 3,
        vrrp: Some(Vrrp { interval: INTERVAL }),
        virtual_mac: true,
        ..Shape::masters(&[Mode::Https, Mode::Udp])
    };
    shape.with_members(&["master2", "master3"])
}

fn in_mode(stage: &mut Stage, modes: &'static [&'static str]) -> Result<()> {
    let shape = Shape { modes, offloads: Offloads::Default, ..shape() };
    let cluster = Cluster::start(stage, shape)?;
    cluster.elect(PAIR[1], &PAIR)?;
    answered(stage, &cluster, &format!("{} at the virtual MAC", modes[0]))?;
    cluster.nodes[PAIR[1]].agent()?.lbctl(["vrrp", "resign"])?;
    cluster.await_active(&[PAIR[0]])?;
    answered(stage, &cluster, &format!("{} after a resignation", modes[0]))?;
    known(stage, &cluster, &format!("the clients know the virtual MAC alone ({})", modes[0]))
}

/// New connections and datagrams in both families, to servers on the Active node and elsewhere.
fn answered(stage: &mut Stage, cluster: &Cluster, who: &str) -> Result<()> {
    let mut tally = Tally::default();
    for (client, family) in [("client1", Family::V4), ("client2", Family::V6)] {
        for mode in [Mode::Https, Mode::Udp] {
            let arguments = Arguments {
                connections: Connections::PerRequest,
                concurrency: 8,
                count: 160,
                source: sources(client, family),
                ..cluster.arguments(mode, family)
            };
            let report = cluster.complete(client, &arguments)?;
            let who = format!("{who}: {} {}", mode.name(), family.name());
            tally.answered(stage, &who, &report);
        }
    }
    tally.spread(stage, 2);
    Ok(())
}

fn moves(stage: &mut Stage) -> Result<()> {
    let mut cluster = Cluster::start(stage, shape())?;
    cluster.elect(PAIR[1], &PAIR)?;
    answered(stage, &cluster, "native at the virtual MAC")?;
    let wires = wires(&cluster)?;
    let mut loads = start_loads(&cluster)?;
    let asker = trial::ask(&cluster)?;
    known(stage, &cluster, "the clients know the VIPs by the virtual MAC")?;
    serve(&mut loads)?;

    stage.step("the Active node resigns, although it has servers");
    cluster.nodes[1].agent()?.lbctl(["vrrp", "resign"])?;
    moved(stage, &cluster, &mut loads, PAIR[0], "after a resignation")?;

    stage.step("the Active node dies, and comes back");
    cluster.crash(PAIR[0])?;
    moved(stage, &cluster, &mut loads, PAIR[1], "after a crash")?;
    cluster.boot(PAIR[0])?;
    backup(&mut cluster, PAIR[0])?;

    stage.step("the agent of the Active node is killed, and comes back");
    cluster.nodes[PAIR[1]].agent.take().context("no agent")?.kill()?;
    moved(stage, &cluster, &mut loads, PAIR[0], "after an agent's death")?;
    cluster.start_agents()?;
    backup(&mut cluster, PAIR[1])?;
    serve(&mut loads)?;

    let owners = asker.stop()?.owners();
    let seen = format!("{:?}", owners.iter().copied().map(format_mac).collect::<Vec<_>>());
    let text = "a client that asks every millisecond is told no other MAC all the time";
    stage.claim(text, owners == [mac_of(Family::V4)], seen);
    let mut tally = Tally::default();
    tally.all_answered(stage, loads)?;
    tally.unbroken(stage, 2 * STREAMS);
    tally.moved(stage);
    judge(stage, &cluster, wires, 3)?;
    nothing_left(stage, &mut cluster)
}

/// The role is at `to`, and everything is as before.
fn moved(
    stage: &mut Stage,
    cluster: &Cluster,
    loads: &mut [(String, Load)],
    to: usize,
    when: &str,
) -> Result<()> {
    cluster.await_active(&[to])?;
    known(stage, cluster, &format!("and still do {when}"))?;
    serve(loads)
}

fn backup(cluster: &mut Cluster, node: usize) -> Result<()> {
    let agent = cluster.nodes[node].agent_mut()?;
    agent.wait_until("it is Backup", SETTLE, |status| {
        status.role == Role::Backup && status.virtual_addresses.iter().all(|vip| !vip.held)
    })?;
    cluster.settle()
}

fn known(stage: &mut Stage, cluster: &Cluster, text: &str) -> Result<()> {
    for (client, family) in [("client1", Family::V4), ("client2", Family::V6)] {
        let known = cluster.host(client)?.neighbour(vip(family))?;
        let seen = known.map_or_else(|| "nothing".to_owned(), format_mac);
        let text = format!("{text} ({})", family.name());
        stage.claim(&text, known == Some(mac_of(family)), format!("{client}: {seen}"));
    }
    Ok(())
}

fn serve(loads: &mut [(String, Load)]) -> Result<()> {
    loads.iter_mut().try_for_each(|(_, load)| load.run_for_requests(100, LIMIT).map(drop))
}

fn start_loads(cluster: &Cluster) -> Result<Vec<(String, Load)>> {
    let mut loads = Vec::new();
    for (client, family) in [("client1", Family::V4), ("client2", Family::V6)] {
        let common = |mode| Arguments {
            concurrency: 4,
            pause_ms: 20,
            duration_ms: 600_000,
            source: sources(client, family),
            ..cluster.arguments(mode, family)
        };
        let kept = Arguments { streams: STREAMS, ..common(Mode::Https) };
        let single = Arguments { connections: Connections::PerRequest, ..common(Mode::Https) };
        for (kind, arguments) in [("kept", kept), ("new", single)] {
            let who = format!("{client} on {kind} {} connections", family.name());
            let mut load = cluster.load(client, &arguments)?;
            let streams = u64::from(arguments.streams);
            load.wait_until("all streams", LIMIT, |r| r.streams.opened == streams)?;
            loads.push((who, load));
        }
    }
    Ok(loads)
}

fn wires(cluster: &Cluster) -> Result<Vec<Capture>> {
    cluster.nodes.iter().map(|node| node.host.capture(NIC)).collect()
}

/// What a frame with a virtual MAC as its source is, if it is something that such a frame may be.
fn kind(frame: &Frame) -> &'static str {
    if frame.bytes.get(12..14) == Some(&[0x08, 0x06]) {
        return "ARP";
    }
    match frame.ip_protocol() {
        Some((_, VRRP)) => "VRRP",
        Some((6, ICMPV6)) => "ND",
        Some((6, HOP_BY_HOP)) => "MLD",
        _ => "other",
    }
}

/// Frames with a virtual MAC as their source: when, from which node, and of what kind.
type Used = BTreeMap<Mac, Vec<(Duration, usize, &'static str)>>;

/// Judges by the nodes' wires who used the virtual MACs, and for what.
fn judge(stage: &mut Stage, cluster: &Cluster, wires: Vec<Capture>, moves: usize) -> Result<()> {
    let mut used = Used::new();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut otherwise: BTreeSet<Mac> = BTreeSet::new();
    for (node, wire) in wires.into_iter().enumerate() {
        let frames = wire.stop()?.frames;
        for frame in frames.iter().filter(|frame| frame.direction == Direction::FromHost) {
            let Some(source) = frame.source_mac() else { continue };
            if Family::BOTH.map(mac_of).contains(&source) {
                *kinds.entry(kind(frame)).or_default() += 1;
                used.entry(source).or_default().push((frame.at, node, kind(frame)));
            } else if matches!(frame.ip_protocol(), Some((_, VRRP))) {
                otherwise.insert(source);
            }
        }
    }
    let text = "with the virtual MAC advertisements, ARP and ND leave, and nothing else";
    let holds = kinds.contains_key("VRRP") && !kinds.contains_key("other");
    stage.claim(text, holds, format!("{kinds:?}"));
    let seen = format!("{:?}", otherwise.iter().copied().map(format_mac).collect::<Vec<_>>());
    stage.claim("no advertisement leaves with another MAC", otherwise.is_empty(), seen);
    for family in Family::BOTH {
        let mut frames = used.remove(&mac_of(family)).unwrap_or_default();
        frames.sort_unstable();
        let (users, late) = users(&frames);
        let names: Vec<&str> = users.iter().map(|node| cluster.name_of(*node)).collect();
        let text = format!("one node after the other uses it, while Active ({})", family.name());
        let holds = users.len() == moves + 1 && late.is_empty();
        stage.claim(&text, holds, format!("{names:?}, {late:?} after others"));
    }
    Ok(())
}

/// What left a node and was late: how long after another began to advertise, and of what kind it is.
type Late<'a> = (Duration, usize, &'a str);

/// Who advertises, one after the other, and what others send after that.
fn users<'a>(frames: &[(Duration, usize, &'a str)]) -> (Vec<usize>, Vec<Late<'a>>) {
    let (mut users, mut since, mut late) = (Vec::new(), Duration::ZERO, Vec::new());
    for &(at, node, kind) in frames {
        match users.last() {
            Some(last) if *last == node => {}
            Some(_) if kind != "VRRP" => {
                if at > since + HANDOVER {
                    late.push((at - since, node, kind));
                }
            }
            _ => {
                users.push(node);
                since = at;
            }
        }
    }
    (users, late)
}

fn nothing_left(stage: &mut Stage, cluster: &mut Cluster) -> Result<()> {
    let [killed, ended @ ..] = &mut cluster.nodes[..] else { bail!("no nodes") };
    for node in ended {
        node.agent.take().context("no agent")?.stop()?;
    }
    killed.agent.take().context("no agent")?.kill()?;
    let left = virtual_links(&killed.host)?;
    stage.claim("one that was killed leaves its interfaces", left.len() == 2, format!("{left:?}"));
    purge(&killed.host)?;
    let left: Vec<Vec<String>> =
        cluster.nodes.iter().map(|node| virtual_links(&node.host)).collect::<Result<_>>()?;
    let text = "agents that end leave no interface behind, and neither does a purge";
    stage.claim(text, left.iter().all(Vec::is_empty), format!("{left:?}"));
    Ok(())
}

fn virtual_links(host: &Host) -> Result<Vec<String>> {
    let mut names = host.interfaces()?;
    names.retain(|name| name.starts_with("lb-v"));
    Ok(names)
}

/// `vrrp-keepalived-vmac`
pub(super) fn beside_keepalived(stage: &mut Stage) -> Result<()> {
    let lab = Lab::new(stage.tool())?;
    let host = |name: &str| {
        lab.host(name).interface(NIC, "lan", &[format!("{}/24", address(name, Family::V4))]).start()
    };
    let (ours, theirs, client) = (host("master1")?, host("master2")?, host("client1")?);
    // What keepalived's users set, since it guards no ARP: else its kernel asks for the client with
    // the VIP as the sender and the card's MAC.
    theirs.namespace().sysctl("net.ipv4.conf.all.arp_announce", "2")?;
    let mut agent = Agent::start(&ours, &beside())?;
    active(&mut agent, true)?;
    let pair = Pair { ours: &ours, theirs: &theirs, client: &client };
    client.knock(vip(Family::V4))?;
    pair.at(stage, "alone, ours is Active", &ours)?;

    stage.step("a keepalived of higher priority takes over");
    let keepalived = Keepalived::start(&theirs, &with_vmac())?;
    active(&mut agent, false)?;
    pair.at(stage, "keepalived takes over", &theirs)?;

    stage.step("it ends");
    keepalived.end()?;
    active(&mut agent, true)?;
    pair.at(stage, "and hands back to ours when it ends", &ours)?;

    stage.step("it comes back and its node dies");
    let keepalived = Keepalived::start(&theirs, &with_vmac())?;
    active(&mut agent, false)?;
    pair.at(stage, "it takes over again", &theirs)?;
    theirs.set_cable(NIC, false)?;
    active(&mut agent, true)?;
    pair.at(stage, "ours takes over from a dead keepalived", &ours)?;
    let routers = agent.vrrp()?;
    let refused: u64 = routers.iter().flat_map(|router| router.refused.values()).sum();
    let received: u64 = routers.iter().map(|router| router.received).sum();
    let seen = format!("{received} taken, {refused} refused");
    stage.claim("ours took all that keepalived sent", received > 0 && refused == 0, seen);
    keepalived.kill()?;
    agent.stop()
}

fn active(agent: &mut Agent, wanted: bool) -> Result<()> {
    agent.wait_until(&format!("ours is Active: {wanted}"), LIMIT, |status| {
        (status.role == Role::Active) == wanted
            && status.virtual_addresses.iter().all(|vip| vip.held == wanted)
    })?;
    Ok(())
}

fn beside() -> String {
    format!(
        "interface = \"{NIC}\"\nvirtual_addresses = [\"{}\"]\n[vrrp]\nrouter_id = {ROUTER_ID}\n\
         advertisement_interval = \"500ms\"\npreempt = true\nvirtual_mac = true\n\
         [[node]]\nname = \"master1\"\naddress = \"{}\"\npriority = 100\n\
         [[node]]\nname = \"master2\"\naddress = \"{}\"\npriority = 150\n{}",
        vip(Family::V4),
        address("master1", Family::V4),
        address("master2", Family::V4),
        super::wire::SERVICE,
    )
}

fn with_vmac() -> String {
    of_version_3("master2", 150, 0.5).replace(" version 3\n", " version 3\n use_vmac\n")
}

struct Pair<'a> {
    ours: &'a Host,
    theirs: &'a Host,
    client: &'a Host,
}

impl Pair<'_> {
    /// One of the two alone advertises with the virtual MAC and answers pings at it, for a client
    /// whose neighbour table has not changed.
    fn at(&self, stage: &mut Stage, text: &str, wanted: &Host) -> Result<()> {
        // Over a second: more than two intervals.
        const PINGS: u32 = 25;
        let address = vip(Family::V4);
        let before = self.client.neighbour(address)?;
        let wires = [self.ours, self.theirs].map(|host| host.capture(NIC));
        let pings = self.client.ping(address, PINGS)?;
        let mut speakers = Vec::new();
        for (host, wire) in [self.ours, self.theirs].into_iter().zip(wires) {
            let frames = wire?.stop()?.frames;
            let mut from = frames.iter().filter(|f| f.direction == Direction::FromHost);
            if from.any(|f| f.source_mac() == Some(mac_of(Family::V4)) && kind(f) == "VRRP") {
                speakers.push(host.name());
            }
        }
        let known = [before, self.client.neighbour(address)?];
        ensure!(!known.contains(&None), "the client knows nobody at {address}");
        let holds =
            speakers == [wanted.name()] && known == [Some(mac_of(Family::V4)); 2] && pings == PINGS;
        let seen = format!(
            "{speakers:?} advertise, the client knows {:?}, {pings} of {PINGS} pings answered",
            known.map(|mac| mac.map(format_mac))
        );
        stage.claim(text, holds, seen);
        Ok(())
    }
}
