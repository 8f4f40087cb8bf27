//! `reload-vrrp`: a cluster grows, is elected by other rules, gets and loses a virtual address, and shrinks, by
//! reloads under load and beside a real keepalived. Nobody who has the role loses it, until a file says so.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use lb_agent::control::api::{self, Delivery};

use super::cluster::{Cluster, SETTLE};
use super::owner::await_owner;
use super::reload::loads;
use super::shape::{Family, NIC, Shape, Vrrp, backend, vip};
use super::stage::Stage;
use super::tally::Tally;
use super::vrrp_keepalived::of_version_3;
use crate::backend::Mode;
use crate::lab::agent::Agent;
use crate::lab::peer::keepalived::Keepalived;

const STREAMS: u32 = 6;
const LIMIT: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_millis(100);
/// The lowest of all.
const KEEPALIVED: u8 = 10;
/// Of those that wait for the shorter interval: in this time they would have taken over.
const DOWN: Duration = Duration::from_millis(500);
const MORE: &str = "192.168.139.151";
/// Beside the clients, in every step.
const REQUESTS: u64 = 40;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    // The server runs nothing of ours, but keepalived.
    let shape = Shape {
        servers: 1,
        vrrp: Some(Vrrp { interval: INTERVAL }),
        ..Shape::masters(&[Mode::Https])
    };
    let mut cluster = Cluster::machines(stage, shape)?;
    let files = Files::of(&cluster.shape);
    stage.step("two nodes begin");
    for at in 0..2 {
        cluster.nodes[at].agent = Some(Agent::start(&cluster.nodes[at].host, &files.two)?);
    }
    cluster.settle()?;
    cluster.nodes[0].agent_mut()?.wait_until_active(LIMIT)?;
    let mut clients = loads(&cluster, STREAMS)?;
    let mut scene = Scene { cluster, files, clients: &mut clients, before: Vec::new() };
    scene.before = scene.transitions()?;
    scene.grow(stage)?;
    scene.elect_otherwise(stage)?;
    scene.readdress(stage)?;
    scene.refuse(stage)?;
    scene.shrink(stage)?;
    scene.preempt(stage)?;
    let Scene { cluster, .. } = scene;
    let mut tally = Tally::default();
    tally.all_answered(stage, clients)?;
    tally.unbroken(stage, 2 * STREAMS);
    tally.figures(stage);
    drop(cluster);
    Ok(())
}

/// What the nodes are told, one after the other.
struct Files {
    two: String,
    three: String,
    all_but_the_backend: String,
}

impl Files {
    fn of(shape: &Shape) -> Self {
        let few = shape.with_members(&["master1", "master2"]).configuration();
        let from = few.find("\n[[node]]\nname = \"master3\"").unwrap_or(few.len());
        let to = few.find("\n[[service]]").unwrap_or(few.len());
        let two = format!("{}{}", &few[..from], &few[to..]);
        Self { two, three: shape.configuration(), all_but_the_backend: few }
    }
}

struct Scene<'a> {
    cluster: Cluster,
    files: Files,
    clients: &'a mut Vec<(String, crate::client::Load)>,
    /// How often the routers of the first two nodes had changed their states.
    before: Vec<u64>,
}

