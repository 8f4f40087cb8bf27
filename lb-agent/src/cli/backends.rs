//! `lbctl backends [SERVICE]`.

use clap::Args;

use super::failure::Failure;
use super::figures;
use super::screen::{Screen, Tone};
use super::table::{Cell, Table};
use crate::control::api::{Backend, BackendState, Delivery};
use crate::control::client::Client;

/// List the backends: their state, why, and how packets reach them from here
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "\
DELIVERY  local        listens on this node: its socket gets the packet unchanged
          direct       on another node with agent: carried there unchanged
          nat          runs nothing of ours: translated
          unresolved   cannot be reached now
STATE     healthy, down, unknown (not checked yet), draining (keeps its connections, takes no new)
SHARE     of the service's clients that come to it first

Examples:
  lbctl backends kube-apiserver
  lbctl backends -o wide")]
pub struct Arguments {
    /// Only those of this service
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

pub(super) async fn run(
    arguments: &Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let mut backends = client.backends(arguments.service.as_deref()).await?;
    if let Some(service) = &arguments.service {
        backends.retain(|backend| &backend.service == service);
        if backends.is_empty() {
            return Err(no_such(service, client).await?);
        }
    }
    if screen.data(&backends)? {
        return Ok(());
    }
    let mut headings =
        vec!["SERVICE", "ADDRESS", "NODE", "DELIVERY", "STATE", "FOR", "SHARE", "CONNECTIONS"];
    if screen.is_wide() {
        headings.extend(["PACKETS", "BYTES", "WEIGHT", "NEXT-HOP"]);
    }
    headings.push("REASON");
    let mut table = Table::new(headings);
    for backend in &backends {
        table.row(cells(backend, screen));
    }
    screen.table(&table)
}

/// Names that are told of where none fits.
const NAMES_MAX: usize = 20;

async fn no_such(service: &str, client: &Client) -> Result<Failure, Failure> {
    let services = client.services().await?;
    let mut names: Vec<String> = services.into_iter().map(|service| service.name).collect();
    names.dedup();
    let more = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    let advice = match (names.len(), more) {
        (0, _) => "there are none at all".to_owned(),
        (_, 0) => format!("the services are {}", names.join(", ")),
        _ => format!("the services are {}, and {more} more (lbctl services)", names.join(", ")),
    };
    Ok(Failure::NoSuchService { name: service.to_owned(), advice })
}

fn cells(backend: &Backend, screen: &Screen<'_>) -> Vec<Cell> {
    let mut cells = vec![
        Cell::from(&backend.service),
        Cell::from(backend.address),
        Cell::from(backend.node.as_deref().unwrap_or_default()),
        delivery(backend.delivery),
        state(backend),
        Cell::from(figures::age(screen.seconds_since(backend.since))),
        Cell::from(figures::share(backend.share)),
        Cell::from(backend.connections),
    ];
    if screen.is_wide() {
        cells.extend([
            Cell::from(backend.packets),
            Cell::from(figures::bytes(backend.bytes)),
            Cell::from(backend.weight),
            Cell::from(backend.next_hop_mac.as_deref().unwrap_or_default()),
        ]);
    }
    cells.push(Cell::from(&backend.reason));
    cells
}

fn delivery(delivery: Delivery) -> Cell {
    match delivery {
        Delivery::Local => Cell::from("local"),
        Delivery::Direct => Cell::from("direct"),
        Delivery::Nat => Cell::from("nat"),
        Delivery::Unresolved => Cell::toned(Tone::Bad, "unresolved"),
    }
}

fn state(backend: &Backend) -> Cell {
    match backend.state {
        BackendState::Healthy if backend.accepting => Cell::toned(Tone::Good, "healthy"),
        BackendState::Healthy => Cell::toned(Tone::Doubtful, "draining"),
        BackendState::Down => Cell::toned(Tone::Bad, "down"),
        BackendState::Unknown => Cell::toned(Tone::Doubtful, "unknown"),
    }
}
