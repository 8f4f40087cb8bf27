//! A cluster in the lab as a [`Shape`] draws it: machines, real servers, and the agent on every
//! node, up and agreeing before a scenario begins.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lb_agent::control::api::{self, Delivery, PathState, Role};

use super::evidence::Evidence;
use super::shape::{self, FAR_CLIENT, Family, NIC, ROUTER, Shape};
use super::stage::Stage;
use crate::backend::{Backend, Mode};
use crate::client::{Arguments, Connections, Load, Report};
use crate::lab::agent::Agent;
use crate::lab::certificate::Certificate;
use crate::lab::peer::proxy::{Kind, Proxy};
use crate::lab::{Host, Lab};

const LAN: &str = "lan";
const WAN: &str = "wan";

/// How long the agents may take to agree with the world after a change.
pub const SETTLE: Duration = Duration::from_secs(20);

/// How long a transfer may take.
const BULK_TIMEOUT_MS: u64 = 20_000;

/// How long the streams of a client may take to open.
const STREAMS_OPEN: Duration = Duration::from_secs(30);

/// A machine that runs the agent, or did.
#[derive(Debug)]
pub struct Node {
    // Before the host: it goes first.
    pub agent: Option<Agent>,
    pub host: Host,
}

impl Node {
    /// # Errors
    /// Where the scenario has stopped it.
    pub fn agent(&self) -> Result<&Agent> {
        self.agent.as_ref().with_context(|| format!("no agent runs on {}", self.host.name()))
    }

    /// # Errors
    /// Where the scenario has stopped it.
    pub fn agent_mut(&mut self) -> Result<&mut Agent> {
        self.agent.as_mut().with_context(|| format!("no agent runs on {}", self.host.name()))
    }

    /// Waits until its agent lets these backends accept, or not.
    ///
    /// # Errors
    /// Where it does not in time.
    pub fn wait_for_verdict(
        &self,
        accepting: bool,
        of: impl Fn(&api::Backend) -> bool,
    ) -> Result<()> {
        let what = format!("{} sees {accepting} in accepting", self.host.name());
        self.agent()?.wait_for_backends(&what, SETTLE, |backends| {
            backends.iter().filter(|backend| of(backend)).all(|b| b.accepting == accepting)
        })
    }
}

/// Owned: gone with the scenario.
#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub backends: BTreeMap<(String, Mode), Backend>,
    /// Clients, servers without agent, the router.
    others: BTreeMap<String, Host>,
    pub certificate: Certificate,
    pub shape: Shape,
    evidence: Option<Evidence>,
    pub lab: Lab,
}

impl Cluster {
    /// Builds it and waits until every agent sees every backend and the first node holds the VIPs.
    ///
    /// # Errors
    /// Where something does not come up; the message says what, and quotes its log.
    pub fn start(stage: &Stage, shape: Shape) -> Result<Self> {
        let mut cluster = Self::machines(stage, shape)?;
        stage.step("starting the agents");
        cluster.start_agents()?;
        stage.step("waiting until the agents see every backend");
        cluster.settle()?;
        Ok(cluster)
    }

