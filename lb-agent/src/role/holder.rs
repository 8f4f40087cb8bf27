//! Carries out roles: holds the VIPs on their lease, and gives them up.
//!
//! One task with its own timer and its own netlink connection; health checks, the API and the
//! tables' construction run elsewhere and can't delay a refresh. Where the task ends without being
//! asked to, the leases run out by themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::effects::Effects;
use super::ledger::{Action, Answer, Ledger, Placement};
use super::steps::Step;
use super::{Role, RoleChange};

/// A refused or failed claim that the configuration insists on is tried again this often.
const RETRY: Duration = Duration::from_secs(5);

/// A change of the kernel's configuration takes well below a millisecond; a refresh must not wait
/// longer than until the next one is due.
const CHANGE_LIMIT: Duration = Duration::from_secs(1);

const NO_TABLES: &str = "the services' tables are not in the kernel yet";

/// What the holder is and has, for the API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holding {
    pub role: Role,
    /// Why it has that role: the source's reason, or the refusal.
    pub reason: String,
    pub since: SystemTime,
    /// Every VIP that is placed on an interface, in order.
    pub vips: Vec<VipHolding>,
    /// The last [`RoleChange::sequence`] that was carried out or refused.
    pub settled: u64,
    /// Why the node stays Backup although it was to become Active.
    pub refusal: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VipHolding {
    pub vip: IpAddr,
    pub interface: String,
    pub held: bool,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub lease_until_ns: Option<u64>,
    /// What went wrong with it last, if it is not in order.
    pub trouble: Option<String>,
}

/// The rest of the agent's view of the holder.
#[derive(Clone, Debug)]
pub struct HolderHandle {
    status: watch::Receiver<Holding>,
    nudge: Arc<Notify>,
    again: Arc<Notify>,
    suspended: Arc<AtomicBool>,
}

impl HolderHandle {
    /// Lets what is held run out instead of refreshing it, since another process of this node does so; or goes
    /// on with it.
    pub fn suspend(&self, suspended: bool) {
        self.suspended.store(suspended, Ordering::Release);
    }

    pub fn holding(&self) -> Holding {
        self.status.borrow().clone()
    }

    /// Whether the VIPs are held: the role was carried out.
    pub fn is_active(&self) -> bool {
        self.status.borrow().role == Role::Active
    }

    /// Whether this VIP is held.
    pub fn holds(&self, vip: IpAddr) -> bool {
        self.status.borrow().vips.iter().any(|holding| holding.vip == vip && holding.held)
    }

    /// Waits until none of these VIPs is placed here any more, or the holder has ended.
    pub async fn left(&self, vips: &[IpAddr]) {
        let mut status = self.status.clone();
        let placed = |holding: &Holding| holding.vips.iter().any(|vip| vips.contains(&vip.vip));
        // A sender that is gone means the same.
        let _ = status.wait_for(|holding| !placed(holding)).await;
    }

    /// Waits until the holder has ended.
    pub async fn ended(&self) {
        let mut status = self.status.clone();
        while status.changed().await.is_ok() {}
    }

    /// A receiver that wakes at every change of what is held, and at every refresh.
    pub fn watch(&self) -> watch::Receiver<Holding> {
        self.status.clone()
    }

    /// A VIP was removed ([`Change::vip_removed`](crate::netlink::Change)): restore what is held.
    pub fn restore(&self) {
        self.nudge.notify_one();
    }

    /// A rival has announced the VIPs: announce them anew, if they are held.
    pub fn announce(&self) {
        self.again.notify_one();
    }

    /// Waits until a change of role was carried out, or says why it was refused.
    pub async fn settled(&self, sequence: u64) -> Result<Holding, String> {
        let mut status = self.status.clone();
        let done = status.wait_for(|holding| holding.settled >= sequence).await;
        let holding = done.map_err(|_| "the agent is stopping".to_owned())?.clone();
        match &holding.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(holding),
        }
    }
}

/// For how long the node may answer for a VIP.
#[derive(Clone, Debug)]
pub enum Term {
    /// For this long after each refresh, which comes every quarter of it.
    Own(Duration),
    /// Until the moment that stands here, `CLOCK_MONOTONIC` in nanoseconds. Whoever decides the role
    /// (VRRP) extends it with each sign of life, in the lease too; a refresh never does.
    Decided(Arc<AtomicU64>),
}

/// The address of a VIP lives this long where the lease is decided elsewhere. It attracts nothing by
/// itself, so it needs no better precision than the kernel's whole seconds.
const ADDRESS_TERM: Duration = Duration::from_secs(2);

impl Term {
    const fn address(&self) -> Duration {
        match self {
            Self::Own(lease) => *lease,
            Self::Decided(_) => ADDRESS_TERM,
        }
    }

