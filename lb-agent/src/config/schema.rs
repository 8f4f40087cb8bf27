//! Every key that `lb.toml` may hold, by table. The reader asks only for these, unknown keys are
//! measured against them, and docs/configuration.md is tested to name each. Not for defaults or
//! types: those stand where the key is read.

/// A table of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// As a message names it.
    pub(crate) heading: &'static str,
    pub(crate) keys: &'static [&'static str],
}

pub(crate) static ROOT: Table = Table {
    heading: "the top level",
    keys: &[
        "interface",
        "interfaces",
        "virtual_addresses",
        "active",
        "node",
        "service",
        "vrrp",
        "notify",
        "track",
        "lease",
        "nat",
        "peers",
        "host",
        "data_path",
        "syn_flood",
        "metrics",
        "control",
        "paths",
        "limits",
    ],
};

pub(crate) static NODE: Table =
    Table { heading: "[[node]]", keys: &["name", "address", "addresses", "priority"] };

pub(crate) static SERVICE: Table = Table {
    heading: "[[service]]",
    keys: &[
        "name",
        "address",
        "addresses",
        "port",
        "protocol",
        "hash",
        "backends",
        "discover",
        "table_size",
        "health",
        "passive",
        "rebalance",
        "allow",
        "allow_file",
        "deny",
        "deny_file",
        "rate_limit",
        "connection_limit",
        "affinity",
        "quic",
    ],
};

pub(crate) static BACKEND: Table = Table {
    heading: "an element of `backends`",
    keys: &["address", "weight", "delivery", "server_id", "backup"],
};

pub(crate) static DISCOVER: Table = Table {
    heading: "[service.discover]",
    keys: &["dns", "port", "servers", "min_ttl", "max_ttl", "kubernetes", "max_backends", "linger"],
};

pub(crate) static KUBERNETES: Table = Table {
    heading: "[service.discover.kubernetes]",
    keys: &["namespace", "service", "port_name", "kubeconfig"],
};

pub(crate) static HEALTH: Table = Table {
    heading: "[service.health]",
    keys: &[
        "enabled",
        "tcp",
        "http",
        "https",
        "script",
        "user",
        "expect",
        "host",
        "server_name",
        "ca_file",
        "fingerprint",
        "verify",
        "certificate_file",
        "key_file",
        "token_file",
        "interval",
        "timeout",
        "rise",
        "fall",
        "minimum_healthy",
        "slow_start",
        "reset_clients",
        "probe_path",
    ],
};

pub(crate) static PASSIVE: Table =
    Table { heading: "[service.passive]", keys: &["max_fails", "fail_timeout"] };

pub(crate) static REBALANCE: Table = Table {
    heading: "[service.rebalance]",
    keys: &["automatic", "per_minute", "idle", "minimum_age", "threshold", "stable"],
};

pub(crate) static RATE_LIMIT: Table = Table {
    heading: "[service.rate_limit]",
    keys: &["per_second", "burst", "prefix_ipv4", "prefix_ipv6"],
};

pub(crate) static CONNECTION_LIMIT: Table = Table {
    heading: "[service.connection_limit]",
    keys: &["per_source", "prefix_ipv4", "prefix_ipv6"],
};

pub(crate) static QUIC: Table =
    Table { heading: "[service.quic]", keys: &["server_id_length", "config_rotation"] };

pub(crate) static VRRP_ROUTER: Table =
    Table { heading: "[[vrrp.router]]", keys: &["router_id", "virtual_addresses", "priorities"] };

pub(crate) static VRRP_PRIORITY: Table =
    Table { heading: "an element of `priorities`", keys: &["node", "priority"] };

pub(crate) static VRRP: Table = Table {
    heading: "[vrrp]",
    keys: &[
        "router_id",
        "router",
        "version",
        "advertisement_interval",
        "preempt",
        "preempt_delay",
        "unicast",
        "auth_pass",
        "checksum",
        "answer_rivals",
        "check_addresses",
        "check_duplicates",
        "virtual_mac",
    ],
};

pub(crate) static NOTIFY: Table = Table {
    heading: "[[notify]]",
    keys: &["name", "script", "user", "url", "ca_file", "events", "timeout"],
};

pub(crate) static TRACK: Table = Table {
    heading: "[[track]]",
    keys: &[
        "name",
        "interface",
        "script",
        "healthy_backends",
        "service",
        "weight",
        "interval",
        "timeout",
        "rise",
        "fall",
        "user",
    ],
};

pub(crate) static LEASE: Table = Table { heading: "[lease]", keys: &["duration"] };

pub(crate) static NAT: Table = Table {
    heading: "[nat]",
    keys: &[
        "ports",
        "flows",
        "key",
        "tcp_opening_timeout",
        "tcp_established_timeout",
        "tcp_closing_timeout",
        "udp_timeout",
    ],
};

