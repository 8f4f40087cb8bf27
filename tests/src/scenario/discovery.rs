//! `discovery`: backends that a real DNS server and the API of a Kubernetes cluster tell of. They come, leave and come back
//! under load; then those who tell of them say nothing, or nonsense, and nothing is lost by that either.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lb_agent::control::api::{Admin, Backend, BackendSource, BackendState, Discovery};

use super::cluster::{Cluster, SETTLE};
use super::shape::{Family, Shape, address, backend, sources, vip};
use super::stage::Stage;
use super::tally::Tally;
use crate::backend::Mode;
use crate::backend::api_server::{ApiServer, Endpoint};
use crate::client::{Arguments, Connections, Load};
use crate::lab::peer::await_some;
use crate::lab::peer::dnsmasq::Dnsmasq;

const LIMIT: Duration = Duration::from_secs(15);
const NAME: &str = "api.example.internal";
const ZONE: &str = "internal";
/// The machine that names are told on, and the one that the cluster's API is on.
const TELLER: &str = "client2";
const API: &str = "server3";
/// Of the service whose backends the API tells of; the other one has the shape's port.
const PORT: u16 = 8444;
const BY_NAME: &str = "kube-apiserver-ipv4";
const BY_SLICE: &str = "by-slice";

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let mut cluster =
        Cluster::machines(stage, Shape::pair(&[Mode::Https]).with_members(&["server1"]))?;
    let dns = SocketAddr::new(address(TELLER, Family::V4), 53);
    let dnsmasq = Dnsmasq::start(cluster.host(TELLER)?, dns, ZONE)?;
    dnsmasq.say(NAME, &servers(&[1, 2]).map(|at| at.ip()).collect::<Vec<_>>())?;
    let mut kubernetes = Kubernetes::new(&cluster)?;
    let mut api = kubernetes.start(&cluster, "first", 1)?;
    api.set(servers(&[1, 2]).map(Endpoint::ready).collect())?;
    cluster.shape.service_keys = format!(
        "discover = {{ dns = {NAME:?}, port = 6443, servers = [\"{dns}\"], min_ttl = \"200ms\", max_ttl = \"200ms\" }}\n"
    );
    cluster.shape.families = &[Family::V4];
    cluster.shape.further = kubernetes.service(&cluster.shape);
    cluster.start_agents()?;
    cluster.settle()?;
    for (service, source) in [(BY_NAME, BackendSource::Dns), (BY_SLICE, BackendSource::Kubernetes)]
    {
        is(&cluster, service, "both are told of", &[1, 2], &[])?;
        let all = backends(&cluster, 0, service)?;
        let said = all.iter().all(|backend| backend.source == source);
        stage.claim(
            &format!("{service} says who tells of its backends"),
            said,
            format!("{source:?}"),
        );
    }
    let loads = loads(&cluster)?;
    let dnsmasq = names(stage, &cluster, dnsmasq)?;
    names_fail(stage, &mut cluster, dnsmasq, dns)?;
    slices(stage, &cluster, &mut api)?;
    let api = api_fails(stage, &cluster, &mut kubernetes, api)?;
    let mut tally = Tally::default();
    tally.all_answered(stage, loads)?;
    tally.spread(stage, 3);
    tally.unbroken(stage, 2 * STREAMS);
    tally.figures(stage);
    drop(api);
    Ok(())
}

const STREAMS: u32 = 4;

/// Kept connections and new ones, to both services.
fn loads(cluster: &Cluster) -> Result<Vec<(String, Load)>> {
    let mut loads = Vec::new();
    for (service, port) in [(BY_NAME, 8443), (BY_SLICE, PORT)] {
        let arguments = Arguments {
            target: SocketAddr::new(vip(Family::V4), port),
            concurrency: 4,
            pause_ms: 20,
            source: sources("client1", Family::V4),
            ..cluster.arguments(Mode::Https, Family::V4)
        };
        let kept = Arguments { streams: STREAMS, ..arguments.clone() };
        let mut kept = cluster.load("client1", &kept)?;
        kept.wait_until("all streams", LIMIT, |r| r.streams.opened == u64::from(STREAMS))?;
        loads.push((format!("kept connections to {service}"), kept));
        let single =
            Arguments { connections: Connections::PerRequest, concurrency: 2, ..arguments };
        loads.push((format!("new connections to {service}"), cluster.load("client1", &single)?));
    }
    Ok(loads)
}

