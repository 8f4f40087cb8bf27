//! Two machines with a real keepalived and a plain echo server each, and a VIP of their own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::backend::{Backend, Mode};
use crate::client::{Probe, Prober};
use crate::lab::peer::keepalived::Keepalived;
use crate::lab::{Host, Lab};
use crate::scenario::cluster::Cluster;
use crate::scenario::failover::trial::Fault;
use crate::scenario::shape::{NIC, priority};

const NAMES: [&str; 2] = ["keeper1", "keeper2"];
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 139, 151));
const PORT: u16 = 5353;
/// Not ours, which is on the same switch.
const ROUTER_ID: u8 = 52;
const LIMIT: Duration = Duration::from_secs(30);
/// Answers that a prober has before the fault, and after it is over.
const ANSWERS: u64 = 150;
/// As often a fault waits for a VIP that moves by itself.
const REPEATS_MAX: usize = 3;
/// Between two looks at who holds it.
const POLL: Duration = Duration::from_millis(10);
/// After so many intervals a machine that came back has heard the Active one, or taken over.
const SETTLED_INTERVALS: u32 = 4;

struct Keeper {
    // Before the host: they go first.
    keepalived: Option<Keepalived>,
    echo: Option<Backend>,
    host: Host,
}

/// The two, one of them Active.
pub(super) struct Pair {
    keepers: [Keeper; 2],
    lab: Lab,
    interval: Duration,
    active: usize,
    /// How often the VIP had moved by itself before a fault.
    moved_before: usize,
}

impl Pair {
    /// # Errors
    /// Where keepalived is not installed, or the VIP does not appear.
    pub(super) fn start(cluster: &Cluster, interval: Duration) -> Result<Self> {
        let lab = cluster.lab.clone();
        let host = |name: &str, last: u8| {
            let own = [format!("192.168.139.{last}/24")];
            lab.host(name).interface(NIC, "lan", &own).start()
        };
        let hosts = [host(NAMES[0], 181)?, host(NAMES[1], 182)?];
        let keepers = hosts.map(|host| Keeper { keepalived: None, echo: None, host });
        let mut pair = Self { keepers, lab, interval, active: 0, moved_before: 0 };
        pair.boot(0)?;
        pair.await_active(0)?;
        pair.boot(1)?;
        pair.settle()?;
        Ok(pair)
    }

    pub(super) const fn moved_before(&self) -> usize {
        self.moved_before
    }

    /// Strikes the Active one, and returns what a prober saw.
    ///
    /// # Errors
    /// Where the other one does not take over, or the struck one does not come back.
    pub(super) fn turn(&mut self, cluster: &Cluster, fault: Fault) -> Result<Probe> {
        let mut prober = self.prober(cluster)?;
        // What a prober saw of a move of its own accord is no figure of the fault's.
        for _ in 0..REPEATS_MAX {
            if !self.find_active()? {
                break;
            }
            prober = self.prober(cluster)?;
        }
        let (struck, next) = (self.active, 1 - self.active);
        let keeper = &mut self.keepers[struck];
        if fault == Fault::Crash {
            keeper.host.set_cable(NIC, false)?;
            keeper.host.kill_all()?;
            (keeper.keepalived, keeper.echo) = (None, None);
        } else {
            keeper.keepalived.take().context("no keepalived runs")?.end()?;
        }
        self.await_active(next)?;
        prober.wait_for_answers(ANSWERS, LIMIT)?;
        let probe = prober.stop()?;
        self.active = next;
        self.boot(struck)?;
        self.settle()?;
        Ok(probe)
    }

    fn prober(&self, cluster: &Cluster) -> Result<Prober> {
        let prober = Prober::start(cluster.host("client2")?, SocketAddr::new(VIP, PORT))?;
        prober.wait_for_answers(ANSWERS, LIMIT)?;
        Ok(prober)
    }

    /// Who holds the VIP now, and whether that is another one than before.
    fn find_active(&mut self) -> Result<bool> {
        let deadline = Instant::now() + LIMIT;
        let holds = |index: usize| self.keepers[index].host.holds(NIC, VIP);
        let active = loop {
            match (holds(0)?, holds(1)?) {
                (true, false) => break 0,
                (false, true) => break 1,
                _ => ensure!(Instant::now() < deadline, "both hold the VIP for {LIMIT:?}, or none"),
            }
            std::thread::sleep(POLL);
        };
        let moved = active != self.active;
        (self.active, self.moved_before) = (active, self.moved_before + usize::from(moved));
        Ok(moved)
    }

    /// Nothing is left of what a dead machine had in its memory; what does not run starts.
    fn boot(&mut self, index: usize) -> Result<()> {
        let keeper = &mut self.keepers[index];
        if keeper.host.holds(NIC, VIP)? {
            keeper.host.namespace().ip(&format!("addr del {VIP}/32 dev {NIC}"))?;
        }
        keeper.host.set_cable(NIC, true)?;
        if keeper.echo.is_none() {
            let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
            keeper.echo = Some(Backend::start(&self.lab, &keeper.host, Mode::Udp, &[any], None)?);
        }
        let priority = priority(u8::try_from(index + 1)?);
        let configuration = configuration(priority, self.interval);
        keeper.keepalived = Some(Keepalived::start(&keeper.host, &configuration)?);
        Ok(())
    }

    fn await_active(&self, index: usize) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !self.keepers[index].host.holds(NIC, VIP)? {
            let log = || self.keepers[index].keepalived.as_ref().map(Keepalived::log);
            ensure!(
                Instant::now() < deadline,
                "keepalived does not take the VIP within {LIMIT:?}; it says {:?}",
                log()
            );
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// The one that came back stays Backup.
    fn settle(&mut self) -> Result<()> {
        // keepalived tells nobody what it has heard: there is nothing to wait for.
        std::thread::sleep(Duration::from_millis(500) + self.interval * SETTLED_INTERVALS);
        for keeper in &mut self.keepers {
            keeper.keepalived.as_mut().context("no keepalived runs")?.require_running()?;
        }
        self.find_active().map(drop)
    }
}

/// Version 3 without preemption, like ours; everything else as it comes.
fn configuration(priority: u8, interval: Duration) -> String {
    let seconds = interval.as_secs_f64();
    format!(
        "vrrp_instance VI_1 {{\n state BACKUP\n nopreempt\n interface {NIC}\n version 3\n \
         virtual_router_id {ROUTER_ID}\n priority {priority}\n advert_int {seconds}\n \
         virtual_ipaddress {{ {VIP}\n }}\n}}\n"
    )
}
