//! NAT flows that the nodes tell one another of: what the loop has to do with it.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
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
    sync: Option<Sync>,
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

    /// Ends what [`begin_sync`](Agent::begin_sync) began, and waits for it.
    pub(super) async fn end_sync(&mut self) {
        if let Some(sync) = self.sync.take() {
            sync.stop().await;
        }
    }

    /// What another configuration makes of it; none where that is the same.
    ///
    /// # Errors
    /// Where it could not begin: the key, or an address to listen on.
    pub(super) fn after(
        former: &Config,
        config: &Config,
        node: &str,
    ) -> Result<Option<Self>, AgentError> {
        let same_nodes = config.peers.is_none() || former.nodes == config.nodes;
        if former.peers == config.peers && same_nodes {
            return Ok(None);
        }
        let (was, is) = (listens(former, node), listens(config, node));
        for address in is.into_iter().filter(|address| !was.contains(address)) {
            let bound = TcpListener::bind(address);
            bound.map_err(|source| AgentError::Peers { address, source })?;
        }
        // It has heard all that there was to hear.
        Self::new(config, node, true).map(Some)
    }

    /// Returns when this node may no longer have to wait for others before it takes over.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + use<> {
        let board = Arc::clone(&self.board);
        async move { board.changed().await }
    }
}

/// Where this node listens for the others.
fn listens(config: &Config, node: &str) -> Vec<SocketAddr> {
    let Some(peers) = &config.peers else { return Vec::new() };
    let own = config.nodes.iter().filter(|one| one.name == node);
    let own = own.flat_map(|node| node.addresses.iter());
    own.map(|&address| SocketAddr::new(address, peers.port)).collect()
}

fn others(config: &Config, node: &str) -> impl Iterator<Item = Peer> {
    let others = config.nodes.iter().filter(move |other| other.name != node);
    others.map(|other| Peer { name: other.name.clone(), addresses: other.addresses.clone() })
}

impl Agent {
    /// Begins to tell the other nodes of NAT flows and to hear of theirs; nothing where that is off.
    pub(super) fn begin_sync(&mut self) -> Result<(), AgentError> {
        let (Some(peers), Some(key)) = (&self.config.peers, &self.replicas.key) else {
            return Ok(());
        };
        let settings = Settings {
            node: self.node.clone(),
            listen: listens(&self.config, &self.node),
            peers: others(&self.config, &self.node).collect(),
            port: peers.port,
            key: key.clone(),
        };
        let flows = self.dataplane.translations()?;
        let Replicas { ways, board, .. } = &self.replicas;
        self.replicas.sync = Some(Sync::start(settings, flows, ways, board));
        Ok(())
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