/// Records change, and what a person has said of a backend holds whatever they are.
fn names(stage: &mut Stage, cluster: &Cluster, dnsmasq: Dnsmasq) -> Result<Dnsmasq> {
    stage.step("a name gets other addresses");
    let say =
        |numbers: &[u8]| dnsmasq.say(NAME, &servers(numbers).map(|at| at.ip()).collect::<Vec<_>>());
    say(&[2, 3])?;
    is(cluster, BY_NAME, "one has come, one leaves", &[2, 3], &[1])?;
    stage.claim("who is no longer named leaves with its connections", true, "server1");
    let third = servers(&[3]).next().context("an address")?.to_string();
    for node in &cluster.nodes {
        node.agent()?.lbctl(["backends", "drain", &third, "--service", BY_NAME])?;
    }
    say(&[1, 2])?;
    is(cluster, BY_NAME, "it is back, the drained one leaves", &[1, 2], &[3])?;
    say(&[1, 2, 3])?;
    await_some("the drained one is told of again", LIMIT, || {
        let all = backends(cluster, 0, BY_NAME)?;
        let back = all.iter().find(|b| b.address.to_string() == third && b.leaving_since.is_none());
        Ok(back.map(|backend| (backend.admin, backend.state)))
    })
    .map(|seen| {
        let holds = seen == (Admin::Draining, BackendState::Draining);
        stage.claim("a person's word outlives the record", holds, format!("{seen:?}"));
    })?;
    for node in &cluster.nodes {
        node.agent()?.lbctl(["backends", "enable", &third, "--service", BY_NAME])?;
    }
    is(cluster, BY_NAME, "all three serve", &[1, 2, 3], &[])?;
    Ok(dnsmasq)
}

/// Nobody answers, an agent begins without a word, and then there is no such name.
fn names_fail(
    stage: &mut Stage,
    cluster: &mut Cluster,
    dnsmasq: Dnsmasq,
    dns: SocketAddr,
) -> Result<()> {
    stage.step("the DNS server is gone");
    drop(dnsmasq);
    let why = fails(cluster, BY_NAME, "")?;
    is(cluster, BY_NAME, "they stay", &[1, 2, 3], &[])?;
    stage.claim("the last known set is kept without DNS, and that is said", true, why);
    let warnings = cluster.nodes[0].agent()?.status()?.warnings;
    let told = warnings.iter().any(|w| w.contains("the last known 3 backends are kept"));
    stage.claim("`lbctl status` warns of it", told, format!("{warnings:?}"));
    stage.step("an agent is killed and starts without DNS");
    cluster.nodes[1].agent.take().context("no agent")?.kill()?;
    cluster.start_agents()?;
    cluster.settle()?;
    is(cluster, BY_NAME, "they are known", &[1, 2, 3], &[])?;
    stage.claim("an agent starts with the last known set", true, cluster.name_of(1));
    stage.step("there is no such name");
    let dnsmasq = Dnsmasq::start(cluster.host(TELLER)?, dns, ZONE)?;
    let why = fails(cluster, BY_NAME, "NXDOMAIN")?;
    is(cluster, BY_NAME, "they stay", &[1, 2, 3], &[])?;
    stage.claim("a name that is gone takes nobody away", true, why);
    drop(dnsmasq);
    Ok(())
}

