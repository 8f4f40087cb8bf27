//! `lbctl status`.

mod memory;

use lb_common::counter::Verdict;

use super::failure::Failure;
use super::figures;
use super::role;
use super::screen::{Screen, Tone};
use super::table::{Cell, Table};
use crate::control::api::Status;
use crate::control::client::Client;

pub(super) async fn run(client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let status = client.status().await?;
    if screen.data(&status)? {
        return Ok(());
    }
    node(&status, screen)?;
    screen.line("")?;
    virtual_addresses(&status, screen)?;
    screen.line("")?;
    interfaces(&status, screen)?;
    screen.line("")?;
    if let Some(memory) = &status.memory {
        memory::show(memory, screen)?;
        screen.line("")?;
    }
    counters(&status, screen)?;
    for warning in &status.warnings {
        let label = screen.painted(Tone::Doubtful, "warning:");
        screen.line(&format!("\n{label} {warning}"))?;
    }
    Ok(())
}

fn node(status: &Status, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let role = screen.painted(role::tone(status.role), role::name(status.role));
    let since = figures::age(screen.seconds_since(status.role_since));
    screen
        .line(&format!("node    {} is {role} for {since}: {}", status.node, status.role_reason))?;
    screen.line(&format!(
        "agent   {}, up {}, from {}",
        status.version,
        figures::age(status.uptime_seconds),
        status.config.display()
    ))?;
    let hooks = if status.host_hooks.enabled { "steered" } else { "not steered" };
    screen.line(&format!("host    own processes are {hooks}: {}", status.host_hooks.reason))?;
    if screen.is_wide() {
        screen.line(&format!(
            "layout  maps {}, tables {}",
            status.layout_version, status.table_version
        ))?;
    }
    Ok(())
}

fn virtual_addresses(status: &Status, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut table = Table::new(["VIRTUAL-ADDRESS", "HELD", "LEASE"]);
    for vip in &status.virtual_addresses {
        let held = match vip.held {
            true => Cell::toned(Tone::Good, "yes"),
            false => Cell::from("no"),
        };
        let lease = vip.lease_remaining_ms.map(|left| format!("{left}ms left"));
        table.row([Cell::from(vip.address), held, Cell::from(lease.unwrap_or_default())]);
    }
    screen.table(&table)
}

fn interfaces(status: &Status, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut table = Table::new(["INTERFACE", "MODE", "FOR", "MAC", "REASON"]);
    for interface in &status.interfaces {
        table.row([
            Cell::from(&interface.name),
            Cell::from(interface.mode),
            Cell::from(figures::age(screen.seconds_since(interface.attached_since))),
            Cell::from(&interface.mac),
            Cell::from(&interface.reason),
        ]);
    }
    if table.is_empty() {
        let none = screen.painted(Tone::Bad, "no interface is attached");
        return screen.line(&format!("{none}: lbctl attach IFACE"));
    }
    screen.table(&table)
}

/// What became of packets. Those that never happened are shown where the user asks for more.
fn counters(status: &Status, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let wide = screen.is_wide();
    let mut headings = vec!["VERDICT", "PACKETS"];
    if wide {
        headings.push("MEANING");
    }
    let mut table = Table::new(headings);
    for (name, count) in &status.counters {
        if !wide && *count == 0 {
            continue;
        }
        let mut row = vec![Cell::from(name), Cell::from(count)];
        if wide {
            // An agent of another version may count what this lbctl has no words for.
            let known = Verdict::ALL.iter().find(|verdict| verdict.name() == name);
            row.push(Cell::from(known.map_or("", |verdict| verdict.help().trim())));
        }
        table.row(row);
    }
    if table.is_empty() {
        return screen.line("no packet has been seen");
    }
    screen.table(&table)
}
