//! `[vrrp]`, read into a draft.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::document::{Item, Placed, Section};
use crate::config::error::Faults;
use crate::config::problem::Problem;
use crate::config::{AuthPass, Vrrp, VrrpChecksum, VrrpVersion, schema, value};

/// As keepalived's.
const PREEMPT_DELAY_MAX: Duration = Duration::from_secs(1000);

const ROUTER_ID_EXAMPLE: &str = "router_id = 51";
const ROUTER_EXAMPLE: &str = "[[vrrp.router]] with router_id = 51 and virtual_addresses";
const ADDRESSES_EXAMPLE: &str = "virtual_addresses = [\"192.168.139.150\"]";
const PRIORITIES_EXAMPLE: &str = "priorities = [{ node = \"master1\", priority = 110 }]";

/// The table, whose virtual routers are still to be held against the rest of the file.
pub(in crate::config) struct DraftVrrp {
    /// Without the routers.
    pub(in crate::config) settings: Vrrp,
    /// Of the one that has all virtual addresses.
    pub(in crate::config) router_id: Option<Placed<u8>>,
    pub(in crate::config) routers: Vec<DraftRouter>,
}

pub(in crate::config) struct DraftRouter {
    pub(in crate::config) router_id: Placed<u8>,
    pub(in crate::config) virtual_addresses: Vec<Placed<IpAddr>>,
    pub(in crate::config) priorities: Vec<(Placed<String>, u8)>,
    /// All of it could be read.
    pub(in crate::config) complete: bool,
}

/// None where it is switched off: the table is absent.
pub(super) fn read(root: &Section<'_>, faults: &mut Faults<'_>) -> Option<DraftVrrp> {
    if root.has("active") && root.has("vrrp") {
        faults.add(&root.span_of("active"), Problem::ActiveWithVrrp);
    }
    let section = &root.optional_section("vrrp", &schema::VRRP, faults)?;
    let (router_id, routers) = routers(section, faults);
    let before = faults.count();
    let version = section.or("version", VrrpVersion::V3, faults, |item| {
        let number = item.number(2..=3)?;
        Ok(if number == 2 { VrrpVersion::V2 } else { VrrpVersion::V3 })
    });
    // None where it is wrong: what depends on it cannot be judged.
    let known_version = (faults.count() == before).then_some(version);
    let advertisement_interval =
        section.or("advertisement_interval", version.default_interval(), faults, |item| {
            let found = item.duration(Duration::ZERO..=Duration::MAX)?;
            match known_version {
                Some(version) if !version.can_carry(found) => {
                    Err(Problem::AdvertisementInterval { version, found })
                }
                _ => Ok(found),
            }
        });
    let auth_pass = section.optional("auth_pass", faults, |item| match known_version {
        Some(VrrpVersion::V3) => Err(Problem::AuthPassInVersion3),
        _ => item.not_empty("auth_pass = \"8letters\"").map(AuthPass::new),
    });
    let (preempt, preempt_delay) = preemption(section, faults);
    let checksum = section.or("checksum", VrrpChecksum::PseudoHeader, faults, |item| {
        item.choice(&[
            ("pseudo-header", VrrpChecksum::PseudoHeader),
            ("plain", VrrpChecksum::Plain),
        ])
    });
    // RFC 9568, 6.4.3: answer. RFC 3768, 6.4.3: discard.
    let answers = version == VrrpVersion::V3;
    let unicast = section.or("unicast", false, faults, Item::boolean);
    let virtual_mac = section.or("virtual_mac", false, faults, |item| match item.boolean()? {
        true if unicast => Err(Problem::VirtualMacWithUnicast),
        virtual_mac => Ok(virtual_mac),
    });
    let settings = Vrrp {
        // They are known once the virtual addresses are.
        routers: Vec::new(),
        version,
        advertisement_interval,
        preempt,
        preempt_delay,
        unicast,
        auth_pass: auth_pass.map(|placed| placed.value),
        checksum,
        answer_rivals: section.or("answer_rivals", answers, faults, Item::boolean),
        check_addresses: section.or("check_addresses", false, faults, Item::boolean),
        check_duplicates: section.or("check_duplicates", false, faults, Item::boolean),
        virtual_mac,
    };
    Some(DraftVrrp { settings, router_id, routers })
}

/// One virtual router for everything, by `router_id`, or several, each with a table.
fn routers(
    section: &Section<'_>,
    faults: &mut Faults<'_>,
) -> (Option<Placed<u8>>, Vec<DraftRouter>) {
    const TABLES: &str = "a list of tables, each headed [[vrrp.router]]";
    let several = section.has("router");
    if several && section.has("router_id") {
        let problem = Problem::Both { first: "router_id", second: "router" };
        faults.add(&section.span_of("router_id"), problem);
    }
    if !several {
        section.demand("router_id", ROUTER_ID_EXAMPLE, faults);
    }
    let router_id = section.optional("router_id", faults, |item| item.number(1..=u8::MAX));
    let items = section.elements("router", TABLES, ROUTER_EXAMPLE, faults);
    let routers = items
        .filter_map(|item| router(&item.section(&schema::VRRP_ROUTER, faults)?, faults))
        .collect();
    (router_id, routers)
}

fn router(section: &Section<'_>, faults: &mut Faults<'_>) -> Option<DraftRouter> {
    let before = faults.count();
    let router_id =
        section.required("router_id", ROUTER_ID_EXAMPLE, faults, |item| item.number(1..=u8::MAX));
    section.demand("virtual_addresses", ADDRESSES_EXAMPLE, faults);
    let virtual_addresses =
        section.list("virtual_addresses", ADDRESSES_EXAMPLE, faults, Item::unicast_address);
    let expected = "a list of tables, { node = .., priority = .. }";
    let priorities = section
        .elements("priorities", expected, PRIORITIES_EXAMPLE, faults)
        .filter_map(|item| priority(&item.section(&schema::VRRP_PRIORITY, faults)?, faults))
        .collect();
    let complete = faults.count() == before;
    Some(DraftRouter { router_id: router_id?, virtual_addresses, priorities, complete })
}

fn priority(section: &Section<'_>, faults: &mut Faults<'_>) -> Option<(Placed<String>, u8)> {
    let node =
        section.required("node", "node = \"master1\"", faults, |item| item.parsed(value::name));
    let priority =
        section.required("priority", "priority = 110", faults, |item| item.number(1..=254))?.value;
    Some((node?, priority))
}

/// `preempt` and `preempt_delay`.
fn preemption(section: &Section<'_>, faults: &mut Faults<'_>) -> (bool, Duration) {
    let before = faults.count();
    let preempt = section.or("preempt", false, faults, Item::boolean);
    let never = !preempt && faults.count() == before;
    let delay = section.or("preempt_delay", Duration::ZERO, faults, |item| {
        let delay = item.duration(Duration::ZERO..=PREEMPT_DELAY_MAX)?;
        if never && !delay.is_zero() {
            return Err(Problem::DelayWithoutPreempt { delay });
        }
        Ok(delay)
    });
    (preempt, delay)
}
