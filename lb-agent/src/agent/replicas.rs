//! NAT flows that the nodes tell one another of: what the loop has to do with it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use lb_common::Address;
use lb_common::backend::Delivery;

use super::core::Agent;
use super::error::AgentError;
use crate::config::Config;
use crate::control::api;
use crate::replica::{
    Board, Condition, Key, LinkEnd, Peer, PeerStatus, Published, Refusal, Settings, Sync, Ways,
};
use crate::role::Role;

/// Nothing of it where the configuration has no `[peers]`.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    key: Option<Key>,
    ways: Arc<Published>,
    board: Arc<Board>,
    /// A link that VIPs are on was down when it was looked last.
    was_cut_off: bool,
}

impl Replicas {
    /// Reads the key. `follows`: this agent goes on where another one was, which had heard everything.
    ///
    /// # Errors
    /// Where the file has no key, or others can read it.
    pub(super) fn new(config: &Config, node: &str, follows: bool) -> Result<Self, AgentError> {
        let Some(peers) = &config.peers else { return Ok(Self::default()) };
        let key = Key::read(&peers.key_file)?;
        let board = Board::new(others(config, node).map(|peer| peer.name));
        if !follows {
            board.wait(Instant::now());
        }
        Ok(Self { key: Some(key), board: Arc::new(board), ..Self::default() })
    }

    /// Returns when this node may no longer have to wait for others before it takes over.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + use<> {
        let board = Arc::clone(&self.board);
        async move { board.changed().await }
    }
}

fn others(config: &Config, node: &str) -> impl Iterator<Item = Peer> {
    let others = config.nodes.iter().filter(move |other| other.name != node);
    others.map(|other| Peer { name: other.name.clone(), addresses: other.addresses.clone() })
}

impl Agent {
    /// Begins to tell the other nodes of NAT flows and to hear of theirs; nothing where that is off.
    pub(super) fn begin_sync(&self) -> Result<Option<Sync>, AgentError> {
        let (Some(peers), Some(key)) = (&self.config.peers, &self.replicas.key) else {
            return Ok(None);
        };
        let own = self.config.nodes.iter().filter(|node| node.name == self.node);
        let own = own.flat_map(|node| node.addresses.iter());
        let settings = Settings {
            node: self.node.clone(),
            listen: own.map(|&address| SocketAddr::new(address, peers.port)).collect(),
            peers: others(&self.config, &self.node).collect(),
            port: peers.port,
            key: key.clone(),
        };
        let flows = self.dataplane.translations()?;
        Ok(Some(Sync::start(settings, flows, &self.replicas.ways, &self.replicas.board)))
    }

    /// Says by which ways flows go from here, after a plan.
    pub(super) fn publish_ways(&self) {
        if self.replicas.key.is_none() {
            return;
        }
        let mut backends = HashMap::new();
        for service in &self.services {
            let translated =
                service.backends.iter().filter(|b| b.entry.delivery == Delivery::Nat as u8);
            for backend in translated {
                let index = self.dataplane.backend_index(&service.key, backend.address);
                let Some(index) = index else { continue };
                let entry = backend.entry;
                backends.insert((service.key, entry.address, entry.port_be), (index, entry));
            }
        }
        let end = |interface: &crate::announce::Interface| LinkEnd {
            ifindex: interface.index,
            mac: interface.mac,
        };
        let placements = self.placements.iter();
        let nat = &self.config.nat;
        self.replicas.ways.set(Ways {
            backends,
            vips: placements.map(|p| (Address::from(p.vip), end(&p.interface))).collect(),
            ports: nat.ports.clone(),
            network: self.network.clone(),
            udp_timeout: nat.udp_timeout,
            tcp_timeout: nat.tcp_established_timeout,
        });
    }

    /// Whom this node waits for before it takes over: its flows would break here. `cut_off`: a link that VIPs are
    /// on is down; what was told meanwhile is missed.
    pub(super) fn waits_for_flows(&mut self, cut_off: bool) -> Option<String> {
        self.replicas.key.as_ref()?;
        let now = Instant::now();
        if self.replicas.was_cut_off && !cut_off {
            self.replicas.board.wait(now);
        }
        self.replicas.was_cut_off = cut_off;
        if self.seats.holding().role == Role::Active {
            return None;
        }
        let name = self.replicas.board.waits_for(now)?;
        Some(format!("waits until {name} has told of its NAT flows"))
    }

    /// What is said of another node; none where nothing is synchronised with it.
    pub(super) fn nat_sync(&self, peers: &[PeerStatus], node: &str) -> Option<api::NatSync> {
        self.replicas.key.as_ref()?;
        peers.iter().find(|peer| peer.name == node).map(nat_sync)
    }

    /// Of all other nodes.
    pub(super) fn sync_peers(&self) -> Vec<PeerStatus> {
        self.replicas.board.peers()
    }

    /// Of connections that did not survive the VIPs' move to this node.
    pub(super) fn broken_warning(&self) -> Option<String> {
        let broken = self.swept.anew_elsewhere;
        (broken > 0).then(|| {
            format!(
                "{broken} connections through NAT came here in their middle and found their first port taken: they \
                 break; with [peers] the nodes tell one another of them"
            )
        })
    }

    /// Connections from addresses that are no other node's.
    pub(super) fn sync_strangers(&self) -> u64 {
        self.replicas.board.strangers()
    }

    /// Whom this node cannot tell of its flows.
    pub(super) fn sync_warnings(&self) -> impl Iterator<Item = String> {
        self.sync_peers().into_iter().filter_map(|peer| match peer.condition {
            Condition::Failed(why) => Some(format!(
                "{} is not told of NAT flows, which break where it takes over: {why}",
                peer.name
            )),
            Condition::NotTried | Condition::Connected => None,
        })
    }
}

fn nat_sync(peer: &PeerStatus) -> api::NatSync {
    let refused = |(refusal, count): (&Refusal, &u64)| (refusal.name().to_owned(), *count);
    api::NatSync {
        connected: peer.condition == Condition::Connected,
        reason: match &peer.condition {
            Condition::NotTried => "not tried yet".to_owned(),
            Condition::Connected => String::new(),
            Condition::Failed(why) => why.clone(),
        },
        heard: peer.hears,
        sent: peer.sent,
        received: peer.received,
        adopted: peer.adopted,
        refused: peer.refused.iter().map(refused).collect(),
        lag_seconds: peer.lag.map(|lag| lag.as_secs_f64()),
    }
}
