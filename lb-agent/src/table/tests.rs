//! What a table promises, over random sets. Figures are in docs/tables.md; the bounds here are
//! wide enough for any set that proptest may find, but for the sizes of the Maglev paper.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use lb_common::bucket::{Bucket, NONE, RANKS};
use lb_common::hash::mix;
use proptest::prelude::*;

use super::*;

/// Distinct backends of these weights; other ones for another seed.
fn set(seed: u64, weights: &[u16]) -> Vec<Member> {
    let address = |i: usize| {
        let low = (mix(seed) as u32 & 0xff_0000) | i as u32;
        SocketAddr::from(([10, (low >> 16) as u8, (low >> 8) as u8, low as u8], 6443))
    };
    weights.iter().enumerate().map(|(i, &weight)| Member::new(address(i), weight)).collect()
}

fn default_table(members: &[Member]) -> Table {
    let weights: Vec<u16> = members.iter().map(|m| m.weight).collect();
    Table::build(members, Slots::for_weights(&weights)).unwrap()
}

fn sized_table(members: &[Member], slots: u32) -> Table {
    Table::build(members, Slots::new(slots).unwrap()).unwrap()
}

/// The member at a rank of a bucket, whatever table it is of.
fn member_at(table: &Table, slot: usize, rank: usize) -> Option<SocketAddr> {
    let index = usize::from(table.buckets()[slot].ranks[rank]);
    table.members().get(index).map(Member::socket_address)
}

/// Buckets of each member's first rank.
fn owned(table: &Table) -> HashMap<SocketAddr, usize> {
    let mut owned = HashMap::new();
    for slot in 0..table.buckets().len() {
        *owned.entry(member_at(table, slot, 0).unwrap()).or_default() += 1;
    }
    owned
}

/// Slots whose first rank is another one in the other table.
fn moved(before: &Table, after: &Table) -> usize {
    assert_eq!(before.slots(), after.slots());
    let slots = 0..before.buckets().len();
    slots.filter(|&slot| member_at(before, slot, 0) != member_at(after, slot, 0)).count()
}

/// The error bound of docs/tables.md, as a factor.
fn allowance(members: usize, slots: u32) -> f64 {
    let n = members as f64;
    1.0 + 1.5 * (n / f64::from(slots)).sqrt() * n / (n + 40.0)
}

