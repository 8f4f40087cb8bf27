//! `lbctl vrrp`.

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::figures;
use super::screen::{Screen, Tone};
use super::table::{Cell, Table};
use crate::control::api::{Track, TrackState, VirtualRouter, VrrpState};
use crate::control::client::Client;

/// Show the virtual routers, or take part in what they decide
///
/// One virtual router for each address family. Without a word after `vrrp`, the same as `status`.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "Example, before this node is maintained:\n  \
    lbctl vrrp hold       another node becomes Active, without a gap\n  \
    lbctl vrrp release    this node may be Active again")]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Clone, Copy, Debug, PartialEq, Subcommand)]
enum Verb {
    /// Show state, last transition, and what was heard and refused
    Status,
    /// Give the role to another node; where there is none it comes back
    Resign(Which),
    /// Stay Backup until `release` or a restart of the agent
    Hold(Which),
    /// May be Active again
    Release(Which),
}

#[derive(Args, Clone, Copy, Debug, PartialEq)]
struct Which {
    /// The virtual router of this number (`router_id`) alone; all of them without it
    #[arg(value_name = "ROUTER", value_parser = clap::value_parser!(u8).range(1..))]
    router_id: Option<u8>,
}

pub(super) async fn run(
    arguments: &Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    match arguments.verb {
        None | Some(Verb::Status) => status(client, screen).await,
        Some(Verb::Resign(Which { router_id })) => {
            client.vrrp_resign(router_id).await?;
            screen.line("resigned")
        }
        Some(Verb::Hold(Which { router_id })) => {
            client.vrrp_hold(router_id, true).await?;
            screen.line("held back: it stays Backup until lbctl vrrp release")
        }
        Some(Verb::Release(Which { router_id })) => {
            client.vrrp_hold(router_id, false).await?;
            screen.line("released: it may be Active again")
        }
    }
}

async fn status(client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let routers = client.vrrp().await?;
    // For programs the tracks have an address of their own, and this stays a list of routers.
    if screen.data(&routers)? {
        return Ok(());
    }
    let tracks = client.tracks().await?;
    if routers.is_empty() {
        return screen.line("no virtual router: [vrrp] is not in the configuration, or waits for an interface (lbctl status)");
    }
    let mut table = Table::new([
        "ROUTER",
        "INTERFACE",
        "ADDRESS",
        "PRIORITY",
        "INTERVAL",
        "STATE",
        "FOR",
        "HEARD",
        "REASON",
    ]);
    for router in &routers {
        let heard = router.heard.as_ref().map_or_else(String::new, |heard| {
            let ago = figures::age(heard.age_seconds);
            format!("{} ({}) {ago} ago", heard.address, heard.priority)
        });
        table.row([
            Cell::from(format!("{} v{}", router.router_id, router.version)),
            Cell::from(interface(router)),
            Cell::from(router.address),
            Cell::from(router.priority),
            Cell::from(format!("{}s", router.interval_seconds)),
            state(router),
            Cell::from(figures::age(screen.seconds_since(router.since))),
            Cell::from(heard),
            Cell::from(&router.reason),
        ]);
    }
    screen.table(&table)?;
    for router in &routers {
        doubts(router, screen)?;
    }
    for track in tracks.iter().filter(|track| track.state != TrackState::Good) {
        let line = failing(track, screen);
        screen.line(&line)?;
    }
    Ok(())
}

/// The interface, with the virtual MAC where one is used on it.
fn interface(router: &VirtualRouter) -> String {
    match &router.virtual_mac {
        Some(mac) => format!("{} ({mac})", router.interface),
        None => router.interface.clone(),
    }
}

/// A thing that is not good: what, since when, why, and what follows.
fn failing(track: &Track, screen: &Screen<'_>) -> String {
    let label = screen.painted(Tone::Doubtful, "warning:");
    let Track { name, about, reason, .. } = track;
    let age = figures::age(screen.seconds_since(track.since));
    let state = if track.state == TrackState::Unknown { "waits" } else { "fails" };
    let effect = match track.weight {
        Some(weight) if track.state == TrackState::Unknown => format!("its weight is {weight}"),
        Some(weight) => format!("priority {weight}"),
        None => "this node stays Backup".to_owned(),
    };
    format!("{label} track {name} ({about}) {state} for {age}: {reason}; {effect}")
}

fn state(router: &VirtualRouter) -> Cell {
    match router.state {
        VrrpState::Active => Cell::toned(Tone::Good, "Active"),
        VrrpState::Backup if router.holds => Cell::toned(Tone::Doubtful, "Backup, handing over"),
        VrrpState::Backup => Cell::from("Backup"),
        VrrpState::Initialize => Cell::toned(Tone::Doubtful, "Initialize"),
    }
}

/// What a person should look at.
fn doubts(router: &VirtualRouter, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut doubts = Vec::new();
    if let Some(why) = &router.held_back {
        doubts.push(format!("kept from being Active: {why}"));
    }
    if let Some(trouble) = &router.trouble {
        doubts.push(trouble.clone());
    }
    for trouble in &router.troubles {
        let ago = figures::age(screen.seconds_since(trouble.last));
        let mac = trouble.mac.as_deref().unwrap_or("MAC unknown");
        let (kind, times) = (&trouble.kind, trouble.count);
        doubts.push(format!(
            "{kind} from {} ({mac}), {times} times, last {ago} ago: {}",
            trouble.address, trouble.sentence
        ));
    }
    if router.events_lost > 0 {
        doubts.push(format!("{} events were not told", router.events_lost));
    }
    if router.send_failures > 0 {
        doubts.push(format!("{} advertisements not sent", router.send_failures));
    }
    for doubt in doubts {
        let label = screen.painted(Tone::Doubtful, "warning:");
        screen.line(&format!(
            "{label} router {} on {}: {doubt}",
            router.router_id, router.interface
        ))?;
    }
    Ok(())
}
