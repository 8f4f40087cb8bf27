//! Any text as `lb.toml`: it is refused with a place and a message for each problem, or it is accepted
//! and can be explained, planned for and used on each of its nodes. Within bounded time and memory,
//! which libFuzzer watches.

#![no_main]

use std::collections::HashMap;
use std::net::IpAddr;

use lb_fuzz::config::{Config, ConfigError};
use lb_fuzz::netlink::{Hop, InterfaceAddress, Link, Neighbour, NeighbourState, Network, Route};
use lb_fuzz::plan::{Inputs, Lists, Plan, Tables};
use lb_fuzz::standing::Usable;
use libfuzzer_sys::{Corpus, fuzz_target};

/// Buckets that are built for one input: a table of the largest size takes a second.
const SLOTS_MAX: u64 = 1 << 18;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(input) else { return Corpus::Reject };
    match Config::parse(text) {
        Ok(config) => use_it(&config),
        Err(error) => explain(text, &error),
    }
    Corpus::Keep
});

fn explain(text: &str, error: &ConfigError) {
    assert!(!error.faults.is_empty(), "refused without a reason");
    let lines = text.split('\n').count();
    for fault in &error.faults {
        assert!((1..=lines).contains(&fault.line), "line {} of {lines}", fault.line);
        let line = text.split('\n').nth(fault.line - 1).unwrap_or_default();
        let columns = line.chars().count() + 1;
        assert!((1..=columns).contains(&fault.column), "column {} of {columns}", fault.column);
        assert!(fault.width >= 1 && fault.width <= columns, "{} characters", fault.width);
        assert!(!fault.problem.to_string().is_empty(), "a problem without a message");
    }
    let report = error.report("lb.toml");
    let shown = |c: char| !c.is_control() || c == '\n' || c == '\t';
    let first = report.find(|c| !shown(c));
    assert_eq!(first, None, "a control character on somebody's terminal: {report:?}");
    assert!(error.to_string().starts_with("line "), "{error}");
}

fn use_it(config: &Config) {
    for remark in config.remarks() {
        assert!(!remark.is_empty(), "a remark without words");
    }
    assert!(!config.nodes.is_empty() && !config.services.is_empty());
    let slots = config.services.iter().map(|service| {
        let each =
            service.table_size.map_or(100 * service.backends.len() as u64 + 65537, u64::from);
        each * service.addresses.len() as u64
    });
    if slots.sum::<u64>() > SLOTS_MAX {
        return;
    }
    let tables = Tables::build(config).expect("what was accepted has tables");
    for node in &config.nodes {
        assert_eq!(config.this_node(&node.addresses).map(|node| &node.name), Ok(&node.name));
        plan(config, &node.name, &node.addresses, &tables);
    }
}

fn plan(config: &Config, node: &str, own: &[IpAddr], tables: &Tables) {
    let network = network(config, own);
    let plan = Plan::make(&Inputs {
        config,
        node,
        tables,
        lists: &Lists::default(),
        network: &network,
        known_macs: &HashMap::new(),
        syn_cookies: true,
        attached: &[2],
        usable: &|_, _| Usable { alive: true, accepts: true, ..Usable::NOT },
    });
    let planned: usize = config.services.iter().map(|service| service.addresses.len()).sum();
    assert_eq!(plan.services.len(), planned, "each service at each of its addresses");
    for service in &plan.services {
        let configured = &config.services[service.configured];
        assert_eq!(service.backends.len(), configured.backends.len());
        assert_eq!(service.table.buckets().len(), service.table.slots() as usize);
        assert!(plan.filter.may_contain(&service.key.address), "no packet reaches the service");
        let shares: f64 = service.backends.iter().map(|backend| backend.share).sum();
        assert!(
            (shares - 1.0).abs() < 1e-6,
            "the shares of {} add up to {shares}",
            configured.name
        );
    }
}

/// Everybody on one link, and half of them answering.
fn network(config: &Config, own: &[IpAddr]) -> Network {
    let link = Link {
        index: 2,
        name: "e0".to_owned(),
        mac: Some([2, 0, 0, 0, 0, 1]),
        up: true,
        running: true,
        loopback: false,
        veth: false,
        mtu: 1500,
    };
    let address = |address: &IpAddr| InterfaceAddress {
        ifindex: 2,
        address: *address,
        prefix_len: if address.is_ipv4() { 24 } else { 64 },
        usable: true,
        permanent: true,
    };
    let everywhere = ["0.0.0.0", "::"].map(|network| Route {
        destination: network.parse().expect("an address"),
        prefix_len: 0,
        metric: 0,
        hops: vec![Hop { ifindex: 2, gateway: None, usable: true }],
    });
    let others = config.nodes.iter().flat_map(|node| &node.addresses).enumerate();
    let neighbours = others.map(|(at, address)| Neighbour {
        ifindex: 2,
        address: *address,
        mac: (at % 2 == 0).then_some([2, 0, 0, 0, 1, at as u8]),
        state: if at % 2 == 0 { NeighbourState::Stale } else { NeighbourState::Failed },
    });
    let own = own.iter().map(address).collect();
    Network::new(vec![link], own, everywhere.to_vec(), neighbours.collect())
}