/// Removes each of some members in turn: the buckets that changed hands over those it had.
fn disruptions(members: &[Member], slots: u32, removals: usize) -> Vec<f64> {
    let table = sized_table(members, slots);
    let owned = owned(&table);
    let removal = |i: usize| {
        let mut rest = members.to_vec();
        let removed = rest.remove(i * members.len() / removals);
        let moved = moved(&table, &sized_table(&rest, slots));
        moved as f64 / owned[&removed.socket_address()] as f64
    };
    (0..removals).map(removal).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn shares_follow_the_weights_within_the_error_bound(
        seed: u64,
        weights in prop::collection::vec(1_u16..=20, 1..60),
    ) {
        let members = set(seed, &weights);
        let table = default_table(&members);
        let slots = f64::from(table.slots().number());
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        prop_assert!((table.shares().iter().sum::<f64>() - 1.0).abs() < 1e-9);
        for (share, member) in table.shares().iter().zip(table.members()) {
            let due = slots * f64::from(member.weight) / total;
            let most = due * allowance(weights.len(), table.slots().number()) + 1.0;
            let least = due - 5.0 * (due / 2.0).sqrt() - 0.1 * due - 1.0;
            let owned = share * slots;
            prop_assert!(owned <= most + 1e-6, "{owned} of {due}, at most {most}");
            prop_assert!(owned >= least, "{owned} of {due}, at least {least}");
        }
    }

    #[test]
    fn the_order_of_the_backends_is_of_no_account(
        seed: u64,
        (weights, order) in prop::collection::vec(0_u16..=5, 1..30).prop_flat_map(|weights| {
            let order: Vec<usize> = (0..weights.len()).collect();
            (Just(weights), Just(order).prop_shuffle())
        }),
    ) {
        let members = set(seed, &weights);
        let shuffled: Vec<Member> = order.iter().map(|&i| members[i]).collect();
        prop_assert_eq!(default_table(&members), default_table(&shuffled));
    }

    #[test]
    fn every_bucket_ranks_as_many_distinct_backends_as_promised(
        seed: u64,
        weights in prop::collection::vec(prop_oneof![Just(0_u16), 1_u16..=3, Just(u16::MAX)], 1..30),
        slots in prop::sample::select(vec![29_u32, 257, 1021]),
    ) {
        let members = set(seed, &weights);
        let table = sized_table(&members, slots);
        let promised = if members.len() <= RANKS { members.len() } else { RANKS_OF_LARGE_SETS };
        prop_assert_eq!(table.buckets().len(), slots as usize);
        for bucket in table.buckets() {
            let used: HashSet<u16> = bucket.ranks[..promised].iter().copied().collect();
            prop_assert_eq!(used.len(), promised);
            prop_assert!(used.iter().all(|&index| usize::from(index) < members.len()));
            prop_assert!(bucket.ranks[promised..].iter().all(|&rank| rank == NONE));
        }
    }

    #[test]
    fn a_backend_of_weight_0_comes_after_all_others(
        seed: u64,
        weights in prop::collection::vec(0_u16..=2, 1..=RANKS),
    ) {
        prop_assume!(weights.iter().any(|&w| w > 0));
        let table = default_table(&set(seed, &weights));
        for bucket in table.buckets() {
            let of_rank: Vec<u16> =
                ranked(bucket).iter().map(|&i| table.members()[usize::from(i)].weight).collect();
            prop_assert!(of_rank.is_sorted_by(|a, b| *a > 0 || *b == 0), "{of_rank:?}");
        }
    }

    /// The table without a backend and the one with it differ in little more than its share; so a
    /// join is as cheap as a leave.
    #[test]
    fn a_leave_or_a_join_moves_little_more_than_the_backend_s_share(
        seed: u64,
        backends in 2_usize..60,
    ) {
        let members = set(seed, &vec![1; backends]);
        let slots = Slots::for_weights(&vec![1; backends]).number();
        for ratio in disruptions(&members, slots, 2) {
            prop_assert!((1.0..1.5).contains(&ratio), "{ratio}");
        }
    }

    #[test]
    fn a_change_of_weight_moves_little_more_than_the_change_of_the_share(
        seed: u64,
        backends in 2_usize..40,
    ) {
        let mut weights = vec![10_u16; backends];
        let before = sized_table(&set(seed, &weights), 16381);
        weights[0] = 5;
        let after = sized_table(&set(seed, &weights), 16381);
        let (n, slots) = (backends as f64, 16381.0);
        let change = slots * (1.0 / n - 0.5 / (n - 0.5));
        let moved = moved(&before, &after) as f64;
        prop_assert!(moved <= 1.5 * change + 3.0 * change.sqrt(), "{moved} for {change}");
    }

    #[test]
    fn the_buckets_of_a_dead_backend_fall_evenly_to_the_others(
        seed: u64,
        backends in 3_usize..30,
        dead: prop::sample::Index,
    ) {
        let table = default_table(&set(seed, &vec![1; backends]));
        let dead = dead.index(backends) as u16;
        let mut inherited = vec![0_u32; backends];
        for bucket in table.buckets().iter().filter(|b| b.ranks[0] == dead) {
            inherited[usize::from(bucket.ranks[1])] += 1;
        }
        prop_assert_eq!(inherited[usize::from(dead)], 0);
        let due = f64::from(inherited.iter().sum::<u32>()) / (backends - 1) as f64;
        for (heir, &count) in inherited.iter().enumerate().filter(|(i, _)| *i != usize::from(dead)) {
            let distance = (f64::from(count) - due).abs();
            prop_assert!(distance <= 0.5 * due + 6.0 * due.sqrt(), "{heir}: {count}, due {due}");
        }
    }

    #[test]
    fn every_former_owner_that_stays_is_still_ranked(
        seed: u64,
        backends in 9_usize..40,
        leave: prop::sample::Index,
        joining in 0_usize..4,
        slots in prop::sample::select(vec![1021_u32, 4093]),
    ) {
        let members = set(seed, &vec![1; backends]);
        let before = sized_table(&members, 1021);
        let mut changed = members;
        changed.remove(leave.index(backends));
        changed.extend(set(!seed, &vec![1; joining]).iter().map(|m| Member { port_be: 1, ..*m }));
        let mut after = sized_table(&changed, slots);
        let contract = after.clone();
        after.carry(before.as_former());

        let stays: HashSet<SocketAddr> = changed.iter().map(Member::socket_address).collect();
        for hash in (0..5000).map(mix) {
            let was = lb_common::bucket::slot(hash, 1021) as usize;
            let now = lb_common::bucket::slot(hash, slots) as usize;
            let owner = member_at(&before, was, 0).unwrap();
            let found = (0..RANKS).any(|rank| member_at(&after, now, rank) == Some(owner));
            prop_assert_eq!(found, stays.contains(&owner));
            let kept = ranked(&contract.buckets()[now]);
            prop_assert!(ranked(&after.buckets()[now]).starts_with(kept), "only appended");
        }
    }

    #[test]
    fn every_orphan_gets_an_accepting_backend_and_nobody_else_is_touched(
        seed: u64,
        weights in prop::collection::vec(0_u16..3, 9..40),
        up in prop::collection::vec(prop::bool::weighted(0.15), 40),
    ) {
        let table = default_table(&set(seed, &weights));
        let accepting = &up[..weights.len()];
        let accepts = |bucket: &Bucket| ranked(bucket).iter().any(|&i| accepting[usize::from(i)]);
        let orphans: HashMap<u32, Bucket> = table.orphans(accepting).into_iter().collect();
        for (slot, bucket) in (0..).zip(table.buckets()) {
            match orphans.get(&slot) {
                None => prop_assert!(accepts(bucket) || !accepting.contains(&true)),
                Some(patched) => {
                    prop_assert!(!accepts(bucket) && accepts(patched));
                    prop_assert!(ranked(patched).starts_with(ranked(bucket)), "only appended");
                }
            }
        }
    }
}

