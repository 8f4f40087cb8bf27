//! A look at all connections of a service: how many belong elsewhere, and which can be moved.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Connection, Hindrance, Judgement, Placing, judge};
use crate::config::Rebalance;

/// What one look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    pub connections: u64,
    pub misplaced: u64,
    /// Of them, those that can be moved now, and the others by what hinders it.
    pub movable: u64,
    pub busy: u64,
    pub young: u64,
    pub unsure: u64,
    pub returns: u64,
    /// Where they belong.
    pub targets: BTreeMap<SocketAddr, Target>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub misplaced: u64,
    pub movable: u64,
}

/// A connection that can be moved.
#[derive(Clone, Debug)]
pub struct Movable<K> {
    pub socket: K,
    pub client: SocketAddr,
    pub to: SocketAddr,
    silence: Duration,
}

/// A look that is being taken, at sockets of type `K`.
#[derive(Debug)]
pub struct Survey<K> {
    look: Look,
    movable: Vec<Movable<K>>,
}

impl<K> Default for Survey<K> {
    fn default() -> Self {
        Self { look: Look::default(), movable: Vec::new() }
    }
}

impl<K> Survey<K> {
    /// Takes in a connection. `backends` are the addresses of the placing's.
    pub fn add(
        &mut self,
        socket: K,
        connection: &Connection,
        placing: &Placing,
        backends: &[SocketAddr],
        terms: &Rebalance,
    ) {
        let look = &mut self.look;
        look.connections += 1;
        let Judgement::Misplaced { to, hindrance } = judge(connection, placing, terms) else {
            return;
        };
        look.misplaced += 1;
        let Some(&to) = backends.get(to) else { return };
        let target = look.targets.entry(to).or_default();
        target.misplaced += 1;
        match hindrance {
            Some(Hindrance::Busy) => look.busy += 1,
            Some(Hindrance::Young) => look.young += 1,
            Some(Hindrance::Unsure) => look.unsure += 1,
            Some(Hindrance::Returns) => look.returns += 1,
            None => {
                look.movable += 1;
                target.movable += 1;
                let (client, silence) = (connection.client, connection.silence());
                self.movable.push(Movable { socket, client, to, silence });
            }
        }
    }

    /// What was found, and what can be moved: first what has been silent for longest.
    pub fn done(mut self) -> (Look, Vec<Movable<K>>) {
        self.movable.sort_by_key(|movable| std::cmp::Reverse((movable.silence, movable.client)));
        (self.look, self.movable)
    }
}