impl Scene<'_> {
    /// Of the two nodes that are there from the beginning to the end.
    fn transitions(&self) -> Result<Vec<u64>> {
        let mut all = Vec::new();
        for node in &self.cluster.nodes[..2] {
            all.extend(node.agent()?.vrrp()?.iter().map(|router| router.transitions));
        }
        Ok(all)
    }

    /// Tells these nodes, in this order.
    fn tell(&self, order: &[usize], text: &str) -> Result<Vec<api::Reload>> {
        order.iter().map(|&at| self.cluster.nodes[at].agent()?.reload_with(text)).collect()
    }

    fn work(&mut self) -> Result<()> {
        self.clients.iter_mut().try_for_each(|(_, load)| load.run_for_requests(REQUESTS, LIMIT))
    }

    /// Whoever had the role has it, and nobody else had it in between.
    fn nothing_moved(&self, stage: &mut Stage, after: &str) -> Result<()> {
        let (before, now) = (&self.before, self.transitions()?);
        stage.claim(
            &format!("nobody's state changes {after}"),
            *before == now,
            format!("{before:?}, {now:?}"),
        );
        Ok(())
    }

    fn grow(&mut self, stage: &mut Stage) -> Result<()> {
        stage.step("a third node comes, with its backend");
        let three = self.files.three.clone();
        let node = &mut self.cluster.nodes[2];
        node.agent = Some(Agent::start(&node.host, &three)?);
        let said = self.tell(&[0, 1], &three)?;
        let told = said.iter().all(|said| said.changes.iter().any(|what| what.contains("master3")));
        stage.claim("the difference names the node", told, format!("{said:?}"));
        let added = backend("master3", Mode::Https, Family::V4);
        for node in &self.cluster.nodes[..2] {
            node.agent()?.wait_for_backends(
                "the new one gets frames unchanged",
                SETTLE,
                |all| {
                    all.iter().any(|b| {
                        b.address == added && b.accepting && b.delivery == Delivery::Direct
                    })
                },
            )?;
        }
        let (who, load) = &mut self.clients[2];
        load.wait_until("the new backend is reached", LIMIT, |report| report.backends.len() == 3)?;
        stage.claim(&format!("{who} reach the new backend"), true, "three backends");
        self.work()?;
        self.nothing_moved(stage, "as the cluster grows")
    }

    /// Priorities and intervals, also longer ones than the others go by, with a keepalived among the Backups.
    fn elect_otherwise(&mut self, stage: &mut Stage) -> Result<()> {
        let host = self.cluster.host("server1")?;
        let file = of_version_3("server1", KEEPALIVED, INTERVAL.as_secs_f64());
        let keepalived = Keepalived::start(host, &file)?;
        let hears = |more: u64| -> Result<()> {
            let begun = keepalived.statistics()?.received;
            let deadline = Instant::now() + LIMIT;
            while keepalived.statistics()?.received < begun + more && Instant::now() < deadline {}
            Ok(())
        };
        hears(3)?;
        let first = &self.files.three.clone();
        let priorities = first
            .replace("priority = 100", "priority = 60")
            .replace("priority = 80", "priority = 120");
        let slower = priorities.replace("= \"100ms\"", "= \"1s\"");
        let faster = priorities.replace("= \"100ms\"", "= \"200ms\"");
        for (text, order, after) in [
            (&priorities, [0, 1, 2], "as the priorities are turned round"),
            // The Active node first: the others still wait for the former interval.
            (&slower, [0, 1, 2], "as the interval becomes ten times as long"),
            (&faster, [2, 1, 0], "as it becomes a fifth of that"),
            (first, [0, 1, 2], "as all is as it was"),
        ] {
            stage.step(after);
            self.tell(&order, text)?;
            let end = Instant::now() + DOWN;
            while Instant::now() < end {
                self.work()?;
            }
            self.nothing_moved(stage, after)?;
        }
        let log = keepalived.log();
        let never = !log.contains("Entering MASTER STATE");
        stage.claim("keepalived stays Backup", never, log.lines().last().unwrap_or_default());
        let refused = keepalived.statistics()?.refused;
        let none = refused.values().all(|count| *count == 0);
        stage.claim("keepalived refuses nothing", none, format!("{refused:?}"));
        keepalived.end()
    }

    fn readdress(&mut self, stage: &mut Stage) -> Result<()> {
        stage.step("a virtual address comes and goes");
        let own = format!("\"{}\"", vip(Family::V4));
        let more = self.files.three.replace(&own, &format!("{own}, \"{MORE}\""));
        let address = MORE.parse()?;
        let mac = self.cluster.nodes[0].host.mac(NIC)?;
        self.tell(&[1, 2, 0], &more)?;
        let client = self.cluster.host("client1")?;
        await_owner(client, address, mac, LIMIT)?;
        let seen = self.held(MORE)?;
        stage.claim(
            "the Active node alone holds the new one",
            seen == [true, false, false],
            format!("{seen:?}"),
        );
        self.work()?;
        self.nothing_moved(stage, "as a virtual address comes")?;
        self.tell(&[0, 1, 2], &self.files.three)?;
        let seen = self.held(MORE)?;
        stage.claim("and nobody does when it is gone", seen == [false; 3], format!("{seen:?}"));
        let mut routes = Vec::new();
        for node in &self.cluster.nodes {
            let routes_here =
                node.host.namespace().run("ip", &["route", "show", "table", "local"])?;
            routes.push(routes_here.contains(MORE));
        }
        stage.claim("no node has its route", routes == [false; 3], format!("{routes:?}"));
        let seen = self.held(&vip(Family::V4).to_string())?;
        stage.claim(
            "the other one is where it was",
            seen == [true, false, false],
            format!("{seen:?}"),
        );
        self.work()?;
        self.nothing_moved(stage, "as it goes")
    }

    /// Whether each node has an address on its interface.
    fn held(&self, address: &str) -> Result<Vec<bool>> {
        let address = address.parse()?;
        self.cluster.nodes.iter().map(|node| node.host.holds(NIC, address)).collect()
    }

    /// What cannot be had, or cannot be done, changes nothing at all.
    fn refuse(&mut self, stage: &mut Stage) -> Result<()> {
        stage.step("files that are refused");
        let agent = self.cluster.nodes[0].agent()?;
        let taken = backend("master1", Mode::Https, Family::V4);
        let key = self.cluster.nodes[0].host.directory().join("peers.key");
        std::fs::write(&key, "5".repeat(64))?;
        std::fs::set_permissions(&key, Permissions::from_mode(0o600))?;
        let other = self.files.three.replace("priority = 100", "priority = 77");
        for (text, why) in [
            (
                format!("{other}\n[peers]\nkey_file = {key:?}\nport = {}\n", taken.port()),
                "cannot listen on",
            ),
            (format!("{other}\n[peers]\nkey_file = \"/nowhere\"\n"), "/nowhere"),
            (
                other.replace("preempt = false", "preempt = false\nvirtual_mac = true"),
                "`virtual_mac`",
            ),
        ] {
            agent.write_configuration(&text)?;
            let refused = agent.lbctl(["reload"]);
            let seen = refused.as_ref().map_or_else(|error| format!("{error:#}"), Clone::clone);
            let priorities: Vec<u8> = agent.vrrp()?.iter().map(|router| router.priority).collect();
            let holds = refused.is_err() && seen.contains(why) && priorities == [100; 2];
            stage.claim(
                &format!("refused as a whole: {why}"),
                holds,
                format!("{} {priorities:?}", seen.trim()),
            );
        }
        self.tell(&[0], &self.files.three)?;
        self.nothing_moved(stage, "by what is refused")
    }

    fn shrink(&mut self, stage: &mut Stage) -> Result<()> {
        stage.step("the third node goes");
        self.tell(&[0, 1, 2], &self.files.all_but_the_backend)?;
        self.work()?;
        if let Some(agent) = self.cluster.nodes[2].agent.take() {
            agent.stop()?;
        }
        let said = self.tell(&[0, 1], &self.files.two)?;
        let told =
            said.iter().all(|said| said.changes.iter().any(|what| what == "node master3 goes"));
        stage.claim("the difference says that it goes", told, format!("{said:?}"));
        self.work()?;
        self.nothing_moved(stage, "as the cluster shrinks")
    }

    fn preempt(&mut self, stage: &mut Stage) -> Result<()> {
        stage.step("a Backup is to be first, and to take over");
        let text = self
            .files
            .two
            .replace("priority = 100", "priority = 60")
            .replace("preempt = false", "preempt = true");
        self.tell(&[0, 1], &text)?;
        let begun = Instant::now();
        self.cluster.nodes[1].agent_mut()?.wait_until_active(LIMIT)?;
        let took = begun.elapsed();
        self.work()?;
        stage.claim("it takes over, by the new rules", true, format!("after {took:?}"));
        Ok(())
    }
}
