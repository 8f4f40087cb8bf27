//! The lab itself, without the load balancer: machines reach one another, servers and clients are
//! real, captures tell the truth, and nothing stays behind. Needs root; says so where it is not.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lb_tests::backend::{Backend, Mode};
use lb_tests::client::{Arguments, Connections, Load};
use lb_tests::lab::capture::Direction;
use lb_tests::lab::certificate::Certificate;
use lb_tests::lab::{self, Host, Lab, Offloads, tool};

const TOOL: &str = env!("CARGO_BIN_EXE_lb-lab");
const LAN: &str = "lan";
const NIC: &str = "ens33";

struct Pair {
    lab: Lab,
    server: Host,
    client: Host,
}

const SERVER: [&str; 2] = ["192.168.139.133", "fd00:139::133"];

fn pair(offloads: Offloads) -> Result<Pair> {
    let lab = Lab::new(Path::new(TOOL))?;
    let host = |name: &str, last: &str| {
        let addresses = [format!("192.168.139.{last}/24"), format!("fd00:139::{last}/64")];
        lab.host(name).interface(NIC, LAN, &addresses).offloads(offloads).start()
    };
    let (server, client) = (host("server", "133")?, host("client", "10")?);
    Ok(Pair { lab, server, client })
}

fn server(port: u16) -> [SocketAddr; 2] {
    SERVER.map(|address| SocketAddr::new(ip(address), port))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address written here")
}

#[test]
fn https_answers_say_who_was_asked_and_who_asked() -> Result<()> {
    let Pair { lab, server: host, client } = pair(Offloads::Off)?;
    let certificate = Certificate::create(lab.directory(), &SERVER.map(ip))?;
    let _backend = Backend::start(&lab, &host, Mode::Https, &server(6443), Some(&certificate))?;
    for (target, own) in server(6443).into_iter().zip([ip("192.168.139.10"), ip("fd00:139::10")]) {
        for connections in [Connections::KeepAlive, Connections::PerRequest] {
            let mut arguments = Arguments::new(target, Mode::Https);
            arguments.ca = Some(certificate.authority.clone());
            arguments.connections = connections;
            (arguments.concurrency, arguments.count) = (2, 20);
            let report = Load::complete(&lab, &client, &arguments)?;
            ensure!((report.requests, report.failed) == (20, 0), "{}", report.summary());
            ensure!(report.backends["server"] == 20, "{}", report.summary());
            ensure!(report.mismatched == 0 && report.client_addresses[&own] == 20);
            ensure!(report.local_addresses[&target] == 20 && report.peers[&target] == 20);
            let expected = if connections == Connections::KeepAlive { 2 } else { 20 };
            ensure!(report.connections == expected, "{}", report.summary());
        }
    }
    Ok(())
}

#[test]
fn an_untrusted_certificate_fails_every_request() -> Result<()> {
    let Pair { lab, server: host, client } = pair(Offloads::Off)?;
    let certificate = Certificate::create(lab.directory(), &[ip("192.0.2.1")])?;
    let _backend = Backend::start(&lab, &host, Mode::Https, &server(6443), Some(&certificate))?;
    let mut arguments = Arguments::new(server(6443)[0], Mode::Https);
    arguments.ca = Some(certificate.authority);
    arguments.count = 3;
    let report = Load::complete(&lab, &client, &arguments)?;
    ensure!((report.requests, report.failed, report.connect_errors) == (3, 3, 3));
    ensure!(report.failures.keys().all(|reason| reason.contains("tls")), "{}", report.summary());
    Ok(())
}

#[test]
fn tcp_and_udp_echo_in_both_families_with_and_without_offloads() -> Result<()> {
    for offloads in [Offloads::Off, Offloads::Default] {
        let Pair { lab, server: host, client } = pair(offloads)?;
        let _tcp = Backend::start(&lab, &host, Mode::Tcp, &server(7000), None)?;
        let _udp = Backend::start(&lab, &host, Mode::Udp, &server(7000), None)?;
        for (mode, unconnected) in [(Mode::Tcp, false), (Mode::Udp, false), (Mode::Udp, true)] {
            for target in server(7000) {
                let mut arguments = Arguments::new(target, mode);
                (arguments.count, arguments.unconnected) = (10, unconnected);
                let report = Load::complete(&lab, &client, &arguments)?;
                ensure!((report.requests, report.failed) == (10, 0), "{}", report.summary());
                ensure!(report.mismatched == 0 && report.peers[&target] == 10);
            }
        }
    }
    Ok(())
}

