//! The holder against a recording world in virtual time, and against a real kernel.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::ledger::{Answer, Placement};
use super::{
    Claim, DataPath, Effects, Holder, HolderHandle, NodeEffects, Role, RoleSender, StaticRole, Term,
};
use crate::announce::{Interface, Schedule};
use crate::netlink::testbed::{isolated, veth};
use crate::netlink::{Monitor, MonitorOptions, Netlink};

const LEASE: Duration = Duration::from_secs(2);
const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 150));

/// Writes down what is done, with the milliseconds of virtual time since its start.
#[derive(Clone)]
struct World {
    start: Instant,
    log: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<Answer>>,
    tables: Arc<Mutex<bool>>,
    address: Arc<Mutex<Result<(), String>>>,
}

impl World {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            log: Arc::default(),
            answer: Arc::new(Mutex::new(Answer::Free)),
            tables: Arc::new(Mutex::new(true)),
            address: Arc::new(Mutex::new(Ok(()))),
        }
    }

    fn write(&self, what: &str) {
        let at = self.start.elapsed().as_millis();
        self.log.lock().unwrap().push(format!("{at} {what}"));
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

struct Announcing(World);

impl Drop for Announcing {
    fn drop(&mut self) {
        self.0.write("silence");
    }
}

impl Effects for World {
    type Announcing = Announcing;

    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap()
    }

    fn tables_written(&self) -> bool {
        *self.tables.lock().unwrap()
    }

    fn ask(&self, _: Placement) -> impl Future<Output = Answer> + Send + 'static {
        self.write("ask");
        let answer = self.answer.lock().unwrap().clone();
        async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            answer
        }
    }

    fn set_lease(&self, _: IpAddr, until_ns: Option<u64>) -> Result<(), String> {
        let until = until_ns.map_or("none".to_owned(), |ns| (ns / 1_000_000).to_string());
        self.write(&format!("lease {until}"));
        Ok(())
    }

    async fn add_address(&self, _: &Placement, valid: Duration) -> Result<(), String> {
        self.write(&format!("address {valid:?}"));
        self.address.lock().unwrap().clone()
    }

    async fn remove_address(&self, _: &Placement) -> Result<(), String> {
        self.write("no address");
        Ok(())
    }

    fn announce(&self, _: &Placement) -> Result<Announcing, String> {
        self.write("announce");
        Ok(Announcing(self.clone()))
    }
}

fn placement() -> Placement {
    Placement { vip: VIP, interface: Interface { index: 2, name: "ens33".to_owned(), mac: [2; 6] } }
}

struct Running {
    source: RoleSender,
    placements: watch::Sender<Vec<Placement>>,
    handle: HolderHandle,
    task: tokio::task::JoinHandle<()>,
}

/// A holder over a world, which begins as Backup.
fn running<E: Effects>(effects: E, lease: Duration, at: Placement) -> Running {
    running_for(effects, Term::Own(lease), at)
}

fn running_for<E: Effects>(effects: E, term: Term, at: Placement) -> Running {
    let (source, roles) = RoleSender::new(Role::Backup, "at rest".to_owned(), Claim::Insist);
    let (placements, receiver) = watch::channel(vec![at]);
    let (holder, handle) = Holder::new(effects, term, roles, receiver);
    Running { source, placements, handle, task: tokio::spawn(holder.run()) }
}

#[tokio::test(start_paused = true)]
async fn a_role_is_carried_out_in_order_refreshed_every_quarter_and_undone_in_reverse() {
    let world = World::new();
    let node = running(world.clone(), LEASE, placement());
    let change = node.source.set(Role::Active, "by test".to_owned(), Claim::Once);
    let holding = node.handle.settled(change).await.unwrap();
    assert_eq!((holding.role, holding.reason.as_str()), (Role::Active, "by test"));
    assert!(holding.vips[0].held);
    assert_eq!(holding.vips[0].lease_until_ns, Some(2_300_000_000));
    assert_eq!(world.log(), ["0 ask", "300 lease 2300", "300 address 2s", "300 announce"]);

    tokio::time::sleep(Duration::from_millis(800)).await;
    let expected = ["500 lease 2500", "500 address 2s", "1000 lease 3000", "1000 address 2s"];
    assert_eq!(world.log(), expected);

    let change = node.source.set(Role::Backup, "by test".to_owned(), Claim::Once);
    let holding = node.handle.settled(change).await.unwrap();
    assert_eq!((holding.role, holding.vips[0].held), (Role::Backup, false));
    assert_eq!(world.log(), ["1100 silence", "1100 no address", "1100 lease none"]);
    tokio::time::sleep(LEASE).await;
    assert_eq!(world.log(), [] as [&str; 0]);
}

