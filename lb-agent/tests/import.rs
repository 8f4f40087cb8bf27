//! The files of existing clusters as one `lb.toml`: what the result means to the agent, and that every
//! directive is accounted for. The files of `tests/peers/today` are those that the lab runs a real nginx and
//! keepalived with; `fixtures/import` has what is not in them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use lb_agent::config::{Config, Hash, NotifyEvent, NotifyWay, Protocol, VrrpVersion, Watched};
use lb_agent::import::{
    Directive, Imported, Report, Source, SyntaxFault, import, parse_keepalived, parse_nginx,
};
use proptest::prelude::*;

const NGINX: Source<'_> =
    Source { name: "nginx.conf", text: include_str!("../../tests/peers/today/nginx.conf") };
const STREAM: Source<'_> = Source {
    name: "stream.conf",
    text: include_str!("../../tests/peers/today/stream/stream.conf"),
};
const MULTICAST: [Source<'_>; 2] = [
    Source {
        name: "master1.conf",
        text: include_str!("../../tests/peers/today/keepalived-master1-multicast.conf"),
    },
    Source {
        name: "master2.conf",
        text: include_str!("../../tests/peers/today/keepalived-master2-multicast.conf"),
    },
];
const UNICAST: [Source<'_>; 2] = [
    Source {
        name: "master1.conf",
        text: include_str!("../../tests/peers/today/keepalived-master1-unicast.conf"),
    },
    Source {
        name: "master2.conf",
        text: include_str!("../../tests/peers/today/keepalived-master2-unicast.conf"),
    },
];
const WIDE: [Source<'_>; 2] = [
    Source { name: "wide-a.conf", text: include_str!("fixtures/import/wide-a.conf") },
    Source { name: "wide-b.conf", text: include_str!("fixtures/import/wide-b.conf") },
];
const WIDE_NGINX: Source<'_> =
    Source { name: "wide-nginx.conf", text: include_str!("fixtures/import/wide-nginx.conf") };

fn imported(nginx: &[Source<'_>], keepalived: &[Source<'_>]) -> (Config, Imported) {
    let imported = import(nginx, keepalived).unwrap_or_else(|error| panic!("{error}"));
    match Config::parse(&imported.toml) {
        Ok(config) => (config, imported),
        Err(error) => panic!("{}\n{}", error.report("lb.toml"), imported.toml),
    }
}

/// Files of which pieces are changed.
fn edited(sources: [Source<'_>; 2], edits: [&[(&str, &str)]; 2]) -> [String; 2] {
    let mut edits = edits.into_iter();
    sources.map(|source| {
        let each = edits.next().unwrap_or_default();
        each.iter().fold(source.text.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from} in {text}");
            text.replace(from, to)
        })
    })
}

fn of_masters(texts: &[String; 2]) -> [Source<'_>; 2] {
    [
        Source { name: "master1.conf", text: &texts[0] },
        Source { name: "master2.conf", text: &texts[1] },
    ]
}

fn every<'d>(directives: &'d [Directive], found: &mut Vec<&'d Directive>) {
    for directive in directives {
        found.push(directive);
        every(directive.children(), found);
    }
}

/// How often each place and text stands in the three groups.
fn accounted(report: &Report) -> HashMap<(String, String), usize> {
    let mut counts = HashMap::new();
    let Report { taken, meaningless, not_taken, .. } = report;
    for entry in taken.iter().chain(meaningless).chain(not_taken) {
        *counts.entry((entry.place.to_string(), entry.directive.clone())).or_default() += 1;
    }
    counts
}

