//! `lbctl backends [SERVICE]`, `lbctl backends drain|enable|disable BACKEND`.

mod admin;

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::figures;
use super::screen::{Screen, Tone};
use super::table::{Cell, Table};
use crate::control::api::{Admin, Backend, BackendSource, BackendState, Delivery};
use crate::control::client::Client;

/// List the backends (their state, why, and how packets reach them from here), or say what they are used for
#[derive(Args, Clone, Debug, PartialEq)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
DELIVERY  local        listens on this node: its socket gets the packet unchanged
          direct       on another node with agent: carried there unchanged
          nat          runs nothing of ours: translated
          unresolved   cannot be reached now
STATE     healthy, unknown (not checked yet), down, backup (until no other is healthy),
          draining (keeps its connections, takes no new), disabled (by a person, as if down)
SHARE     of the service's clients that come to it first
REFUSED   connections that it refused, and UNANSWERED SYNs that clients sent again, as seen from here (-o wide)
SOURCE    who says that it is a backend: the file, dns, kubernetes (-o wide; lbctl services -o wide has the age)
LEFT      connections of one that is drained or disabled, as far as they can be counted here

Examples:
  lbctl backends kube-apiserver
  lbctl backends -o wide
  lbctl backends drain master2 --wait && reboot     on master2
  lbctl backends enable master2"
)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: List,
}

#[derive(Args, Clone, Debug, PartialEq)]
struct List {
    /// Only those of this service
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Subcommand)]
enum Verb {
    /// List the backends, as without a word (for a service that is called like one of these)
    List(List),
    Drain(admin::Drain),
    Disable(admin::Disable),
    Enable(admin::Enable),
}

pub(super) async fn run(
    arguments: &Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    match &arguments.verb {
        None => list(&arguments.list, client, screen).await,
        Some(Verb::List(arguments)) => list(arguments, client, screen).await,
        Some(Verb::Drain(arguments)) => arguments.run(client, screen).await,
        Some(Verb::Disable(arguments)) => arguments.run(client, screen).await,
        Some(Verb::Enable(arguments)) => arguments.run(client, screen).await,
    }
}

async fn list(arguments: &List, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut backends = client.backends(arguments.service.as_deref()).await?;
    if let Some(service) = &arguments.service {
        backends.retain(|backend| &backend.service == service);
        if backends.is_empty() {
            return Err(no_such(service, client).await?);
        }
    }
    show(&backends, screen)
}

fn show(backends: &[Backend], screen: &mut Screen<'_>) -> Result<(), Failure> {
    if screen.data(&backends)? {
        return Ok(());
    }
    let leaving = backends.iter().any(|backend| backend.admin != Admin::Enabled);
    let mut headings =
        vec!["SERVICE", "ADDRESS", "NODE", "DELIVERY", "STATE", "FOR", "SHARE", "CONNECTIONS"];
    if leaving {
        headings.push("LEFT");
    }
    if screen.is_wide() {
        headings.extend([
            "PACKETS",
            "BYTES",
            "REFUSED",
            "UNANSWERED",
            "WEIGHT",
            "SOURCE",
            "TOLD",
            "NEXT-HOP",
        ]);
    }
    headings.push("REASON");
    let mut table = Table::new(headings);
    for backend in backends {
        table.row(cells(backend, leaving, screen));
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

fn cells(backend: &Backend, leaving: bool, screen: &Screen<'_>) -> Vec<Cell> {
    let mut cells = vec![
        Cell::from(&backend.service),
        Cell::from(backend.address),
        Cell::from(backend.node.as_deref().unwrap_or_default()),
        delivery(backend.delivery),
        state(backend.state),
        Cell::from(figures::age(screen.seconds_since(backend.since))),
        Cell::from(figures::share(backend.share)),
        Cell::from(backend.connections),
    ];
    if leaving {
        cells.push(Cell::from(left(backend)));
    }
    if screen.is_wide() {
        cells.extend([
            Cell::from(backend.packets),
            Cell::from(figures::bytes(backend.bytes)),
            Cell::from(backend.refused),
            Cell::from(backend.unanswered),
            Cell::from(backend.weight),
            Cell::from(source(backend.source)),
            Cell::from(backend.clients_told),
            Cell::from(backend.next_hop_mac.as_deref().unwrap_or_default()),
        ]);
    }
    cells.push(Cell::from(&backend.reason));
    cells
}

fn left(backend: &Backend) -> String {
    match (backend.admin, backend.connections_left) {
        (Admin::Enabled, _) => String::new(),
        (_, Some(left)) => left.to_string(),
        (_, None) => "?".to_owned(),
    }
}

const fn source(source: BackendSource) -> &'static str {
    match source {
        BackendSource::File => "file",
        BackendSource::Dns => "dns",
        BackendSource::Kubernetes => "kubernetes",
    }
}

fn delivery(delivery: Delivery) -> Cell {
    match delivery {
        Delivery::Local => Cell::from("local"),
        Delivery::Direct => Cell::from("direct"),
        Delivery::Nat => Cell::from("nat"),
        Delivery::Unresolved => Cell::toned(Tone::Bad, "unresolved"),
    }
}

fn state(state: BackendState) -> Cell {
    match state {
        BackendState::Healthy => Cell::toned(Tone::Good, "healthy"),
        BackendState::Down => Cell::toned(Tone::Bad, "down"),
        BackendState::Unknown => Cell::toned(Tone::Doubtful, "unknown"),
        BackendState::Draining => Cell::toned(Tone::Doubtful, "draining"),
        BackendState::Backup => Cell::from("backup"),
        BackendState::SlowStarting => Cell::toned(Tone::Doubtful, "slow-starting"),
        BackendState::Disabled => Cell::toned(Tone::Bad, "disabled"),
    }
}