#[tokio::test(start_paused = true)]
async fn when_the_source_ends_everything_is_given_up() {
    let world = World::new();
    let node = running(world.clone(), LEASE, placement());
    let change = node.source.set(Role::Active, "by test".to_owned(), Claim::Forced);
    node.handle.settled(change).await.unwrap();
    world.log();
    drop(node.source);
    node.task.await.unwrap();
    assert_eq!(world.log(), ["0 silence", "0 no address", "0 lease none"]);
    assert_eq!(node.handle.holding().role, Role::Backup);
}

#[tokio::test(start_paused = true)]
async fn a_person_is_told_who_holds_the_vip_and_nothing_is_done() {
    let world = World::new();
    *world.answer.lock().unwrap() = Answer::TakenBy([6; 6]);
    let node = running(world.clone(), LEASE, placement());
    let change = node.source.set(Role::Active, "by test".to_owned(), Claim::Once);
    let refusal = node.handle.settled(change).await.unwrap_err();
    assert!(refusal.starts_with("192.0.2.150 is held by another machine with the MAC 06:"));
    assert_eq!(node.handle.holding().role, Role::Backup);
    assert_eq!(node.handle.holding().reason, refusal);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.log(), ["0 ask"]);
}

#[tokio::test(start_paused = true)]
async fn the_configured_node_takes_the_vip_once_it_is_free() {
    let world = World::new();
    *world.answer.lock().unwrap() = Answer::TakenBy([6; 6]);
    let node = running(world.clone(), LEASE, placement());
    let change = node.source.set(Role::Active, "by test".to_owned(), Claim::Insist);
    node.handle.settled(change).await.unwrap_err();
    *world.answer.lock().unwrap() = Answer::Free;
    let mut status = node.handle.watch();
    let holding = status.wait_for(|holding| holding.role == Role::Active).await.unwrap();
    assert_eq!((holding.refusal.as_ref(), holding.reason.as_str()), (None, "by test"));
    drop(holding);
    assert_eq!(world.log()[..2], ["0 ask", "5000 ask"]);
}

#[tokio::test(start_paused = true)]
async fn no_role_is_taken_before_the_tables_are_written() {
    let world = World::new();
    *world.tables.lock().unwrap() = false;
    let node = running(world.clone(), LEASE, placement());
    let change = node.source.set(Role::Active, "by test".to_owned(), Claim::Forced);
    let refusal = node.handle.settled(change).await.unwrap_err();
    assert_eq!(refusal, "the services' tables are not in the kernel yet");
    *world.tables.lock().unwrap() = true;
    node.handle.watch().wait_for(|holding| holding.role == Role::Active).await.unwrap();
    assert_eq!(world.log()[0], "5000 lease 7000");
}