/// The Maglev paper's section 5.3: 65,537 slots and 1,000 backends. There Karger's ring and
/// rendezvous hashing overload a backend by a third to a half, and Maglev by less than 1 %; but
/// Maglev moves more than six times the share of a backend that leaves.
#[test]
fn a_thousand_backends_are_balanced_and_leave_at_most_a_tenth_beside_their_share() {
    let members = set(1, &[1; 1000]);
    let table = sized_table(&members, 65537);
    let most = table.shares().into_iter().fold(0.0, f64::max) * 1000.0;
    let least = table.shares().into_iter().fold(1.0, f64::min) * 1000.0;
    assert!(most <= 1.2, "{most}");
    assert!(least >= 0.6, "{least}");
    let ratios = disruptions(&members, 65537, 8);
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    assert!(mean <= 1.1, "{ratios:?}");
}

#[test]
fn three_equal_backends_get_a_third_each() {
    for seed in 0..50 {
        for share in default_table(&set(seed, &[1; 3])).shares() {
            assert!((0.32..0.337).contains(&share), "{share} with seed {seed}");
        }
    }
}

#[test]
fn no_backends_make_a_table_of_empty_buckets() {
    let table = default_table(&[]);
    assert_eq!(table.buckets(), [Bucket::EMPTY; 1021]);
    assert_eq!(table.shares(), Vec::<f64>::new());
    assert_eq!(table.orphans(&[]), []);
}

#[test]
fn a_single_backend_has_every_bucket() {
    for weight in [0, 1, u16::MAX] {
        let table = default_table(&set(1, &[weight]));
        assert_eq!(table.shares(), [1.0], "weight {weight}");
    }
}

#[test]
fn backends_that_all_weigh_0_are_equal() {
    let all_zero = default_table(&set(1, &[0; 5]));
    let all_one = default_table(&set(1, &[1; 5]));
    assert_eq!(all_zero.buckets(), all_one.buckets());
}

#[test]
fn eight_backends_are_all_ranked_and_nine_leave_room_to_carry() {
    let used = |backends: usize| {
        let table = default_table(&set(1, &vec![1; backends]));
        table.buckets().iter().map(|b| ranked(b).len()).collect::<HashSet<_>>()
    };
    assert_eq!(used(8), HashSet::from([8]));
    assert_eq!(used(9), HashSet::from([4]));
}

