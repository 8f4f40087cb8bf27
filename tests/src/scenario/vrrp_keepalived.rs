//! `vrrp-keepalived-*`: our agent and a real keepalived in one virtual router elect, fail over and
//! hand back in both directions.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_agent::control::api::{Role, VrrpState};
use nix::sys::signal::Signal;

use super::shape::{Family, NIC, address, vip};
use super::stage::Stage;
use crate::lab::agent::Agent;
use crate::lab::{Host, Lab, Process};

const LIMIT: Duration = Duration::from_secs(30);
const OURS: &str = "master1";
const PEER: &str = "master2";
/// keepalived cuts it to eight bytes, as the clusters' files have it.
const PASSWORD: &str = "K8SHA_KA_AUTH";

/// How the two speak.
#[derive(Clone, Copy)]
struct Dialect {
    version: u8,
    unicast: bool,
}

pub(super) fn version_2(stage: &mut Stage) -> Result<()> {
    run(stage, Dialect { version: 2, unicast: false })
}

pub(super) fn version_3(stage: &mut Stage) -> Result<()> {
    run(stage, Dialect { version: 3, unicast: false })
}

pub(super) fn unicast(stage: &mut Stage) -> Result<()> {
    run(stage, Dialect { version: 2, unicast: true })
}

fn run(stage: &mut Stage, dialect: Dialect) -> Result<()> {
    let lab = Lab::new(stage.tool())?;
    let host = |name: &str| {
        let own = [format!("{}/24", address(name, Family::V4))];
        lab.host(name).interface(NIC, "lan", &own).start()
    };
    let pair = Pair { ours: host(OURS)?, peer: host(PEER)?, client: host("client1")?, dialect };
    stage.step("our agent is alone");
    let mut agent = Agent::start(&pair.ours, &pair.configuration())?;
    pair.await_ours(&mut agent, true)?;
    pair.owned_by(stage, "alone, ours is Active", &pair.ours)?;

    stage.step("a keepalived of lower priority joins");
    let keepalived = pair.keepalived(90, "joined")?;
    pair.stays_active(stage, &agent)?;

    stage.step("ours is held back");
    agent.lbctl(["vrrp", "hold"])?;
    pair.await_peer(true)?;
    pair.await_ours(&mut agent, false)?;
    pair.owned_by(stage, "keepalived takes over from ours", &pair.peer)?;

    stage.step("keepalived ends");
    agent.lbctl(["vrrp", "release"])?;
    pair.end(keepalived)?;
    pair.await_ours(&mut agent, true)?;
    pair.owned_by(stage, "ours takes over from keepalived", &pair.ours)?;

    stage.step("a keepalived of higher priority joins");
    let keepalived = pair.keepalived(150, "higher")?;
    pair.await_peer(true)?;
    pair.await_ours(&mut agent, false)?;
    pair.owned_by(stage, "ours yields to the higher priority", &pair.peer)?;
    let reason = agent.vrrp()?.first().map(|router| router.reason.clone()).unwrap_or_default();
    let peer = address(PEER, Family::V4).to_string();
    stage.claim("ours says to whom it yielded", reason.contains(&peer), reason);

    stage.step("that keepalived ends");
    pair.end(keepalived)?;
    pair.await_ours(&mut agent, true)?;
    pair.owned_by(stage, "and ours is Active again", &pair.ours)?;
    judge_counters(stage, &agent)?;
    agent.stop()
}

/// Nothing that keepalived said was refused.
fn judge_counters(stage: &mut Stage, agent: &Agent) -> Result<()> {
    let routers = agent.vrrp()?;
    let [router] = &routers[..] else { anyhow::bail!("{} virtual routers", routers.len()) };
    let refused: u64 = router.refused.values().sum();
    stage.claim("no advertisement was refused", refused == 0, format!("{:?}", router.refused));
    stage.claim("advertisements were heard", router.received > 0, router.received);
    stage.figure("sent", router.sent);
    stage.figure("received", router.received);
    stage.figure("refused", refused);
    stage.figure("transitions", router.transitions);
    stage.figure("lateness_max_ms", router.lateness_max_seconds * 1000.0);
    Ok(())
}

struct Pair {
    ours: Host,
    peer: Host,
    client: Host,
    dialect: Dialect,
}