/// Endpoints come and terminate; the watch is cut, and told that it is too old.
fn slices(stage: &mut Stage, cluster: &Cluster, api: &mut ApiServer) -> Result<()> {
    stage.step("an endpoint terminates, another one comes");
    let ends = |numbers: &[u8], ending: &[u8]| -> Vec<Endpoint> {
        let ready = servers(numbers).map(Endpoint::ready);
        ready.chain(servers(ending).map(Endpoint::terminating)).collect()
    };
    api.set(ends(&[2, 3], &[1]))?;
    is(cluster, BY_SLICE, "one terminates", &[2, 3], &[1])?;
    stage.claim("an endpoint that terminates keeps its connections", true, "server1");
    api.set(ends(&[1, 2, 3], &[]))?;
    is(cluster, BY_SLICE, "all are ready", &[1, 2, 3], &[])?;

    stage.step("the connection breaks");
    api.bookmark()?;
    let before = api.counts()?;
    api.cut()?;
    await_some("they watch again", LIMIT, || {
        let now = api.counts()?;
        Ok((now.watches >= before.watches + 2).then_some(()))
    })?;
    let now = api.counts()?;
    let resumed = now.lists == before.lists && now.expired == before.expired;
    stage.claim(
        "the watch goes on from the last bookmark",
        resumed,
        format!("{before:?}, {now:?}"),
    );

    stage.step("the version is too old");
    api.forget()?;
    api.cut()?;
    await_some("they list anew", LIMIT, || {
        let lists = api.counts()?.lists;
        Ok((lists >= now.lists + 2).then_some(()))
    })?;
    api.set(ends(&[2, 3], &[1]))?;
    is(cluster, BY_SLICE, "a change is heard", &[2, 3], &[1])?;
    let after = api.counts()?;
    stage.claim("410 leads to a new list", after.expired >= 2, format!("{after:?}"));
    api.set(ends(&[1, 2, 3], &[]))?;
    is(cluster, BY_SLICE, "all are ready", &[1, 2, 3], &[])?;

    stage.step("no endpoint is left");
    api.set(Vec::new())?;
    await_some("that is noticed", LIMIT, || Ok(discovery(cluster, 0, BY_SLICE)?.flaw))
        .map(|flaw| stage.claim("an empty service takes nobody away", true, flaw))?;
    is(cluster, BY_SLICE, "they stay", &[1, 2, 3], &[])
}

/// The token is replaced, then the API is gone, and comes back.
fn api_fails(
    stage: &mut Stage,
    cluster: &Cluster,
    kubernetes: &mut Kubernetes,
    mut api: ApiServer,
) -> Result<ApiServer> {
    stage.step("the token is replaced");
    api.take_token("second")?;
    api.cut()?;
    let why = fails(cluster, BY_SLICE, "401")?;
    kubernetes.write_token("second")?;
    let all: Vec<Endpoint> = servers(&[2, 3]).map(Endpoint::ready).collect();
    api.set(all)?;
    is(cluster, BY_SLICE, "the new token is taken", &[2, 3], &[1])?;
    stage.claim("a token that is replaced is read anew", true, why);

    stage.step("the API is gone");
    api.kill()?;
    let why = fails(cluster, BY_SLICE, "")?;
    is(cluster, BY_SLICE, "they stay", &[2, 3], &[1])?;
    stage.claim("the last known set is kept without the API", true, why);
    let mut api = kubernetes.start(cluster, "second", 1000)?;
    api.set(servers(&[1, 2, 3]).map(Endpoint::ready).collect())?;
    is(cluster, BY_SLICE, "it is heard again", &[1, 2, 3], &[])?;
    stage.claim("the API is heard again", true, "another process of it");
    Ok(api)
}

/// What an agent needs to get to the API.
struct Kubernetes {
    kubeconfig: PathBuf,
    token: PathBuf,
    listen: SocketAddr,
}

impl Kubernetes {
    fn new(cluster: &Cluster) -> Result<Self> {
        let folder = cluster.lab.directory();
        let (kubeconfig, token) = (folder.join("kubeconfig"), folder.join("token"));
        let listen = SocketAddr::new(address(API, Family::V4), 16443);
        let authority = &cluster.certificate.authority;
        let mut text = String::from("apiVersion: v1\nkind: Config\ncurrent-context: lab\n");
        text.push_str("contexts: [{ name: lab, context: { cluster: lab, user: lab } }]\n");
        let _ = writeln!(
            text,
            "clusters: [{{ name: lab, cluster: {{ server: 'https://{listen}', certificate-authority: {authority:?} }} }}]"
        );
        text.push_str("users: [{ name: lab, user: { tokenFile: token } }]\n");
        std::fs::write(&kubeconfig, text).context("the kubeconfig")?;
        let kubernetes = Self { kubeconfig, token, listen };
        kubernetes.write_token("first")?;
        Ok(kubernetes)
    }

