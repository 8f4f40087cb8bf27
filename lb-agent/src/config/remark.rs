//! What is allowed in a configuration, but better known to whoever wrote it.

mod weight;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{
    Backend, Check, Config, DeliverySetting, Health, Node, Protocol, Service, TlsCheck, Trust, Vrrp,
};

/// Buckets for each backend below which shares differ from the weights by more than a few percent
/// (Maglev, NSDI 2016, section 3.4).
const BUCKETS_PER_BACKEND: usize = 100;

/// Checks a second that the agent makes with a fair part of a core (about 0.1 ms each).
const CHECKS_PER_SECOND: f64 = 5000.0;

/// Scripts a second that do the same: each is a process or more.
const SCRIPTS_PER_SECOND: f64 = 100.0;

/// What is checked once, however many services have it.
type Checked<'c> = (SocketAddr, &'c Check, Duration, Duration, u32, u32);

impl Config {
    /// Sentences for people; none where there is nothing to say.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.interfaces.is_empty() {
            remarks.push(
                "no `interface`: nothing is attached until `lbctl attach IFACE` is run".to_owned(),
            );
        }
        if self.active.is_none() && self.vrrp.is_none() {
            remarks.push(
                "no node is `active`: nobody holds the virtual addresses until `lbctl role active` \
                 is run on one"
                    .to_owned(),
            );
        }
        match &self.vrrp {
            None => remarks.extend(idle_priorities(&self.nodes)),
            Some(vrrp) => remarks.extend(of_vrrp(vrrp)),
        }
        remarks.extend(weight::remarks(self));
        remarks.extend(self.many_checks());
        remarks.extend(self.many_scripts());
        remarks.extend(self.many_series());
        remarks.extend(self.untold_flows());
        remarks.extend(self.services.iter().flat_map(of_service));
        remarks.extend(self.services.iter().flat_map(|service| self.translated_nodes(service)));
        remarks
    }
}

impl Config {
    /// What services check in the same way is checked once.
    fn many_checks(&self) -> Option<String> {
        let checked = self.services.iter().filter(|service| {
            service.health.enabled && !matches!(*service.health.check, Check::Script(_))
        });
        let mut targets: HashMap<Checked<'_>, f64> = HashMap::new();
        for Service { backends, health, .. } in checked {
            let each = health.interval.as_secs_f64().recip();
            let Health { check, interval, timeout, rise, fall, .. } = health;
            let of = |at| (at, &**check, *interval, *timeout, *rise, *fall);
            targets.extend(backends.iter().map(|backend| (of(backend.address), each)));
        }
        let per_second: f64 = targets.values().sum();
        (per_second > CHECKS_PER_SECOND).then(|| {
            format!(
                "{} different checks make {per_second:.0} connections a second: they will be late, \
                 and cost more than half a core; raise `interval` in [service.health]",
                targets.len()
            )
        })
    }

    fn many_scripts(&self) -> Option<String> {
        let by_script =
            |health: &Health| health.enabled && matches!(*health.check, Check::Script(_));
        let services = self.services.iter().filter(|service| by_script(&service.health));
        let each = services.map(|s| s.backends.len() as f64 / s.health.interval.as_secs_f64());
        let per_second: f64 = each.sum();
        (per_second > SCRIPTS_PER_SECOND).then(|| {
            format!(
                "checks run {per_second:.0} scripts a second, each of them a process: raise `interval` in \
                 [service.health]"
            )
        })
    }

    fn many_series(&self) -> Option<String> {
        let each = self.services.iter().map(|s| s.addresses.len() * s.backends.len());
        let (backends, most) = (each.sum::<usize>(), self.metrics.backend_series);
        // Somebody who wants none has said so.
        let unexpected = self.metrics.listen.is_some() && most > 0 && backends > most as usize;
        unexpected.then(|| {
            format!(
                "{backends} backends are more than `backend_series` in [metrics], {most}: Prometheus \
                 gets sums for each service instead of a series for each backend"
            )
        })
    }

    /// Flows that no other node is told of.
    fn untold_flows(&self) -> Option<String> {
        let is_translated = |backend: &Backend| match backend.delivery {
            DeliverySetting::Nat => true,
            DeliverySetting::Auto => self.node_of(backend.address.ip()).is_none(),
            DeliverySetting::Direct => false,
        };
        let mut backends = self.services.iter().flat_map(|service| &service.backends);
        let told = self.peers.is_some() || self.nodes.len() < 2;
        (!told && backends.any(is_translated)).then(|| {
            "no [peers], and backends behind NAT: when the virtual addresses move, connections break \
             whose first port was taken, and those stand still whose client only listens"
                .to_owned()
        })
    }

    /// A translated packet has the VIP as its source, which is an address of the agent's nodes
    /// themselves: their kernel takes such a packet from outside for forged and drops it.
    fn translated_nodes(&self, service: &Service) -> Vec<String> {
        let translated = service.backends.iter().filter(|b| b.delivery == DeliverySetting::Nat);
        let on_node = translated.filter_map(|b| Some((b.address, self.node_of(b.address.ip())?)));
        let sentence = |(address, node): (SocketAddr, &Node)| {
            format!(
                "backend {address} of service `{}` is on node `{}` and has `delivery = \"nat\"`: \
                 once the agent runs there its kernel drops what other nodes translate for it; leave \
                 `delivery` out",
                service.name, node.name
            )
        };
        on_node.map(sentence).collect()
    }
}

fn idle_priorities(nodes: &[Node]) -> Option<String> {
    let set = nodes.iter().filter(|node| node.priority != Node::DEFAULT_PRIORITY);
    let names: Vec<String> = set.map(|node| format!("`{}`", node.name)).collect();
    (!names.is_empty())
        .then(|| format!("the `priority` of {} has no effect without [vrrp]", names.join(", ")))
}

fn of_vrrp(vrrp: &Vrrp) -> Option<String> {
    vrrp.auth_pass.as_ref().filter(|pass| pass.is_cut()).map(|_| {
        "`auth_pass` is longer than 8 bytes: only the first 8 count, as with keepalived".to_owned()
    })
}

fn of_service(service: &Service) -> Vec<String> {
    let Service { name, backends, health, .. } = service;
    let mut remarks = Vec::new();
    if !health.enabled {
        let how = match service.protocol {
            Protocol::Tcp => "",
            Protocol::Udp => " (a [service.health] checks it by a TCP connection to the same port)",
        };
        remarks.push(format!(
            "the backends of service `{name}` are not checked: a dead one keeps its clients{how}"
        ));
    }
    if let Check::Http(check) = &*health.check
        && let Some(TlsCheck { trust: Trust::Anything, token_file, .. }) = &check.tls
    {
        let token = if token_file.is_some() { ", and gets the token" } else { "" };
        remarks.push(format!(
            "`verify = false` for service `{name}`: whoever answers for a backend passes its checks{token}; \
             give `ca_file` or `fingerprint`"
        ));
    }
    if let Some(size) = service.table_size
        && (size as usize) < backends.len() * BUCKETS_PER_BACKEND
    {
        remarks.push(format!(
            "`table_size` {size} of service `{name}` is small for {} backends: their shares will \
             differ from their weights",
            backends.len()
        ));
    }
    remarks
}
