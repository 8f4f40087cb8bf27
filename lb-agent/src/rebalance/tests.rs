//! The rules one by one, then by any connection, any table and any moments.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_common::bucket::{Bucket, NONE, RANKS};
use proptest::prelude::*;

use super::*;

const TERMS: Rebalance = Rebalance {
    automatic: true,
    per_minute: 60,
    idle: Duration::from_secs(5),
    minimum_age: Duration::from_secs(60),
    threshold_percent: 10,
    stable: Duration::from_secs(30),
};
const HERE: usize = 0;
const ELSEWHERE: usize = 1;

const WELL: Place = Place { accepts: true, healthy: true, here: false, keeps: false };

/// The first of so many backends is here; all are well.
fn places(backends: usize) -> Places {
    let place = |at| Place { here: at == HERE, ..WELL };
    let backends = (0..backends).map(place).collect();
    Places { seed: 7, by_port: false, backends, everybody: false }
}

/// A table whose buckets all have these ranks.
fn placing(places: Places, ranks: &[u16]) -> Placing {
    let mut bucket = Bucket { ranks: [NONE; RANKS] };
    bucket.ranks[..ranks.len()].copy_from_slice(ranks);
    Placing { places: Arc::new(places), buckets: vec![bucket; 101].into() }
}

fn client(number: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0xc0a8_8b00 + number)), 40_000)
}

/// Old, and silent for long.
fn idle() -> Connection {
    let long = Duration::from_secs(600);
    let client = client(9);
    Connection { client, age: long, sent: long, received: long, pending: false, returns: false }
}

const fn moved() -> Judgement {
    Judgement::Misplaced { to: ELSEWHERE, hindrance: None }
}

const fn hindered(hindrance: Hindrance) -> Judgement {
    Judgement::Misplaced { to: ELSEWHERE, hindrance: Some(hindrance) }
}

#[test]
fn the_first_rank_that_accepts_is_chosen() {
    let mut three = places(3);
    assert_eq!(placing(three.clone(), &[2, 1, 0]).chosen(client(1)), Some(2));
    three.backends[2].accepts = false;
    assert_eq!(placing(three.clone(), &[2, 1, 0]).chosen(client(1)), Some(1));
    three.backends.iter_mut().for_each(|place| place.accepts = false);
    assert_eq!(placing(three, &[2, 1, 0]).chosen(client(1)), None);
    let empty = Placing { places: Arc::new(places(3)), buckets: Vec::new().into() };
    assert_eq!(empty.chosen(client(1)), None);
}

/// As lb-common's hash is tested to say, which the programs use too.
#[test]
fn a_client_is_sought_in_the_bucket_of_its_hash() {
    let slots: u32 = 101;
    let buckets = (0..slots).map(|slot| {
        let mut bucket = Bucket { ranks: [NONE; RANKS] };
        bucket.ranks[0] = slot as u16;
        bucket
    });
    let buckets: Arc<[Bucket]> = buckets.collect();
    let one = |by_port, client: SocketAddr| {
        let places = Arc::new(Places { by_port, ..places(slots as usize) });
        Placing { places, buckets: Arc::clone(&buckets) }.chosen(client).unwrap()
    };
    let expected = |client: SocketAddr, port_be: u16| {
        let hash = lb_common::hash::client_hash(7, &client.ip().into(), port_be);
        lb_common::bucket::slot(hash, slots) as usize
    };
    for number in 0..200 {
        let client = client(number);
        assert_eq!(one(false, client), expected(client, 0));
        assert_eq!(one(true, client), expected(client, client.port().to_be()));
        let other_port = SocketAddr::new(client.ip(), client.port() + 1);
        assert_eq!(one(false, client), one(false, other_port));
    }
}

#[test]
fn what_is_where_it_belongs_stays() {
    assert_eq!(judge(&idle(), &placing(places(3), &[0, 1, 2]), &TERMS), Judgement::Placed);
    assert_eq!(judge(&idle(), &placing(places(3), &[1, 0, 2]), &TERMS), moved());
    let mut nobody = places(3);
    nobody.backends.iter_mut().for_each(|place| place.accepts = false);
    assert_eq!(judge(&idle(), &placing(nobody, &[1, 0, 2]), &TERMS), Judgement::Placed);
}

