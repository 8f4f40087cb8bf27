//! The memory of all tables: each different one counts once.

use std::collections::HashSet;

use super::{Draft, Faults, Problem, Service};
use crate::table::{Member, Outline, Slots};

/// Services with the same backends, weights and size have one table together.
pub(super) fn fit_the_limit(draft: &Draft, services: &[Service], faults: &mut Faults<'_>) {
    let most = draft.limits.table_slots;
    let mut different = HashSet::new();
    let mut slots: u64 = 0;
    let mut first_too_many = None;
    for (service, draft) in services.iter().zip(&draft.services) {
        // What cannot be built is another fault's.
        let Some(outline) = outline(service) else { continue };
        // Which those of one that discovers them are is not known, and there are two of them while it changes.
        let discovered = service.discover.as_ref().map_or(0, |discover| discover.max_backends);
        slots += most_slots(service, discovered);
        if different.insert(outline.likeness()) {
            slots += u64::from(outline.slots().number());
        }
        if slots > most {
            first_too_many.get_or_insert(&draft.span);
        }
    }
    if let Some(span) = first_too_many {
        faults.add(span, Problem::TooManySlots { tables: different.len(), slots, most });
    }
}

/// Of a service that discovers its backends, beyond those of its first table.
fn most_slots(service: &Service, backends: u32) -> u64 {
    match (backends, service.table_size) {
        (0, _) => 0,
        (_, Some(size)) => u64::from(size),
        (_, None) => u64::from(Slots::for_weights(&vec![1; backends as usize]).number()),
    }
}

fn outline(service: &Service) -> Option<Outline> {
    let backends = &service.backends;
    let members: Vec<Member> = backends.iter().map(|b| Member::new(b.address, b.weight)).collect();
    let slots = match service.table_size {
        Some(size) => Slots::new(size).ok()?,
        None => Slots::for_weights(&backends.iter().map(|b| b.weight).collect::<Vec<_>>()),
    };
    Outline::new(&members, slots).ok()
}