#[test]
fn every_directive_is_accounted_for_exactly_once() {
    for (nginx, keepalived) in [
        (&[NGINX, STREAM][..], &MULTICAST[..]),
        (&[NGINX, STREAM], &UNICAST),
        (&[WIDE_NGINX], &WIDE),
    ] {
        let (_, Imported { report, .. }) = imported(nginx, keepalived);
        let counts = accounted(&report);
        let parsed: Vec<Vec<Directive>> = nginx
            .iter()
            .map(|source| parse_nginx(source).expect("a good fixture"))
            .chain(keepalived.iter().map(|s| parse_keepalived(s).expect("a good fixture")))
            .collect();
        let mut all = Vec::new();
        parsed.iter().for_each(|directives| every(directives, &mut all));
        assert!(all.len() > 50, "the fixtures are read");
        for directive in all {
            let key = (directive.place.to_string(), directive.text());
            assert_eq!(counts.get(&key), Some(&1), "{} {}", key.0, key.1);
        }
    }
}

#[test]
fn todays_files_are_taken_over_without_a_loss() {
    for (keepalived, unicast) in [(MULTICAST, false), (UNICAST, true)] {
        let (config, Imported { report, .. }) = imported(&[NGINX, STREAM], &keepalived);
        assert!(report.is_complete(), "{report:?}");
        let named: Vec<(&str, String, u8)> = config
            .nodes
            .iter()
            .map(|node| (node.name.as_str(), node.addresses[0].to_string(), node.priority))
            .collect();
        let address = |last: &str| format!("192.168.139.{last}");
        assert_eq!(named, [("master1", address("133"), 100), ("master2", address("134"), 90)]);
        assert_eq!(config.interfaces, ["ens33"]);
        assert_eq!(
            config.virtual_addresses,
            ["192.168.139.150".parse::<std::net::IpAddr>().unwrap()]
        );
        let vrrp = config.vrrp.expect("the table is there");
        assert_eq!((vrrp.routers.len(), vrrp.routers[0].router_id), (1, 51));
        assert_eq!((vrrp.version, vrrp.unicast), (VrrpVersion::V2, unicast));
        assert_eq!((vrrp.advertisement_interval.as_secs(), vrrp.preempt), (2, false));
        assert_eq!(vrrp.auth_pass.expect("a password").bytes(), *b"K8SHA_KA");
        let [track] = &config.tracks[..] else { panic!("{:?}", config.tracks) };
        let Watched::Script(script) = &track.watched else { panic!("{track:?}") };
        assert_eq!(script.path.to_str(), Some("/usr/local/keepalived/conf/check_nginx.sh"));
        assert_eq!((track.weight, track.rise, track.fall), (Some(-5), 1, 2));
        assert_eq!((script.interval.as_secs(), script.user.as_str()), (5, "root"));
        let [service] = &config.services[..] else { panic!("{:?}", config.services) };
        assert_eq!((service.name.as_str(), service.port), ("k8sapiserver", 8443));
        assert_eq!((service.hash, service.protocol), (Hash::Source, Protocol::Tcp));
        let backends: Vec<String> =
            service.backends.iter().map(|b| b.address.to_string()).collect();
        assert_eq!(backends, ["133", "134", "135"].map(|last| format!("{}:6443", address(last))));
        assert_eq!((service.passive.max_fails, service.passive.fail_timeout.as_secs()), (3, 30));
        assert_eq!(service.health.timeout, Duration::from_secs(1));
    }
}

#[test]
fn the_traps_of_todays_files_are_told_with_their_sums() {
    let (_, Imported { report, .. }) = imported(&[NGINX, STREAM], &MULTICAST);
    let traps: Vec<String> = report.traps.iter().map(ToString::to_string).collect();
    for part in [
        "master1.conf:2, master2.conf:2: router_id is the same",
        "master1.conf:14, master1.conf:19: `state MASTER` clears `nopreempt`",
        "master1 has 100 - 5 = 95, still above master2's 90",
        "(256 - 90) / 256 of 1s: 6.65 s",
        "it is the skew alone, 0.65 s",
        "auth_pass is longer than 8 bytes",
        "script check_nginx looks for nginx",
        "is killed (SIGKILL)",
        "the address 192.168.139.135: such backends are reached by NAT",
    ] {
        assert!(traps.iter().any(|trap| trap.contains(part)), "no `{part}` in {traps:#?}");
    }
    assert_eq!(traps.iter().filter(|trap| trap.contains("clears `nopreempt`")).count(), 1);
}

