//! Prints the figures of docs/tables.md: balance, disruption and build time of tables of several
//! sizes. `cargo run --release -p lb-agent --example table_figures`

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_agent::table::{BuildError, Member, Slots, Table};
use lb_common::bucket::NONE;
use lb_common::hash::mix;

/// Numbers of backends and slots, the last two those of the Maglev paper's section 5.3.
const SIZES: [(u16, u32); 11] = [
    (3, 1021),
    (8, 1021),
    (10, 1021),
    (40, 4093),
    (64, 65537),
    (100, 16381),
    (163, 16381),
    (300, 65537),
    (1000, 262_139),
    (1000, 65537),
    (1000, 655_373),
];
/// Sets of backends tried for each size, and backends removed, one at a time, from each.
const SETS: u64 = 5;
const REMOVALS: usize = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("equal weights; max and min are the largest and smallest share over the mean;");
    println!("moved is the buckets whose first rank changes when one backend is removed from the");
    println!("configuration, over the removed one's; heir is the largest load over the mean of");
    println!("those left when one backend is down (health, nothing rebuilt)\n");
    println!("backends   slots    max    min  moved  worst   heir  build_ms");
    for (backends, slots) in SIZES {
        let figures = Figures::of(backends, Slots::new(slots)?, |_| 1)?;
        println!("{backends:8} {slots:7} {figures}");
    }
    println!("\nweights 1 to 10 in turn; shares are over what the weight is due");
    for (backends, slots) in SIZES {
        let figures = Figures::of(backends, Slots::new(slots)?, |i| 1 + i % 10)?;
        println!("{backends:8} {slots:7} {figures}");
    }
    println!("\none backend of weight 65535, the others 1");
    for (backends, slots) in [(3, 65537), (1000, 65537)] {
        let start = Instant::now();
        Table::build(&set(0, backends, |i| if i == 0 { u16::MAX } else { 1 }), Slots::new(slots)?)?;
        println!("{backends:8} {slots:7} build_ms {:.1}", milliseconds(start.elapsed()));
    }
    println!("\nbuckets without an accepting backend in their ranks, of 65537, 1000 backends");
    for down in [100, 300, 500, 900] {
        let table = Table::build(&set(0, 1000, |_| 1), Slots::new(65537)?)?;
        let accepting: Vec<bool> = (0..1000).map(|i| mix(i) % 1000 >= down).collect();
        let start = Instant::now();
        let orphans = table.orphans(&accepting).len();
        println!("{down:8} down {orphans:7} found in ms {:.1}", milliseconds(start.elapsed()));
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Backends with addresses that follow one another, as they do in practice.
fn set(seed: u64, backends: u16, weight: impl Fn(u16) -> u16) -> Vec<Member> {
    let network = (mix(seed) % 200) as u8;
    let address = |i: u16| SocketAddr::from(([10, network, (i >> 8) as u8, i as u8], 6443));
    (0..backends).map(|i| Member::new(address(i), weight(i))).collect()
}

struct Figures {
    max: f64,
    min: f64,
    moved: f64,
    worst: f64,
    heir: f64,
    build: Duration,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { max, min, moved, worst, heir, build } = self;
        let build = milliseconds(*build);
        write!(f, "{max:6.3} {min:6.3} {moved:6.3} {worst:6.3} {heir:6.3} {build:9.2}")
    }
}

impl Figures {
    fn of(backends: u16, slots: Slots, weight: impl Fn(u16) -> u16) -> Result<Self, BuildError> {
        let (mut max, mut min, mut worst, mut heir) = (0_f64, f64::MAX, 0_f64, 0_f64);
        let (mut moved, mut builds) = (Vec::new(), Vec::new());
        for seed in 0..SETS {
            let members = set(seed, backends, &weight);
            let start = Instant::now();
            let table = Table::build(&members, slots)?;
            builds.push(start.elapsed());
            let total: f64 = members.iter().map(|m| f64::from(m.weight)).sum();
            for (share, member) in table.shares().iter().zip(table.members()) {
                let ratio = share * total / f64::from(member.weight);
                (max, min) = (max.max(ratio), min.min(ratio));
            }
            for removal in 0..REMOVALS.min(members.len()) {
                let index = (removal * 127 + seed as usize) % members.len();
                let ratio = disruption(&table, index)?;
                worst = worst.max(ratio);
                moved.push(ratio);
                heir = heir.max(largest_load_without(&table, index));
            }
        }
        builds.sort_unstable();
        let moved = moved.iter().sum::<f64>() / moved.len() as f64;
        Ok(Self { max, min, moved, worst, heir, build: builds[builds.len() / 2] })
    }
}

/// Buckets that change hands when a member is removed, over those that it had.
fn disruption(table: &Table, index: usize) -> Result<f64, BuildError> {
    let mut rest = table.members().to_vec();
    rest.remove(index);
    let without = Table::build(&rest, table.slots())?;
    let owner = |table: &Table, slot: usize| {
        let rank = table.buckets()[slot].ranks[0];
        table.members().get(usize::from(rank)).map(Member::socket_address)
    };
    let slots = 0..table.buckets().len();
    let changed = slots.filter(|&slot| owner(table, slot) != owner(&without, slot)).count();
    let owned = table.buckets().iter().filter(|b| usize::from(b.ranks[0]) == index).count();
    Ok(changed as f64 / owned as f64)
}

/// The largest part of the traffic over its due when a member is down and its buckets fall to
/// the next ranks.
fn largest_load_without(table: &Table, down: usize) -> f64 {
    let mut loads = vec![0_u32; table.members().len()];
    for bucket in table.buckets() {
        let up = bucket.ranks.iter().find(|&&r| r != NONE && usize::from(r) != down);
        if let Some(&rank) = up {
            loads[usize::from(rank)] += 1;
        }
    }
    let weight = |index: usize| f64::from(table.members()[index].weight);
    let total: f64 = (0..loads.len()).filter(|&i| i != down).map(weight).sum();
    let mean = table.buckets().len() as f64 / total;
    let ratios = (0..loads.len()).map(|i| f64::from(loads[i]) / (mean * weight(i)));
    ratios.fold(0.0, f64::max)
}
