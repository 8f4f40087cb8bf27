//! What is known, after answers of every kind.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::at;
use crate::config::Config;
use crate::discovery::{Answer, Known};

fn config(discover: &str) -> Config {
    let text = format!(
        "interface = \"ens33\"\nvirtual_addresses = [\"192.168.139.150\"]\n\
         [[node]]\nname = \"master1\"\naddress = \"192.168.139.133\"\n\
         [[service]]\nname = \"api\"\nport = 8443\nbackends = [\"192.168.139.201:6443\"]\n\
         discover = {discover}\n"
    );
    Config::parse(&text).unwrap_or_else(|e| panic!("{}", e.report("")))
}

fn dns() -> Config {
    config("{ dns = \"api.example.internal\", port = 6443, max_backends = 4, linger = \"60s\" }")
}

fn answer(wanted: &[u8], leaving: &[u8]) -> Answer {
    let set = |numbers: &[u8]| at(numbers.iter().copied()).collect();
    Answer { wanted: set(wanted), leaving: set(leaving) }
}

/// The last numbers of a service's backends, those that leave behind the others.
fn backends(known: &Known, config: &Config) -> (Vec<u8>, Vec<u8>) {
    let service = &config.services[0];
    let number = |at: SocketAddr| match at.ip() {
        std::net::IpAddr::V4(v4) => v4.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    };
    let all = service.backends.iter().map(|backend| backend.address);
    let (leaving, wanted): (Vec<SocketAddr>, Vec<SocketAddr>) =
        all.partition(|&at| known.leaving(service, at).is_some());
    (wanted.into_iter().map(number).collect(), leaving.into_iter().map(number).collect())
}

/// Takes answers one after the other, as the loop does.
struct World {
    known: Known,
    config: Config,
}

impl World {
    fn new(config: Config) -> Self {
        Self { known: Known::default(), config }
    }

    fn hears(&mut self, answer: &Answer, now: f64) -> crate::discovery::Verdict {
        let verdict = self.known.answer(&self.config, &self.config.services[0], answer, now);
        self.config = self.known.in_config(self.config.clone());
        verdict
    }

    fn waits(&mut self, now: f64, empty: &[u8]) -> bool {
        let empty: Vec<SocketAddr> = at(empty.iter().copied()).collect();
        let service = self.config.services[0].clone();
        let gone = self.known.expire(&service, now, |address| empty.contains(&address));
        self.config = self.known.in_config(self.config.clone());
        gone
    }

    fn is(&self, wanted: &[u8], leaving: &[u8]) {
        assert_eq!(backends(&self.known, &self.config), (wanted.to_vec(), leaving.to_vec()));
    }
}

#[test]
fn until_the_first_answer_the_file_says_who_serves() {
    let world = World::new(dns());
    world.is(&[201], &[]);
}

#[test]
fn who_is_no_longer_told_of_leaves_and_comes_back_as_before() {
    let mut world = World::new(dns());
    assert!(world.hears(&answer(&[202, 203], &[]), 10.0).changed);
    world.is(&[202, 203], &[201]);
    assert!(world.hears(&answer(&[201, 202], &[]), 20.0).changed);
    world.is(&[201, 202], &[203]);
    assert!(!world.hears(&answer(&[201, 202], &[]), 30.0).changed);
}

#[test]
fn whose_time_is_over_or_who_has_nothing_left_is_gone() {
    let mut world = World::new(dns());
    world.hears(&answer(&[202, 203], &[]), 10.0);
    assert!(!world.waits(69.0, &[]));
    assert!(world.waits(70.0, &[]));
    world.is(&[202, 203], &[]);
    world.hears(&answer(&[203], &[]), 80.0);
    assert!(!world.waits(81.0, &[203]), "nobody goes who is told of");
    assert!(world.waits(81.0, &[202]));
    world.is(&[203], &[]);
}

#[test]
fn the_same_word_again_does_not_begin_the_time_anew() {
    let mut world = World::new(dns());
    world.hears(&answer(&[202], &[]), 10.0);
    world.hears(&answer(&[202, 203], &[]), 60.0);
    assert!(world.waits(70.0, &[]), "201 left at 10");
    world.is(&[202, 203], &[]);
}

