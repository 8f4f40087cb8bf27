//! Where datagrams stay, before it is checked against the rest.

use std::time::Duration;

use super::super::datagram::{Quic, ServerId};
use super::super::document::{Item, Section};
use super::super::error::Faults;
use super::super::problem::{Form, Problem};
use super::super::{Protocol, schema};

const SECOND: Duration = Duration::from_secs(1);
/// As much as the programs' flags hold.
pub(super) const AFFINITY_MAX: Duration = Duration::from_secs(u16::MAX as u64);

pub(super) fn affinity(
    service: &Section<'_>,
    protocol: Protocol,
    faults: &mut Faults<'_>,
) -> Option<Duration> {
    let affinity =
        service.optional("affinity", faults, |item| item.duration(SECOND..=AFFINITY_MAX))?;
    if protocol != Protocol::Udp {
        faults.add(&affinity.span, Problem::OnlyForUdp { key: "affinity" });
    }
    Some(affinity.value)
}

pub(super) fn quic(
    service: &Section<'_>,
    protocol: Protocol,
    faults: &mut Faults<'_>,
) -> Option<Quic> {
    let section = service.optional_section("quic", &schema::QUIC, faults)?;
    if protocol != Protocol::Udp {
        faults.add(&section.span, Problem::OnlyForUdp { key: "quic" });
    }
    let length = section
        .required("server_id_length", "server_id_length = 2", faults, |item| item.number(1..=8));
    // 7 says that a connection id names nobody.
    let config_rotation = section.or("config_rotation", 0, faults, |item| item.number(0..=6));
    Some(Quic { config_rotation, server_id_length: length?.value })
}

pub(super) fn server_id(item: Item<'_>) -> Result<ServerId, Problem> {
    item.parsed(|text| {
        ServerId::parse(text)
            .ok_or_else(|| Problem::Malformed { text: text.to_owned(), form: Form::ServerId })
    })
}