impl Pair {
    fn configuration(&self) -> String {
        let [ours, peer] = [OURS, PEER].map(|name| address(name, Family::V4));
        let Dialect { version, unicast } = self.dialect;
        let password = match version {
            2 => format!("auth_pass = \"{PASSWORD}\"\n"),
            _ => String::new(),
        };
        format!(
            "interface = \"{NIC}\"\nvirtual_addresses = [\"{}\"]\n\
             [vrrp]\nrouter_id = 51\nversion = {version}\nadvertisement_interval = \"1s\"\n\
             unicast = {unicast}\n{password}\
             [[node]]\nname = \"{OURS}\"\naddress = \"{ours}\"\npriority = 100\n\
             [[node]]\nname = \"{PEER}\"\naddress = \"{peer}\"\npriority = 90\n\
             [[service]]\nname = \"api\"\nport = 8443\nbackends = [\"{ours}:6443\"]\n",
            vip(Family::V4),
        )
    }

    /// A real keepalived, configured as the clusters' are.
    fn keepalived(&self, priority: u8, name: &str) -> Result<Process> {
        let [ours, peer] = [OURS, PEER].map(|name| address(name, Family::V4));
        let Dialect { version, unicast } = self.dialect;
        let authentication = match version {
            2 => format!("authentication {{ auth_type PASS\n auth_pass {PASSWORD}\n }}\n"),
            _ => String::new(),
        };
        let way = match unicast {
            true => format!("unicast_src_ip {peer}\n unicast_peer {{ {ours}\n }}\n"),
            false => format!("mcast_src_ip {peer}\n"),
        };
        let text = format!(
            "vrrp_instance VI_1 {{\n state BACKUP\n interface {NIC}\n {way} version {version}\n \
             virtual_router_id 51\n priority {priority}\n advert_int 1\n {authentication} \
             virtual_ipaddress {{ {}\n }}\n}}\n",
            vip(Family::V4),
        );
        let directory = self.peer.directory();
        let file = directory.join(format!("{name}.conf"));
        std::fs::write(&file, text)?;
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"]);
        command.arg("--use-file").arg(&file);
        command.arg("--pid").arg(directory.join(format!("{name}.pid")));
        command.arg("--vrrp_pid").arg(directory.join(format!("{name}.vrrp.pid")));
        self.peer.spawn("keepalived", command)
    }

    /// keepalived's clean end: it resigns and removes the address.
    fn end(&self, mut keepalived: Process) -> Result<()> {
        keepalived.signal(Signal::SIGTERM)?;
        keepalived.wait(LIMIT)?;
        self.await_peer(false)
    }

    fn await_ours(&self, agent: &mut Agent, active: bool) -> Result<()> {
        let what = format!("ours is Active: {active}");
        agent.wait_until(&what, LIMIT, |status| {
            let held = status.virtual_addresses.iter().all(|vip| vip.held == active);
            (status.role == Role::Active) == active && held
        })?;
        Ok(())
    }

    fn await_peer(&self, holds: bool) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while self.peer.holds(NIC, vip(Family::V4))? != holds {
            ensure!(Instant::now() < deadline, "keepalived holds the VIP: {}", !holds);
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// For three more advertisements, in which a keepalived that did not hear them would take over
    /// and ours would hear it.
    fn stays_active(&self, stage: &mut Stage, agent: &Agent) -> Result<()> {
        let sent = |agent: &Agent| -> Result<u64> {
            Ok(agent.vrrp()?.first().map_or(0, |router| router.sent))
        };
        let (first, deadline) = (sent(agent)?, Instant::now() + LIMIT);
        while sent(agent)? < first + 5 {
            ensure!(Instant::now() < deadline, "ours sends nothing");
            std::thread::sleep(Duration::from_millis(20));
        }
        let routers = agent.vrrp()?;
        let active = routers.iter().all(|router| router.state == VrrpState::Active);
        let peer = self.peer.holds(NIC, vip(Family::V4))?;
        let seen = format!("ours active: {active}, keepalived holds the VIP: {peer}");
        stage.claim("a keepalived of lower priority stays backup", active && !peer, seen);
        Ok(())
    }

    /// One machine has the address, and answers a client for it.
    fn owned_by(&self, stage: &mut Stage, text: &str, owner: &Host) -> Result<()> {
        let address = vip(Family::V4);
        let deadline = Instant::now() + LIMIT;
        // An entry of before would tell nothing.
        self.client.namespace().ip(&format!("neigh flush to {address}"))?;
        let mac = owner.mac(NIC)?;
        let mut known = None;
        while known != Some(mac) && Instant::now() < deadline {
            self.client.knock(address)?;
            known = self.client.neighbour(address)?;
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut holders = Vec::new();
        for host in [&self.ours, &self.peer] {
            if host.holds(NIC, address)? {
                holders.push(host.name());
            }
        }
        let seen = format!("held by {holders:?}, the client knows {known:02x?}");
        stage.claim(text, holders == [owner.name()] && known == Some(mac), seen);
        Ok(())
    }
}
