//! What is different in another configuration, in words, and what of that a running agent cannot take over.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};

use super::{
    Backend, Config, Control, DataPath, Discover, Health, Host, Metrics, Nat, Node, Notify,
    Passive, Rebalance, Service, Track, VirtualRouter, Vrrp,
};

/// One thing that is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// For people: what was, and what is to be.
    pub what: String,
    /// Why a running agent cannot do it.
    pub fixed: Option<Fixed>,
}

/// What keeps a running agent from a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    pub why: &'static str,
    /// Another agent that follows in place begins with it (`lbctl upgrade`).
    pub upgrade: bool,
}

impl Fixed {
    const fn restart(why: &'static str) -> Self {
        Self { why, upgrade: false }
    }
}

const SIZES: Fixed = Fixed::restart("the maps were made of that size");
const PLACES: Fixed = Fixed::restart("what outlives the agent is there");
const DECIDES: Fixed = Fixed::restart("whether VRRP decides who is active is settled at the start");
const VERSION: Fixed = Fixed::restart("nodes of two versions do not hear one another");
const VIRTUAL_MAC: Fixed = Fixed::restart("the interfaces with virtual MACs are made at the start");
const HELD: Fixed = Fixed { why: "the virtual addresses are held by it", upgrade: true };
const LISTENS: Fixed = Fixed { why: "the agent listens there", upgrade: true };
const HOOKED: Fixed = Fixed::restart("the hooks are attached there");
const ATTACHED: Fixed = Fixed::restart("the interfaces are attached by it");

/// Collects changes. Values are told as they are debugged, which is how the file would say them, or nearly; secrets
/// are not told.
#[derive(Default)]
struct Changes(Vec<Change>);

impl Changes {
    fn live(&mut self, what: String) {
        self.0.push(Change { what, fixed: None });
    }

    /// A value that a running agent can change.
    fn value<T: PartialEq + Debug>(&mut self, name: &str, old: &T, new: &T) {
        if old != new {
            self.live(format!("{name}: {old:?} -> {new:?}"));
        }
    }

    /// One that it can change, and that is too long, or a secret.
    fn silent<T: PartialEq>(&mut self, name: &str, old: &T, new: &T) {
        if old != new {
            self.live(format!("{name} is different"));
        }
    }

    /// One that it cannot change.
    fn fixed<T: PartialEq>(&mut self, name: &str, old: &T, new: &T, fixed: Fixed) {
        if old != new {
            self.0.push(Change { what: format!("{name} is different"), fixed: Some(fixed) });
        }
    }

    /// Things that have names: those that go, come, and are in both.
    fn named<'a, T, N: Ord>(
        &mut self,
        (old, new): (&'a [T], &'a [T]),
        name: impl Fn(&T) -> N,
        (goes, comes): (impl Fn(&T) -> String, impl Fn(&T) -> String),
        mut other: impl FnMut(&mut Self, &'a T, &'a T),
    ) {
        let by_name = |all: &'a [T]| -> BTreeMap<N, &'a T> {
            all.iter().map(|one| (name(one), one)).collect()
        };
        let (before, after) = (by_name(old), by_name(new));
        for one in old.iter().filter(|one| !after.contains_key(&name(one))) {
            self.live(goes(one));
        }
        for one in new {
            match before.get(&name(one)) {
                Some(known) => other(self, known, one),
                None => self.live(comes(one)),
            }
        }
    }
}

impl Config {
    /// What is different in `new`, in the file's order; nothing where both mean the same.
    pub fn changes_to(&self, new: &Self) -> Vec<Change> {
        let mut changes = Changes::default();
        // Taken apart, here and below, so that what is added to it cannot be forgotten.
        let Self { interfaces, virtual_addresses, active, nodes, services: known, .. } = self;
        changes.value("interfaces", interfaces, &new.interfaces);
        addresses(virtual_addresses, &new.virtual_addresses, &mut changes);
        changes.value("active", active, &new.active);
        self::nodes(nodes, &new.nodes, &mut changes);
        services(known, &new.services, &mut changes);
        self.tables_but_services(new, &mut changes);
        changes.0
    }