#[tokio::test(start_paused = true)]
async fn a_removed_vip_is_restored_at_once() {
    let world = World::new();
    let node = running(world.clone(), LEASE, placement());
    let change = node.source.set(Role::Active, "by test".to_owned(), Claim::Forced);
    node.handle.settled(change).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.log();
    let mut status = node.handle.watch();
    status.mark_unchanged();
    node.handle.restore();
    status.changed().await.unwrap();
    assert_eq!(world.log(), ["100 lease 2100", "100 address 2s"]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ran_out_unnoticed_is_renewed_and_announced_anew() {
    let world = World::new();
    let node = running(world.clone(), LEASE, placement());
    let change = node.source.set(Role::Active, "by test".to_owned(), Claim::Forced);
    node.handle.settled(change).await.unwrap();
    world.log();
    // The machine was stopped: time goes on, and no task ran.
    tokio::time::advance(Duration::from_secs(10)).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let log = world.log();
    assert_eq!(log[..3], ["10000 lease 12000", "10000 address 2s", "10000 announce"]);
}

#[tokio::test(start_paused = true)]
async fn a_decided_term_is_carried_out_and_never_extended() {
    let world = World::new();
    let until = Arc::new(AtomicU64::new(300_000_000));
    let node = running_for(world.clone(), Term::Decided(Arc::clone(&until)), placement());
    let change = node.source.set(Role::Active, "by test".to_owned(), Claim::Forced);
    node.handle.settled(change).await.unwrap();
    assert_eq!(world.log(), ["0 lease 300", "0 address 2s", "0 announce"]);
    // Nothing was heard of whoever decides: the lease is over, and stays so.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(world.log(), ["500 lease 300", "500 address 2s"]);
    until.store(900_000_000, Ordering::Release);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.log(), ["1000 lease 900", "1000 address 2s"]);
}

#[tokio::test(start_paused = true)]
async fn a_rival_is_answered_by_an_announcement_where_the_vip_is_held() {
    let world = World::new();
    let node = running(world.clone(), LEASE, placement());
    node.handle.announce();
    tokio::time::sleep(Duration::from_millis(1)).await;
    world.log();
    let change = node.source.set(Role::Active, "by test".to_owned(), Claim::Forced);
    node.handle.settled(change).await.unwrap();
    world.log();
    node.handle.announce();
    tokio::time::sleep(Duration::from_millis(1)).await;
    // The new announcement takes the place of the one under way.
    assert_eq!(world.log(), ["1 announce", "1 silence"]);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_cannot_be_added_is_told_and_tried_again() {
    let world = World::new();
    *world.address.lock().unwrap() = Err("cannot add the address".to_owned());
    let node = running(world.clone(), LEASE, placement());
    let change = node.source.set(Role::Active, "by test".to_owned(), Claim::Forced);
    let holding = node.handle.settled(change).await.unwrap();
    assert_eq!(holding.vips[0].trouble.as_deref(), Some("cannot add the address"));
    *world.address.lock().unwrap() = Ok(());
    let mut status = node.handle.watch();
    status.wait_for(|holding| holding.vips[0].trouble.is_none()).await.unwrap();
    assert_eq!(world.start.elapsed(), LEASE / 4);
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_predecessor_left_is_given_up_by_a_backup() {
    let world = World::new();
    let node = running(world.clone(), LEASE, placement());
    node.handle.settled(1).await.unwrap();
    assert_eq!(world.log(), ["0 no address", "0 lease none"]);
    let change = node.source.set(Role::Backup, "by test".to_owned(), Claim::Once);
    node.handle.settled(change).await.unwrap();
    assert_eq!(world.log(), [] as [&str; 0], "only once");
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_comes_later_gets_the_vip() {
    let world = World::new();
    let node = running(world.clone(), LEASE, placement());
    node.placements.send_replace(Vec::new());
    let change = node.source.set(Role::Active, "by test".to_owned(), Claim::Insist);
    assert_eq!(node.handle.settled(change).await.unwrap().vips, []);
    node.placements.send_replace(vec![placement()]);
    let mut status = node.handle.watch();
    status.wait_for(|holding| holding.vips.iter().any(|vip| vip.held)).await.unwrap();
    node.placements.send_replace(Vec::new());
    status.wait_for(|holding| holding.vips.is_empty()).await.unwrap();
    assert_eq!(world.log().last().unwrap(), "300 lease none");
}

/// A data path that only remembers the lease.
#[derive(Clone, Debug, Default)]
struct Lease(Arc<Mutex<Option<u64>>>);

impl DataPath for Lease {
    type Error = std::io::Error;

    fn tables_written(&self) -> bool {
        true
    }

    fn set_lease(&self, _: IpAddr, until_ns: Option<u64>) -> Result<(), Self::Error> {
        *self.0.lock().unwrap() = until_ns;
        Ok(())
    }
}

#[test]
fn a_holder_that_is_killed_loses_its_vip_without_anyones_help() {
    isolated(|| async {
        let netlink = Netlink::connect().unwrap();
        let (left, _) = veth(&netlink).await;
        let interface = Interface { index: left.index, name: left.name, mac: left.mac.unwrap() };
        let lease = Lease::default();
        let own = Netlink::connect().unwrap();
        let effects = NodeEffects::new(lease.clone(), own, Schedule::default());
        let (source, roles) = StaticRole::new(Some("a"), "a", false);
        let (_placements, receiver) = watch::channel(vec![Placement { vip: VIP, interface }]);
        let (holder, handle) =
            Holder::new(effects, Term::Own(Duration::from_secs(1)), roles, receiver);
        let task = tokio::spawn(holder.run());
        handle.settled(1).await.unwrap();
        assert!(netlink.snapshot().await.unwrap().is_own(VIP));

        // Held for longer than a lease lasts, by refreshes alone.
        let mut status = handle.watch();
        let first = handle.holding().vips[0].lease_until_ns.unwrap();
        let later = first + 2_000_000_000;
        let beyond = |until: Option<u64>| until.is_some_and(|until| until > later);
        status.wait_for(|holding| beyond(holding.vips[0].lease_until_ns)).await.unwrap();
        assert!(netlink.snapshot().await.unwrap().is_own(VIP));
        assert!(beyond(*lease.0.lock().unwrap()));

        let mut monitor = Monitor::open(MonitorOptions::default()).unwrap();
        task.abort();
        while netlink.snapshot().await.unwrap().is_own(VIP) {
            monitor.changed().await;
        }
        drop(source);
    });
}
