//! `datagrams`: those that stay. A backend that comes back leaves to the others the clients that they got
//! meanwhile, and QUIC packets go to the server that their connection id names, wherever they come from.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::cluster::Cluster;
use super::shape::{Family, Shape, backend, vip};
use super::stage::Stage;
use crate::backend::{Answer, Backend, Mode};
use crate::lab::Host;

const KEPT: u16 = 5301;
const CONTROL: u16 = 5302;
const QUIC: u16 = 443;
/// Clients' sockets, each a flow.
const FLOWS: usize = 60;
const LIMIT: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(2);
/// Whose server goes and comes back. Not the Active node's.
const GOES: &str = "master2";
/// The first octet of connection ids: of configuration 1, and of one that names nobody.
const ROUTABLE: u8 = 0x2a;
const UNROUTABLE: u8 = 0xff;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let further: String = Family::BOTH.iter().map(|&family| services(family)).collect();
    let mut cluster = Cluster::machines(stage, Shape { further, ..Shape::masters(&[Mode::Udp]) })?;
    // Datagram servers are checked by TCP on their port.
    let mut checked = BTreeMap::new();
    for name in cluster.shape.node_names() {
        let listens = listener(&cluster, &name)?;
        checked.insert(name, listens);
    }
    stage.step("starting the agents");
    cluster.start_agents()?;
    cluster.settle()?;
    for family in Family::BOTH {
        let flows = [KEPT, CONTROL].map(|port| Flows::open(&cluster, family, port));
        let [kept, control] = flows;
        let (kept, control) = (kept?, control?);
        stage.step(&format!("{}: {GOES}'s server goes", family.name()));
        let before = [kept.ask()?, control.ask()?];
        cluster.backends.remove(&(GOES.to_owned(), Mode::Udp));
        checked.remove(GOES);
        accepts(&cluster, false)?;
        let meanwhile = [kept.ask()?, control.ask()?];
        for (what, owners) in ["kept", "other"].iter().zip(&meanwhile) {
            let there = owners.iter().filter(|owner| *owner == GOES).count();
            let text = format!("{} {what} clients are served by the others", family.name());
            stage.claim(&text, there == 0, format!("{there} by {GOES}"));
        }
        stage.step(&format!("{}: {GOES}'s server comes back", family.name()));
        cluster.start_backend(GOES, Mode::Udp)?;
        checked.insert(GOES.to_owned(), listener(&cluster, GOES)?);
        accepts(&cluster, true)?;
        let after = [kept.ask()?, control.ask()?];
        let moved = |at: usize| differing(&meanwhile[at], &after[at]);
        let gone = before[0].iter().filter(|owner| *owner == GOES).count();
        stage.figure(&format!("kept_moved_{}", family.name().to_lowercase()), moved(0));
        stage.figure(&format!("other_moved_{}", family.name().to_lowercase()), moved(1));
        let text = format!("{} clients stay where they went meanwhile", family.name());
        stage.claim(&text, moved(0) == 0 && gone > 0, format!("{} moved of {gone}", moved(0)));
        let text = format!("{} clients of a service without affinity go back", family.name());
        stage.claim(&text, moved(1) > 0, format!("{} moved", moved(1)));
        quic(stage, &cluster, family)?;
    }
    Ok(())
}

/// Packets with each server's connection id, every one from another socket.
fn quic(stage: &mut Stage, cluster: &Cluster, family: Family) -> Result<()> {
    stage.step(&format!("{}: connection ids", family.name()));
    let target = SocketAddr::new(vip(family), QUIC);
    let client = cluster.host("client1")?;
    let ask = |first: u8, id: u8| ask_once(client, target, &packet(first, id));
    for (name, id) in cluster.shape.node_names().iter().zip(1..) {
        let owners: Vec<String> =
            (0..FLOWS / 3).map(|_| ask(ROUTABLE, id)).collect::<Result<_>>()?;
        let others = owners.iter().filter(|owner| *owner != name).count();
        let text = format!("{} packets with the id of {name} go there", family.name());
        stage.claim(&text, others == 0, format!("{others} of {} elsewhere", owners.len()));
    }
    let owners: Vec<String> = (0..FLOWS).map(|_| ask(UNROUTABLE, 1)).collect::<Result<_>>()?;
    let spread = owners.iter().filter(|owner| *owner != &owners[0]).count();
    let text = format!("{} packets whose id names nobody go by their address", family.name());
    stage.claim(&text, spread > 0, format!("{spread} of {} elsewhere", owners.len()));
    Ok(())
}

