//! What the agent and its maps take of the machine's memory: by what it is for, for one of each, and
//! how full that is.

use super::super::failure::Failure;
use super::super::figures::bytes;
use super::super::screen::{Screen, Tone};
use super::super::table::{Cell, Table};
use crate::control::api::{Memory, Occupancy};

/// Above this part of a limit it is time to raise it.
const NEARLY_FULL: f64 = 0.8;

pub(super) fn show(memory: &Memory, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut table = Table::new(["MEMORY", "BYTES", "USED", "LIMIT", "FULL"]);
    for (name, occupancy) in [
        ("nat flows", memory.nat_flows),
        ("services", memory.services),
        ("backends", memory.backends),
        ("table slots", memory.table_slots),
    ] {
        let Occupancy { used, limit, bytes: taken } = occupancy;
        let full = used as f64 / limit.max(1) as f64;
        let tone = if full > NEARLY_FULL { Tone::Doubtful } else { Tone::Good };
        table.row([
            Cell::from(name),
            Cell::from(bytes(taken)),
            Cell::from(used),
            Cell::from(limit),
            Cell::toned(tone, format!("{:.0}%", full * 100.0)),
        ]);
    }
    let plain = |name: &str, taken: u64| {
        [name.to_owned(), bytes(taken), String::new(), String::new(), String::new()].map(Cell::from)
    };
    if screen.is_wide() {
        for map in &memory.maps {
            table.row(plain(&format!("map {}", map.name), map.bytes));
        }
    }
    table.row(plain("other maps", memory.other_bytes));
    table.row(plain("agent", memory.agent_bytes));
    table.row(plain("all", memory.maps_bytes + memory.agent_bytes));
    screen.table(&table)?;
    screen.line(&format!(
        "a translated flow takes {} B; a service with its backends and its part of {} tables {} on \
         average; a flow that is not translated nothing",
        memory.flow_bytes,
        memory.tables,
        bytes(memory.service_bytes)
    ))
}