#[test]
fn a_server_that_leaves_refuses_the_new_and_keeps_the_old() -> Result<()> {
    let Pair { lab, server: host, client } = pair(Offloads::Off)?;
    let certificate = Certificate::create(lab.directory(), &SERVER.map(ip))?;
    let mut backend = Backend::start(&lab, &host, Mode::Https, &server(6443), Some(&certificate))?;
    let mut arguments = Arguments::new(server(6443)[0], Mode::Https);
    arguments.ca = Some(certificate.authority);
    arguments.streams = 2;
    let mut old = Load::start(&lab, &client, &arguments)?;
    old.wait_until("both streams", Duration::from_secs(10), |r| r.streams.opened == 2)?;
    backend.leave()?;
    (arguments.streams, arguments.count) = (0, 3);
    let refused = Load::complete(&lab, &client, &arguments)?;
    ensure!(refused.connect_errors == 3, "{}", refused.summary());
    backend.join()?;
    let joined = Load::complete(&lab, &client, &arguments)?;
    ensure!(joined.failed == 0, "{}", joined.summary());
    old.run_for_requests(20, Duration::from_secs(10))?;
    let report = old.stop()?;
    ensure!((report.failed, report.streams.broken) == (0, 0), "{}", report.summary());
    ensure!(report.streams.lines > 2 && report.longest_gap_ms > 0.0);
    Ok(())
}

#[test]
fn a_killed_server_breaks_streams_and_connections_and_the_books_say_whose() -> Result<()> {
    let Pair { lab, server: host, client } = pair(Offloads::Off)?;
    let certificate = Certificate::create(lab.directory(), &SERVER.map(ip))?;
    let backend = Backend::start(&lab, &host, Mode::Https, &server(6443), Some(&certificate))?;
    let mut arguments = Arguments::new(server(6443)[0], Mode::Https);
    arguments.ca = Some(certificate.authority);
    arguments.streams = 1;
    let mut load = Load::start(&lab, &client, &arguments)?;
    let limit = Duration::from_secs(10);
    load.wait_until("load", limit, |r| r.streams.opened == 1 && r.requests > 5)?;
    backend.kill()?;
    load.wait_until("the break", limit, |r| r.streams.broken == 1 && r.failed > 1)?;
    let report = load.stop()?;
    ensure!(report.broken.get("server") == Some(&1), "{:?}", report.broken);
    Ok(())
}

#[test]
fn a_capture_sees_every_frame_of_both_directions_and_ttl() -> Result<()> {
    let Pair { lab, server: host, client } = pair(Offloads::Off)?;
    let _udp = Backend::start(&lab, &host, Mode::Udp, &server(7000), None)?;
    let capture = host.capture(NIC)?;
    let mut arguments = Arguments::new(server(7000)[0], Mode::Udp);
    arguments.count = 25;
    Load::complete(&lab, &client, &arguments)?;
    let recording = capture.stop()?;
    // A host says by itself which groups it listens to, at any time (MLD), with a TTL of 1.
    let datagrams = || {
        let frames = recording.frames.iter();
        frames.filter(|frame| frame.packet().is_some_and(|packet| packet.ttl == 64))
    };
    let count =
        |direction: Direction| datagrams().filter(|frame| frame.direction == direction).count();
    ensure!(count(Direction::ToHost) == 25, "{} to the host", count(Direction::ToHost));
    ensure!(count(Direction::FromHost) == 25, "{} from it", count(Direction::FromHost));
    let first = datagrams().next().context("no datagrams")?;
    ensure!(first.source_mac() == Some(client.mac(NIC)?), "the client speaks first");
    let times = recording.frames.windows(2).filter(|w| w[1].at < w[0].at).count();
    ensure!(times == 0, "time goes backwards {times} times");
    Ok(())
}

#[test]
fn a_client_behind_a_router_reaches_a_server() -> Result<()> {
    let lab = Lab::new(Path::new(TOOL))?;
    let server = lab.host("server").interface(NIC, LAN, &["192.168.139.133/24"]).start()?;
    let router = lab
        .host("router")
        .interface("lan0", LAN, &["192.168.139.1/24"])
        .interface("wan0", "wan", &["10.1.0.1/24"])
        .start()?;
    router.namespace().sysctl("net.ipv4.ip_forward", "1")?;
    let client = lab.host("client").interface(NIC, "wan", &["10.1.0.10/24"]).start()?;
    server.namespace().ip("route add default via 192.168.139.1\n")?;
    client.namespace().ip("route add default via 10.1.0.1\n")?;
    let target = "192.168.139.133:7000".parse()?;
    let _tcp = Backend::start(&lab, &server, Mode::Tcp, &[target], None)?;
    let mut arguments = Arguments::new(target, Mode::Tcp);
    arguments.count = 5;
    let report = Load::complete(&lab, &client, &arguments)?;
    ensure!(report.failed == 0 && report.client_addresses.contains_key(&ip("10.1.0.10")));
    Ok(())
}