#[test]
fn each_hindrance_is_told() {
    let elsewhere = placing(places(2), &[1, 0]);
    let judged = |connection| judge(&connection, &elsewhere, &TERMS);
    let just = Duration::from_secs(1);
    assert_eq!(judged(Connection { returns: true, ..idle() }), hindered(Hindrance::Returns));
    let young = Connection { age: TERMS.minimum_age - just, ..idle() };
    assert_eq!(judged(young), hindered(Hindrance::Young));
    assert_eq!(judged(Connection { age: TERMS.minimum_age, ..idle() }), moved());
    assert_eq!(judged(Connection { pending: true, ..idle() }), hindered(Hindrance::Busy));
    assert_eq!(judged(Connection { sent: just, ..idle() }), hindered(Hindrance::Busy));
    assert_eq!(judged(Connection { received: just, ..idle() }), hindered(Hindrance::Busy));
    let mut sick = places(2);
    sick.backends[ELSEWHERE].healthy = false;
    let sick = placing(sick, &[1, 0]);
    assert_eq!(judge(&idle(), &sick, &TERMS), hindered(Hindrance::Unsure));
}

#[test]
fn a_client_that_waits_for_an_answer_is_waited_for() {
    let elsewhere = placing(places(2), &[1, 0]);
    let since = |received| Connection { received, ..idle() };
    let answered = Connection { sent: TERMS.idle, ..idle() };
    assert_eq!(judge(&answered, &elsewhere, &TERMS), moved());
    let asked = judge(&since(ANSWER - Duration::from_secs(1)), &elsewhere, &TERMS);
    assert_eq!(asked, hindered(Hindrance::Busy));
    assert_eq!(judge(&since(ANSWER), &elsewhere, &TERMS), moved(), "it has given up");
}

#[test]
fn nothing_is_moved_where_it_should_not_be() {
    let obstacle = |change: fn(&mut Places)| {
        let mut places = places(3);
        change(&mut places);
        places.obstacle()
    };
    assert_eq!(obstacle(|_| ()), None);
    assert_eq!(obstacle(|p| p.backends[HERE].here = false), Some(Obstacle::NotHere));
    assert_eq!(obstacle(|p| p.backends[HERE].keeps = true), Some(Obstacle::Keeps));
    assert_eq!(obstacle(|p| p.backends[ELSEWHERE].keeps = true), None, "another's are not ours");
    assert_eq!(obstacle(|p| p.everybody = true), Some(Obstacle::Everybody));
    assert_eq!(obstacle(|p| p.backends[1].accepts = false), None);
    let alone = obstacle(|p| p.backends[1..].iter_mut().for_each(|place| place.accepts = false));
    assert_eq!(alone, Some(Obstacle::Alone));
}

#[test]
fn a_look_counts_each_once_and_takes_the_longest_silent_first() {
    let backends: Vec<SocketAddr> = (0..2).map(client).collect();
    let elsewhere = placing(places(2), &[1, 0]);
    let mut survey = Survey::default();
    let mut add = |socket, connection: Connection| {
        survey.add(socket, &connection, &elsewhere, &backends, &TERMS);
    };
    let silent = |seconds| Connection { sent: Duration::from_secs(seconds), ..idle() };
    add(1, silent(7));
    add(2, silent(9));
    add(3, silent(8));
    add(4, silent(1));
    add(5, Connection { age: Duration::ZERO, ..idle() });
    add(6, Connection { returns: true, ..idle() });
    let (look, movable) = survey.done();
    assert_eq!((look.connections, look.misplaced, look.movable), (6, 6, 3));
    assert_eq!((look.busy, look.young, look.unsure, look.returns), (1, 1, 0, 1));
    let target = Target { misplaced: 6, movable: 3 };
    assert_eq!(look.targets.into_iter().collect::<Vec<_>>(), [(backends[ELSEWHERE], target)]);
    assert_eq!(movable.iter().map(|m| m.socket).collect::<Vec<_>>(), [2, 3, 1]);
}

#[test]
fn it_begins_by_itself_above_the_threshold_once_all_is_quiet() {
    let look = Look { connections: 100, misplaced: 11, movable: 1, ..Look::default() };
    let stable = TERMS.stable;
    assert!(begins(&look, stable, &TERMS));
    assert!(!begins(&look, stable - Duration::from_nanos(1), &TERMS), "it has just changed");
    assert!(!begins(&look, stable, &Rebalance { automatic: false, ..TERMS }));
    assert!(!begins(&Look { misplaced: 10, ..look.clone() }, stable, &TERMS), "not more than that");
    assert!(!begins(&Look { movable: 0, ..look.clone() }, stable, &TERMS));
    let back = Look { misplaced: 50, returns: 45, ..look };
    assert!(!begins(&back, stable, &TERMS), "they would come back");
}