#[test]
fn a_table_carried_over_twice_still_ranks_the_first_owner() {
    let members = set(1, &[1; 60]);
    let first = sized_table(&members[..40], 1021);
    let mut second = sized_table(&members[..50], 1021);
    assert!(second.carry(first.as_former()) > 0);
    let mut third = sized_table(&members, 1021);
    third.carry(second.as_former());
    let lost = (0..1021).filter(|&slot| {
        let owner = member_at(&first, slot, 0);
        !(0..RANKS).any(|rank| member_at(&third, slot, rank) == owner)
    });
    assert_eq!(lost.count(), 0);
}

#[test]
fn a_backend_without_weight_helps_out_only_where_nobody_else_accepts() {
    let mut weights = [1; 12];
    weights[4] = 0;
    let table = default_table(&set(1, &weights));
    let idle = table.members().iter().position(|m| m.weight == 0).unwrap();
    let mut accepting = [false; 12];
    accepting[idle] = true;
    let orphans = table.orphans(&accepting);
    assert_eq!(orphans.len(), 4093, "it is in no bucket by itself");
    assert!(orphans.iter().all(|(_, b)| usize::from(b.ranks[4]) == idle));
}

#[test]
fn a_backend_that_is_listed_twice_is_refused_by_name() {
    let mut members = set(1, &[1, 1]);
    members.push(Member { weight: 9, ..members[0] });
    let error = Table::build(&members, Slots::for_weights(&[1; 3])).unwrap_err();
    assert_eq!(error, BuildError::Duplicate(members[0].socket_address()));
}

#[test]
fn more_backends_than_slots_are_refused_with_a_size_that_would_do() {
    let error = Table::build(&set(1, &[1; 20]), Slots::new(17).unwrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "20 backends do not fit a table of 17 slots; raise table_size to at least 4093"
    );
}

#[test]
fn more_backends_than_a_rank_can_name_are_refused() {
    let members = set(1, &vec![1; usize::from(NONE)]);
    let error = Table::build(&members, Slots::new(65537).unwrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "65535 backends are more than a service can have; the most are 65534"
    );
}

#[test]
fn the_smallest_tables_are_built_too() {
    for (backends, slots) in [(1, 2), (2, 2), (2, 3), (5, 5), (13, 13)] {
        let table = sized_table(&set(1, &vec![1; backends]), slots);
        assert!(table.buckets().iter().all(|b| b.ranks[0] != NONE), "{backends} in {slots}");
    }
}

#[test]
fn the_same_machines_have_one_table_whatever_port_they_serve_on() {
    let members = set(1, &[1, 2, 3]);
    let elsewhere: Vec<Member> =
        members.iter().rev().map(|m| Member { port_be: 80u16.to_be(), ..*m }).collect();
    let outline = |members: &[Member]| Outline::new(members, Slots::for_weights(&[1; 3])).unwrap();
    let (one, other) = (outline(&members), outline(&elsewhere));
    assert_eq!(one.likeness(), other.likeness());
    assert_eq!(one.buckets(), other.buckets());
    let addresses = |outline: &Outline| -> Vec<_> {
        outline.members().iter().map(|m| (m.address, m.weight)).collect()
    };
    assert_eq!(addresses(&one), addresses(&other));

    let heavier: Vec<Member> = members.iter().map(|m| Member { weight: 1, ..*m }).collect();
    assert_ne!(outline(&heavier).likeness(), one.likeness());
    let larger = Outline::new(&members, Slots::new(4093).unwrap()).unwrap();
    assert_ne!(larger.likeness(), one.likeness());
}

#[test]
fn where_a_machine_has_several_backends_their_ports_tell_them_apart() {
    let mut members = set(1, &[1; 3]);
    members.extend(members.clone().iter().map(|m| Member { port_be: 80u16.to_be(), ..*m }));
    let table = default_table(&members);
    for share in table.shares() {
        assert!((0.15..0.18).contains(&share), "{share}");
    }
    let elsewhere: Vec<Member> =
        members.iter().map(|m| Member { port_be: m.port_be ^ 1, ..*m }).collect();
    let slots = table.slots();
    let likeness = |members: &[Member]| Outline::new(members, slots).unwrap().likeness();
    assert_ne!(likeness(&members), likeness(&elsewhere));
}
