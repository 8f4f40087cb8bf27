//! Which VIPs this node holds, and what to do next about each. Pure: inputs in, actions out, in
//! the order in which they are carried out.
//!
//! ```text
//!                 want Active            nobody else has it
//!   Released ----------------> Asked ----------------------> Held
//!      ^   ^                     |                             |
//!      |   +---- want Backup ----+------- taken, or ------> Failed (asked again later)
//!      |                                  cannot be held
//!      +------------------ want Backup, or no longer placed ---+
//! ```
//!
//! On the way from Backup to Active one VIP that is taken refuses them all: half a set of VIPs
//! helps nobody, and the machine that has one most likely has them all. A VIP that is placed later
//! stands for itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::steps::{REFRESH, Step, steps};
use super::{Claim, Role};
use crate::announce::Interface;
use crate::netlink::{Mac, mac_text};

/// A VIP and the interface that it belongs on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    pub vip: IpAddr,
    pub interface: Interface,
}

/// What the driver does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Ask the link whether another machine has the VIP, and report with this number.
    Ask(u64, Placement),
    Perform(Step, Placement),
}

/// What the link said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Free,
    TakenBy(Mac),
    /// It could not be asked; the sentence says why.
    Unknown(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    Released,
    Asked(u64),
    /// Asked with the whole set, which is not decided yet.
    Free,
    Held,
    /// Is to be held and can't be; the sentence says why.
    Failed(String),
}

#[derive(Debug)]
struct Entry {
    placement: Placement,
    stage: Stage,
}

/// The state of every VIP.
#[derive(Debug)]
pub struct Ledger {
    want: Role,
    claim: Claim,
    role: Role,
    refusal: Option<String>,
    entries: BTreeMap<IpAddr, Entry>,
    asked: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            want: Role::Backup,
            claim: Claim::Once,
            role: Role::Backup,
            refusal: None,
            entries: BTreeMap::new(),
            asked: 0,
        }
    }
}

impl Ledger {
    /// The role that the node has; not always the one that is wanted.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Why the node is not Active although it is wanted to be.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Whether the answer to the last wanted role is known: carried out or refused.
    pub fn settled(&self) -> bool {
        self.role == self.want || self.refusal.is_some()
    }

    pub fn placements(&self) -> impl Iterator<Item = (&Placement, bool, Option<&str>)> {
        self.entries.values().map(|entry| {
            let failure = match &entry.stage {
                Stage::Failed(sentence) => Some(sentence.as_str()),
                _ => None,
            };
            (&entry.placement, entry.stage == Stage::Held, failure)
        })
    }

    pub fn holds(&self, vip: IpAddr) -> bool {
        self.entries.get(&vip).is_some_and(|entry| entry.stage == Stage::Held)
    }

    /// Whether something would be asked again by [`retry`](Self::retry).
    pub fn wants_retry(&self) -> bool {
        let failed = self.entries.values().any(|e| matches!(e.stage, Stage::Failed(_)));
        self.want == Role::Active && (self.refusal.is_some() || failed)
    }

    /// The role that is wanted from now on.
    pub fn want(&mut self, role: Role, claim: Claim) -> Vec<Action> {
        (self.want, self.claim, self.refusal) = (role, claim, None);
        match (self.role, role) {
            (Role::Backup, Role::Active) => self.claim_all(),
            (Role::Active, Role::Backup) => self.release_all(),
            (Role::Active, Role::Active) => Vec::new(),
            (Role::Backup, Role::Backup) => {
                self.set_all(Stage::Released);
                Vec::new()
            }
        }
    }

    /// Refuses a claim for a reason of the node's own.
    pub fn turn_down(&mut self, claim: Claim, sentence: String) -> Vec<Action> {
        (self.want, self.claim) = (Role::Active, claim);
        self.refuse(sentence)
    }

    /// Asks again about what was refused or failed.
    pub fn retry(&mut self) -> Vec<Action> {
        if !self.wants_retry() {
            return Vec::new();
        }
        if self.role == Role::Backup {
            return self.want(Role::Active, self.claim);
        }
        let failed = |entry: &Entry| matches!(entry.stage, Stage::Failed(_));
        self.ask_or_hold(failed)
    }

    /// Replaces the set of VIPs, or where they belong.
    pub fn place(&mut self, placements: Vec<Placement>) -> Vec<Action> {
        let mut fresh: BTreeMap<_, _> = placements.into_iter().map(|p| (p.vip, p)).collect();
        let (mut gone, mut moved, mut renamed) = (Vec::new(), Vec::new(), Vec::new());
        self.entries.retain(|vip, entry| {
            let held = entry.stage == Stage::Held;
            let Some(now) = fresh.remove(vip) else {
                gone.extend(held.then(|| entry.placement.clone()));
                return false;
            };
            let before = std::mem::replace(&mut entry.placement, now.clone());
            if held && before.interface.index != now.interface.index {
                gone.push(before);
                moved.push(now);
            } else if held && before.interface != now.interface {
                renamed.push(now);
            } else if before != now {
                entry.stage = Stage::Released;
            }
            true
        });
        for (vip, placement) in fresh {
            self.entries.insert(vip, Entry { placement, stage: Stage::Released });
        }
        let mut actions = each(steps(Role::Active, Role::Backup), &gone);
        actions.extend(each(steps(Role::Backup, Role::Active), &moved));
        actions.extend(each(&[Step::Announce], &renamed));
        actions.extend(self.after_placing());
        actions
    }

