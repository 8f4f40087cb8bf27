//! `[peers]`, from the document's table.

use crate::config::document::Section;
use crate::config::error::Faults;
use crate::config::{Peers, schema, value};

pub(super) fn read(root: &Section<'_>, faults: &mut Faults<'_>) -> Option<Peers> {
    const EXAMPLE: &str = "key_file = \"/etc/lb/peers.key\"";
    let section = root.optional_section("peers", &schema::PEERS, faults)?;
    let key_file = section.required("key_file", EXAMPLE, faults, |item| item.parsed(value::path));
    let port = section.or("port", Peers::DEFAULT_PORT, faults, |item| item.number(1..=u16::MAX));
    Some(Peers { key_file: key_file?.value, port })
}
