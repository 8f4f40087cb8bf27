//! Advertisements of every kind of neighbour, against a file of three nodes.

use super::*;
use crate::finding::Severity;
use crate::vrrp::identity::RouterId;

const OWN: [u8; 4] = [192, 168, 139, 133];
const PARTNER: [u8; 4] = [192, 168, 139, 134];
const THIRD: [u8; 4] = [192, 168, 139, 135];
const STRANGER: [u8; 4] = [192, 168, 139, 66];

fn config(keys: &str) -> Config {
    let text = format!(
        "virtual_addresses = [\"192.168.139.150\"]\n\
         [vrrp]\nrouter_id = 51\n{keys}\n\
         [[node]]\nname = \"a\"\naddress = \"192.168.139.133\"\n\
         [[node]]\nname = \"b\"\naddress = \"192.168.139.134\"\npriority = 90\n\
         [[node]]\nname = \"c\"\naddress = \"192.168.139.135\"\npriority = 80\n\
         [[service]]\nname = \"s\"\nport = 80\nbackends = [\"192.168.139.133:8080\"]\n"
    );
    Config::parse(&text).unwrap_or_else(|error| panic!("{}", error.report("x")))
}

fn heard(source: [u8; 4], change: impl Fn(&mut Advertisement)) -> Heard {
    let mut said = Advertisement {
        router_id: RouterId::new(51).unwrap(),
        priority: Priority(90),
        interval: Duration::from_millis(100),
        addresses: vec![IpAddr::from([192, 168, 139, 150])],
        authentication: Authentication::None,
    };
    change(&mut said);
    Heard {
        at: Duration::ZERO,
        source: source.into(),
        mac: [2, 0, 0, 0, 0, 7],
        multicast: true,
        ttl: 255,
        said: Ok((Version::V3, said)),
    }
}

fn judged(packets: Vec<Heard>, keys: &str) -> Vec<Finding> {
    let through = packets.iter().map(|heard| heard.source).collect();
    let lasted = Duration::from_secs(1);
    let listening = Listening { interface: "ens33".to_owned(), lasted, packets, through };
    judge(&Ok(listening), "ens33", Some(&config(keys)), &[OWN.into()])
}

fn names(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.name).collect()
}

#[test]
fn a_partner_that_says_what_the_file_says_is_no_finding() {
    let found = judged(vec![heard(PARTNER, |_| {}), heard(PARTNER, |_| {})], "");
    assert_eq!((found.len(), found[0].severity), (1, Severity::Good), "{found:?}");
    assert_eq!(judged(Vec::new(), "")[0].severity, Severity::Good);
}

#[test]
fn each_difference_has_its_name() {
    let at_2 = "version = 2\nauth_pass = \"one\"";
    let v2 = |change: fn(&mut Advertisement)| {
        let mut packet = heard(PARTNER, |said| {
            said.interval = Duration::from_secs(1);
            said.authentication = Authentication::password("one");
            change(said);
        });
        packet.said = packet.said.map(|(_, said)| (Version::V2, said));
        packet
    };
    let routed = Heard { ttl: 64, ..heard(PARTNER, |_| {}) };
    let unicast = Heard { multicast: false, ..heard(PARTNER, |_| {}) };
    let broken = Heard { said: Err("it is short".to_owned()), ..heard(PARTNER, |_| {}) };
    let another_vip = |said: &mut Advertisement| said.addresses = vec![IpAddr::from([10, 0, 0, 1])];
    for (packet, keys, name) in [
        (heard(STRANGER, |_| {}), "", "vrrp_stranger"),
        (heard(STRANGER, another_vip), "", "router_id_in_use"),
        (
            heard(PARTNER, |said| said.router_id = RouterId::new(52).unwrap()),
            "",
            "router_id_differs",
        ),
        (heard(PARTNER, |said| said.interval *= 2), "", "vrrp_interval_differs"),
        (
            heard(PARTNER, |said| said.addresses.push([10, 0, 0, 1].into())),
            "",
            "vrrp_addresses_differ",
        ),
        (routed, "", "vrrp_ttl"),
        (unicast, "", "vrrp_reach_differs"),
        (broken, "", "vrrp_damaged"),
        (heard(PARTNER, |_| {}), at_2, "vrrp_version_differs"),
        (v2(|said| said.interval *= 2), at_2, "vrrp_interval_differs"),
        (v2(|said| said.authentication = Authentication::None), at_2, "vrrp_password_differs"),
    ] {
        let found = judged(vec![packet.clone(), packet], keys);
        assert_eq!(names(&found), [name], "{found:?}");
        assert!(found[0].remedy.is_some() && found[0].severity >= Severity::Doubtful);
    }
    assert_eq!(judged(vec![v2(|_| {})], at_2)[0].severity, Severity::Good);
}

