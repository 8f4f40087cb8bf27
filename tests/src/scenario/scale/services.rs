//! A thousand services of a thousand backends each, half of them IPv4, half IPv6, in the real agent: the
//! file checked, the agent started, asked, replaced by one with another file under load, and stopped.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{MapData, loaded_maps};
use lb_agent::control::api::Memory;
use lb_agent::table::{Member, Slots, Table};
use lb_common::layout::{LAYOUT_VERSION, map};

use super::flows::backend;
use super::reckon::Ranked;
use crate::backend::{Answer, Backend, Mode};
use crate::client::{Arguments, Load};
use crate::lab::agent::{Agent, binary};
use crate::lab::{Host, Lab};
use crate::packet::syscall;
use crate::scenario::shape::NIC;
use crate::scenario::stage::Stage;

pub(super) const SERVICES: u16 = 1000;
pub(super) const BACKENDS: u16 = 1000;
const LAN: &str = "lan";
const NODE: &str = "lb1";
const VIPS: [&str; 2] = ["192.168.139.150", "fd00:139::150"];
const FIRST_PORT: u16 = 10_001;
/// Of the services of one family that have other weights, and so a table of their own.
const OTHER_WEIGHTS: u16 = 3;
const CLIENTS: [&str; 2] = ["192.168.139.20", "fd00:139::20"];
/// Requests while an agent is replaced by another.
const REQUESTS: u64 = 2000;
const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let lab = Lab::new(stage.tool())?;
    let hosts = Hosts::start(&lab)?;
    let text = configuration(BACKENDS);
    let file = lab.directory().join("scale.toml");
    std::fs::write(&file, &text).context("cannot write the configuration")?;
    stage.figure("services", SERVICES);
    stage.figure("backends_each", BACKENDS);
    stage.figure("file_bytes", text.len());
    check(stage, &file)?;

    stage.step("the agent starts");
    let begun = Instant::now();
    let mut agent = Agent::start(&hosts.node, &text)?;
    stage.figure("start_s", seconds(begun));
    serves(stage, &hosts, BACKENDS)?;
    asked(stage, &hosts, &agent)?;
    let memory = agent.status()?.memory.context("the status tells no memory")?;
    reported(stage, &memory, &agent)?;

    stage.step("the agent is replaced under load");
    let mut loads = Vec::new();
    for (family, vip) in VIPS.iter().enumerate() {
        let target = SocketAddr::new(vip.parse()?, FIRST_PORT);
        let source = vec![CLIENTS[family].parse()?];
        let arguments = Arguments { concurrency: 4, source, ..Arguments::new(target, Mode::Tcp) };
        loads.push(Load::start(&lab, &hosts.client, &arguments)?);
    }
    for load in &mut loads {
        load.run_for_requests(100, LIMIT)?;
    }
    let begun = Instant::now();
    agent.kill()?;
    // One backend fewer, in each service.
    agent = Agent::start(&hosts.node, &configuration(BACKENDS - 1))?;
    stage.figure("reload_s", seconds(begun));
    for load in &mut loads {
        load.run_for_requests(REQUESTS, LIMIT)?;
    }
    let mut failed = 0;
    for load in loads {
        let report = load.stop()?;
        failed += report.failed;
        let text = "nothing fails while the agent is replaced by one with another file";
        stage.claim(text, report.failed == 0, report.summary());
    }
    stage.figure("reload_requests_failed", failed);
    stage.step("the former tables' memory is given back");
    given_back(stage, &hosts.node, memory.table_slots.used)?;
    serves(stage, &hosts, BACKENDS - 1)?;
    stage.figure("agent_peak_bytes", peak_bytes(agent.process().id())?);
    let begun = Instant::now();
    agent.stop()?;
    stage.figure("stop_s", seconds(begun));
    Ok(())
}

/// The node, a machine that is all thousand backends, and a client.
struct Hosts {
    // First of all, so that it goes first.
    _backends: Backend,
    node: Host,
    _servers: Host,
    client: Host,
}