    fn tables_but_services(&self, new: &Self, changes: &mut Changes) {
        let Self {
            interfaces: _,
            virtual_addresses: _,
            active: _,
            nodes: _,
            services: _,
            vrrp,
            notify,
            tracks,
            lease,
            nat,
            peers,
            host,
            data_path,
            syn_flood,
            metrics,
            control,
            paths,
            limits,
        } = self;
        match (vrrp, &new.vrrp) {
            (Some(old), Some(new)) => self::vrrp(old, new, changes),
            (old, new) => changes.fixed("[vrrp]", old, new, DECIDES),
        }
        self::notify(notify, &new.notify, changes);
        self::tracks(tracks, &new.tracks, changes);
        changes.fixed("[lease]", lease, &new.lease, HELD);
        self::nat(nat, &new.nat, changes);
        changes.silent("[peers]", peers, &new.peers);
        let Host { enabled, prefer_local, cgroup } = host;
        changes.value("`enabled` in [host]", enabled, &new.host.enabled);
        changes.value("`prefer_local` in [host]", prefer_local, &new.host.prefer_local);
        changes.fixed("`cgroup` in [host]", cgroup, &new.host.cgroup, HOOKED);
        let DataPath { modes, unknown_ports, on_stop } = data_path;
        changes.value("`on_stop` in [data_path]", on_stop, &new.data_path.on_stop);
        changes.fixed("`modes` in [data_path]", modes, &new.data_path.modes, ATTACHED);
        changes.value(
            "`unknown_ports` in [data_path]",
            unknown_ports,
            &new.data_path.unknown_ports,
        );
        changes.value("[syn_flood]", syn_flood, &new.syn_flood);
        let Metrics { listen, backend_series } = metrics;
        changes.value("`listen` in [metrics]", listen, &new.metrics.listen);
        changes.value("`backend_series` in [metrics]", backend_series, &new.metrics.backend_series);
        let Control { socket, group, upgrade } = control;
        changes.fixed("`socket` in [control]", socket, &new.control.socket, LISTENS);
        changes.value("`group` in [control]", group, &new.control.group);
        changes.value("`upgrade` in [control]", upgrade, &new.control.upgrade);
        changes.fixed("[paths]", paths, &new.paths, PLACES);
        changes.fixed("[limits]", limits, &new.limits, SIZES);
    }
}

fn addresses(old: &[IpAddr], new: &[IpAddr], changes: &mut Changes) {
    let goes = |vip: &IpAddr| format!("virtual address {vip} goes");
    let comes = |vip: &IpAddr| format!("virtual address {vip} comes");
    changes.named((old, new), |vip| *vip, (goes, comes), |_, _, _| ());
}

fn nodes(old: &[Node], new: &[Node], changes: &mut Changes) {
    let goes = |node: &Node| format!("node {} goes", node.name);
    let comes = |node: &Node| format!("node {} comes, at {:?}", node.name, node.addresses);
    let name = |node: &Node| node.name.clone();
    changes.named((old, new), name, (goes, comes), |changes, old, new| {
        let Node { name, addresses, priority } = old;
        let of = |key: &str| format!("node {name}: `{key}`");
        changes.value(&of("addresses"), addresses, &new.addresses);
        changes.value(&of("priority"), priority, &new.priority);
    });
}

fn vrrp(old: &Vrrp, new: &Vrrp, changes: &mut Changes) {
    let Vrrp {
        routers,
        version,
        advertisement_interval,
        preempt,
        preempt_delay,
        unicast,
        auth_pass,
        checksum,
        answer_rivals,
        check_addresses,
        check_duplicates,
        virtual_mac,
    } = old;
    let of = |key: &str| format!("`{key}` in [vrrp]");
    let numbers = |vrrp: &Vrrp| vrrp.routers.iter().map(|r| r.router_id).collect::<Vec<_>>();
    if *virtual_mac {
        let (old, new) = (numbers(old), numbers(new));
        changes.fixed("the set of virtual routers", &old, &new, VIRTUAL_MAC);
    }
    self::routers(routers, &new.routers, changes);
    changes.fixed(&of("version"), version, &new.version, VERSION);
    let interval = &new.advertisement_interval;
    changes.value(&of("advertisement_interval"), advertisement_interval, interval);
    changes.value(&of("preempt"), preempt, &new.preempt);
    changes.value(&of("preempt_delay"), preempt_delay, &new.preempt_delay);
    changes.value(&of("unicast"), unicast, &new.unicast);
    changes.silent(&of("auth_pass"), auth_pass, &new.auth_pass);
    changes.value(&of("checksum"), checksum, &new.checksum);
    changes.value(&of("answer_rivals"), answer_rivals, &new.answer_rivals);
    changes.value(&of("check_addresses"), check_addresses, &new.check_addresses);
    changes.value(&of("check_duplicates"), check_duplicates, &new.check_duplicates);
    changes.fixed(&of("virtual_mac"), virtual_mac, &new.virtual_mac, VIRTUAL_MAC);
}

