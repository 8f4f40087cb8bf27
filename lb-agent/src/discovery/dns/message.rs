//! A question for the addresses of a name, and what an answer says (RFC 1034, 1035; RFC 6891 for the size). Pure. The
//! wire format is the crate `domain`'s.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr as _;
use std::time::Duration;

use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Name, Rtype, Ttl};
use domain::rdata::{A, Aaaa, Cname};

/// What arrives in one piece wherever IPv6 does (DNS flag day 2020).
const UDP_BYTES: u16 = 1232;

/// Addresses, and for how long they are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::discovery) struct Found {
    /// At least one.
    pub(in crate::discovery) addresses: BTreeSet<IpAddr>,
    pub(in crate::discovery) ttl: Duration,
}

/// What is not an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::discovery) enum NotFound {
    /// To another question: whoever sent it, ours may still come.
    Stray,
    /// There is more of it over TCP.
    Truncated,
    /// What the server said, in words that follow its name.
    Said(String),
}

fn said(words: &str) -> NotFound {
    NotFound::Said(words.to_owned())
}

pub(in crate::discovery) fn question(name: &str, v4: bool, id: u16) -> Result<Vec<u8>, NotFound> {
    let unsayable = |_| NotFound::Said(format!("cannot be asked for {name}"));
    let name = Name::<Vec<u8>>::from_str(name).map_err(|_| unsayable(()))?;
    let mut builder = MessageBuilder::new_vec().question();
    builder.header_mut().set_id(id);
    builder.header_mut().set_rd(true);
    builder.push((name, record_type(v4))).map_err(|_| unsayable(()))?;
    let mut builder = builder.additional();
    let size = builder.opt(|opt| {
        opt.set_udp_payload_size(UDP_BYTES);
        Ok(())
    });
    size.map_err(|_| unsayable(()))?;
    Ok(builder.finish())
}

const fn record_type(v4: bool) -> Rtype {
    if v4 { Rtype::A } else { Rtype::AAAA }
}

/// Reads what came back to `question(name, v4, id)`.
pub(in crate::discovery) fn answer(
    bytes: &[u8],
    name: &str,
    v4: bool,
    id: u16,
) -> Result<Found, NotFound> {
    let message = Message::from_octets(bytes).map_err(|_| NotFound::Stray)?;
    let header = message.header();
    let asked = message.sole_question().map_err(|_| NotFound::Stray)?;
    let is_ours = Name::<Vec<u8>>::from_str(name).is_ok_and(|name| asked.qname() == &name);
    if header.id() != id || !header.qr() || !is_ours || asked.qtype() != record_type(v4) {
        return Err(NotFound::Stray);
    }
    match header.rcode() {
        Rcode::NOERROR => {}
        Rcode::NXDOMAIN => {
            return Err(NotFound::Said(format!("says that there is no {name} (NXDOMAIN)")));
        }
        other => return Err(NotFound::Said(format!("answers {other} for {name}"))),
    }
    if header.tc() {
        return Err(NotFound::Truncated);
    }
    let found =
        records(&message, v4).ok_or_else(|| said("answers with what is no message of DNS"))?;
    if found.addresses.is_empty() {
        let kind = if v4 { "IPv4" } else { "IPv6" };
        return Err(NotFound::Said(format!("says that {name} has no {kind} address")));
    }
    Ok(found)
}

/// The addresses at the end of the chain of names that begins with the one asked for. The answer is good for as long as
/// the shortest-lived record of it.
fn records(message: &Message<&[u8]>, v4: bool) -> Option<Found> {
    let last = message.canonical_name()?;
    let mut ttl = Ttl::MAX;
    let section = || message.answer().ok();
    for record in section()?.limit_to_in::<Cname<_>>() {
        ttl = ttl.min(record.ok()?.ttl());
    }
    let mut addresses = BTreeSet::new();
    if v4 {
        for record in section()?.limit_to_in::<A>() {
            let record = record.ok()?;
            if *record.owner() == last {
                ttl = ttl.min(record.ttl());
                addresses.insert(record.data().addr().into());
            }
        }
    } else {
        for record in section()?.limit_to_in::<Aaaa>() {
            let record = record.ok()?;
            if *record.owner() == last {
                ttl = ttl.min(record.ttl());
                addresses.insert(record.data().addr().into());
            }
        }
    }
    Some(Found { addresses, ttl: ttl.into_duration() })
}