#[test]
fn no_report_shows_the_password() {
    for (from, to) in [
        ("auth_pass K8SHA_KA_AUTH", "auth_pass SECRET7 SECRET7"),
        ("auth_pass K8SHA_KA_AUTH", "auth_pas SECRET7"),
        ("auth_pass K8SHA_KA_AUTH", "SECRET7"),
        ("auth_type PASS\n", "auth_type PASS auth_pass SECRET7\n"),
        ("auth_type PASS\n", "auth_type SECRET7\n"),
        (
            "global_defs {",
            "vrrp_instances V {\nauthentication {\nauth SECRET7\nSECRET7\n}\n}\nglobal_defs {",
        ),
        ("auth_pass K8SHA_KA_AUTH", "auth_pass SECRET7"),
    ] {
        let texts = edited(MULTICAST, [&[(from, to)], &[]]);
        let (_, Imported { report, .. }) = imported(&[STREAM], &of_masters(&texts));
        let shown = serde_json::to_string(&report).expect("JSON");
        assert!(!shown.contains("SECRET7") && !shown.contains("K8SHA"), "{to}: {shown}");
        assert!(!report.is_complete(), "{to}");
    }
}

#[test]
fn what_must_be_the_same_on_every_node_is_named_with_both_lines() {
    for (from, to, expected) in [
        ("virtual_router_id 51", "virtual_router_id 52", "17: virtual_router_id: 51 in the one"),
        ("advert_int 2", "advert_int 1", "20: advert_int: 2s in the one and 1s in the other"),
        ("AUTH", "OTHER", "23: auth_pass: one password in the one"),
        ("139.150", "139.151", "13: virtual address 192.168.139.150 is in the one and not in"),
        ("interface ens33", "interface eth0", "15: interface: ens33 in the one and eth0 in"),
        ("weight -5", "weight -50", "8: weight of script check_nginx: -5 in the one and -50"),
        ("interval 5", "interval 6", "7: interval of vrrp_script check_nginx: 5s in the one"),
        (
            "    track_script {\n        check_nginx\n    }\n",
            "",
            "13: script check_nginx is tracked",
        ),
    ] {
        let texts = edited(MULTICAST, [&[], &[(from, to)]]);
        let Imported { report, .. } = import(&[STREAM], &of_masters(&texts)).expect("good files");
        let said: Vec<String> = report.disagreements.iter().map(ToString::to_string).collect();
        let told = said.iter().any(|text| {
            text.starts_with("master1.conf:") && text.contains(&format!("master2.conf:{expected}"))
        });
        assert!(told, "{to}: {said:#?}");
    }
    let (_, Imported { report, .. }) = imported(&[STREAM], &MULTICAST);
    assert_eq!(report.disagreements, []);
}

#[test]
fn a_wider_cluster_means_what_its_files_do() {
    let (config, _) = imported(&[WIDE_NGINX], &WIDE);
    let names: Vec<&str> = config.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["alpha", "beta"]);
    assert_eq!(config.nodes[0].addresses.len(), 2);
    // The positive weight is turned round.
    assert_eq!(config.nodes.iter().map(|node| node.priority).collect::<Vec<_>>(), [130, 120]);
    let vrrp = config.vrrp.as_ref().expect("the table is there");
    let routers: Vec<_> =
        vrrp.routers.iter().map(|r| (r.router_id, r.virtual_addresses.len())).collect();
    assert_eq!(routers, [(10, 2), (11, 1)]);
    let second = config.nodes.iter().map(|node| vrrp.routers[1].priority_of(node));
    assert_eq!(second.collect::<Vec<_>>(), [110, 140]);
    assert_eq!((vrrp.version, vrrp.unicast, vrrp.preempt), (VrrpVersion::V3, true, true));
    assert_eq!(vrrp.preempt_delay.as_secs(), 60);
    assert_eq!(vrrp.advertisement_interval.as_millis(), 500);
    let [api, eth1] = &config.tracks[..] else { panic!("{:?}", config.tracks) };
    let Watched::Script(script) = &api.watched else { panic!("{api:?}") };
    assert_eq!(script.path.to_str(), Some("/usr/bin/env"));
    assert_eq!(script.arguments, ["killall", "-0", "kube-apiserver"]);
    assert_eq!((script.timeout.as_millis(), script.user.as_str()), (500, "checker"));
    assert_eq!((api.weight, api.rise, api.fall), (Some(-20), 1, 3));
    assert_eq!((&eth1.watched, eth1.weight), (&Watched::Interface("eth1".to_owned()), Some(-30)));
    let [hook] = &config.notify[..] else { panic!("{:?}", config.notify) };
    let NotifyWay::Script { path, arguments, user } = &hook.way else { panic!("{hook:?}") };
    assert_eq!(path.to_str(), Some("/usr/local/bin/on-change"));
    assert_eq!((arguments.join(" ").as_str(), user.as_deref()), ("one", Some("root")));
    assert_eq!(hook.events, [NotifyEvent::Role]);
}