fn routers(old: &[VirtualRouter], new: &[VirtualRouter], changes: &mut Changes) {
    let goes = |router: &VirtualRouter| format!("virtual router {} goes", router.router_id);
    let comes = |router: &VirtualRouter| {
        let VirtualRouter { router_id, virtual_addresses, .. } = router;
        format!("virtual router {router_id} comes, with {virtual_addresses:?}")
    };
    let alone = old.len() == 1 && new.len() == 1;
    changes.named(
        (old, new),
        |router| router.router_id,
        (goes, comes),
        |changes, old, new| {
            let VirtualRouter { router_id, virtual_addresses, priorities } = old;
            let of = |key: &str| format!("virtual router {router_id}: `{key}`");
            // The only one has all of the file, of which that is told already.
            if !alone {
                changes.value(&of("virtual_addresses"), virtual_addresses, &new.virtual_addresses);
            }
            changes.value(&of("priorities"), priorities, &new.priorities);
        },
    );
}

fn notify(old: &[Notify], new: &[Notify], changes: &mut Changes) {
    let goes = |hook: &Notify| format!("notify hook {} goes", hook.name);
    let comes = |hook: &Notify| format!("notify hook {} comes", hook.name);
    let name = |hook: &Notify| hook.name.clone();
    changes.named((old, new), name, (goes, comes), |changes, old, new| {
        changes.silent(&format!("notify hook {}", old.name), old, new);
    });
}

fn tracks(old: &[Track], new: &[Track], changes: &mut Changes) {
    let goes = |track: &Track| format!("track {} goes", track.name);
    let comes = |track: &Track| format!("track {} comes: {}", track.name, track.watched);
    let name = |track: &Track| track.name.clone();
    changes.named((old, new), name, (goes, comes), |changes, old, new| {
        let Track { name, watched, weight, rise, fall } = old;
        let of = |key: &str| format!("track {name}: `{key}`");
        changes.silent(&format!("track {name}: what is watched"), watched, &new.watched);
        changes.value(&of("weight"), weight, &new.weight);
        changes.value(&of("rise"), rise, &new.rise);
        changes.value(&of("fall"), fall, &new.fall);
    });
}

fn nat(old: &Nat, new: &Nat, changes: &mut Changes) {
    let Nat {
        ports,
        flows,
        key,
        tcp_opening_timeout,
        tcp_established_timeout,
        tcp_closing_timeout,
        udp_timeout,
    } = old;
    changes.value("`ports` in [nat]", ports, &new.ports);
    changes.fixed("`flows` in [nat]", flows, &new.flows, SIZES);
    changes.silent("`key` in [nat]", key, &new.key);
    for (name, old, new) in [
        ("tcp_opening_timeout", tcp_opening_timeout, new.tcp_opening_timeout),
        ("tcp_established_timeout", tcp_established_timeout, new.tcp_established_timeout),
        ("tcp_closing_timeout", tcp_closing_timeout, new.tcp_closing_timeout),
        ("udp_timeout", udp_timeout, new.udp_timeout),
    ] {
        changes.value(&format!("`{name}` in [nat]"), old, &new);
    }
}

fn services(old: &[Service], new: &[Service], changes: &mut Changes) {
    let goes = |service: &Service| format!("service {} goes", service.name);
    let comes = |service: &Service| {
        format!("service {} comes, with {} backends", service.name, service.backends.len())
    };
    let name = |service: &Service| service.name.clone();
    changes.named((old, new), name, (goes, comes), |changes, old, new| service(old, new, changes));
}

fn service(old: &Service, new: &Service, changes: &mut Changes) {
    let Service {
        name,
        addresses,
        port,
        protocol,
        hash,
        backends: known,
        discover: found,
        table_size,
        health: checks,
        passive,
        rebalance: moves,
        lists,
        rate_limit,
        connection_limit,
        affinity,
        quic,
    } = old;
    let of = |key: &str| format!("service {name}: `{key}`");
    changes.value(&of("addresses"), addresses, &new.addresses);
    changes.value(&of("port"), port, &new.port);
    changes.value(&of("protocol"), protocol, &new.protocol);
    changes.value(&of("hash"), hash, &new.hash);
    backends(name, known, &new.backends, changes);
    discover(&of("discover"), found.as_ref(), new.discover.as_ref(), changes);
    changes.value(&of("table_size"), table_size, &new.table_size);
    health(&of("health"), checks, &new.health, changes);
    let Passive { max_fails, fail_timeout } = passive;
    changes.value(&of("passive`, `max_fails"), max_fails, &new.passive.max_fails);
    changes.value(&of("passive`, `fail_timeout"), fail_timeout, &new.passive.fail_timeout);
    rebalance(&of("rebalance"), moves, &new.rebalance, changes);
    changes.silent(&of("allow` and `deny"), lists, &new.lists);
    changes.value(&of("rate_limit"), rate_limit, &new.rate_limit);
    changes.value(&of("connection_limit"), connection_limit, &new.connection_limit);
    changes.value(&of("affinity"), affinity, &new.affinity);
    changes.value(&of("quic"), quic, &new.quic);
}

