//! The configuration as a user meets it: files that are refused, with the very words they get, and
//! files that are taken.
//!
//! Each `fixtures/config/refused/NAME.toml` has its report in `NAME.txt`. After a deliberate change
//! of a message, `LB_BLESS=1 cargo test -p lb-agent --test config` writes the reports anew; read
//! the difference before it is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lb_agent::config::{
    Backend, Check, Config, ConfigError, DeliverySetting, Fingerprint, Hash, HttpCheck, NodeError,
    Notify, NotifyEvent, NotifyWay, Passive, Protocol, Rebalance, Script, ScriptCheck, Statuses,
    Track, Trust, UnknownPorts, Url, VirtualRouter, Vrrp, VrrpChecksum, VrrpVersion, Watched,
};
use proptest::prelude::*;

const TEN_LINES: &str = include_str!("fixtures/config/taken/ten-lines.toml");
const BOTH_FAMILIES: &str = include_str!("fixtures/config/taken/both-families.toml");
const VRRP: &str = include_str!("fixtures/config/taken/vrrp.toml");
const NOTIFY: &str = include_str!("fixtures/config/taken/notify.toml");
const PROTECTION: &str = include_str!("fixtures/config/taken/protection.toml");
const DATAGRAMS: &str = include_str!("fixtures/config/taken/datagrams.toml");
const CHECKS: &str = include_str!("fixtures/config/taken/checks.toml");
const TRACK: &str = include_str!("fixtures/config/taken/track.toml");
const EXAMPLE: &str = include_str!("../../docs/lb.toml.example");
const DOCUMENTATION: &str = include_str!("../../docs/configuration.md");

fn taken(text: &str) -> Config {
    match Config::parse(text) {
        Ok(config) => config,
        Err(error) => panic!("{}", error.report("lb.toml")),
    }
}