#[test]
fn a_clock_that_is_set_back_keeps_nobody_for_longer_than_a_whole_time() {
    let mut world = World::new(dns());
    world.hears(&answer(&[202], &[]), 1000.0);
    assert!(!world.waits(10.0, &[]));
    assert!(world.waits(70.0, &[]));
}

#[test]
fn an_answer_of_nobody_changes_nothing() {
    let mut world = World::new(dns());
    world.hears(&answer(&[202, 203], &[]), 10.0);
    for nobody in [answer(&[], &[]), answer(&[], &[202]), answer(&[150], &[])] {
        let verdict = world.hears(&nobody, 20.0);
        assert!(verdict.empty && !verdict.changed);
        world.is(&[202, 203], &[201]);
    }
}

#[test]
fn who_cannot_be_a_backend_is_named_and_left_out() {
    let mut world = World::new(dns());
    let verdict = world.hears(&answer(&[150, 202], &[]), 10.0);
    assert_eq!(verdict.unusable, at([150]).collect());
    world.is(&[202], &[201]);
}

#[test]
fn all_nodes_leave_the_same_ones_out_and_who_leaves_goes_first() {
    let mut world = World::new(dns());
    let verdict = world.hears(&answer(&[206, 205, 204, 203, 202], &[]), 10.0);
    assert_eq!(verdict.too_many, 1);
    world.is(&[202, 203, 204, 205], &[]);
    world.hears(&answer(&[203, 204, 205], &[]), 20.0);
    world.is(&[203, 204, 205], &[202]);
    world.hears(&answer(&[204, 205], &[]), 30.0);
    world.hears(&answer(&[204, 205, 206], &[]), 40.0);
    world.is(&[204, 205, 206], &[203]);
}

#[test]
fn whoever_terminates_leaves_though_nobody_knew_it() {
    let mut world = World::new(dns());
    world.hears(&answer(&[201, 202], &[203]), 10.0);
    world.is(&[201, 202], &[203]);
}

#[test]
fn what_is_known_outlives_the_agent_but_not_another_question() {
    let mut world = World::new(dns());
    world.hears(&answer(&[202, 203], &[]), 10.0);
    let bytes = serde_json::to_vec(&world.known).expect("a known set");
    let known = Known::parse(&bytes).expect("what was written");
    assert_eq!(backends(&known, &known.in_config(dns())), (vec![202, 203], vec![201]));
    let other = config("{ dns = \"other.example.internal\", port = 6443 }");
    assert_eq!(backends(&known, &known.in_config(other.clone())), (vec![201], vec![]));
    let mut known = known;
    assert!(!known.keep_only(&dns()) && known.keep_only(&other));
}

#[test]
fn a_spoilt_file_says_why() {
    for (spoilt, why) in [
        ("", "EOF"),
        (
            "{\"services\":{\"api\":{\"source\":\"dns a:1\",\"backends\":[\"x\"],\"leaving\":{},\"changed\":1}}}",
            "socket address",
        ),
        (
            "{\"services\":{\"api\":{\"source\":\"dns a:1\",\"backends\":[],\"leaving\":{},\"changed\":-1}}}",
            "no point in time",
        ),
    ] {
        let error = Known::parse(spoilt.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{spoilt}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Whatever is said, in whatever order and with whatever pauses.
    #[test]
    fn a_service_is_never_empty_never_too_large_and_never_has_one_twice(
        said in prop::collection::vec((
            prop::collection::vec(148u8..156, 0..7),
            prop::collection::vec(148u8..156, 0..4),
            0u32..90,
        ), 1..20),
    ) {
        let mut world = World::new(dns());
        let mut now = 0.0;
        for (wanted, leaving, pause) in said {
            now += f64::from(pause);
            world.hears(&answer(&wanted, &leaving), now);
            world.waits(now, &[]);
            let backends = &world.config.services[0].backends;
            let mut addresses: Vec<SocketAddr> = backends.iter().map(|b| b.address).collect();
            let (some, count) = (!addresses.is_empty(), addresses.len());
            prop_assert!(some && count <= 4);
            addresses.sort();
            addresses.dedup();
            prop_assert_eq!(addresses.len(), count);
            let first = backends_wanted(&world);
            prop_assert!(first > 0, "somebody is for new clients");
        }
    }
}

fn backends_wanted(world: &World) -> usize {
    backends(&world.known, &world.config).0.len()
}