#[test]
fn another_group_with_another_id_is_of_no_account() {
    let other = heard(STRANGER, |said| {
        said.router_id = RouterId::new(7).unwrap();
        said.addresses = vec![IpAddr::from([10, 0, 0, 1])];
    });
    assert_eq!(judged(vec![other], "")[0].severity, Severity::Good);
}

#[test]
fn the_id_that_is_proposed_is_one_that_nobody_was_heard_with() {
    let foreign = |id| {
        heard(STRANGER, move |said| {
            said.router_id = RouterId::new(id).unwrap();
            said.addresses = vec![IpAddr::from([10, 0, 0, 1])];
        })
    };
    let found = judged(vec![foreign(51), foreign(1), foreign(2)], "");
    assert!(found[0].remedy.as_ref().unwrap().starts_with("router_id = 3 "), "{found:?}");
}

#[test]
fn two_that_advertise_at_the_same_time_are_both_active() {
    let at = |source, ms| Heard { at: Duration::from_millis(ms), ..heard(source, |_| {}) };
    let beside = vec![at(PARTNER, 0), at(THIRD, 50), at(PARTNER, 100), at(THIRD, 150)];
    assert_eq!(names(&judged(beside, "")), ["two_active"]);
    // A move of the role.
    let after = vec![at(PARTNER, 0), at(PARTNER, 100), at(THIRD, 150), at(THIRD, 250)];
    assert_eq!(judged(after, "")[0].severity, Severity::Good);
    let resigned = Heard {
        at: Duration::from_millis(160),
        ..heard(PARTNER, |said| said.priority = Priority(0))
    };
    let late = vec![at(PARTNER, 0), at(PARTNER, 100), at(THIRD, 150), resigned, at(THIRD, 250)];
    assert_eq!(judged(late, "")[0].severity, Severity::Good);
}

#[test]
fn what_comes_by_the_wire_and_not_to_a_socket_was_dropped_here() {
    let packets = vec![heard(PARTNER, |_| {})];
    let listening = Listening { interface: "ens33".to_owned(), packets, ..Listening::default() };
    let found = judge(&Ok(listening), "ens33", Some(&config("")), &[]);
    assert_eq!(names(&found), ["vrrp_filtered"]);
}

#[test]
fn without_a_file_ids_in_use_are_told() {
    let packets = vec![heard(PARTNER, |_| {})];
    let through = BTreeSet::from([IpAddr::from(PARTNER)]);
    let listening = Listening { packets, through, ..Listening::default() };
    let found = judge(&Ok(listening), "ens33", None, &[]);
    assert_eq!((names(&found), found[0].severity), (vec!["router_id"], Severity::Good));
}

#[test]
fn who_sends_in_this_nodes_name_is_told_by_its_mac() {
    let found = judged(vec![heard(OWN, |_| {})], "");
    assert_eq!(names(&found), ["own_address"]);
    assert!(found[0].found.contains("02:00:00:00:00:07"), "{found:?}");
    // That no socket gets it is the kernel's doing, and no firewall's.
    let packets = vec![heard(OWN, |_| {})];
    let listening = Listening { packets, ..Listening::default() };
    let found = judge(&Ok(listening), "ens33", Some(&config("")), &[OWN.into()]);
    assert_eq!(names(&found), ["own_address"]);
}