fn refused() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config/refused");
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .expect("the fixtures are part of the repository")
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_bad_file_is_refused_with_its_report() {
    let bless = std::env::var_os("LB_BLESS").is_some();
    let mut wrong = Vec::new();
    for file in refused() {
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).expect("a readable fixture");
        let report = match Config::parse(&text) {
            Ok(_) => "(accepted)".to_owned(),
            Err(error) => error.report("lb.toml"),
        };
        let expected = file.with_extension("txt");
        if bless {
            fs::write(&expected, &report).expect("a writable fixture");
        }
        if fs::read_to_string(&expected).unwrap_or_default() != report {
            wrong.push(format!("{name}:\n{report}"));
        }
    }
    assert!(wrong.is_empty(), "{} reports differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whether it is the line, but for asterisks that hide a password.
fn shows(shown: &str, line: &str) -> bool {
    let hides = line.contains("auth_pas");
    let same = |(shown, written): (char, char)| shown == written || hides && shown == '*';
    shown.chars().count() == line.chars().count() && shown.chars().zip(line.chars()).all(same)
}

#[test]
fn every_report_names_a_place_and_shows_it() {
    let files = refused();
    assert!(files.len() > 50, "only {} fixtures found", files.len());
    for file in files {
        let text = fs::read_to_string(&file).expect("a readable fixture");
        let error = Config::parse(&text).expect_err(&format!("{} is accepted", file.display()));
        assert!(!error.faults.is_empty(), "{}", file.display());
        for fault in &error.faults {
            let line = text.lines().nth(fault.line - 1).unwrap_or_default();
            assert!(shows(&fault.source, line), "{}: {}", file.display(), fault.source);
            assert!(fault.column <= line.chars().count() + 1, "{}", file.display());
        }
        let messages: BTreeSet<String> =
            error.faults.iter().map(|f| format!("{}:{}:{}", f.line, f.column, f.problem)).collect();
        assert_eq!(messages.len(), error.faults.len(), "{} says it twice", file.display());
    }
}

#[test]
fn ten_lines_are_a_whole_configuration() {
    let config = taken(TEN_LINES);
    assert_eq!(config.interfaces, ["ens33"]);
    assert_eq!(config.active.as_deref(), Some("master1"));
    assert_eq!(config.nodes[0].priority, 100);
    let service = &config.services[0];
    assert_eq!(service.addresses, config.virtual_addresses);
    assert_eq!((service.port, service.protocol, service.hash), (8443, Protocol::Tcp, Hash::Source));
    assert_eq!(service.backends[1].address.to_string(), "192.168.139.134:6443");
    assert_eq!(service.backends[1].weight, 1);
    assert!(service.health.enabled);
    assert_eq!(config.lease.duration, Duration::from_secs(2));
    assert_eq!(config.nat.ports, 61000..=64999);
    assert_eq!(config.nat.tcp_established_timeout, Duration::from_secs(2 * 3600 + 4 * 60));
    assert_eq!(config.data_path.modes, None);
    assert_eq!(config.metrics.listen.map(|l| l.to_string()).as_deref(), Some("127.0.0.1:9633"));
    assert_eq!(config.control.socket, Path::new("/run/lb/lb.sock"));
    assert_eq!(config.remarks(), [""; 0]);
}

#[test]
fn a_service_gets_the_virtual_addresses_of_its_backends_family() {
    let config = taken(BOTH_FAMILIES);
    let addresses = |service: usize| -> Vec<String> {
        config.services[service].addresses.iter().map(IpAddr::to_string).collect()
    };
    assert_eq!(addresses(0), ["192.0.2.53", "192.0.2.54"]);
    assert_eq!(addresses(1), ["192.0.2.53"], "named ones only");
    assert_eq!(addresses(2), ["2001:db8::53"]);
}

#[test]
fn every_setting_arrives_where_it_belongs() {
    let config = taken(BOTH_FAMILIES);
    let [dns, dns_tcp, dns_v6] = &config.services[..] else { panic!("three services") };
    assert_eq!((dns.protocol, dns.hash), (Protocol::Udp, Hash::SourcePort));
    let translated = Backend {
        address: "192.0.2.11:5353".parse().expect("an endpoint"),
        weight: 3,
        delivery: DeliverySetting::Nat,
        server_id: None,
        backup: false,
    };
    assert_eq!(dns.backends[1], translated);
    assert_eq!(dns_tcp.backends[1].delivery, DeliverySetting::Direct);
    assert_eq!(dns_tcp.table_size, Some(211));
    assert_eq!(dns_tcp.health.interval, Duration::from_millis(500));
    assert_eq!(dns_tcp.health.timeout, Duration::from_millis(500), "no longer than the interval");
    assert!(!dns.health.enabled, "UDP is checked only if asked for");
    assert!(dns_v6.health.enabled);
    assert_eq!(config.nat.ports, 20000..=29999);
    assert_eq!(config.nat.key.as_deref(), Some("a secret"));
    assert_eq!(config.data_path.unknown_ports, UnknownPorts::Drop);
    assert_eq!(config.metrics.listen, None);
    let right: Vec<String> = config.nodes[1].addresses.iter().map(IpAddr::to_string).collect();
    assert_eq!(right, ["192.0.2.2", "2001:db8::2"], "`address` comes first");
}

#[test]
fn what_is_allowed_but_unwise_is_remarked_on() {
    let remarks = taken(BOTH_FAMILIES).remarks();
    assert_eq!(remarks.len(), 4, "{remarks:?}");
    assert!(remarks[0].contains("lbctl role active"), "{remarks:?}");
    assert!(remarks[3].contains("`dns`") && remarks[3].contains("not checked"), "{remarks:?}");
    assert!(remarks[1].contains("`left`") && remarks[1].contains("[vrrp]"), "{remarks:?}");
    assert!(remarks[2].contains("[peers]") && remarks[2].contains("NAT"), "{remarks:?}");
    let told = format!("{BOTH_FAMILIES}\n[peers]\nkey_file = \"/etc/lb/peers.key\"\n");
    assert_eq!(taken(&told).remarks().len(), 3, "{:?}", taken(&told).remarks());
    let small = taken(&format!("{TEN_LINES}table_size = 199\n")).remarks();
    assert!(small[0].contains("199"), "{small:?}");
}

#[test]
fn every_setting_of_vrrp_arrives() {
    let config = taken(VRRP);
    let priorities: Vec<u8> = config.nodes.iter().map(|node| node.priority).collect();
    assert_eq!(priorities, [254, 1, 1], "equal ones are allowed");
    assert_eq!(config.remarks().len(), 1, "{:?}", config.remarks());
    assert!(config.remarks()[0].contains("8 bytes"), "{:?}", config.remarks());
    let vrrp = config.vrrp.expect("the table is there");
    assert_eq!(vrrp.auth_pass.as_ref().map(|pass| pass.bytes()), Some(*b"K8SHA_KA"));
    let router = VirtualRouter {
        router_id: 51,
        virtual_addresses: config.virtual_addresses.clone(),
        priorities: BTreeMap::new(),
    };
    let expected = Vrrp {
        routers: vec![router],
        version: VrrpVersion::V2,
        advertisement_interval: Duration::from_secs(2),
        preempt: true,
        preempt_delay: Duration::from_secs(90),
        unicast: true,
        auth_pass: vrrp.auth_pass.clone(),
        checksum: VrrpChecksum::Plain,
        answer_rivals: true,
        check_addresses: true,
        check_duplicates: true,
        virtual_mac: false,
    };
    assert_eq!(vrrp, expected);
}

#[test]
fn every_setting_of_the_hooks_arrives() {
    let [pager, chat, plain] = &taken(NOTIFY).notify[..] else { panic!("three hooks") };
    let expected = Notify {
        name: "pager".to_owned(),
        way: NotifyWay::Script {
            path: "/usr/local/bin/page".into(),
            arguments: vec!["--loud".to_owned(), String::new()],
            user: Some("nobody".to_owned()),
        },
        events: vec![NotifyEvent::Role],
        timeout: Duration::from_secs(60),
    };
    assert_eq!(pager, &expected);
    let url = |secure, host: &str, port, path: &str| Url {
        secure,
        host: host.to_owned(),
        port,
        path: path.to_owned(),
    };
    let way = NotifyWay::Webhook {
        url: url(true, "chat.example.org", 443, "/hook?room=7"),
        ca_file: Some("/etc/lb/ca.pem".into()),
    };
    assert_eq!(
        (&chat.way, &chat.events[..]),
        (&way, &[NotifyEvent::Trouble, NotifyEvent::Role][..])
    );
    let way = NotifyWay::Webhook { url: url(false, "2001:db8::7", 8080, "/"), ca_file: None };
    assert_eq!((&plain.way, plain.timeout), (&way, Duration::from_secs(10)));
    assert_eq!(plain.events, [NotifyEvent::Role, NotifyEvent::Trouble], "both by default");
}

#[test]
fn every_kind_of_track_arrives_with_the_defaults_of_its_kind() {
    let config = taken(TRACK);
    let of_script = |path: &str, arguments: &[&str], timeout_s, user: &str| {
        Watched::Script(Script {
            path: path.into(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(timeout_s),
            user: user.to_owned(),
        })
    };
    let backends = |at_least, service: Option<&str>| Watched::HealthyBackends {
        at_least,
        service: service.map(str::to_owned),
    };
    let expected = [
        (
            "check_nginx",
            of_script("/etc/keepalived/check_nginx.sh", &[], 1, "root"),
            Some(-5),
            2,
            2,
        ),
        ("uplink", Watched::Interface("ens34".to_owned()), None, 5, 2),
        ("backends", backends(1, None), None, 3, 1),
        ("both", backends(2, Some("kube-apiserver")), Some(-20), 3, 1),
        ("defaults", of_script("/usr/local/bin/check", &["an argument"], 2, "nobody"), None, 2, 2),
    ]
    .map(|(name, watched, weight, rise, fall)| Track {
        name: name.to_owned(),
        watched,
        weight,
        rise,
        fall,
    });
    assert_eq!(config.tracks, expected);
    let remarks = config.remarks();
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    assert!(remarks[0].starts_with("track `check_nginx`: weight -5 never moves"), "{remarks:?}");
}

#[test]
fn vrrp_is_off_without_its_table_and_on_with_one_key() {
    assert_eq!(taken(TEN_LINES).vrrp, None);
    let elected = TEN_LINES.replace("active = \"master1\"\n", "vrrp.router_id = 255\n");
    let config = taken(&elected);
    assert_eq!(config.vrrp.as_ref().map(|vrrp| vrrp.routers[0].router_id), Some(255));
    assert_eq!(config.remarks(), [""; 0], "nobody needs to be active");
}

#[test]
fn several_virtual_routers_have_their_addresses_and_priorities() {
    let file = TEN_LINES
        .replace("active = \"master1\"\n", "")
        .replace("[\"192.168.139.150\"]", "[\"192.168.139.150\", \"192.168.139.151\"]");
    let config = taken(&format!(
        "{file}[[vrrp.router]]\nrouter_id = 51\nvirtual_addresses = [\"192.168.139.150\"]\n\
         [[vrrp.router]]\nrouter_id = 52\nvirtual_addresses = [\"192.168.139.151\"]\n\
         priorities = [{{ node = \"master1\", priority = 120 }}]\n"
    ));
    let vrrp = config.vrrp.expect("the table is there");
    let of = |n: usize| {
        let router = &vrrp.routers[n];
        (router.router_id, router.virtual_addresses.clone(), router.priority_of(&config.nodes[0]))
    };
    assert_eq!(of(0), (51, parse_all(&["192.168.139.150"]), 100));
    assert_eq!(of(1), (52, parse_all(&["192.168.139.151"]), 120));
    assert_eq!(vrrp.routers.len(), 2);
}

#[test]
fn a_remark_on_the_password_needs_a_ninth_byte() {
    let fits = taken(&VRRP.replace("K8SHA_KA_AUTH", "K8SHA_KA"));
    assert_eq!(fits.remarks(), [""; 0]);
}

#[test]
fn virtual_addresses_of_both_families_are_taken_with_version_3_and_unicast() {
    let config = taken(&format!("{BOTH_FAMILIES}[vrrp]\nrouter_id = 1\nunicast = true\n"));
    assert!(config.vrrp.is_some_and(|vrrp| vrrp.unicast));
}

/// All that is ever printed of a refused file.
fn everything_said(error: &ConfigError) -> String {
    format!("{}{error}{error:?}{error:#?}", error.report("lb.toml"))
}

#[test]
fn nothing_shows_the_password() {
    let config = taken(VRRP);
    let shown = format!("{config:?}{config:#?}{:?}", config.remarks());
    assert!(shown.contains("auth_pass") && !shown.contains("K8SHA"), "{shown}");
    let mut tried = 0;
    for file in refused() {
        let text = fs::read_to_string(&file).expect("a readable fixture");
        let Err(error) = Config::parse(&text) else { continue };
        let said = everything_said(&error);
        for secret in ["K8SHA_KA", "86758424"].iter().filter(|secret| text.contains(**secret)) {
            assert!(!said.contains(*secret), "{}: {said}", file.display());
            tried += 1;
        }
    }
    assert!(tried >= 7, "only {tried} passwords found");
}

fn parse_all(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|text| text.parse().expect("an address")).collect()
}

#[test]
fn a_node_finds_itself_by_any_of_its_addresses() {
    let config = taken(BOTH_FAMILIES);
    for own in ["192.0.2.1", "2001:db8::1"] {
        let node = config.this_node(&parse_all(&["127.0.0.1", own])).expect("a node");
        assert_eq!(node.name, "left");
    }
    assert_eq!(config.node_named("right").map(|n| n.name.as_str()), Ok("right"));
    let node = config.node_of("2001:db8::2".parse().expect("an address"));
    assert_eq!(node.map(|n| n.name.as_str()), Some("right"));
    assert_eq!(config.node_of("192.0.2.10".parse().expect("an address")), None);
}

#[test]
fn a_machine_that_is_no_node_or_two_is_told_so() {
    let config = taken(BOTH_FAMILIES);
    let stranger = config.this_node(&parse_all(&["127.0.0.1", "192.0.2.9"])).unwrap_err();
    let said = stranger.to_string();
    for part in ["192.0.2.9", "left (192.0.2.1, 2001:db8::1)", "--node"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains("127.0.0.1"), "{said}");
    let both = config.this_node(&parse_all(&["192.0.2.1", "192.0.2.2"])).unwrap_err();
    assert_eq!(both, NodeError::Several { nodes: "left, right".to_owned() });
    let misspelt = config.node_named("rigth").unwrap_err().to_string();
    assert!(misspelt.contains("did you mean `right`"), "{misspelt}");
}

/// Lines that begin with the mark and a key or header, without the mark.
fn uncommented(text: &str, mark: &str) -> String {
    let is_toml = |rest: &str| rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase());
    let lines = text.lines().map(|line| match line.strip_prefix(mark) {
        Some(rest) if is_toml(rest) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A file with so many backends for each of two services, on ports of their own or on the same.
fn many(backends: u16, ports: [u16; 2]) -> String {
    let mut text = TEN_LINES
        .lines()
        .take_while(|l| !l.starts_with("[[service"))
        .collect::<Vec<_>>()
        .join("\n");
    for (name, port) in ["a", "b"].into_iter().zip(ports) {
        let each = |n: u16| format!("\"10.{}.{}.{}:{port}\"", 1, n >> 8, n & 0xff);
        let each: Vec<String> = (1..=backends).map(each).collect();
        text.push_str(&format!(
            "\n[[service]]\nname = \"{name}\"\nport = {}\nbackends = [{}]\n[service.health]\n\
             interval = \"500ms\"\ntimeout = \"500ms\"\n",
            u16::from(name.as_bytes()[0]),
            each.join(", "),
        ));
    }
    text + "[limits]\nbackends = 65536\n"
}

#[test]
fn more_checks_than_an_agent_keeps_up_with_are_remarked_on() {
    let shared = taken(&many(2000, [80, 80])).remarks();
    assert_eq!(shared, [""; 0], "what two services check alike is checked once");
    let apart = taken(&many(2000, [80, 81])).remarks();
    assert_eq!(apart.len(), 1, "{apart:?}");
    assert!(
        apart[0].starts_with("4000 different checks make 8000 connections a second"),
        "{apart:?}"
    );
}

#[test]
fn more_backends_than_prometheus_is_to_see_are_remarked_on() {
    let text = many(1000, [80, 80]);
    let remarks = taken(&format!("{text}[metrics]\nbackend_series = 1999\n")).remarks();
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    assert!(remarks[0].starts_with("2000 backends are more than `backend_series`"), "{remarks:?}");
    for enough in ["backend_series = 2000", "backend_series = 0", "enabled = false"] {
        let remarks = taken(&format!("{text}[metrics]\n{enough}\n")).remarks();
        assert_eq!(remarks, [""; 0], "{enough}");
    }
}

#[test]
fn a_service_says_whom_it_refuses() {
    let config = taken(PROTECTION);
    let service = &config.services[0];
    let allowed: Vec<String> = service.lists.allow.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["192.168.0.0/16", "10.0.0.7/32"]);
    assert_eq!(service.lists.deny.len(), 1);
    assert_eq!(service.lists.deny_file.as_deref(), Some(Path::new("/etc/lb/deny.txt")));
    assert!(service.lists.allows());
    let limit = service.rate_limit.expect("a limit");
    // A second's connections at once, where the file does not say.
    assert_eq!((limit.per_second, limit.burst), (250, 250));
    assert_eq!((limit.prefix_ipv4, limit.prefix_ipv6), (24, 64));
    assert_eq!(config.syn_flood.map(|guard| guard.syns_per_second), Some(5000));
    let without = taken(TEN_LINES);
    assert!(without.syn_flood.is_none());
    assert!(without.services[0].lists.is_empty() && without.services[0].rate_limit.is_none());
}

#[test]
fn what_keeps_datagrams_arrives() {
    let config = taken(DATAGRAMS);
    let service = &config.services[0];
    assert_eq!(service.affinity, Some(Duration::from_secs(90)));
    let quic = service.quic.expect("connection ids");
    assert_eq!((quic.server_id_length, quic.config_rotation), (2, 3));
    let ids = service.backends.iter().map(|backend| backend.server_id.expect("an id").number);
    assert_eq!(ids.collect::<Vec<_>>(), [0x0a01, 0x0a02]);
    let without = taken(TEN_LINES);
    assert!(without.services[0].affinity.is_none() && without.services[0].quic.is_none());
}

#[test]
fn connections_of_tcp_are_judged_by_unless_the_file_says_otherwise() {
    let passive = |text: &str| taken(text).services[0].passive;
    let usual = Passive { max_fails: 3, fail_timeout: Duration::from_secs(30) };
    assert_eq!(passive(TEN_LINES), usual);
    let off = format!("{TEN_LINES}\n[service.passive]\nmax_fails = 0\n");
    assert_eq!(passive(&off), Passive { max_fails: 0, ..usual });
    let other = format!("{TEN_LINES}\npassive = {{ max_fails = 1, fail_timeout = \"10s\" }}\n");
    let ten = Duration::from_secs(10);
    assert_eq!(passive(&other), Passive { max_fails: 1, fail_timeout: ten });
    assert!(taken(DATAGRAMS).services.iter().all(|service| service.passive.max_fails == 0));
}

#[test]
fn connections_are_moved_as_the_file_says() {
    let rebalance = |text: &str| taken(text).services[0].rebalance;
    let usual = Rebalance {
        automatic: false,
        per_minute: 60,
        idle: Duration::from_secs(5),
        minimum_age: Duration::from_secs(60),
        threshold_percent: 10,
        stable: Duration::from_secs(60),
    };
    assert_eq!(rebalance(TEN_LINES), usual);
    let other = format!(
        "{TEN_LINES}\n[service.rebalance]\nautomatic = true\nper_minute = 6000\nidle = \"100ms\"\n\
         minimum_age = \"0s\"\nthreshold = 0\nstable = \"1s\"\n"
    );
    let expected = Rebalance {
        automatic: true,
        per_minute: 6000,
        idle: Duration::from_millis(100),
        minimum_age: Duration::ZERO,
        threshold_percent: 0,
        stable: Duration::from_secs(1),
    };
    assert_eq!(rebalance(&other), expected);
}

#[test]
fn checks_are_read() {
    let config = taken(CHECKS);
    let checks: Vec<&HttpCheck> = config
        .services
        .iter()
        .filter_map(|service| match &*service.health.check {
            Check::Http(http) => Some(&**http),
            Check::Tcp | Check::Script(_) => None,
        })
        .collect();
    let [kube, web, pinned, any] = checks[..] else { panic!("{} checks", checks.len()) };
    assert_eq!(kube.path, "/readyz?verbose");
    let statuses = |first, last| Statuses { first, last };
    assert_eq!(kube.expect, [statuses(200, 200), statuses(401, 403)]);
    let tls = kube.tls.as_ref().expect("https");
    assert_eq!(tls.server_name.as_deref(), Some("kubernetes"));
    assert_eq!(tls.trust, Trust::Authorities("/etc/kubernetes/pki/ca.crt".into()));
    assert_eq!(tls.token_file.as_deref(), Some(Path::new("/var/run/token")));
    let own = tls.certificate.as_ref().expect("a certificate");
    assert_eq!(
        (&own.certificate_file, &own.key_file),
        (&"/etc/lb/check.crt".into(), &"/etc/lb/check.key".into())
    );
    assert_eq!((web.host.as_deref(), &web.tls), (Some("www.example.com"), &None));
    assert_eq!(web.expect, [Statuses::SUCCESS]);
    let trust = |check: &HttpCheck| check.tls.clone().expect("https").trust;
    assert!(matches!(trust(pinned), Trust::Pinned(Fingerprint(bytes)) if bytes[..2] == [0, 255]));
    assert_eq!(trust(any), Trust::Anything);
    assert_eq!(*taken(TEN_LINES).services[0].health.check, Check::Tcp);
    let remarks = config.remarks();
    let told =
        remarks.iter().filter(|remark| remark.contains("`verify = false` for service `any`"));
    assert_eq!(told.count(), 1, "{remarks:?}");
}

#[test]
fn scripts_of_checks_are_told_whose_they_are() {
    let config = taken(CHECKS);
    let of = |name: &str| {
        let service = config.services.iter().find(|service| service.name == name);
        match &*service.expect("a service").health.check {
            Check::Script(script) => script.clone(),
            other => panic!("{name}: {other:?}"),
        }
    };
    let expected = ScriptCheck {
        path: "/usr/local/bin/check".into(),
        arguments: vec!["a b".to_owned(), "$(id)".to_owned()],
        user: "checker".to_owned(),
        service: "by-script".to_owned(),
        addresses: config.virtual_addresses.clone(),
    };
    assert_eq!(*of("by-script"), expected);
    assert_eq!(of("by-nobody").user, "nobody");
    let nobody = config.services.iter().find(|service| service.name == "by-nobody");
    assert!(nobody.is_some_and(|service| service.health.enabled), "also over UDP");
}

#[test]
fn more_scripts_than_a_machine_should_run_are_remarked_on() {
    let often = |interval: &str| {
        let check = format!("health = {{ interval = \"{interval}\", timeout = \"10ms\", script");
        taken(&CHECKS.replace("health = { script", &check)).remarks()
    };
    let told =
        |remarks: &[String]| remarks.iter().any(|it| it.starts_with("checks run 200 scripts"));
    assert!(told(&often("10ms")), "{:?}", often("10ms"));
    assert!(!often("20ms").iter().any(|it| it.contains("scripts a second")));
}

#[test]
fn the_commented_defaults_of_the_example_are_the_defaults() {
    let config = taken(EXAMPLE);
    let with_defaults = uncommented(EXAMPLE, "#");
    assert!(with_defaults.lines().any(|line| line == "duration = \"2s\""), "{with_defaults}");
    assert_eq!(taken(&with_defaults), config);
    let with_all = taken(&uncommented(&with_defaults, "##"));
    assert_eq!(with_all.control.group.as_deref(), Some("lb"));
    assert_eq!(with_all.vrrp, config.vrrp);
    assert_eq!(config.remarks(), [""; 0]);
}

#[test]
fn the_documentation_shows_a_file_that_is_taken() {
    let begin = DOCUMENTATION.find("Ten lines are enough").expect("the passage");
    let shown: Vec<&str> = DOCUMENTATION[begin..]
        .lines()
        .skip(1)
        .skip_while(|line| line.is_empty())
        .take_while(|line| !line.is_empty())
        .map(|line| line.trim_start())
        .collect();
    assert_eq!(shown.len(), 10);
    assert_eq!(taken(&shown.join("\n")), taken(TEN_LINES));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_the_parser_panic(text in "[\\PC\n\t]{0,200}") {
        if let Err(error) = Config::parse(&text) {
            prop_assert!(!error.report("x").is_empty());
        }
    }

    /// Whatever is wrong around it, and in the line itself before and after it.
    #[test]
    fn no_damage_makes_a_report_show_the_password(
        before in "[\\PC\n]{0,6}",
        at in 0..VRRP.len(),
        length in 0usize..40,
        after in "[^\"\\\\]{0,6}",
    ) {
        let line = VRRP.find("auth_pass").expect("the key");
        let rest = VRRP[line..].find('\n').expect("more lines") + line;
        let (at, length) = if at < line {
            (at, length.min(line - 1 - at))
        } else {
            (at.max(rest), length.min(VRRP.len() - at.max(rest)))
        };
        let mut damaged = VRRP.to_owned();
        damaged.insert_str(rest, &after);
        if at >= rest {
            damaged.replace_range(at + after.len()..at + after.len() + length, "");
        } else {
            damaged.replace_range(at..at + length, &before);
        }
        if let Err(error) = Config::parse(&damaged) {
            let said = everything_said(&error);
            prop_assert!(!said.contains("K8SHA"), "{damaged}\n{said}");
        }
    }

    /// Damage to a good file reaches deeper than random text does.
    #[test]
    fn no_damage_to_a_good_file_makes_the_parser_panic(
        at in 0..BOTH_FAMILIES.len(),
        length in 0usize..40,
        inserted in "[\\PC\n\t]{0,6}",
    ) {
        let damaged: String = BOTH_FAMILIES.chars().take(at)
            .chain(inserted.chars())
            .chain(BOTH_FAMILIES.chars().skip(at + length))
            .collect();
        if let Err(error) = Config::parse(&damaged) {
            prop_assert!(!error.report("x").is_empty());
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
