//! `virtio`: native XDP on a virtio network card, with the other end of its wire as the client and as
//! a server that runs nothing of ours. For guests only, since it takes the machine's cards.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};

use super::shape::{Family, NIC, address, networks, vip};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::{Backend, Mode};
use crate::client::{Arguments, Connections, Load};
use crate::guest;
use crate::lab::agent::Agent;
use crate::lab::{Host, Lab, tool};

const COUNT: u64 = 32;
const PORT: u16 = 7000;
const BACKEND_PORT: u16 = 7007;
const NODE: &str = "master1";
const CLIENT: &str = "client1";

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    if !guest::is_here() {
        bail!("it takes the machine's network cards, so it runs in guests: `lab run kernels`");
    }
    let [one, other, ..] = &cards()?[..] else { bail!("the machine has no two virtio cards") };
    let lab = Lab::new(stage.tool())?;
    let node = plugged(&lab, NODE, one)?;
    let client = plugged(&lab, CLIENT, other)?;
    let family = Family::V4;
    let (own, far) = (address(NODE, family), address(CLIENT, family));
    let listen = |address| [SocketAddr::new(address, BACKEND_PORT)];
    let _here = Backend::start(&lab, &node, Mode::Tcp, &listen(own), None)?;
    let _there = Backend::start(&lab, &client, Mode::Tcp, &listen(far), None)?;
    let configuration = format!(
        "interface = \"{NIC}\"\nvirtual_addresses = [\"{}\"]\nactive = \"{NODE}\"\n\
         [data_path]\nmodes = [\"native\"]\n\
         [[node]]\nname = \"{NODE}\"\naddress = \"{own}\"\n\
         [[service]]\nname = \"echo\"\nport = {PORT}\nhash = \"source-port\"\n\
         backends = [\"{own}:{BACKEND_PORT}\", \"{far}:{BACKEND_PORT}\"]\n",
        vip(family)
    );
    let agent = Agent::start(&node, &configuration)?;
    agent.wait_for_backends("both backends accept", super::cluster::SETTLE, |backends| {
        backends.len() == 2 && backends.iter().all(|backend| backend.accepting)
    })?;
    let status = agent.status()?;
    let mode = status.interfaces.first().context("nothing is attached")?;
    let seen = serde_json::to_string(&mode.mode)?;
    stage.claim("the card's driver runs XDP", seen == "\"native\"", format!("{seen} on {one}"));
    let mut tally = Tally::default();
    let arguments = Arguments {
        connections: Connections::PerRequest,
        concurrency: 4,
        count: COUNT,
        ..Arguments::new(SocketAddr::new(vip(family), PORT), Mode::Tcp)
    };
    let report = Load::complete(&lab, &client, &arguments)?;
    tally.answered(stage, "a client on the wire", &report);
    tally.spread(stage, 2);
    tally.figures(stage);
    agent.stop()
}

/// A machine with one of this machine's own cards.
fn plugged(lab: &Lab, name: &str, card: &str) -> Result<Host> {
    let host = lab.host(name).start()?;
    tool::run("ip", &["link", "set", card, "netns", host.namespace().name()])?;
    let mut batch = format!("link set {card} name {NIC}\nlink set {NIC} up\n");
    for address in networks(name).iter().filter(|address| address.contains('.')) {
        batch.push_str(&format!("addr add {address} dev {NIC}\n"));
    }
    host.namespace().ip(&batch)?;
    Ok(host)
}

/// Names of the interfaces whose driver is virtio's.
fn cards() -> Result<Vec<String>> {
    let entries = fs::read_dir("/sys/class/net").context("cannot list the interfaces")?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| {
            let driver = fs::read_link(entry.path().join("device/driver"));
            driver.is_ok_and(|driver| driver.ends_with("virtio_net"))
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}