fn backends(service: &str, old: &[Backend], new: &[Backend], changes: &mut Changes) {
    let by_address = |backends: &[Backend]| -> BTreeMap<SocketAddr, usize> {
        backends.iter().enumerate().map(|(at, backend)| (backend.address, at)).collect()
    };
    let (before, after) = (by_address(old), by_address(new));
    for address in before.keys().filter(|address| !after.contains_key(address)) {
        changes.live(format!("service {service}: backend {address} goes"));
    }
    for (address, &at) in &after {
        let new = &new[at];
        let Some(old) = before.get(address).map(|&at| &old[at]) else {
            changes.live(format!("service {service}: backend {address} comes"));
            continue;
        };
        let Backend { address: _, weight, delivery, server_id, backup } = old;
        let of = |key: &str| format!("service {service}: `{key}` of {address}");
        changes.value(&of("weight"), weight, &new.weight);
        changes.value(&of("delivery"), delivery, &new.delivery);
        changes.value(&of("server_id"), server_id, &new.server_id);
        changes.value(&of("backup"), backup, &new.backup);
    }
}

/// What a service begins with is told apart: its backends of now may be others.
fn discover(of: &str, old: Option<&Discover>, new: Option<&Discover>, changes: &mut Changes) {
    let (Some(old), Some(new)) = (old, new) else {
        changes.silent(of, &old.is_some(), &new.is_some());
        return;
    };
    let Discover { source, max_backends, linger, fixed } = old;
    let key = |key: &str| format!("{of}, `{key}`");
    changes.silent(of, source, &new.source);
    changes.value(&key("max_backends"), max_backends, &new.max_backends);
    changes.value(&key("linger"), linger, &new.linger);
    changes.silent(&format!("{of}, what it begins with"), fixed, &new.fixed);
}

fn health(of: &str, old: &Health, new: &Health, changes: &mut Changes) {
    let Health {
        enabled,
        check,
        interval,
        timeout,
        rise,
        fall,
        minimum_healthy,
        slow_start,
        reset_clients,
        probe_path,
    } = old;
    let key = |key: &str| format!("{of}, `{key}`");
    changes.value(&key("enabled"), enabled, &new.enabled);
    changes.value(of, check, &new.check);
    changes.value(&key("interval"), interval, &new.interval);
    changes.value(&key("timeout"), timeout, &new.timeout);
    changes.value(&key("rise"), rise, &new.rise);
    changes.value(&key("fall"), fall, &new.fall);
    changes.value(&key("minimum_healthy"), minimum_healthy, &new.minimum_healthy);
    changes.value(&key("slow_start"), slow_start, &new.slow_start);
    changes.value(&key("reset_clients"), reset_clients, &new.reset_clients);
    changes.value(&key("probe_path"), probe_path, &new.probe_path);
}

