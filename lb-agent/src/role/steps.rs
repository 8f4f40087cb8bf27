//! The order of things when a role changes. Pure.

use super::Role;

/// One thing that is done for a VIP, or undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The tables are in the kernel: a client that comes now is served.
    Tables,
    /// The kernel program answers ARP and ND for the VIP until a deadline.
    GrantLease,
    /// The VIP is on the interface, with a lifetime.
    AddAddress,
    /// The link is told.
    Announce,
    /// The link is no longer told.
    Silence,
    RemoveAddress,
    RevokeLease,
}

/// What to do on the way from one role to the other, in this order: nothing is announced that
/// isn't answered for, nothing is answered for that isn't served. The tables stay on the way back,
/// since every node serves every packet.
pub const fn steps(from: Role, to: Role) -> &'static [Step] {
    use Step::{AddAddress, Announce, GrantLease, RemoveAddress, RevokeLease, Silence, Tables};
    match (from, to) {
        (Role::Backup, Role::Active) => &[Tables, GrantLease, AddAddress, Announce],
        (Role::Active, Role::Backup) => &[Silence, RemoveAddress, RevokeLease],
        (Role::Active, Role::Active) | (Role::Backup, Role::Backup) => &[],
    }
}

/// What to do in time so that an Active node stays what it is. The lease comes first: it is what
/// attracts the traffic.
pub const REFRESH: &[Step] = &[Step::GrantLease, Step::AddAddress];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_undoes_in_reverse_what_becoming_active_did() {
        let undo = |step: &Step| match step {
            Step::Announce => Some(Step::Silence),
            Step::AddAddress => Some(Step::RemoveAddress),
            Step::GrantLease => Some(Step::RevokeLease),
            _ => None,
        };
        let done = steps(Role::Backup, Role::Active);
        assert_eq!(done[0], Step::Tables);
        let undone: Vec<_> = done.iter().rev().filter_map(undo).collect();
        assert_eq!(undone, steps(Role::Active, Role::Backup));
    }

    #[test]
    fn keeping_a_role_does_nothing() {
        assert!(steps(Role::Active, Role::Active).is_empty());
        assert!(steps(Role::Backup, Role::Backup).is_empty());
    }
}
