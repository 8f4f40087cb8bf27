//! `lbctl nodes`.

use std::net::IpAddr;

use super::failure::Failure;
use super::role;
use super::screen::{Screen, Tone};
use super::table::{Cell, Table};
use crate::control::api::{NatSync, Node};
use crate::control::client::Client;

pub(super) async fn run(client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let nodes = client.nodes().await?;
    if screen.data(&nodes)? {
        return Ok(());
    }
    let mut table = Table::new(["NAME", "ADDRESSES", "ROLE", "REACHABLE", "MAC", "NAT SYNC"]);
    for node in &nodes {
        table.row(cells(node));
    }
    screen.table(&table)
}

fn cells(node: &Node) -> [Cell; 6] {
    let addresses: Vec<String> = node.addresses.iter().map(IpAddr::to_string).collect();
    let this = if node.this { " (this)" } else { "" };
    let reachable = match (node.this, node.reachable) {
        (true, _) => Cell::from(""),
        (false, Some(true)) => Cell::toned(Tone::Good, "yes"),
        (false, Some(false)) => Cell::toned(Tone::Bad, "no"),
        (false, None) => Cell::toned(Tone::Doubtful, "unknown"),
    };
    let role = node
        .role
        .map_or(Cell::from("unknown"), |role| Cell::toned(role::tone(role), role::name(role)));
    [
        Cell::from(format!("{}{this}", node.name)),
        Cell::from(addresses.join(",")),
        role,
        reachable,
        Cell::from(node.mac.as_deref().unwrap_or_default()),
        node.nat_sync.as_ref().map_or(Cell::from(""), sync),
    ]
}

fn sync(sync: &NatSync) -> Cell {
    let refused: u64 = sync.refused.values().sum();
    match (sync.connected, sync.heard) {
        (false, _) => Cell::toned(Tone::Bad, format!("no: {}", sync.reason)),
        (true, false) => Cell::toned(Tone::Doubtful, "told, not heard"),
        (true, true) if refused > 0 => {
            Cell::toned(Tone::Doubtful, format!("yes, {refused} refused"))
        }
        (true, true) => Cell::toned(Tone::Good, "yes"),
    }
}
