//! What another configuration changes beside the data path, once nothing can fail any more: addresses, the doors,
//! who is told, what is tracked.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tracing::warn;

use super::Prepared;
use crate::agent::core::{Agent, Events};
use crate::agent::election::{Election, Moved};
use crate::agent::tracking::Occasion;
use crate::config::Config;
use crate::control::server;
use crate::netlink::Monitor;
use crate::role::Role;
use crate::track::Watcher;

impl Agent {
    /// Lets another group use the socket. On an error it is as it was.
    pub(super) fn grant(&self, former: &Config, wanted: &Config) -> Result<(), String> {
        let (old, new) = (&former.control, &wanted.control);
        if old.group == new.group {
            return Ok(());
        }
        server::grant(&old.socket, new.group.as_deref()).map_err(|error| error.to_string())
    }

    /// VIPs are given up and taken by whom they have now: given up first, and while the maps hold them still, since
    /// a node that has the route of one that the maps do not hold answers for it.
    pub(super) async fn settle_addresses(
        &mut self,
        former: &Config,
        mut moved: Moved,
        monitor: &mut Monitor,
    ) {
        let (old, new) = (&former.virtual_addresses, &self.config.virtual_addresses);
        let gone: Vec<IpAddr> = old.iter().copied().filter(|vip| !new.contains(vip)).collect();
        moved.vips.extend(&gone);
        if old == new && moved.is_nothing() {
            return;
        }
        monitor.set_own(new.iter().copied().collect());
        self.placements = self.find_placements();
        let placed = self.placements.iter().filter(|p| !moved.vips.contains(&p.vip));
        let placed: Vec<_> = placed.cloned().collect();
        self.seats.place(&placed, &self.network);
        moved.withdrawn(&self.seats).await;
        for vip in gone {
            if let Err(error) = self.netlink.remove_local_route(vip).await {
                warn!(%vip, %error, "removing a local route");
            }
            self.failures.remove(&format!("route of {vip}"));
        }
        self.restore_routes().await;
        self.replan();
    }

    /// Takes what stands ready, and follows `active`.
    pub(super) async fn take_over(&mut self, prepared: Prepared) {
        if let Some(metrics) = prepared.metrics {
            self.doors.move_metrics(metrics);
        }
        if let Some(replicas) = prepared.replicas {
            self.replicas.end_sync().await;
            self.replicas = replicas;
            if let Err(error) = self.begin_sync() {
                warn!(%error, "NAT flows are not told to other nodes");
            }
            self.publish_ways();
        }
        let active = self.config.active.clone();
        if let Election::Static(roles) = &mut self.election {
            roles.reconfigure(active.as_deref());
        }
    }

    /// A node that is Active does not resign because of what was not looked at yet.
    pub(super) fn follow_tracks(&mut self, former: &Config, events: &mut Events) {
        if former.tracks != self.config.tracks {
            let doubt = self.seats.holding().role == Role::Active;
            self.board = self.board.follow(&self.config.tracks, doubt, SystemTime::now());
            (events.watcher, events.tracks) = Watcher::start(self.board.tracked());
            self.look(Occasion::Tick);
        }
        // Also where nothing of it is other: virtual routers that have come have heard nothing yet.
        self.tell();
    }

    pub(super) async fn follow_hooks(&mut self, former: &Config) {
        let config = Arc::clone(&self.config);
        let same = former.notify == config.notify;
        if !same {
            let place = (self.node.as_str(), config.paths.state.as_path());
            let hooks = self.hooks.follow(&former.notify, &config.notify, place).await;
            self.hooks = Arc::new(hooks);
        }
        if !same || former.virtual_addresses != config.virtual_addresses {
            self.follow_roles(true);
        }
    }
}
