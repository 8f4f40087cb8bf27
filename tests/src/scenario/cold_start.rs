//! `cold-start`: a node that starts knows nobody's MAC yet. It attracts no connection before it has a
//! way for it, and does not wait for ever for one that is not there.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::shape::{Family, NIC, address, vip};
use super::stage::Stage;
use crate::backend::{Backend, Mode};
use crate::client::{Arguments, Connections, Load};
use crate::lab::agent::Agent;
use crate::lab::{Host, Lab, tool};

const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);
/// How long the backend lets the node wait: long for a network, less than the node's patience.
const SILENCE: Duration = Duration::from_millis(300);
const REQUESTS: u64 = 20;
const NODE: &str = "master1";
const SERVER: &str = "server1";
const CLIENT: &str = "client1";
/// `arp_ignore`: for none of its own addresses.
const MUTE: (&str, &str) = ("net.ipv4.conf.all.arp_ignore", "8");

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let lab = Lab::new(stage.tool())?;
    let host = |name: &str| {
        let own = [format!("{}/24", address(name, Family::V4))];
        lab.host(name).interface(NIC, "lan", &own).start()
    };
    let (node, server, client) = (host(NODE)?, host(SERVER)?, host(CLIENT)?);
    let listens = (address(SERVER, Family::V4), 6443).into();
    let _backend = Backend::start(&lab, &server, Mode::Tcp, &[listens], None)?;
    server.namespace().sysctl(MUTE.0, MUTE.1)?;

    stage.step("a backend that is slow to say where it is");
    let begun = Instant::now();
    let (mut agent, mut load) = thread::scope(|scope| -> Result<(Agent, Load)> {
        let starting = scope.spawn(|| Agent::start(&node, &configuration()));
        await_question(&node)?;
        let target = (vip(Family::V4), 8443).into();
        let connections = Connections::PerRequest;
        let arguments = Arguments { connections, ..Arguments::new(target, Mode::Tcp) };
        let load = Load::start(&lab, &client, &arguments)?;
        thread::sleep(SILENCE);
        let held = node.holds(NIC, vip(Family::V4))?;
        let text = "nobody is attracted before the backend is found";
        stage.claim(text, !held, format!("VIP held: {held}"));
        // Its own question tells the node who it is.
        ensure!(server.ping(address(NODE, Family::V4), 1)? == 1, "the node answers no ping");
        let agent = starting.join().map_err(|_| anyhow!("starting the agent panicked"))??;
        Ok((agent, load))
    })?;
    stage.figure("slow_backend_start_ms", begun.elapsed().as_millis() as u64);
    agent.wait_until_active(LIMIT)?;
    load.run_for_requests(REQUESTS, LIMIT)?;
    let report = load.stop()?;
    let text = "the first connections of all are served, none is refused";
    stage.claim(text, report.failed == 0 && report.connect_errors == 0, report.summary());
    agent.stop()?;

    stage.step("a backend that never says where it is");
    for host in [&node, &server] {
        host.namespace().ip(&format!("neigh flush dev {NIC}"))?;
    }
    let begun = Instant::now();
    let mut agent = Agent::start(&node, &configuration())?;
    agent.wait_until_active(LIMIT)?;
    stage.figure("silent_backend_start_ms", begun.elapsed().as_millis() as u64);
    let reasons: Vec<String> =
        agent.backends()?.into_iter().map(|backend| backend.reason).collect();
    let said = reasons.iter().any(|reason| reason.contains("does not answer"));
    stage.claim("the node begins without it, and says so", said, format!("{reasons:?}"));
    agent.stop()
}

/// Waits until the node asks for the backend's MAC.
fn await_question(node: &Host) -> Result<()> {
    let server = address(SERVER, Family::V4).to_string();
    let deadline = Instant::now() + LIMIT;
    let namespace = node.namespace().name();
    while tool::run("ip", &["-n", namespace, "neigh", "show", "to", &server])?.trim().is_empty() {
        ensure!(Instant::now() < deadline, "nobody asks for {server} within {LIMIT:?}");
        thread::sleep(POLL);
    }
    Ok(())
}

fn configuration() -> String {
    let (own, backend) = (address(NODE, Family::V4), address(SERVER, Family::V4));
    format!(
        "interface = \"{NIC}\"\nvirtual_addresses = [\"{}\"]\nactive = \"{NODE}\"\n\
         [data_path]\non_stop = \"remove\"\n\
         [[node]]\nname = \"{NODE}\"\naddress = \"{own}\"\n\
         [[service]]\nname = \"api\"\nport = 8443\nbackends = [\"{backend}:6443\"]\n",
        vip(Family::V4),
    )
}