    /// Machines and servers, without the agents.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn machines(stage: &Stage, shape: Shape) -> Result<Self> {
        stage.step("making the machines");
        let lab = Lab::new(stage.tool())?;
        let host = |name: &str, segment: &str| {
            let addresses = shape::networks(name);
            let host = lab.host(name).interface(NIC, segment, &addresses);
            host.offloads(shape.offloads).mtu(shape.mtu).start()
        };
        let mut nodes = Vec::new();
        for name in shape.node_names() {
            nodes.push(Node { agent: None, host: host(&name, LAN)? });
        }
        let mut others = BTreeMap::new();
        for name in shape.server_names().into_iter().chain(shape.client_names()) {
            others.insert(name.clone(), host(&name, LAN)?);
        }
        if shape.far_client {
            others.insert(ROUTER.to_owned(), router(&lab, &shape)?);
            others.insert(FAR_CLIENT.to_owned(), host(FAR_CLIENT, WAN)?);
        }
        let names = shape.backend_names();
        let own = names.iter().flat_map(|n| Family::BOTH.map(|family| shape::address(n, family)));
        let addresses: Vec<_> = own.chain(Family::BOTH.map(shape::vip)).collect();
        let certificate = Certificate::create(lab.directory(), &addresses)?;
        let backends = BTreeMap::new();
        let evidence = None;
        let mut cluster = Self { nodes, backends, others, certificate, shape, evidence, lab };
        cluster.route()?;
        if let Some(directory) = stage.evidence() {
            cluster.evidence = Some(Evidence::collect(directory, cluster.hosts())?);
        }
        stage.step("starting the servers");
        for name in names {
            for mode in cluster.shape.services.clone() {
                cluster.start_backend(&name, mode)?;
            }
        }
        Ok(cluster)
    }

    /// A node's name.
    pub fn name_of(&self, node: usize) -> &str {
        self.nodes[node].host.name()
    }

    fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.nodes.iter().map(|node| &node.host).chain(self.others.values())
    }

    /// A machine by its name.
    ///
    /// # Errors
    /// Where the shape has none.
    pub fn host(&self, name: &str) -> Result<&Host> {
        let found = self.hosts().find(|host| host.name() == name);
        found.with_context(|| format!("no machine {name}"))
    }

    /// A client of the service's VIP: keep-alive, one worker, the kernel's choice of addresses.
    pub fn arguments(&self, mode: Mode, family: Family) -> Arguments {
        let mut arguments = Arguments::new(shape::target(mode, family), mode);
        arguments.ca = (mode == Mode::Https).then(|| self.certificate.authority.clone());
        arguments
    }

    /// A client that sends so many bytes to the echo server and gets them back, `transfers` times, each over a
    /// connection of its own.
    pub fn bulk(&self, client: &str, family: Family, bytes: u32, transfers: u64) -> Arguments {
        Arguments {
            connections: Connections::PerRequest,
            concurrency: 4,
            count: transfers,
            payload_bytes: bytes,
            source: shape::sources(client, family),
            timeout_ms: BULK_TIMEOUT_MS,
            ..self.arguments(Mode::Tcp, family)
        }
    }

    /// # Errors
    /// Where there is no such machine, or it cannot be run.
    pub fn load(&self, from: &str, arguments: &Arguments) -> Result<Load> {
        Load::start(&self.lab, self.host(from)?, arguments)
    }

    /// A client in each family with its own addresses, adjusted, whose streams are all open. `kind` is
    /// what its connections are called.
    ///
    /// # Errors
    /// As [`load`](Self::load), or where the streams do not open in time.
    pub fn loads(
        &self,
        kind: &str,
        adjust: impl Fn(Arguments) -> Arguments,
    ) -> Result<Vec<(String, Load)>> {
        let mut loads = Vec::new();
        for (client, family) in [("client1", Family::V4), ("client2", Family::V6)] {
            let source = shape::sources(client, family);
            let arguments = adjust(Arguments { source, ..self.arguments(Mode::Https, family) });
            let mut load = self.load(client, &arguments)?;
            let streams = u64::from(arguments.streams);
            load.wait_until("all streams", STREAMS_OPEN, |r| r.streams.opened == streams)?;
            loads.push((format!("{client} on {kind} {} connections", family.name()), load));
        }
        Ok(loads)
    }

    /// Runs a client to its end.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn complete(&self, from: &str, arguments: &Arguments) -> Result<Report> {
        Load::complete(&self.lab, self.host(from)?, arguments)
    }

    /// # Errors
    /// Where there is no such machine, or it does not come up.
    pub fn start_backend(&mut self, name: &str, mode: Mode) -> Result<()> {
        let listen = Family::BOTH.map(|family| shape::backend(name, mode, family));
        let certificate = (mode == Mode::Https).then_some(&self.certificate);
        let backend = Backend::start(&self.lab, self.host(name)?, mode, &listen, certificate)?;
        self.backends.insert((name.to_owned(), mode), backend);
        Ok(())
    }

    /// On the first machine, which gets the VIP: a proxy before the servers of this mode, instead of agents.
    ///
    /// # Errors
    /// Where it is not installed, or does not come up.
    pub fn start_proxy(&self, kind: Kind, mode: Mode, family: Family) -> Result<Proxy> {
        let host = &self.nodes.first().context("no machine")?.host;
        host.namespace().ip(&format!("address add {} dev {NIC}", shape::vip(family)))?;
        Proxy::start(host, kind, shape::target(mode, family), &self.servers(mode, family))
    }

    /// Where the servers of this mode listen.
    pub fn servers(&self, mode: Mode, family: Family) -> Vec<SocketAddr> {
        let names = self.shape.backend_names();
        names.iter().map(|name| shape::backend(name, mode, family)).collect()
    }

    /// How often each virtual router of each node has changed its state.
    ///
    /// # Errors
    /// Where an agent does not run or answer.
    pub fn vrrp_transitions(&self) -> Result<Vec<u64>> {
        let mut all = Vec::new();
        for node in &self.nodes {
            all.extend(node.agent()?.vrrp()?.iter().map(|router| router.transitions));
        }
        Ok(all)
    }

    /// # Errors
    /// Where it has none.
    pub fn backend_mut(&mut self, name: &str, mode: Mode) -> Result<&mut Backend> {
        self.backends.get_mut(&(name.to_owned(), mode)).with_context(|| format!("no server {name}"))
    }

    /// Starts the agents that do not run, all at once.
    ///
    /// # Errors
    /// Where one does not come up.
    pub fn start_agents(&mut self) -> Result<()> {
        let configuration = self.shape.configuration();
        std::thread::scope(|scope| {
            let idle = self.nodes.iter_mut().filter(|node| node.agent.is_none());
            let starting: Vec<_> = idle
                .map(|node| {
                    let configuration = &configuration;
                    scope.spawn(move || -> Result<()> {
                        node.agent = Some(Agent::start(&node.host, configuration)?);
                        Ok(())
                    })
                })
                .collect();
            starting.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    /// Waits until every agent lets the backends on a node accept, or not.
    ///
    /// # Errors
    /// Where one does not in time.
    pub fn wait_for_verdicts(&self, on: &str, accepting: bool) -> Result<()> {
        self.nodes.iter().try_for_each(|node| {
            node.wait_for_verdict(accepting, |backend| backend.node.as_deref() == Some(on))
        })
    }

    /// Waits until every agent can reach every backend, all accept, and one node holds the VIPs.
    ///
    /// # Errors
    /// Where they do not in time.
    pub fn settle(&mut self) -> Result<()> {
        for node in self.nodes.iter_mut().filter(|node| node.agent.is_some()) {
            let name = node.host.name().to_owned();
            let agent = node.agent_mut()?;
            agent
                .wait_for_backends(&format!("{name} accepts every backend"), SETTLE, |backends| {
                    !backends.is_empty() && backends.iter().all(is_settled)
                })
                .with_context(|| format!("{name}: {}", agent.process().log()))?;
            agent.wait_until(&format!("{name} holds its VIPs or not"), SETTLE, |status| {
                let holds = status.role == Role::Active;
                status.virtual_addresses.iter().all(|vip| vip.held == holds)
            })?;
        }
        Ok(())
    }

    /// Moves the role by hand: the old one first, since an agent does not take what another has.
    /// In between the clients' frames go where they went before, and are served there.
    ///
    /// # Errors
    /// Where a node does not take it, or does not give it up.
    pub fn move_role(&mut self, from: usize, to: usize) -> Result<()> {
        for (index, role) in [(from, Role::Backup), (to, Role::Active)] {
            let node = self.nodes.get_mut(index).context("no such node")?;
            let agent = node.agent_mut()?;
            agent.set_role(role)?;
            let what = format!("the role of node {index}");
            agent.wait_until(&what, SETTLE, |status| {
                let held = role == Role::Active;
                status.role == role && status.virtual_addresses.iter().all(|v| v.held == held)
            })?;
        }
        Ok(())
    }

    /// Everybody on the LAN finds the client behind the router.
    fn route(&self) -> Result<()> {
        let Some(router) = self.others.get(ROUTER) else { return Ok(()) };
        let [v4, v6] = Family::BOTH.map(|family| shape::address(router.name(), family));
        for host in self.nodes.iter().map(|node| &node.host) {
            host.namespace().ip(&format!("route add default via {v4}"))?;
            host.namespace().ip(&format!("route add ::/0 via {v6}"))?;
        }
        let [v4, v6] = Family::BOTH.map(shape::far_router);
        let far = self.host(FAR_CLIENT)?.namespace();
        far.ip(&format!("route add default via {v4}"))?;
        far.ip(&format!("route add ::/0 via {v6}"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(evidence) = self.evidence.take() {
            evidence.leave(&self.nodes);
        }
    }
}

fn router(lab: &Lab, shape: &Shape) -> Result<Host> {
    let [v4, v6] = Family::BOTH.map(shape::far_router);
    let router = lab
        .host(ROUTER)
        .interface(NIC, LAN, &shape::networks(ROUTER))
        .interface("wan0", WAN, &[format!("{v4}/24"), format!("{v6}/64")])
        .offloads(shape.offloads)
        .start()?;
    router.namespace().sysctl("net.ipv4.ip_forward", "1")?;
    router.namespace().sysctl("net.ipv6.conf.all.forwarding", "1")?;
    Ok(router)
}

/// It gets clients, and nothing that is not known yet of the way to it will change that.
fn is_settled(backend: &api::Backend) -> bool {
    backend.accepting
        && backend.delivery != Delivery::Unresolved
        && backend.path.is_none_or(|path| path == PathState::Answers)
}
