//! Packets through rulesets as `nft -j` and `iptables-legacy-save` have printed them.

use serde_json::Value;

use super::{Look, Packet, Passage, iptables, judge, nft};
use crate::finding::Severity;

/// nftables 1.0.6, of Debian 12.
const RULESET: &str = include_str!("../../../../tests/fixtures/doctor/nft.json");
/// The chains of firewalld's default zone, as nftables prints them.
const FIREWALLD: &str = include_str!("../../../../tests/fixtures/doctor/firewalld.json");
const LEGACY: &str = "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [3:180]\n:VRRP - [0:0]\n\
    -A INPUT -i lo -j ACCEPT\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
    -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -d 224.0.0.0/8 -i ens33 -m comment --comment \"a b\" -j VRRP\n\
    -A VRRP -s 192.168.139.133/32 -j ACCEPT\nCOMMIT\n";

fn packet(last: u8) -> Packet {
    Packet {
        interface: "ens33".to_owned(),
        source: [192, 168, 139, last].into(),
        destination: [224, 0, 0, 18].into(),
        outgoing: false,
    }
}

fn with(ruleset: &str, change: impl Fn(&str) -> String) -> Value {
    serde_json::from_str(&change(ruleset)).unwrap()
}

#[test]
fn a_packet_is_followed_through_sets_maps_and_chains() {
    let ruleset = with(RULESET, str::to_owned);
    // By the verdict map to the chain `helper`, whose set has it.
    assert_eq!(nft::passage(&ruleset, &packet(133)), Passage::Passes);
    // And whose next rule drops whoever it has not.
    let dropped = nft::passage(&ruleset, &packet(134));
    let by = "nft chain inet filter helper (rule with handle 5)";
    assert_eq!(dropped, Passage::Dropped(by.to_owned()));
    let finding = &judge(&[Look { packet: packet(134), passage: dropped }])[0];
    assert_eq!(finding.severity, Severity::Bad);
    let remedy = "nft insert rule inet filter helper meta l4proto vrrp accept";
    assert_eq!(finding.remedy.as_deref(), Some(remedy));
}

#[test]
fn what_cannot_be_followed_is_unsure_and_never_wrong() {
    // The drop only up to a rate, which nobody knows here; later rules then decide, one of which drops surely.
    let drop = r#""right": "vrrp"}}, {"drop": null}"#;
    let limited = r#""right": "vrrp"}}, {"limit": {"rate": 1, "per": "second"}}, {"drop": null}"#;
    let ruleset = with(RULESET, |text| text.replace(drop, limited));
    assert!(matches!(nft::passage(&ruleset, &packet(134)), Passage::Unsure(_)));
}

#[test]
fn rules_for_other_protocols_interfaces_and_directions_are_of_no_account() {
    let outgoing = Packet { outgoing: true, ..packet(133) };
    let ruleset = with(RULESET, str::to_owned);
    assert_eq!(nft::passage(&ruleset, &outgoing), Passage::Passes);
    assert_eq!(nft::passage(&serde_json::json!({"nftables": []}), &packet(133)), Passage::Passes);
}

#[test]
fn firewalld_rejects_what_no_zone_allows() {
    let ruleset = with(FIREWALLD, str::to_owned);
    let dropped = nft::passage(&ruleset, &packet(134));
    assert!(matches!(&dropped, Passage::Dropped(by) if by.contains("firewalld")), "{dropped:?}");
    let finding = &judge(&[Look { packet: packet(134), passage: dropped }])[0];
    assert!(
        finding
            .remedy
            .as_ref()
            .unwrap()
            .starts_with("firewall-cmd --permanent --add-protocol=vrrp")
    );
    // After that remedy.
    let allowed = with(FIREWALLD, |text| text.replace("\"PLACE\"", "\"vrrp\""));
    assert_eq!(nft::passage(&allowed, &packet(134)), Passage::Passes);
}

#[test]
fn iptables_own_rules_are_followed_too() {
    assert_eq!(iptables::passage(LEGACY, &packet(133)), Passage::Passes);
    let dropped = iptables::passage(LEGACY, &packet(134));
    assert_eq!(
        dropped,
        Passage::Dropped("the policy of iptables chain INPUT of table filter".to_owned())
    );
    let finding = &judge(&[Look { packet: packet(134), passage: dropped }])[0];
    assert_eq!(finding.remedy.as_deref(), Some("iptables -I INPUT -p vrrp -j ACCEPT"));
    let other = Packet { interface: "ens34".to_owned(), ..packet(133) };
    assert!(matches!(iptables::passage(LEGACY, &other), Passage::Dropped(_)));
    let perhaps = LEGACY.replace("-i ens33 -m", "-i ens33 -m recent --rcheck -m");
    assert!(matches!(iptables::passage(&perhaps, &packet(133)), Passage::Unsure(_)));
}

#[test]
fn a_return_leads_back_and_a_goto_does_not() {
    let through = |rules: &str| {
        let text = format!("*filter\n:INPUT ACCEPT [0:0]\n:A - [0:0]\n{rules}COMMIT\n");
        iptables::passage(&text, &packet(133))
    };
    let dropped = |passage| matches!(passage, Passage::Dropped(_));
    let back = "-A A -p vrrp -j RETURN\n-A A -j DROP\n";
    assert_eq!(through(&format!("-A INPUT -j A\n{back}")), Passage::Passes);
    assert!(dropped(through(&format!("-A INPUT -j A\n-A INPUT -j DROP\n{back}"))));
    assert_eq!(through(&format!("-A INPUT -g A\n-A INPUT -j DROP\n{back}")), Passage::Passes);
    let perhaps = back.replace("-p vrrp", "-p vrrp -m limit --limit 1/sec");
    assert!(matches!(through(&format!("-A INPUT -j A\n{perhaps}")), Passage::Unsure(_)));
    // The kernel takes no loop; whoever writes one is not followed for ever.
    assert_eq!(through("-A INPUT -j A\n-A A -j A\n"), Passage::Passes);
}

#[test]
fn the_worst_of_all_packets_counts() {
    let look = |passage| Look { packet: packet(133), passage };
    let all = [look(Passage::Passes), look(Passage::Unsure("x".to_owned()))];
    assert_eq!(judge(&all)[0].severity, Severity::NotLookedAt);
    assert_eq!(judge(&all[..1])[0].severity, Severity::Good);
}