#[test]
fn servers_become_services_by_address_port_and_protocol() {
    let (config, _) = imported(&[WIDE_NGINX], &WIDE);
    let shown: Vec<String> = config
        .services
        .iter()
        .map(|s| {
            let at = s.addresses.iter().map(|a| SocketAddr::new(*a, s.port).to_string());
            let backends = s.backends.iter().map(|b| {
                format!("{}*{}{}", b.address, b.weight, if b.backup { " backup" } else { "" })
            });
            format!(
                "{} {} {} {} -> {}",
                s.name,
                s.protocol,
                at.collect::<Vec<_>>().join(","),
                s.hash,
                backends.collect::<Vec<_>>().join(", ")
            )
        })
        .collect();
    let web = "10.0.0.5:8443*3, 10.0.0.6:8443*1, 10.0.0.7:8443*1 backup, 10.0.0.8:8443*0";
    assert_eq!(
        shown,
        [
            format!("web tcp 10.0.0.100:443 source-port -> {web}"),
            format!("web-444 tcp 10.0.0.100:444,10.0.0.101:444 source-port -> {web}"),
            "dns udp 10.0.0.100:53,10.0.0.101:53 source-port -> 10.0.0.5:53*1, 10.0.0.6:53*1"
                .to_owned(),
            "six tcp [fd00::100]:443 source -> [fd00::5]:8443*1".to_owned(),
            "service tcp 10.0.0.100:7000,10.0.0.101:7000 source -> 10.0.0.5:7000*1".to_owned(),
        ]
    );
    let web = &config.services[0];
    assert_eq!((web.passive.max_fails, web.passive.fail_timeout.as_secs()), (2, 5));
    assert_eq!((web.health.timeout.as_secs(), web.health.interval.as_secs()), (5, 5));
    assert_eq!(web.lists.allow.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8"]);
    assert_eq!(config.services[3].passive.max_fails, 1, "nginx's own");
    assert_eq!(config.services[1].lists, web.lists);
    assert_eq!(config.services[3].lists.allow, []);
}

#[test]
fn what_is_not_understood_or_not_to_be_had_is_named() {
    let (_, Imported { report, .. }) = imported(&[WIDE_NGINX], &WIDE);
    let said: Vec<String> = report
        .not_taken
        .iter()
        .map(|entry| format!("{}: {}: {}", entry.place, entry.directive, entry.outcome))
        .collect();
    for part in [
        "wide-nginx.conf:3: frobnicate on: not understood",
        "wide-nginx.conf:8: map $ssl_preread_server_name $name: nothing that a client says",
        "wide-nginx.conf:10: least_conn: balancing is by hash alone",
        "max_conns=10 of server 10.0.0.6:8443",
        "wide-nginx.conf:16: server web.example:8443: a backend is an address",
        "listen 127.0.0.1:443: not a virtual address",
        "ssl of listen 444 ssl",
        "proxy_protocol on: nothing is put before",
        "proxy_pass $name: its `proxy_pass` is neither",
        "wide-a.conf:11: vrrp_mcast_group4 224.0.0.19: not understood",
        "wide-a.conf:13: include extra/*.conf: not followed",
        "colour of 10.0.0.101 colour red: not understood",
        "notify_master /usr/local/bin/on-master: a [[notify]] runs its script at every change",
        "virtual_server 10.0.0.100 443: IPVS",
        "real_server 10.0.0.5 443: IPVS",
    ] {
        assert!(said.iter().any(|text| text.contains(part)), "no `{part}` in {said:#?}");
    }
    assert!(!report.is_complete());
}

#[test]
fn who_preempted_before_does_so_afterwards() {
    let free = [("    nopreempt\n", "")];
    for (edits, preempt) in [
        ([&[][..], &[][..]], false),
        ([&free, &free], true),
        // master1 has the highest priority: it alone has somebody to take the addresses from.
        ([&free, &[]], true),
        ([&[], &free], false),
    ] {
        let texts = edited(MULTICAST, edits);
        let (config, _) = imported(&[STREAM], &of_masters(&texts));
        assert_eq!(config.vrrp.expect("the table").preempt, preempt, "{edits:?}");
    }
}

#[test]
fn an_address_that_no_file_says_is_the_peer_of_the_other_one_or_missing() {
    let texts = edited(UNICAST, [&[("    unicast_src_ip 192.168.139.133\n", "")], &[]]);
    let (config, Imported { report, .. }) = imported(&[STREAM], &of_masters(&texts));
    assert_eq!(config.nodes[0].addresses[0].to_string(), "192.168.139.133");
    assert!(report.is_complete(), "{report:?}");
    let texts = edited(MULTICAST, [&[("    mcast_src_ip 192.168.139.133\n", "")], &[]]);
    let Imported { report, toml } = import(&[STREAM], &of_masters(&texts)).expect("good files");
    assert!(report.missing[0].text.contains("write the `address` of node `master1`"), "{report:?}");
    assert!(Config::parse(&toml).is_err());
}

#[test]
fn a_peer_without_a_file_and_a_cluster_without_services_are_missed() {
    let Imported { report, .. } = import(&[], &UNICAST[..1]).expect("a good file");
    let said: Vec<String> = report.missing.iter().map(ToString::to_string).collect();
    assert!(said[0].starts_with("master1.conf:18: no file is of the unicast_peer 192.168.139.134"));
    assert!(said[1].starts_with("no service: give nginx's files"), "{said:?}");
}

#[test]
fn a_fractional_interval_is_rounded_as_keepalived_rounds_it() {
    for (said, version, ms) in [("0.1", 2, 1000), ("1.6", 2, 2000), ("0.1", 3, 100)] {
        let version = format!("advert_int {said}\nversion {version}");
        let edits = [("advert_int 2", version.as_str())];
        let texts = edited(MULTICAST, [&edits, &edits]);
        let (config, _) = imported(&[STREAM], &of_masters(&texts));
        let vrrp = config.vrrp.expect("the table");
        assert_eq!(vrrp.advertisement_interval.as_millis(), ms, "{version}");
    }
}

#[test]
fn a_broken_file_is_refused_with_its_line() {
    let broken = |text| Source { name: "broken.conf", text };
    for error in [import(&[broken("a {\n b;\n")], &MULTICAST), import(&[], &[broken("a {\n b\n")])]
    {
        let error = error.expect_err("a brace is missing");
        assert_eq!(error.place.to_string(), "broken.conf:1", "{error}");
        assert!(matches!(error.fault, SyntaxFault::NotClosed), "{error}");
    }
}

/// Names that blocks have in either file.
const BLOCKS: [&str; 14] = [
    "global_defs",
    "vrrp_script api",
    "vrrp_instance VI_1",
    "vrrp_instance VI_2",
    "authentication",
    "virtual_ipaddress",
    "track_script",
    "track_interface",
    "unicast_peer",
    "virtual_server 10.0.0.1 80",
    "stream",
    "upstream web",
    "server",
    "http",
];

/// Names that have arguments, or are something themselves.
const NAMES: [&str; 40] = [
    "router_id",
    "vrrp_version",
    "script_user",
    "script",
    "interval",
    "timeout",
    "weight",
    "rise",
    "fall",
    "state",
    "interface",
    "mcast_src_ip",
    "unicast_src_ip",
    "virtual_router_id",
    "priority",
    "nopreempt",
    "preempt_delay",
    "advert_int",
    "auth_type",
    "auth_pass",
    "use_vmac",
    "notify",
    "notify_master",
    "10.0.0.1",
    "fd00::1/64",
    "api",
    "eth0",
    "hash",
    "server",
    "listen",
    "proxy_pass",
    "allow",
    "deny",
    "proxy_connect_timeout",
    "least_conn",
    "max_fails",
    "include",
    "é\u{1}",
    "frobnicate",
    "log_format",
];

const VALUES: [&str; 34] = [
    "0",
    "1",
    "2",
    "3",
    "51",
    "-5",
    "-300",
    "254",
    "255",
    "99999",
    "0.001",
    "1.6",
    "4294967295",
    "10.0.0.1",
    "10.0.0.2",
    "fd00::2",
    "224.0.0.1",
    "MASTER",
    "PASS",
    "api",
    "web",
    "weight",
    "reverse",
    "dev",
    "all",
    "10.0.0.1:80",
    "10.0.0.5:8443",
    "[::]:443",
    "udp",
    "1s",
    "1y",
    "max_fails=x",
    "weight=3",
    "1.2.3.4/33",
];

/// A file whose braces match, with blocks and directives in any order. `end` ends a directive.
fn file(end: &'static str) -> impl Strategy<Value = String> {
    let values = prop::collection::vec(prop::sample::select(VALUES.to_vec()), 0..3);
    let line = (prop::sample::select(NAMES.to_vec()), values)
        .prop_map(move |(name, values)| format!("{name} {}{end}\n", values.join(" ")));
    let block = |inner: BoxedStrategy<String>| {
        let children = prop::collection::vec(inner, 0..12);
        (prop::sample::select(BLOCKS.to_vec()), children)
            .prop_map(|(name, children)| format!("{name} {{\n{}}}\n", children.concat()))
    };
    let tree = line.prop_recursive(3, 60, 12, move |inner| block(inner.boxed()));
    prop::collection::vec(tree, 0..8).prop_map(|trees| trees.concat())
}

proptest! {
    #[test]
    fn no_text_makes_the_import_panic_or_lose_a_directive(
        nginx in file(";"),
        one in file(""),
        other in file(""),
    ) {
        let source = |name, text| Source { name, text };
        let keepalived = [source("a", one.as_str()), source("b", other.as_str())];
        let nginx = source("n", nginx.as_str());
        let imported = import(&[nginx], &keepalived).expect("braces that match");
        let _ = Config::parse(&imported.toml);
        let of_today = import(&[nginx, STREAM], &MULTICAST).expect("braces that match");
        let _ = Config::parse(&of_today.toml);

        let parsed = [parse_nginx(&nginx), parse_keepalived(&keepalived[0]), parse_keepalived(&keepalived[1])];
        let mut all = Vec::new();
        let parsed = parsed.map(|directives| directives.expect("braces that match"));
        parsed.iter().for_each(|directives| every(directives, &mut all));
        let Report { taken, meaningless, not_taken, .. } = &imported.report;
        let mut places: Vec<String> = taken.iter().chain(meaningless).chain(not_taken)
            .filter(|entry| !entry.directive.contains(" of "))
            .map(|entry| entry.place.to_string())
            .collect();
        let mut expected: Vec<String> = all.iter().map(|d| d.place.to_string()).collect();
        places.sort();
        expected.sort();
        prop_assert_eq!(places, expected);
    }
}