impl Hosts {
    fn start(lab: &Lab) -> Result<Self> {
        let host = |name: &str, addresses: [&str; 2]| {
            let networks = [format!("{}/24", addresses[0]), format!("{}/64", addresses[1])];
            lab.host(name).interface(NIC, LAN, &networks).start()
        };
        let servers = ["192.168.139.201", "fd00:139::201"];
        let node = host(NODE, ["192.168.139.133", "fd00:139::133"])?;
        let machine = host("servers", servers)?;
        let client = host("client", CLIENTS)?;
        // All addresses of these networks are the machine's (AnyIP), and it is the way to them.
        machine.namespace().ip("route add local 10.20.0.0/16 dev lo\n\
            route add local fd00:20::/64 dev lo")?;
        node.namespace().ip(&format!(
            "route add 10.20.0.0/16 via {}\nroute add fd00:20::/64 via {}",
            servers[0], servers[1]
        ))?;
        // Both families.
        let at = SocketAddr::new("::".parse()?, 6443);
        let backends = Backend::start(lab, &machine, Mode::Tcp, &[at], None)?;
        Ok(Self { _backends: backends, node, _servers: machine, client })
    }
}

/// Half of the services are IPv4, half IPv6. All of a family have the same backends; some have other
/// weights.
fn configuration(backends: u16) -> String {
    let mut text = format!(
        "interface = \"{NIC}\"\nvirtual_addresses = {VIPS:?}\nactive = \"{NODE}\"\n\n\
         [data_path]\nmodes = [\"native\"]\n\n[[node]]\n\
         name = \"{NODE}\"\naddress = \"192.168.139.133\"\naddresses = [\"fd00:139::133\"]\n\n\
         [limits]\nservices = 1024\nbackends = 1048576\n"
    );
    for (family, vip) in VIPS.iter().enumerate() {
        let all = |weight: u16| -> String {
            let each = |n| {
                let at = backend(family, n);
                match weight {
                    1 => format!("\"{at}\""),
                    _ => format!("{{ address = \"{at}\", weight = {} }}", 1 + n % weight),
                }
            };
            let all: Vec<String> = (0..backends).map(each).collect();
            all.join(", ")
        };
        let (equal, other) = (all(1), all(2));
        for number in 0..SERVICES / 2 {
            let set = if number < OTHER_WEIGHTS { &other } else { &equal };
            text.push_str(&format!(
                "\n[[service]]\nname = \"{}\"\naddress = \"{}\"\nport = {}\nbackends = [{set}]\n",
                name(family, number),
                vip,
                FIRST_PORT + number,
            ));
        }
    }
    text
}

fn name(family: usize, number: u16) -> String {
    format!("web{number}-{}", ["v4", "v6"][family])
}

/// `lbctl check`, as a person types it.
fn check(stage: &mut Stage, file: &Path) -> Result<()> {
    stage.step("the file is checked");
    let begun = Instant::now();
    let output = Command::new(binary("lbctl")?).arg("check").arg(file).output()?;
    stage.figure("check_s", seconds(begun));
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    let seen = said.lines().chain(complaint.lines()).take(3).collect::<Vec<_>>().join("; ");
    stage.claim("`lbctl check` accepts the file", output.status.success(), seen);
    Ok(())
}

/// A connection through each service: who answers must be who is reckoned.
fn serves(stage: &mut Stage, hosts: &Hosts, backends: u16) -> Result<()> {
    stage.step("a connection through each service");
    let mut wrong = Vec::new();
    for family in 0..2 {
        let ranked = reckoned(family, backends)?;
        let client: IpAddr = CLIENTS[family].parse()?;
        let found = hosts.client.namespace().within(|| {
            let answers = (0..SERVICES / 2).map(|number| {
                let at = SocketAddr::new(VIPS[family].parse()?, FIRST_PORT + number);
                let of = &ranked[usize::from(number >= OTHER_WEIGHTS)];
                let of = Ranked { at, ..of.clone() };
                let expected = of.backend(SocketAddr::new(client, 0), |_| true);
                let answer = greet(at)?;
                Ok((at, expected, answer.local, answer.client.ip()))
            });
            answers.collect::<Result<Vec<_>>>()
        })?;
        wrong.extend(found.into_iter().filter(|(_, expected, local, _)| *expected != Some(*local)));
    }
    let text = format!("each of {SERVICES} services of {backends} backends leads to the right one");
    stage.claim(&text, wrong.is_empty(), format!("{} wrong {:?}", wrong.len(), wrong.first()));
    Ok(())
}