/// A short header, a connection id of eight bytes, and what would be encrypted.
fn packet(first: u8, id: u8) -> Vec<u8> {
    [&[0x40, first, 0, id, 9, 8, 7, 6, 5, 4][..], &[0xcc; 24]].concat()
}

/// Sockets of a client, all to one service.
struct Flows(Vec<UdpSocket>);

impl Flows {
    fn open(cluster: &Cluster, family: Family, port: u16) -> Result<Self> {
        let target = SocketAddr::new(vip(family), port);
        let open = || (0..FLOWS).map(|_| socket(target)).collect::<Result<_>>();
        Ok(Self(cluster.host("client1")?.namespace().within(open)?))
    }

    /// Who answers each.
    fn ask(&self) -> Result<Vec<String>> {
        self.0.iter().map(|socket| answer(socket, b"sixteen bytes...")).collect()
    }
}

fn differing(one: &[String], other: &[String]) -> usize {
    one.iter().zip(other).filter(|(one, other)| one != other).count()
}

fn ask_once(client: &Host, target: SocketAddr, payload: &[u8]) -> Result<String> {
    client.namespace().within(|| answer(&socket(target)?, payload))
}

/// A connected one takes answers from the VIP only.
fn socket(target: SocketAddr) -> Result<UdpSocket> {
    let any: SocketAddr = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(ANSWER))?;
    Ok(socket)
}

fn answer(socket: &UdpSocket, payload: &[u8]) -> Result<String> {
    socket.send(payload)?;
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).context("no answer")?;
    let said = buffer.get(payload.len() + 1..length).context("a short answer")?;
    let answer: Answer = serde_json::from_slice(said)?;
    Ok(answer.backend)
}

/// What the health checks of a node's datagram server find.
fn listener(cluster: &Cluster, name: &str) -> Result<Backend> {
    let at = Family::BOTH.map(|family| backend(name, Mode::Udp, family));
    Backend::start(&cluster.lab, cluster.host(name)?, Mode::Tcp, &at, None)
}

/// Waits until every agent sees that server come or go.
fn accepts(cluster: &Cluster, accepting: bool) -> Result<()> {
    for node in &cluster.nodes {
        let what = format!("{GOES}'s server is seen on {}", node.host.name());
        node.agent()?.wait_for_backends(&what, LIMIT, |backends| {
            let of = |it: &&lb_agent::control::api::Backend| {
                it.node.as_deref() == Some(GOES) && it.service.starts_with("kept")
            };
            backends.iter().filter(of).all(|it| it.accepting == accepting)
        })?;
    }
    Ok(())
}

/// One whose datagrams stay, one whose do not, and one with connection ids.
fn services(family: Family) -> String {
    let suffix = family.name().to_lowercase();
    let at = |n: u8| backend(&format!("master{n}"), Mode::Udp, family);
    let plain: Vec<String> = (1..=3).map(|n| at(n).to_string()).collect();
    let named: Vec<String> = (1..=3)
        .map(|n| format!("{{ address = \"{}\", server_id = \"{n:04x}\" }}", at(n)))
        .collect();
    let health =
        "[service.health]\ninterval = \"200ms\"\ntimeout = \"200ms\"\nrise = 1\nfall = 2\n";
    let service = |name: &str, port: u16, more: &str, backends: &str, tables: &str| {
        format!(
            "\n[[service]]\nname = \"{name}-{suffix}\"\nport = {port}\nprotocol = \"udp\"\n\
             hash = \"source-port\"\n{more}backends = {backends}\n{health}{tables}"
        )
    };
    let scheme = "[service.quic]\nserver_id_length = 2\nconfig_rotation = 1\n";
    let plain = format!("{plain:?}");
    [
        service("kept", KEPT, "affinity = \"60s\"\n", &plain, ""),
        service("other", CONTROL, "", &plain, ""),
        service("h3", QUIC, "", &format!("[{}]", named.join(", ")), scheme),
    ]
    .concat()
}
