//! What is fuzzed, taken as it is from where it lies. It needs no kernel, and without lb-agent as a
//! whole there is no compiler for BPF to wait for.

#![allow(dead_code, unused_imports, reason = "the agent, lbctl and the lab use the rest")]

pub mod plain;

#[path = "../../lb-agent/src/config/mod.rs"]
pub mod config;

#[path = "../../lb-agent/src/plan/mod.rs"]
pub mod plan;

#[path = "../../lb-agent/src/table/mod.rs"]
pub mod table;

#[path = "../../lb-agent/src/standing/mod.rs"]
pub mod standing;

#[path = "../../lb-agent/src/hysteresis.rs"]
mod hysteresis;

/// As in lb-agent, without what asks the kernel.
#[path = "../../lb-agent/src/netlink"]
pub mod netlink {
    mod network;

    pub use network::*;
}

/// As in lb-agent, without the client.
#[path = "../../lb-agent/src/control"]
pub mod control {
    pub mod api;
    pub mod server;
}

/// As in lb-agent, without its drivers.
#[path = "../../lb-agent/src/vrrp"]
pub mod vrrp {
    pub mod identity;
    pub mod machine;
    pub mod moment;
    pub mod packet;
}

/// What lb-agent reads of the files of an earlier run, and what it makes of it.
#[path = "../../lb-agent/src/agent"]
pub mod agent {
    mod attachments;
    mod kept;

    /// Interfaces that are attached after such a file; none where it is spoilt.
    pub fn attached(bytes: &[u8], configured: &[String]) -> Result<Vec<String>, String> {
        attachments::File::parse(bytes).map(|choices| choices.wanted(configured))
    }
}

/// As in lb-agent, without its drivers, and with doors to what is its own.
#[path = "../../lb-agent/src/notify"]
pub mod notify {
    pub mod notice;
    pub mod queue;
    pub mod timestamp;

    use std::time::UNIX_EPOCH;

    use notice::{Event, Notice, What};
    use queue::{Leftovers, Queue};

    pub fn sequence(bytes: &[u8]) -> Result<u64, String> {
        notice::read_sequence(bytes)
    }

    pub fn notice(bytes: &[u8]) -> Result<Notice, String> {
        Notice::read(bytes)
    }

    /// What of a notice is given to a program, and the value of a header.
    pub fn given(notice: &Notice) -> (Vec<String>, String) {
        let variables = notice.variables().into_iter().map(|(_, value)| value);
        (notice.arguments().into_iter().chain(variables).collect(), notice.key())
    }

    /// The bytes that stand for it on disk.
    pub fn written(notice: &Notice) -> Vec<u8> {
        notice.json()
    }

    /// What is told in the next run: what waits, and then so many more changes. What is then on disk
    /// must be what waits.
    pub fn next_run(delivered: u64, notices: Vec<Notice>, changes: usize) -> Vec<Notice> {
        let mut queue = Queue::new("master1", "0123456789abcdef", Leftovers { delivered, notices });
        for _ in 0..changes {
            let what = What::Role {
                from: notice::State::Backup,
                to: notice::State::Active,
                reason: "it was told so".to_owned(),
            };
            queue.push(Event { at: UNIX_EPOCH, router: notice::Router::default(), what });
        }
        let mut told = Vec::new();
        while let Some(notice) = queue.first() {
            told.push(notice.clone());
            queue.first_delivered();
        }
        while queue.is_unsaved() {
            let work = queue.work();
            queue.done(&work);
        }
        told
    }
}

/// As in lb-agent, without the kernel, and with doors to what is its own.
#[path = "../../lb-agent/src/dataplane"]
pub mod dataplane {
    pub mod nat;
    mod state;

    use lb_common::backend::Backend;
    use lb_common::service::{Service, ServiceKey};
    use state::{Applied, State};

    /// Takes over what pinned maps hold, as the agent does, and finds room for more: indexes and slots of
    /// tables, and backends' blocks, that belong to somebody.
    pub fn taken_over(
        found: Vec<(ServiceKey, u32, Service)>,
        sizes: (u32, u32),
    ) -> Vec<(u32, u32, u32, u32)> {
        let mut taken = State::default();
        for (key, place, service) in found {
            let why = state::spoilt(&service, place, &taken, sizes);
            let (None, Some(block)) = (why, state::block(&service)) else { continue };
            let backends = vec![Backend::EMPTY; block.len()];
            taken.tables.entry(service.table).or_default();
            taken.places.claim(place);
            taken.set(key, Applied { service, place, block, backends: backends.into() });
        }
        let mut places: Vec<u32> = taken.services.values().map(|applied| applied.place).collect();
        places.extend(taken.places.take(u32::MAX));
        places.sort_unstable();
        assert!(places.windows(2).all(|pair| pair[0] != pair[1]), "one place twice");
        let mut used: Vec<(u32, u32, u32, u32)> = taken
            .services
            .values()
            .map(|applied| {
                let Applied { service, block, .. } = applied;
                (service.table, service.slots, block.start, block.end)
            })
            .collect();
        if let (Some(block), Some(table)) =
            (taken.free_block(3, sizes.0), taken.free_table(sizes.1))
        {
            assert!(used.iter().all(|(other, ..)| *other != table), "the new table is in use");
            used.push((table, 0, block.start, block.end));
        }
        used
    }

    pub fn expired(
        entries: &std::collections::HashMap<lb_common::flow::FlowKey, lb_common::nat::NatEntry>,
        timeouts: &nat::NatTimeouts,
        now_ns: u64,
    ) -> (usize, u64) {
        let mut census = nat::Census::default();
        for (key, entry) in entries {
            census.note(key, entry, now_ns);
        }
        let (over, flows) = census.over(timeouts);
        (over.len(), flows)
    }
}

/// As in lb-tests, without the kernel.
#[path = "../../tests/src/packet/made_up"]
pub mod made_up {
    pub mod judge;
    pub mod setting;
    pub mod story;
    pub mod wire;
}