#[test]
fn an_age_is_known_from_the_first_sight_on() {
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    let mut sights = Sights::default();
    sights.note(at(0), at(1), [1, 2].into_iter());
    sights.note(at(10), at(11), [2, 3].into_iter());
    assert_eq!(sights.of(1), None, "it has ended");
    let (old, new) = (sights.of(2).unwrap(), sights.of(3).unwrap());
    assert_eq!(old.age(at(20)), Duration::from_secs(19));
    assert_eq!(new.age(at(20)), Duration::from_secs(9));
    assert!(!old.is_after(at(0)), "it may always have been there");
    assert!(new.is_after(at(0)), "the look before did not see it");
    // The look before may have passed it over if it came while that went on.
    assert!(!new.is_after(at(0) + Duration::from_nanos(1)));
}

fn durations() -> impl Strategy<Value = Duration> {
    (0..200_000u64).prop_map(Duration::from_millis)
}

prop_compose! {
    fn connections()(
        age in durations(),
        sent in durations(),
        received in durations(),
        pending in any::<bool>(),
        returns in any::<bool>(),
        number in 0..4096u32,
    ) -> Connection {
        Connection { client: client(number), age, sent, received, pending, returns }
    }
}

prop_compose! {
    fn any_places()(
        all in proptest::collection::vec(any::<[bool; 4]>(), 1..=8),
        everybody in any::<bool>(),
        seed in any::<u64>(),
        by_port in any::<bool>(),
    ) -> Places {
        let backends = all.into_iter();
        let backends = backends.map(|[accepts, healthy, here, keeps]| Place { accepts, healthy, here, keeps });
        Places { seed, by_port, backends: backends.collect(), everybody }
    }
}

proptest! {
    /// Over any minute, however the moments fall and whoever asks for how many.
    #[test]
    fn no_minute_has_more_than_the_budget(
        per_minute in 1..=Rebalance::PER_MINUTE_MAX,
        gaps_us in proptest::collection::vec(0..3_000_000u64, 1..400),
    ) {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        let mut taken = Vec::new();
        for gap_us in gaps_us {
            now += Duration::from_micros(gap_us);
            if let Some(due) = pace.due(per_minute) && gap_us % 2 == 0 {
                // The very moment that it asks to be woken at.
                now = now.max(due);
            }
            if pace.take(now, per_minute) {
                taken.push(now);
            }
        }
        prop_assert!(!taken.is_empty(), "the first may always go");
        for (at, &first) in taken.iter().enumerate() {
            let minute = taken[at..].iter().take_while(|&&t| t < first + Duration::from_secs(60));
            prop_assert!(minute.count() <= per_minute as usize);
        }
        // Evenly: not all of them at once.
        let least = Duration::from_secs(60) / per_minute;
        prop_assert!(taken.windows(2).all(|pair| pair[1] - pair[0] >= least));
    }

    #[test]
    fn whoever_waits_as_long_as_told_may_go_on(per_minute in 1..=Rebalance::PER_MINUTE_MAX) {
        let (mut pace, first) = (Pace::default(), Instant::now());
        let mut now = first;
        for _ in 0..per_minute {
            prop_assert!(pace.take(now, per_minute));
            now = pace.due(per_minute).unwrap();
        }
        // One more is in the next minute, also where a minute cannot be divided by so many.
        prop_assert!(now >= first + Duration::from_secs(60));
    }

    /// Whatever the connection, the table and who is well.
    #[test]
    fn nothing_is_moved_that_is_placed_right_young_talking_or_unsafe(
        connection in connections(),
        places in any_places(),
        ranks in Just((0..8u16).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let placing = placing(places, &ranks);
        let Judgement::Misplaced { to, hindrance: None } = judge(&connection, &placing, &TERMS) else {
            return Ok(());
        };
        let target = placing.places.backends[to];
        prop_assert!(target.accepts && target.healthy && !target.here);
        prop_assert!(connection.age >= TERMS.minimum_age);
        prop_assert!(connection.sent >= TERMS.idle && connection.received >= TERMS.idle);
        prop_assert!(!connection.pending && !connection.returns);
        // Nobody before it in rank takes new connections.
        let before = ranks.iter().take_while(|&&rank| usize::from(rank) != to);
        let accepts = |rank: &u16| placing.places.backends.get(usize::from(*rank)).is_some_and(|p| p.accepts);
        prop_assert!(before.into_iter().all(|rank| !accepts(rank)));
    }
}