#[test]
fn a_forged_neighbour_and_a_pulled_cable_stop_the_traffic() -> Result<()> {
    let Pair { lab, server: host, client } = pair(Offloads::Off)?;
    let _tcp = Backend::start(&lab, &host, Mode::Tcp, &server(7000), None)?;
    let mut arguments = Arguments::new(server(7000)[0], Mode::Tcp);
    (arguments.count, arguments.timeout_ms) = (1, 300);
    ensure!(Load::complete(&lab, &client, &arguments)?.failed == 0);
    let address = ip(SERVER[0]);
    ensure!(client.neighbour(address)? == Some(host.mac(NIC)?), "learned by ARP");
    client.set_neighbour(NIC, address, [2, 0, 0, 0, 0, 9])?;
    ensure!(Load::complete(&lab, &client, &arguments)?.failed == 1, "wrong MAC");
    client.set_neighbour(NIC, address, host.mac(NIC)?)?;
    ensure!(Load::complete(&lab, &client, &arguments)?.failed == 0, "right MAC");
    host.set_cable(NIC, false)?;
    ensure!(Load::complete(&lab, &client, &arguments)?.failed == 1, "no cable");
    host.set_cable(NIC, true)?;
    ensure!(Load::complete(&lab, &client, &arguments)?.failed == 0, "cable again");
    Ok(())
}

#[test]
fn processes_are_in_their_hosts_cgroup_and_gone_with_it() -> Result<()> {
    let Pair { lab, server: host, client } = pair(Offloads::Off)?;
    let _tcp = Backend::start(&lab, &host, Mode::Tcp, &server(7000), None)?;
    let members = |host: &Host| -> Result<usize> {
        Ok(std::fs::read_to_string(host.cgroup().join("cgroup.procs"))?.lines().count())
    };
    ensure!((members(&host)?, members(&client)?) == (1, 0));
    let (name, cgroup) = (lab.name().to_owned(), host.cgroup().to_owned());
    ensure!(namespaces(&name)? == 3, "two hosts and the switch");
    drop((_tcp, host, client, lab));
    ensure!(!cgroup.exists() && namespaces(&name)? == 0 && !directory(&name).exists());
    Ok(())
}

#[test]
fn a_crashed_run_is_swept_up_and_a_living_one_is_not() -> Result<()> {
    let living = pair(Offloads::Off)?;
    let mut crashed = Command::new(std::env::current_exe()?)
        .args(["--exact", "crashing_run", "--nocapture"])
        .env(CRASH, "1")
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let output = crashed.stdout.take().context("no output")?;
    let line = std::io::BufRead::lines(std::io::BufReader::new(output))
        .map_while(Result::ok)
        .find_map(|line| line.split_once(CRASH).map(|(_, rest)| rest.trim().to_owned()));
    let name = line.context("the crashing run said nothing")?;
    ensure!(namespaces(&name)? == 3, "{name} is not there");
    crashed.kill()?;
    crashed.wait()?;
    lab::sweep()?;
    ensure!(namespaces(&name)? == 0 && !directory(&name).exists(), "{name} is still there");
    ensure!(namespaces(living.lab.name())? == 3 && directory(living.lab.name()).exists());
    Ok(())
}

#[test]
fn an_interrupted_scenario_leaves_nothing_behind() -> Result<()> {
    let mut child = Command::new(TOOL)
        .args(["run", "direct"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let name = format!("lab{}-0", child.id());
    let deadline = Instant::now() + Duration::from_secs(10);
    while namespaces(&name)? < 3 {
        ensure!(Instant::now() < deadline && child.try_wait()?.is_none(), "{name} never was");
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
    ensure!(!child.wait()?.success(), "an interrupted scenario is not ok");
    ensure!(namespaces(&name)? == 0 && !directory(&name).exists(), "{name} is still there");
    Ok(())
}

/// Says so in the environment of the child process that is to crash.
const CRASH: &str = "LB_LAB_TEST_CRASH";

/// Not a claim of its own: the child of the test above, which kills it.
#[test]
#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn crashing_run() -> Result<()> {
    if std::env::var_os(CRASH).is_none() {
        return Ok(());
    }
    let Pair { lab, server: host, client: _client } = pair(Offloads::Off)?;
    let _tcp = Backend::start(&lab, &host, Mode::Tcp, &server(7000), None)?;
    println!("{CRASH} {}", lab.name());
    loop {
        std::thread::park();
    }
}

fn namespaces(run: &str) -> Result<usize> {
    let prefix = format!("{run}-");
    Ok(tool::run("ip", &["netns", "list"])?.lines().filter(|l| l.starts_with(&prefix)).count())
}

fn directory(run: &str) -> std::path::PathBuf {
    Path::new("/run/lb-lab").join(run)
}
