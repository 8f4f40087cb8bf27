//! What a backend is used for, case by case, and what holds for any.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

const HEALTHY: Member = Member {
    health: State::Healthy,
    admin: Admin::Enabled,
    backup: false,
    weighted: true,
    gone: false,
};
const GONE: Member = Member { health: State::Down, gone: true, ..HEALTHY };
const DOWN: Member = Member { health: State::Down, ..HEALTHY };
const BACKUP: Member = Member { backup: true, ..HEALTHY };
const DRAINING: Member = Member { admin: Admin::Draining, ..HEALTHY };
const DISABLED: Member = Member { admin: Admin::Disabled, ..HEALTHY };

/// Which of them get new clients.
fn accepting(members: &[Member], minimum: u32) -> Vec<bool> {
    let manner = Manner::of(members.iter().copied(), minimum);
    members.iter().map(|member| manner.usable(*member).accepts).collect()
}

#[test]
fn backups_serve_while_nobody_else_can() {
    for (members, expected) in [
        ([HEALTHY, DOWN, BACKUP], [true, false, false]),
        ([DOWN, DOWN, BACKUP], [false, false, true]),
        ([DRAINING, DOWN, BACKUP], [false, false, true]),
        ([DISABLED, DRAINING, BACKUP], [false, false, true]),
        // A backup may be drained, too.
        ([HEALTHY, DOWN, Member { backup: true, ..DRAINING }], [true, false, false]),
    ] {
        assert_eq!(accepting(&members, 1), expected, "{members:?}");
    }
}

#[test]
fn with_too_few_healthy_ones_all_that_are_enabled_serve() {
    for (members, minimum, expected) in [
        ([DOWN, DOWN, DOWN], 1, [true, true, true]),
        ([DOWN, DOWN, DOWN], 0, [false, false, false]),
        ([HEALTHY, DOWN, DOWN], 1, [true, false, false]),
        ([HEALTHY, DOWN, DOWN], 2, [true, true, true]),
        // Healthy backups are healthy ones.
        ([DOWN, DOWN, BACKUP], 1, [false, false, true]),
        ([DOWN, DOWN, BACKUP], 2, [true, true, true]),
        // What a person has said holds all the same.
        ([DOWN, DISABLED, DRAINING], 1, [true, false, false]),
        ([DISABLED, DISABLED, DRAINING], 1, [false, false, false]),
    ] {
        assert_eq!(accepting(&members, minimum), expected, "{members:?} with {minimum}");
    }
}

#[test]
fn connections_are_sought_first_where_they_can_be() {
    let manner = Manner::of([DOWN; 3], 1);
    assert_eq!(manner.uses, Uses::Everybody);
    assert_eq!(manner.usable(DOWN), Usable { accepts: true, ..Usable::NOT });
    assert_eq!(manner.usable(DRAINING), Usable { alive: true, ..Usable::NOT });
    assert_eq!(manner.usable(DISABLED), Usable::NOT);
}

#[test]
fn one_is_gone_while_the_checks_are_to_be_believed() {
    let gone = |members: &[Member], minimum| {
        Manner::of(members.iter().copied(), minimum).usable(GONE).gone
    };
    assert!(gone(&[GONE, HEALTHY], 1));
    assert!(gone(&[GONE, BACKUP], 1));
    assert!(!gone(&[GONE, DOWN], 1));
    assert!(!gone(&[GONE, HEALTHY, DOWN], 2));
}

#[test]
fn what_weighs_nothing_drains() {
    let light = Member { weighted: false, ..HEALTHY };
    let manner = Manner::of([light, HEALTHY], 1);
    assert_eq!(manner.standing(light), Standing::Draining);
    assert_eq!(manner.usable(light), Usable { alive: true, ..Usable::NOT });
    // Nor does it count as one that could serve.
    assert_eq!(Manner::of([light, DOWN], 1).uses, Uses::Everybody);
}