pub(crate) static PEERS: Table = Table { heading: "[peers]", keys: &["key_file", "port"] };

pub(crate) static HOST: Table =
    Table { heading: "[host]", keys: &["enabled", "prefer_local", "cgroup"] };

pub(crate) static DATA_PATH: Table =
    Table { heading: "[data_path]", keys: &["modes", "unknown_ports", "on_stop"] };

pub(crate) static SYN_FLOOD: Table = Table { heading: "[syn_flood]", keys: &["syns_per_second"] };

pub(crate) static METRICS: Table =
    Table { heading: "[metrics]", keys: &["enabled", "listen", "backend_series"] };

pub(crate) static CONTROL: Table =
    Table { heading: "[control]", keys: &["socket", "group", "upgrade"] };

pub(crate) static PATHS: Table = Table { heading: "[paths]", keys: &["bpf", "state"] };

pub(crate) static LIMITS: Table = Table {
    heading: "[limits]",
    keys: &[
        "services",
        "backends",
        "table_slots",
        "sources",
        "connections",
        "datagram_flows",
        "flows",
    ],
};

pub(crate) static ALL: [&Table; 27] = [
    &ROOT,
    &NODE,
    &SERVICE,
    &BACKEND,
    &DISCOVER,
    &KUBERNETES,
    &HEALTH,
    &PASSIVE,
    &REBALANCE,
    &RATE_LIMIT,
    &CONNECTION_LIMIT,
    &QUIC,
    &VRRP,
    &VRRP_ROUTER,
    &VRRP_PRIORITY,
    &TRACK,
    &NOTIFY,
    &LEASE,
    &NAT,
    &PEERS,
    &HOST,
    &DATA_PATH,
    &SYN_FLOOD,
    &METRICS,
    &CONTROL,
    &PATHS,
    &LIMITS,
];

/// The one of `known` that somebody who wrote `text` most likely meant, if any is close.
pub(crate) fn nearest<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let text: String = text.chars().take(64).collect::<String>().to_lowercase();
    // A third of the letters may differ: enough for typing errors and a plural, too little for
    // another word.
    let tolerance = (text.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&text, &word.to_lowercase()), word))
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// The tables that do have this key.
pub(crate) fn tables_with(key: &str) -> Vec<&'static str> {
    ALL.iter().filter(|table| table.keys.contains(&key)).map(|table| table.heading).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_key() {
        for (slip, meant) in [
            ("virtual_adresses", "virtual_addresses"),
            ("virtual-addresses", "virtual_addresses"),
            ("Interface", "interface"),
            ("nodes", "node"),
            ("services", "service"),
            ("interfacse", "interface"),
        ] {
            assert_eq!(nearest(slip, ROOT.keys.iter().copied()), Some(meant), "{slip}");
        }
    }

    /// The table in docs/configuration.md under each heading.
    #[test]
    fn the_documentation_has_a_row_for_every_key_and_no_other() {
        let text = include_str!("../../../docs/configuration.md");
        for table in ALL {
            let heading = match table.heading {
                "the top level" => "## Top level",
                "an element of `backends`" => "### Backends",
                "[service.discover]" => "### [service.discover]",
                "[service.discover.kubernetes]" => "#### [service.discover.kubernetes]",
                "[service.health]" => "### [service.health]",
                "[service.passive]" => "### [service.passive]",
                "[service.rebalance]" => "### [service.rebalance]",
                "[service.rate_limit]" => "### [service.rate_limit]",
                "[service.connection_limit]" => "### [service.connection_limit]",
                "[service.quic]" => "### [service.quic]",
                "[[vrrp.router]]" => "### [[vrrp.router]]",
                "an element of `priorities`" => "#### Priorities",
                other => &format!("## {other}"),
            };
            let begin = text.find(&format!("\n{heading}\n")).expect(heading);
            let body = &text[begin + heading.len() + 2..];
            let body = &body[..body.find("\n#").unwrap_or(body.len())];
            let mut documented: Vec<&str> = body
                .lines()
                .filter(|line| line.starts_with("| `"))
                .filter_map(|line| line.split('|').nth(1))
                .flat_map(|cell| cell.split(','))
                .map(|key| key.trim().trim_matches('`'))
                .collect();
            let mut known = table.keys.to_vec();
            documented.sort_unstable();
            known.sort_unstable();
            assert_eq!(documented, known, "{heading}");
        }
    }

    #[test]
    fn the_example_names_every_key() {
        let text = include_str!("../../../docs/lb.toml.example");
        let words: Vec<&str> =
            text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        for key in ALL.iter().flat_map(|table| table.keys) {
            assert!(words.contains(key), "{key}");
        }
    }

    #[test]
    fn another_word_finds_nothing() {
        for word in ["bgp", "router_id", "xyzzy", ""] {
            assert_eq!(nearest(word, ROOT.keys.iter().copied()), None, "{word}");
        }
    }
}
