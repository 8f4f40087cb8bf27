//! What the agent that is none answers.

use serde_json::{Value, json};

use super::NOW;

pub(super) fn interface() -> Value {
    json!({
        "name": "ens33", "index": 2, "mode": "generic", "mac": "02:00:00:00:00:01",
        "reason": "the driver has no XDP", "attached_since": NOW - 61.0,
    })
}

pub(super) fn routers() -> Value {
    json!([{
        "router_id": 51, "version": 3, "interface": "ens33", "virtual_mac": "00:00:5e:00:01:33",
        "address": "192.168.139.133",
        "priority": 80, "interval_seconds": 0.1, "state": "backup", "holds": false,
        "held_back": "check: exit status 1", "reason": "held back", "since": NOW - 61.0,
        "heard": null, "sent": 7, "send_failures": 0, "received": 9, "refused": {},
        "noticed": { "split_brain": 3 }, "transitions": 2, "lateness_max_seconds": 0.001,
        "events_lost": 0, "trouble": null,
        "troubles": [{
            "kind": "split_brain", "address": "192.168.139.134", "mac": "02:00:00:00:00:07",
            "sentence": "two nodes are active", "count": 3, "first": NOW - 61.0, "last": NOW - 61.0,
        }],
    }])
}

pub(super) fn tracks() -> Value {
    let track = |name: &str, state: &str, weight: Option<i16>| {
        json!({
            "name": name, "kind": "script", "about": "script /bin/check every 2s as nobody",
            "state": state, "since": NOW - 61.0, "reason": "exit status 1", "weight": weight,
            "looks": 9, "failures": { "failed": 2, "timed_out": 0, "refused": 0 },
        })
    };
    json!([
        track("fine", "good", None),
        track("check", "failing", None),
        track("light", "failing", Some(-20)),
        track("fresh", "unknown", None),
    ])
}

pub(super) fn status() -> Value {
    json!({
        "version": "0.1.0", "layout_version": 1, "table_version": 1, "node": "master1",
        "role": "active", "role_reason": "configured as active", "role_since": NOW - 192.0,
        "config": "/etc/lb/lb.toml", "config_since": NOW - 30.0, "interfaces": [interface()],
        "virtual_addresses": [
            { "address": "192.168.139.150", "held": true, "lease_remaining_ms": 1640 },
            { "address": "fd00::150", "held": false, "lease_remaining_ms": null },
        ],
        "host_hooks": { "enabled": false, "reason": "no cgroup2 is mounted" },
        "counters": { "local_new": 12, "direct_new": 0, "of_the_future": 3 },
        "warnings": ["192.168.139.151 answers for the virtual address too"],
        "uptime_seconds": 3700.0, "memory": memory(),
    })
}

pub(super) fn memory() -> Value {
    let occupancy = |used, limit, bytes| json!({ "used": used, "limit": limit, "bytes": bytes });
    json!({
        "agent_bytes": 20_971_520, "maps_bytes": 41_943_040, "flow_bytes": 352,
        "service_bytes": 138_890, "nat_flows": occupancy(60_000, 65_536, 23_068_672),
        "services": occupancy(2, 1024, 16_384), "backends": occupancy(4, 16_384, 2_000_000),
        "table_slots": occupancy(66_558, 67_108_864, 1_064_928), "tables": 2,
        "other_bytes": 15_793_056,
        "maps": [{ "name": "nat_flows", "max_entries": 131_072, "bytes": 23_068_672 }],
    })
}

pub(super) fn services() -> Value {
    json!([
        { "name": "kube-apiserver", "address": "192.168.139.150", "port": 8443,
          "protocol": "tcp", "hash": "source", "slots": 65537, "backends": 3, "accepting": 2,
          "healthy": 2, "uses": "primaries",
          "connections": 40, "packets": 900, "bytes": 2048, "table_services": 12,
          "table_bytes": 1_048_912, "own_bytes": 472,
          "discovery": { "source": "dns", "about": "dns api.example.internal:6443", "heard": NOW - 4.0,
                         "age_seconds": 4.0, "changed": NOW - 90000.0, "failing_since": null,
                         "failure": null, "flaw": null, "answers": 17, "failures": 1 } },
        { "name": "dns", "address": "fd00::150", "port": 53, "protocol": "udp",
          "hash": "source-port", "slots": 1021, "backends": 1, "accepting": 1,
          "healthy": 0, "uses": "everybody",
          "connections": 0, "packets": 0, "bytes": 0, "table_services": 1,
          "table_bytes": 16_656, "own_bytes": 232 },
    ])
}

pub(super) fn backend(address: &str, state: &str, accepting: bool, reason: &str) -> Value {
    json!({
        "service": "kube-apiserver", "address": address, "node": "master1", "delivery": "direct",
        "weight": 7, "state": state, "admin": "enabled", "source": "dns",
        "backup": false, "accepting": accepting, "takes": 1.0,
        "reason": reason, "since": NOW - 90000.0, "transitions": 2, "connections_left": null, "gone": false,
        "path": null, "clients_told": 0, "next_hop_mac": "02:00:00:00:00:02", "share": 0.33333,
        "connections": 14, "packets": 300, "bytes": 1048576,
        "refused": 3, "unanswered": 1, "untold": 0,
    })
}

/// A backend that drains, with so many connections left.
pub(super) fn leaving(delivery: &str, left: u64) -> Value {
    let mut backend = backend("192.168.139.134:6443", "draining", false, "drained with lbctl");
    backend["admin"] = json!("draining");
    backend["delivery"] = json!(delivery);
    backend["connections_left"] = json!(left);
    backend
}

pub(super) fn backends() -> Value {
    let mut stranger = backend("192.168.139.140:53", "unknown", false, "not checked yet");
    for (key, value) in [
        ("service", json!("dns")),
        ("node", Value::Null),
        ("delivery", json!("unresolved")),
        ("next_hop_mac", Value::Null),
    ] {
        stranger[key] = value;
    }
    json!([
        backend("192.168.139.133:6443", "healthy", true, "2 checks in a row succeeded"),
        leaving("local", 0),
        backend("192.168.139.135:6443", "down", false, "connection refused"),
        stranger,
    ])
}

pub(super) fn nodes() -> Value {
    json!([
        { "name": "master1", "addresses": ["192.168.139.133", "fd00::133"], "this": true,
          "role": "active", "mac": "02:00:00:00:00:01", "reachable": null },
        { "name": "master2", "addresses": ["192.168.139.134"], "this": false,
          "role": null, "mac": null, "reachable": false,
          "nat_sync": { "connected": true, "reason": "", "heard": true, "sent": 5, "received": 4, "adopted": 3,
                        "refused": { "no_backend": 2, "key": 0 }, "lag_seconds": 0.25 } },
    ])
}