#[test]
fn the_first_word_that_fits_is_told() {
    let manner = Manner::of([HEALTHY, BACKUP], 1);
    let down = State::Down;
    for (member, word) in [
        (Member { health: down, ..DISABLED }, Standing::Disabled),
        (Member { health: down, ..DRAINING }, Standing::Down),
        (Member { health: down, ..BACKUP }, Standing::Down),
        (Member { backup: true, ..DRAINING }, Standing::Draining),
        (BACKUP, Standing::Backup),
        (HEALTHY, Standing::Healthy),
        (Member { health: State::Unknown, ..HEALTHY }, Standing::Unknown),
    ] {
        assert_eq!(manner.standing(member), word, "{member:?}");
    }
    // One that serves is no longer called one.
    assert_eq!(Manner::of([DOWN, BACKUP], 1).standing(BACKUP), Standing::Healthy);
}

fn member() -> impl Strategy<Value = Member> {
    let health = prop::sample::select(vec![State::Healthy, State::Down, State::Unknown]);
    let admins = vec![Admin::Enabled, Admin::Draining, Admin::Disabled];
    let parts = (health, prop::sample::select(admins), any::<bool>(), any::<bool>());
    parts.prop_map(|(health, admin, backup, weighted)| Member {
        health,
        admin,
        backup,
        weighted,
        gone: false,
    })
}

proptest! {
    #[test]
    fn nobody_is_used_against_a_persons_word_and_someone_is_where_someone_can_be(
        members in prop::collection::vec(member(), 1..9),
        minimum in 0u32..4,
    ) {
        let manner = Manner::of(members.iter().copied(), minimum);
        let enabled = |m: &Member| m.admin == Admin::Enabled && m.weighted;
        for member in &members {
            let usable = manner.usable(*member);
            prop_assert!(!usable.accepts || enabled(member));
            prop_assert!(!usable.alive || member.admin != Admin::Disabled);
            prop_assert!(!usable.alive || member.health != State::Down);
        }
        let can = |m: &&Member| enabled(m) && (minimum > 0 || m.health != State::Down);
        let someone = members.iter().any(|m| manner.usable(*m).accepts);
        prop_assert_eq!(someone, members.iter().any(|m| can(&m)));
    }
}

#[test]
fn what_was_said_is_remembered_until_it_is_taken_back() {
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let (one, other) = (at("10.0.0.1:6443"), at("[fd00::2]:6443"));
    let mut said = Sayings::default();
    said.say("api", one, Said { admin: Admin::Draining, since: 17.5 });
    said.say("web", other, Said { admin: Admin::Disabled, since: 18.0 });
    let read = Sayings::parse(&serde_json::to_vec(&said).unwrap()).unwrap();
    assert_eq!(read, said);
    assert_eq!(read.of("api", one).unwrap().admin, Admin::Draining);
    assert_eq!((read.of("api", other), read.of("web", one)), (None, None));
    said.say("api", one, Said { admin: Admin::Enabled, since: 19.0 });
    assert!(said.of("api", one).is_none() && !said.has("api"));
    assert_eq!(said.keep_only(|service, _| service != "web"), 1);
    assert_eq!(said, Sayings::default());
}

#[test]
fn spoilt_sayings_say_why() {
    for (spoilt, why) in [
        ("{\"services\":", "EOF"),
        (
            "{\"services\":{\"api\":{\"10.0.0.1\":{\"admin\":\"draining\",\"since\":1}}}}",
            "socket address",
        ),
        (
            "{\"services\":{\"api\":{\"10.0.0.1:1\":{\"admin\":\"resting\",\"since\":1}}}}",
            "unknown variant",
        ),
        (
            "{\"services\":{\"api\":{\"10.0.0.1:1\":{\"admin\":\"draining\",\"since\":-1}}}}",
            "point in time",
        ),
    ] {
        let error = Sayings::parse(spoilt.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{spoilt}: {error}");
    }
}