fn rebalance(of: &str, old: &Rebalance, new: &Rebalance, changes: &mut Changes) {
    let Rebalance { automatic, per_minute, idle, minimum_age, threshold_percent, stable } = old;
    let key = |key: &str| format!("{of}, `{key}`");
    changes.value(&key("automatic"), automatic, &new.automatic);
    changes.value(&key("per_minute"), per_minute, &new.per_minute);
    changes.value(&key("idle"), idle, &new.idle);
    changes.value(&key("minimum_age"), minimum_age, &new.minimum_age);
    changes.value(&key("threshold"), threshold_percent, &new.threshold_percent);
    changes.value(&key("stable"), stable, &new.stable);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../../tests/fixtures/config/taken/ten-lines.toml");

    fn changes(to: &[(&str, &str)]) -> Vec<(String, bool)> {
        changes_in(FILE, to)
    }

    fn changes_in(file: &str, to: &[(&str, &str)]) -> Vec<(String, bool)> {
        let mut text = file.to_owned();
        for (from, to) in to {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let parse = |text: &str| Config::parse(text).unwrap_or_else(|e| panic!("{}", e.report("")));
        let changes = parse(file).changes_to(&parse(&text));
        changes.into_iter().map(|change| (change.what, change.fixed.is_some())).collect()
    }

    #[test]
    fn the_same_file_changes_nothing() {
        assert_eq!(changes(&[]), []);
    }

    #[test]
    fn backends_come_and_go_and_change() {
        let known = "\"192.168.139.134:6443\"";
        let what = |text: &str| vec![(format!("service kube-apiserver: {text}"), false)];
        let heavier = "{ address = \"192.168.139.134:6443\", weight = 2 }";
        assert_eq!(changes(&[(known, heavier)]), what("`weight` of 192.168.139.134:6443: 1 -> 2"));
        let other = changes(&[(known, "\"192.168.139.140:6443\"")]);
        assert_eq!(other[..1], what("backend 192.168.139.134:6443 goes"));
        assert_eq!(other[1..], what("backend 192.168.139.140:6443 comes"));
    }

    #[test]
    fn a_service_of_another_name_is_another() {
        let changes = changes(&[("\"kube-apiserver\"", "\"api\"")]);
        let what: Vec<&str> = changes.iter().map(|(what, _)| what.as_str()).collect();
        assert_eq!(what, ["service kube-apiserver goes", "service api comes, with 2 backends"]);
    }

    #[test]
    fn what_a_running_agent_cannot_do_is_marked() {
        let changes = changes(&[(
            "interface = \"ens33\"",
            "interface = \"ens34\"\nnat = { flows = 7, udp_timeout = \"3m\" }",
        )]);
        let expected = [
            ("interfaces: [\"ens33\"] -> [\"ens34\"]", false),
            ("`flows` in [nat] is different", true),
            ("`udp_timeout` in [nat]: 120s -> 180s", false),
        ];
        assert_eq!(changes, expected.map(|(what, restart)| (what.to_owned(), restart)));
    }

    #[test]
    fn secrets_are_not_told() {
        let changes = changes(&[(
            "interface = \"ens33\"",
            "interface = \"ens33\"\nnat = { key = \"hush\" }",
        )]);
        assert_eq!(changes, [("`key` in [nat] is different".to_owned(), false)]);
    }
    fn elected(keys: &str) -> String {
        FILE.replace("active = \"master1\"", &format!("vrrp = {{ router_id = 51{keys} }}"))
    }

    #[test]
    fn a_cluster_grows_and_elects_in_another_way() {
        let more = "[[node]]\nname = \"master3\"\naddress = \"192.168.139.135\"\n\n[[service]]";
        let keys = "router_id = 52, advertisement_interval = \"1s\", preempt = true";
        let edits = [
            ("[\"192.168.139.150\"]", "[\"192.168.139.151\"]"),
            ("router_id = 51", keys),
            ("address = \"192.168.139.133\"", "address = \"192.168.139.133\"\npriority = 7"),
            ("[[service]]", more),
        ];
        let expected = [
            "virtual address 192.168.139.150 goes",
            "virtual address 192.168.139.151 comes",
            "node master1: `priority`: 100 -> 7",
            "node master3 comes, at [192.168.139.135]",
            "service kube-apiserver: `addresses`: [192.168.139.150] -> [192.168.139.151]",
            "virtual router 51 goes",
            "virtual router 52 comes, with [192.168.139.151]",
            "`advertisement_interval` in [vrrp]: 100ms -> 1s",
            "`preempt` in [vrrp]: false -> true",
        ];
        let expected = expected.map(|what| (what.to_owned(), false));
        assert_eq!(changes_in(&elected(""), &edits), expected);
    }

    #[test]
    fn what_of_vrrp_a_running_agent_cannot_do_is_marked() {
        let marked = |file: &str, from, to| {
            let changes = changes_in(file, &[(from, to)]);
            changes.iter().filter(|(_, fixed)| *fixed).count()
        };
        let vrrp = "vrrp = { router_id = 51 }";
        assert_eq!(marked(&elected(""), vrrp, "active = \"master1\""), 1);
        assert_eq!(marked(&elected(""), "= 51", "= 51, virtual_mac = true"), 1);
        assert_eq!(marked(&elected(""), "= 51", "= 51, version = 2"), 1);
        assert_eq!(marked(&elected(", virtual_mac = true"), "= 51", "= 52"), 1);
    }
}