    fn write_token(&self, token: &str) -> Result<()> {
        let next = self.token.with_extension("next");
        std::fs::write(&next, token).context("a token")?;
        std::fs::rename(next, &self.token).context("a token")
    }

    fn start(&mut self, cluster: &Cluster, token: &str, version: u64) -> Result<ApiServer> {
        let host = cluster.host(API)?;
        ApiServer::start(&cluster.lab, host, self.listen, &cluster.certificate, (token, version))
    }

    /// The second service of the file.
    fn service(&self, shape: &Shape) -> String {
        format!(
            "\n[[service]]\nname = {BY_SLICE:?}\nport = {PORT}\nbackends = [\"{}\"]\n\
             discover = {{ kubernetes = {{ service = \"api\", kubeconfig = {:?} }} }}\n[service.health]\n{}",
            backend("server1", Mode::Https, Family::V4),
            self.kubeconfig,
            shape.checks,
        )
    }
}

fn servers(numbers: &[u8]) -> impl Iterator<Item = SocketAddr> {
    numbers.iter().map(|n| backend(&format!("server{n}"), Mode::Https, Family::V4))
}

fn backends(cluster: &Cluster, node: usize, service: &str) -> Result<Vec<Backend>> {
    let all = cluster.nodes[node].agent()?.backends()?;
    Ok(all.into_iter().filter(|backend| backend.service == service).collect())
}

fn discovery(cluster: &Cluster, node: usize, service: &str) -> Result<Discovery> {
    let all = cluster.nodes[node].agent()?.services()?;
    let service = all.into_iter().find(|known| known.name == service);
    service.and_then(|service| service.discovery).context("nothing is discovered")
}

/// Waits until every node gives new clients to these servers, and knows that these others leave. Those that leave and
/// have no connection may have gone.
fn is(cluster: &Cluster, service: &str, what: &str, serve: &[u8], leave: &[u8]) -> Result<()> {
    for node in 0..cluster.nodes.len() {
        let what = format!("{service} on {}: {what}", cluster.name_of(node));
        await_some(&what, SETTLE, || {
            let all = backends(cluster, node, service)?;
            let is = |numbers: &[u8], of: &dyn Fn(&Backend) -> bool| {
                servers(numbers).all(|at| all.iter().any(|b| b.address == at && of(b)))
            };
            let accepting = all.iter().filter(|backend| backend.accepting).count();
            let leaving = |b: &Backend| !b.accepting && b.leaving_since.is_some();
            let named = all.iter().filter(|b| b.leaving_since.is_none()).count();
            let gone =
                |number: &u8| !servers(&[*number]).any(|at| all.iter().any(|b| b.address == at));
            let left = leave.iter().all(|number| gone(number) || is(&[*number], &leaving));
            let served = is(serve, &|b| b.accepting) && accepting == serve.len();
            Ok((served && left && named == serve.len()).then_some(()))
        })
        .with_context(|| format!("{:?}", backends(cluster, node, service)))?;
    }
    Ok(())
}

/// Waits until every node says that nobody tells, for this reason, which the first node's answer is.
fn fails(cluster: &Cluster, service: &str, reason: &str) -> Result<String> {
    let mut said = Vec::new();
    for node in 0..cluster.nodes.len() {
        let what = format!("{} hears nothing of {service}: {reason}", cluster.name_of(node));
        said.push(await_some(&what, LIMIT, || {
            let failure = discovery(cluster, node, service)?.failure;
            Ok(failure.filter(|why| why.contains(reason)))
        })?);
    }
    said.into_iter().next().context("no node")
}