    fn after_placing(&mut self) -> Vec<Action> {
        let released = |entry: &Entry| entry.stage == Stage::Released;
        match (self.role, self.want) {
            (Role::Active, Role::Active) => self.ask_or_hold(released),
            // A claim is under way: it goes on with the new set.
            (Role::Backup, Role::Active) if self.refusal.is_none() => {
                let mut actions = self.ask_or_hold(released);
                actions.extend(self.decide());
                actions
            }
            _ => Vec::new(),
        }
    }

    /// What the link said to question `number`.
    pub fn answered(&mut self, number: u64, vip: IpAddr, answer: Answer) -> Vec<Action> {
        let Some(entry) = self.entries.get_mut(&vip) else { return Vec::new() };
        if entry.stage != Stage::Asked(number) {
            return Vec::new();
        }
        match answer {
            Answer::Free => entry.stage = Stage::Free,
            Answer::Unknown(sentence) => entry.stage = Stage::Failed(sentence),
            Answer::TakenBy(mac) => {
                let sentence = taken(&entry.placement, mac);
                if self.role == Role::Backup {
                    return self.refuse(sentence);
                }
                entry.stage = Stage::Failed(sentence);
            }
        }
        self.decide()
    }

    /// Extends everything that is held.
    pub fn refresh(&self) -> Vec<Action> {
        each(REFRESH, &self.held())
    }

    /// Announces everything that is held once more.
    pub fn announce_again(&self) -> Vec<Action> {
        each(&[Step::Announce], &self.held())
    }

    /// Gives up everything that is placed, held or not: what an earlier agent left behind.
    pub fn leftovers(&self) -> Vec<Action> {
        each(steps(Role::Active, Role::Backup), &self.in_stage(|_| true))
    }

    fn held(&self) -> Vec<Placement> {
        self.in_stage(|stage| *stage == Stage::Held)
    }

    fn in_stage(&self, wanted: impl Fn(&Stage) -> bool) -> Vec<Placement> {
        let entries = self.entries.values().filter(|entry| wanted(&entry.stage));
        entries.map(|entry| entry.placement.clone()).collect()
    }

    fn set_all(&mut self, stage: Stage) {
        for entry in self.entries.values_mut() {
            entry.stage = stage.clone();
        }
    }

    fn claim_all(&mut self) -> Vec<Action> {
        let mut actions = self.ask_or_hold(|_| true);
        actions.extend(self.decide());
        actions
    }

    fn release_all(&mut self) -> Vec<Action> {
        let held = self.held();
        self.set_all(Stage::Released);
        self.role = Role::Backup;
        each(steps(Role::Active, Role::Backup), &held)
    }

    /// Asks about some VIPs; a forced claim takes them for free.
    fn ask_or_hold(&mut self, which: impl Fn(&Entry) -> bool) -> Vec<Action> {
        let mut actions = Vec::new();
        for entry in self.entries.values_mut().filter(|entry| which(entry)) {
            if matches!(self.claim, Claim::Forced | Claim::Resume) {
                entry.stage = Stage::Free;
                continue;
            }
            self.asked += 1;
            entry.stage = Stage::Asked(self.asked);
            actions.push(Action::Ask(self.asked, entry.placement.clone()));
        }
        if self.role == Role::Active {
            actions.extend(self.hold_free());
        }
        actions
    }

    /// Becomes Active once every question is answered.
    fn decide(&mut self) -> Vec<Action> {
        if self.role == Role::Active {
            return self.hold_free();
        }
        let open = self.entries.values().any(|e| matches!(e.stage, Stage::Asked(_)));
        if open || self.want != Role::Active || self.refusal.is_some() {
            return Vec::new();
        }
        let free = self.entries.values().any(|e| e.stage == Stage::Free);
        let failure = self.placements().find_map(|(_, _, failure)| failure.map(str::to_owned));
        if let (Some(sentence), false) = (failure, free) {
            return self.refuse(sentence);
        }
        if self.claim == Claim::Resume {
            self.claim = Claim::Insist;
        }
        self.role = Role::Active;
        self.hold_free()
    }

    fn hold_free(&mut self) -> Vec<Action> {
        let free = self.in_stage(|stage| *stage == Stage::Free);
        for placement in &free {
            if let Some(entry) = self.entries.get_mut(&placement.vip) {
                entry.stage = Stage::Held;
            }
        }
        each(steps(Role::Backup, Role::Active), &free)
    }

    fn refuse(&mut self, sentence: String) -> Vec<Action> {
        self.set_all(Stage::Released);
        self.refusal = Some(sentence);
        if self.claim == Claim::Once {
            self.want = Role::Backup;
        }
        Vec::new()
    }
}

/// Each step for all VIPs before the next step, so that no VIP waits for another's announcement.
fn each(steps: &[Step], placements: &[Placement]) -> Vec<Action> {
    let actions = steps.iter().flat_map(|&step| {
        placements.iter().map(move |placement| Action::Perform(step, placement.clone()))
    });
    actions.collect()
}

fn taken(placement: &Placement, mac: Mac) -> String {
    let mac = mac_text(mac);
    format!(
        "{} is held by another machine with the MAC {mac} on {}; make that node backup first, or \
         remove the address from it",
        placement.vip, placement.interface.name
    )
}

#[cfg(test)]
mod tests;