    fn refresh(&self) -> Duration {
        self.address() / 4
    }

    fn until_ns(&self, now_ns: u64) -> u64 {
        match self {
            Self::Own(lease) => {
                now_ns.saturating_add(u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX))
            }
            Self::Decided(until_ns) => until_ns.load(Ordering::Acquire),
        }
    }
}

/// The task that holds the VIPs.
#[derive(Debug)]
pub struct Holder<E: Effects> {
    ledger: Ledger,
    effects: E,
    term: Term,
    roles: watch::Receiver<RoleChange>,
    placements: watch::Receiver<Vec<Placement>>,
    status: watch::Sender<Holding>,
    nudge: Arc<Notify>,
    again: Arc<Notify>,
    suspended: Arc<AtomicBool>,
    asking: JoinSet<(u64, IpAddr, Answer)>,
    announcing: BTreeMap<IpAddr, E::Announcing>,
    leases: BTreeMap<IpAddr, u64>,
    troubles: BTreeMap<IpAddr, String>,
    change: RoleChange,
    /// No role has been carried out yet.
    first: bool,
    retry_at: Instant,
}

impl<E: Effects> Holder<E> {
    pub fn new(
        effects: E,
        term: Term,
        roles: watch::Receiver<RoleChange>,
        placements: watch::Receiver<Vec<Placement>>,
    ) -> (Self, HolderHandle) {
        // Nothing is carried out yet, so that no change counts as settled.
        let change = RoleChange { sequence: 0, ..roles.borrow().clone() };
        let (status, receiver) = watch::channel(Holding {
            role: Role::Backup,
            reason: "starting".to_owned(),
            since: change.at,
            vips: Vec::new(),
            settled: 0,
            refusal: None,
        });
        let [nudge, again] = [(); 2].map(|()| Arc::new(Notify::new()));
        let suspended = Arc::new(AtomicBool::new(false));
        let handle = HolderHandle {
            status: receiver,
            nudge: Arc::clone(&nudge),
            again: Arc::clone(&again),
            suspended: Arc::clone(&suspended),
        };
        let holder = Self {
            ledger: Ledger::default(),
            effects,
            term,
            roles,
            placements,
            status,
            nudge,
            again,
            suspended,
            asking: JoinSet::new(),
            announcing: BTreeMap::new(),
            leases: BTreeMap::new(),
            troubles: BTreeMap::new(),
            change,
            first: true,
            retry_at: Instant::now() + RETRY,
        };
        (holder, handle)
    }

    /// Runs until the source of roles is dropped, then gives up everything in order.
    pub async fn run(mut self) {
        let mut refresh = tokio::time::interval(self.term.refresh());
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.roles.mark_changed();
        self.placements.mark_changed();
        loop {
            let retry = self.ledger.wants_retry();
            let actions = tokio::select! {
                biased;
                _ = refresh.tick() => self.refresh(),
                // Before the roles: a claim is for what is placed.
                Ok(()) = self.placements.changed() => {
                    let placements = self.placements.borrow_and_update().clone();
                    self.ledger.place(placements)
                }
                changed = self.roles.changed() => match changed {
                    Ok(()) => self.role_changed(),
                    Err(_) => break,
                },
                Some(answer) = self.asking.join_next() => match answer {
                    Ok((number, vip, answer)) => self.ledger.answered(number, vip, answer),
                    // Only at the runtime's end.
                    Err(_) => Vec::new(),
                },
                () = self.nudge.notified() => self.ledger.refresh(),
                () = self.again.notified() => self.ledger.announce_again(),
                () = tokio::time::sleep_until(self.retry_at), if retry => {
                    self.retry_at = Instant::now() + RETRY;
                    self.claim(Ledger::retry)
                }
            };
            self.carry_out(actions).await;
            self.publish();
        }
        self.give_up().await;
    }

    async fn give_up(&mut self) {
        self.change.reason = "the agent is stopping".to_owned();
        self.asking.abort_all();
        let actions = self.ledger.want(Role::Backup, self.change.claim);
        self.carry_out(actions).await;
        self.publish();
    }

    fn role_changed(&mut self) -> Vec<Action> {
        self.change = self.roles.borrow_and_update().clone();
        self.retry_at = Instant::now() + RETRY;
        let (role, claim) = (self.change.role, self.change.claim);
        match role {
            Role::Active => {
                self.first = false;
                self.claim(|ledger| ledger.want(role, claim))
            }
            // A predecessor that was killed may have left a lease and an address.
            Role::Backup if std::mem::take(&mut self.first) => self.ledger.leftovers(),
            Role::Backup => self.ledger.want(role, claim),
        }
    }