/// The tables of a family's services, with other and with equal weights. Of any service: the table is
/// the same.
fn reckoned(family: usize, backends: u16) -> Result<[Ranked; 2]> {
    let of = |weight: u16| -> Result<Ranked> {
        let members: Vec<Member> =
            (0..backends).map(|n| Member::new(backend(family, n), 1 + n % weight)).collect();
        let weights: Vec<u16> = members.iter().map(|member| member.weight).collect();
        let table = Table::build(&members, Slots::for_weights(&weights))?;
        Ok(Ranked {
            at: SocketAddr::new(VIPS[family].parse()?, 0),
            by_port: false,
            buckets: table.buckets().into(),
            members: table.members().iter().map(Member::socket_address).collect(),
        })
    };
    Ok([of(2)?, of(1)?])
}

/// What a TCP server says first.
fn greet(at: SocketAddr) -> Result<Answer> {
    let stream = TcpStream::connect_timeout(&at, LIMIT).with_context(|| format!("to {at}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).with_context(|| format!("from {at}"))?;
    serde_json::from_str(&line).with_context(|| format!("{at} says {line:?}"))
}

/// What people and Prometheus ask a running agent.
fn asked(stage: &mut Stage, hosts: &Hosts, agent: &Agent) -> Result<()> {
    stage.step("the agent is asked");
    let begun = Instant::now();
    let services = agent.services()?;
    stage.figure("services_answer_ms", millis(begun));
    let accepting = services.iter().filter(|s| s.accepting == u32::from(BACKENDS)).count();
    let text = "every service has all its backends";
    stage.claim(text, accepting == usize::from(SERVICES), format!("{accepting} services"));
    let connections: u64 = services.iter().map(|service| service.connections).sum();
    let expected = u64::from(SERVICES);
    let text = "each connection was counted where it belongs";
    let alike = services.iter().all(|service| service.connections == 1);
    stage.claim(text, alike && connections == expected, format!("{connections} connections"));

    let begun = Instant::now();
    let shown = agent.lbctl(["backends", &name(0, 7)])?;
    stage.figure("backends_of_a_service_ms", millis(begun));
    let text = "`lbctl backends SERVICE` shows those of the service";
    let rows = shown.lines().count() - 1;
    stage.claim(text, rows == usize::from(BACKENDS), format!("{rows} rows"));
    let all = agent.lbctl(["backends"]).err().map(|error| format!("{error:#}"));
    let sentence = all.unwrap_or_default();
    let text = "`lbctl backends` says that a million are too many for one answer";
    stage.claim(text, sentence.contains("more than one answer holds"), sentence);
    let begun = Instant::now();
    let status = agent.lbctl(["status"])?;
    stage.figure("status_ms", millis(begun));
    let lines = status.lines().count();
    let text = "`lbctl status` fits a screen, and tells of the memory";
    stage.claim(text, lines < 100 && status.contains("MEMORY"), format!("{lines} lines"));

    let begun = Instant::now();
    let scrape = hosts.node.namespace().within(scrape)?;
    stage.figure("scrape_ms", millis(begun));
    stage.figure("scrape_bytes", scrape.len());
    let sums = scrape.lines().filter(|line| line.starts_with("lb_service_connections_total{"));
    let seen = format!("{} bytes, {} sums", scrape.len(), sums.clone().count());
    let whole = sums.count() == usize::from(SERVICES)
        && scrape.contains("lb_backend_series_shown 0")
        && !scrape.contains("lb_backend_packets_total{");
    stage.claim("Prometheus gets sums for each service instead of a million series", whole, seen);
    Ok(())
}

/// What Prometheus gets.
fn scrape() -> Result<String> {
    let mut stream = TcpStream::connect("127.0.0.1:9633").context("no metrics")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: lb\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
        _ => bail!("no scrape: {}", text.lines().next().unwrap_or_default()),
    }
}

/// Memory as the agent reports it, held against what the file says and the documentation.
fn reported(stage: &mut Stage, memory: &Memory, agent: &Agent) -> Result<()> {
    let entries = u64::from(SERVICES) * u64::from(BACKENDS);
    let used = (memory.services.used, memory.backends.used, memory.tables);
    let text = "the status counts services, backends, and a table for each different set";
    stage.claim(text, used == (SERVICES.into(), entries, 4), format!("{used:?}"));
    let slots = u64::from(Slots::for_weights(&[1; BACKENDS as usize]).number());
    let table = memory.table_slots;
    let text = "four tables take what four tables take, and not a thousand";
    let plain = table.used * 16;
    let close = table.bytes >= plain && table.bytes < plain + plain / 50;
    stage.claim(text, table.used == 4 * slots && close, format!("{table:?}"));
    let parts = memory.nat_flows.bytes
        + memory.services.bytes
        + memory.backends.bytes
        + table.bytes
        + memory.other_bytes;
    let text = "the parts add up to the sum";
    stage.claim(text, parts == memory.maps_bytes, format!("{parts} of {}", memory.maps_bytes));
    let resident = resident_bytes(agent.process().id())?;
    let text = "the agent's memory is what the kernel says of its process";
    let (told, seen) = (memory.agent_bytes, format!("{} and {resident}", memory.agent_bytes));
    stage.claim(text, told.abs_diff(resident) < resident / 4, seen);
    stage.figure("agent_bytes", memory.agent_bytes);
    stage.figure("maps_bytes", memory.maps_bytes);
    stage.figure("table_bytes", table.bytes);
    stage.figure("tables", memory.tables);
    stage.figure("service_bytes", memory.service_bytes);
    let each = memory.backends.bytes.div_ceil(memory.backends.limit);
    stage.figure("backend_bytes", each);
    let cpus = u64::try_from(
        std::fs::read_to_string("/sys/devices/system/cpu/possible")?
            .trim()
            .split('-')
            .next_back()
            .and_then(|last| last.parse::<usize>().ok())
            .map_or(1, |last| last + 1),
    )?;
    // What each CPU counts, and the pointer to it.
    super::documented(stage, "a backend of a service, without its counters", each - 56 * cpus)?;
    super::documented(stage, "a slot of a table", table.bytes / table.used)
}

/// The agent gives the memory of former tables back within a second or so, those of the agent that was
/// killed too: looked for in the kernel, and not in what the agent says.
fn given_back(stage: &mut Stage, node: &Host, slots: u64) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let held = slots_held(node)?;
        // An empty table in a former one's place has one slot.
        let done = held < slots + u64::from(SERVICES);
        if done || Instant::now() > deadline {
            let text = "the former tables' memory is given back";
            stage.claim(text, done, format!("{held} slots are held, {slots} are needed"));
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Slots of all tables that the kernel holds for a node.
fn slots_held(node: &Host) -> Result<u64> {
    let pin = node.bpf_directory().join(format!("v{LAYOUT_VERSION}/maps/{}", map::TABLES));
    let tables = MapData::from_pin(&pin).context("no map of tables")?;
    let most = tables.info()?.max_entries() as usize;
    let (_, ids) = syscall::lookup_batch::<u32, u32>(tables.fd().as_fd(), most, 1)?;
    let mut slots = 0;
    for info in loaded_maps() {
        // One that went meanwhile is held by nobody.
        let Ok(info) = info else { continue };
        if ids.contains(&info.id()) {
            slots += u64::from(info.max_entries());
        }
    }
    Ok(slots)
}

/// A field of `/proc/PID/status`, in bytes.
fn of_process(id: u32, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let word = line.and_then(|rest| rest.split_ascii_whitespace().nth(1).or(Some(rest)));
    let kib = line
        .and_then(|rest| rest.trim_start_matches(':').split_ascii_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok());
    ensure!(word.is_some(), "no {field} of process {id}");
    Ok(kib.with_context(|| format!("{field} of process {id} is no number"))? * 1024)
}

fn resident_bytes(id: u32) -> Result<u64> {
    of_process(id, "VmRSS")
}

fn peak_bytes(id: u32) -> Result<u64> {
    of_process(id, "VmHWM")
}

fn seconds(begun: Instant) -> f64 {
    (begun.elapsed().as_secs_f64() * 100.0).round() / 100.0
}

fn millis(begun: Instant) -> f64 {
    (begun.elapsed().as_secs_f64() * 1e4).round() / 10.0
}

#[cfg(test)]
mod tests {
    use lb_agent::config::Config;

    use super::*;

    #[test]
    fn the_file_is_one_that_the_agent_accepts() {
        let config = Config::parse(&configuration(20)).unwrap();
        assert_eq!(config.services.len(), usize::from(SERVICES));
        assert!(config.services.iter().all(|service| service.backends.len() == 20));
    }
}
