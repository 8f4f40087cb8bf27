//! Where roles come from while there is no VRRP: the configuration's `active`, and a person.

use std::time::SystemTime;

use tokio::sync::watch;

use super::{Claim, Role, RoleChange};

/// The source's end of the seam. Dropping it makes the holder give up everything and end.
#[derive(Debug)]
pub struct RoleSender {
    changes: watch::Sender<RoleChange>,
}

impl RoleSender {
    /// A source that begins with a role. Only the latest change matters to the holder, so the
    /// channel keeps no other.
    pub fn new(role: Role, reason: String, claim: Claim) -> (Self, watch::Receiver<RoleChange>) {
        let first = RoleChange { role, reason, at: SystemTime::now(), claim, sequence: 1 };
        let (changes, receiver) = watch::channel(first);
        (Self { changes }, receiver)
    }

    pub fn current(&self) -> RoleChange {
        self.changes.borrow().clone()
    }

    /// Returns the change's sequence number.
    pub fn set(&self, role: Role, reason: String, claim: Claim) -> u64 {
        let mut sequence = 0;
        self.changes.send_modify(|change| {
            sequence = change.sequence + 1;
            *change = RoleChange { role, reason, at: SystemTime::now(), claim, sequence };
        });
        sequence
    }
}

/// The static role: `active = "NAME"` in the file until a person says otherwise.
#[derive(Debug)]
pub struct StaticRole {
    sender: RoleSender,
    /// What the file says, to tell a reload that changes it from one that doesn't.
    active: Option<String>,
    node: String,
}

impl StaticRole {
    /// The role that the file gives to `node`. `resume`: this node's leases still run, since an
    /// agent held the VIPs here a moment ago; they are kept without asking the link.
    pub fn new(
        active: Option<&str>,
        node: &str,
        resume: bool,
    ) -> (Self, watch::Receiver<RoleChange>) {
        let (role, reason) = configured(active, node);
        let claim = if resume { Claim::Resume } else { Claim::Insist };
        let (sender, receiver) = RoleSender::new(role, reason, claim);
        let active = active.map(str::to_owned);
        (Self { sender, active, node: node.to_owned() }, receiver)
    }

    /// After a reload: follows the file where `active` changed, and leaves a person's choice alone
    /// where it didn't.
    pub fn reconfigure(&mut self, active: Option<&str>) -> Option<u64> {
        if self.active.as_deref() == active {
            return None;
        }
        self.active = active.map(str::to_owned);
        let (role, reason) = configured(active, &self.node);
        Some(self.sender.set(role, reason, Claim::Insist))
    }

    pub fn current(&self) -> RoleChange {
        self.sender.current()
    }

    /// Goes on with the role that another process of this node had.
    pub fn resume(&self, role: Role, reason: String) {
        self.sender.set(role, reason, Claim::Resume);
    }

    /// A person's choice, until the next one, a changed `active`, or a restart.
    pub fn command(&self, role: Role, claim: Claim) -> u64 {
        self.sender.set(role, format!("made {role} by hand"), claim)
    }
}

fn configured(active: Option<&str>, node: &str) -> (Role, String) {
    match active {
        Some(name) if name == node => (Role::Active, "configured as active".to_owned()),
        Some(name) => (Role::Backup, format!("{name} is configured as active")),
        None => (Role::Backup, "no node is configured as active".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_that_the_file_names_is_active() {
        for (active, role, reason) in [
            (Some("a"), Role::Active, "configured as active"),
            (Some("b"), Role::Backup, "b is configured as active"),
            (None, Role::Backup, "no node is configured as active"),
        ] {
            let (_source, receiver) = StaticRole::new(active, "a", false);
            let change = receiver.borrow();
            assert_eq!((change.role, change.reason.as_str()), (role, reason));
        }
    }

    #[test]
    fn a_reload_overrules_a_person_only_where_active_changed() {
        let (mut source, receiver) = StaticRole::new(Some("a"), "a", false);
        source.command(Role::Backup, Claim::Once);
        assert_eq!(source.reconfigure(Some("a")), None);
        assert_eq!(receiver.borrow().role, Role::Backup);
        assert_eq!(receiver.borrow().reason, "made backup by hand");
        assert_eq!(source.reconfigure(Some("b")), Some(3));
        assert_eq!(source.reconfigure(Some("a")), Some(4));
        assert_eq!(receiver.borrow().role, Role::Active);
    }
}