    /// A claim, refused as long as a client that comes then would not be served.
    fn claim(&mut self, claim: impl FnOnce(&mut Ledger) -> Vec<Action>) -> Vec<Action> {
        if self.ledger.role() == Role::Backup && !self.effects.tables_written() {
            return self.ledger.turn_down(self.change.claim, NO_TABLES.to_owned());
        }
        claim(&mut self.ledger)
    }

    fn refresh(&mut self) -> Vec<Action> {
        if self.suspended.load(Ordering::Acquire) {
            return Vec::new();
        }
        let now = self.effects.now_ns();
        let mut actions = self.ledger.refresh();
        if matches!(self.term, Term::Decided(_)) {
            // Whether the node is still the one to answer is not for a refresh to say.
            return actions;
        }
        let lapsed = self.leases.values().filter(|until| **until <= now).max();
        if let Some(until) = lapsed {
            let late = Duration::from_nanos(now - until);
            tracing::warn!(?late, "the leases ran out before they were refreshed; announcing anew");
            actions.extend(self.ledger.announce_again());
        }
        actions
    }

    async fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Ask(number, placement) => {
                    let vip = placement.vip;
                    let asking = self.effects.ask(placement);
                    self.asking.spawn(async move { (number, vip, asking.await) });
                }
                Action::Perform(step, placement) => {
                    let result = self.perform(step, &placement).await;
                    self.note(step, &placement, result);
                }
            }
        }
    }

    async fn perform(&mut self, step: Step, placement: &Placement) -> Result<(), String> {
        let vip = placement.vip;
        match step {
            Step::Tables if self.effects.tables_written() => Ok(()),
            Step::Tables => Err(NO_TABLES.to_owned()),
            Step::GrantLease => {
                let until = self.term.until_ns(self.effects.now_ns());
                self.effects.set_lease(vip, Some(until))?;
                self.leases.insert(vip, until);
                Ok(())
            }
            Step::AddAddress => {
                let adding = self.effects.add_address(placement, self.term.address());
                limited(adding, self.term.refresh()).await
            }
            Step::Announce => {
                let announcing = self.effects.announce(placement)?;
                self.announcing.insert(vip, announcing);
                Ok(())
            }
            Step::Silence => {
                self.announcing.remove(&vip);
                Ok(())
            }
            Step::RemoveAddress => {
                limited(self.effects.remove_address(placement), CHANGE_LIMIT).await
            }
            Step::RevokeLease => {
                self.leases.remove(&vip);
                self.effects.set_lease(vip, None)
            }
        }
    }

    /// A step that fails doesn't stop the others: a VIP with a lease and without its address still
    /// serves, and the next refresh tries again.
    fn note(&mut self, step: Step, placement: &Placement, result: Result<(), String>) {
        let vip = placement.vip;
        match result {
            Ok(()) if step == Step::AddAddress || step == Step::RevokeLease => {
                if self.troubles.remove(&vip).is_some() {
                    tracing::info!(event = "vip-in-order", %vip, "in order again");
                }
            }
            Ok(()) => {}
            Err(trouble) => {
                if self.troubles.get(&vip) != Some(&trouble) {
                    tracing::warn!(event = "vip-trouble", %vip, ?step, %trouble, "not in order");
                }
                self.troubles.insert(vip, trouble);
            }
        }
    }

    fn publish(&mut self) {
        let vips = self.ledger.placements().map(|(placement, held, failure)| VipHolding {
            vip: placement.vip,
            interface: placement.interface.name.clone(),
            held,
            lease_until_ns: self.leases.get(&placement.vip).copied(),
            trouble: failure
                .or(self.troubles.get(&placement.vip).map(String::as_str))
                .map(Into::into),
        });
        let vips: Vec<_> = vips.collect();
        let (role, refusal) = (self.ledger.role(), self.ledger.refusal().map(str::to_owned));
        self.status.send_modify(|holding| {
            let reason = match &refusal {
                Some(refusal) => refusal.clone(),
                None if self.ledger.settled() => self.change.reason.clone(),
                None => holding.reason.clone(),
            };
            if holding.role != role {
                tracing::info!(event = "role", from = %holding.role, to = %role, %reason, "the role changed");
                holding.since = SystemTime::now();
            } else if refusal.is_some() && holding.refusal != refusal {
                tracing::warn!(event = "role-refused", %reason, "stays {role}");
            }
            if self.ledger.settled() {
                holding.settled = self.change.sequence;
            }
            (holding.role, holding.reason, holding.refusal, holding.vips) =
                (role, reason, refusal, vips);
        });
    }
}

/// A step within a limit of time: a kernel that is stuck must not keep the others from theirs.
async fn limited(
    step: impl Future<Output = Result<(), String>>,
    limit: Duration,
) -> Result<(), String> {
    let late = || format!("the kernel did not answer within {limit:?}");
    tokio::time::timeout(limit, step).await.unwrap_or_else(|_| Err(late()))
}
