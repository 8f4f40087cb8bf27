//! `lbctl services`.

use super::failure::Failure;
use super::figures;
use super::screen::{Screen, Tone};
use super::table::{Cell, Table};
use crate::control::api::{Service, Uses};
use crate::control::client::Client;

pub(super) async fn run(client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let services = client.services().await?;
    if screen.data(&services)? {
        return Ok(());
    }
    let wide = screen.is_wide();
    let mut headings =
        vec!["NAME", "ADDRESS", "PROTOCOL", "HASH", "ACCEPTING", "USES", "CONNECTIONS"];
    if wide {
        let more = ["PACKETS", "BYTES", "SLOTS", "MEMORY", "TABLE", "SHARED-BY", "DISCOVERED"];
        headings.extend(more);
    }
    let mut table = Table::new(headings);
    for service in &services {
        table.row(cells(service, wide));
    }
    screen.table(&table)
}

fn cells(service: &Service, wide: bool) -> Vec<Cell> {
    let tone = match service.accepting {
        0 => Tone::Bad,
        some if some < service.backends => Tone::Doubtful,
        _ => Tone::Good,
    };
    let address = std::net::SocketAddr::new(service.address, service.port);
    let mut cells = vec![
        Cell::from(&service.name),
        Cell::from(address),
        Cell::from(service.protocol),
        Cell::from(service.hash),
        Cell::toned(tone, format!("{}/{}", service.accepting, service.backends)),
        uses(service.uses),
        Cell::from(service.connections),
    ];
    if wide {
        cells.extend([
            Cell::from(service.packets),
            Cell::from(figures::bytes(service.bytes)),
            Cell::from(service.slots),
            Cell::from(figures::bytes(service.own_bytes)),
            Cell::from(figures::bytes(service.table_bytes)),
            Cell::from(service.table_services),
            discovered(service),
        ]);
    }
    cells
}

/// By whom, and how long ago anything was heard.
fn discovered(service: &Service) -> Cell {
    let Some(discovery) = &service.discovery else { return Cell::from("") };
    let source = &discovery.source;
    let said = match discovery.age_seconds {
        Some(age) => format!("{source}, {} ago", figures::age(age)),
        None => format!("{source}, never heard"),
    };
    match (&discovery.failure, &discovery.flaw) {
        (None, None) => Cell::from(said),
        _ => Cell::toned(Tone::Bad, said),
    }
}

fn uses(uses: Uses) -> Cell {
    match uses {
        Uses::Primaries => Cell::from("healthy"),
        Uses::Backups => Cell::toned(Tone::Doubtful, "backups"),
        Uses::Everybody => Cell::toned(Tone::Bad, "all"),
    }
}
