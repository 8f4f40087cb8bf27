//! What becomes of a client's packet: what the agent expects, and what the loaded program does with such a packet.

use std::net::SocketAddr;

use lb_common::Address;
use lb_common::backend::{ACCEPTS, ALIVE, Delivery};
use lb_common::bucket::{NONE, chance, slot};
use lb_common::counter::{Outcome, Verdict};
use lb_common::flow::FlowKey;
use lb_common::hash::client_hash;
use lb_common::service::{HASH_PORT, PROTECTED, STAYS, TCP, UDP};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::core::Agent;
use crate::config::Protocol;
use crate::control::api::{self, ExplainRequest, Segment};
use crate::control::server::Refusal;
use crate::dataplane::{Attached, Ran, TrialError};
use crate::explain::{Choice, Expected, Origin, Passed, Question, Rank, Seen, choose, seen};
use crate::netlink::{Mac, mac_text};
use crate::plan::{PlannedBackend, PlannedService};

/// Where the frame comes from that no other node has carried: locally administered, and nobody's.
const CLIENTS_MAC: Mac = [0x02, 0x6c, 0x62, 0, 0, 0x01];

/// From here on a port is taken for a client that is named without one (RFC 6335).
const EPHEMERAL: u16 = 49_152;

/// How often it is asked, until no other packet falls in between that may have had the same verdict.
const TRIES: u32 = 4;

/// How many ports are tried until one has no flow here.
const PORTS_TRIED: usize = 8;

/// What is asked, as the agent sees it.
struct Case<'a> {
    question: Question,
    origin: Origin,
    on: &'a Attached,
    service: Option<&'a PlannedService>,
    /// By rank, with what the choice knows of each.
    ranks: Vec<(&'a PlannedBackend, Rank)>,
    table: Option<api::ExplainedTable>,
    choice: Choice,
}

impl Agent {
    /// Explains a client's packet to a VIP.
    pub(super) fn explain(&self, request: &ExplainRequest) -> Result<api::Explanation, Refusal> {
        let refused = |sentence: String| Refusal { callers: true, sentence };
        let failed = |error: &dyn std::fmt::Display| Refusal {
            callers: false,
            sentence: format!("the packet cannot be tried: {error}"),
        };
        let case = self.case(request).map_err(refused)?;
        let translations = self.dataplane.translations().map_err(|e| failed(&e))?;
        let tuple = tuple(&case.question);
        let known = translations.of(&tuple).map_err(|e| failed(&e))?;
        if known.is_some() && case.question.new && case.question.protocol == Protocol::Tcp {
            return Err(refused(format!(
                "{} has a connection through NAT here, which a SYN would disturb: ask with --established, or name \
                 the client without its port",
                case.question.client
            )));
        }
        let mut case = case;
        let mut tried = 0;
        let (ran, verdict) = loop {
            // Another one each time: a SYN that comes again counts as unanswered.
            case.question.sequence = u32::from_ne_bytes(random().map_err(refused)?);
            let run = self.dataplane.run(case.on, &case.question.frame());
            // Whatever came of it: nobody is to find what it left.
            if known.is_none()
                && let Some(made) = translations.of(&tuple).map_err(|e| failed(&e))?
            {
                translations.forget(&made).map_err(|e| failed(&e))?;
            }
            let ran = run.map_err(|e: TrialError| failed(&e))?;
            tried += 1;
            let verdict = verdict(&case, &ran);
            if verdict.is_some() || tried == TRIES {
                break (ran, verdict);
            }
        };
        let mut told = self.explanation(request, &case, &ran, verdict);
        told.left = traces(&case, verdict, tried);
        if known.is_some() {
            told.left.push("that client's NAT flow, which was used and lives on".to_owned());
        }
        Ok(told)
    }

    fn case(&self, request: &ExplainRequest) -> Result<Case<'_>, String> {
        let ExplainRequest { client, address, protocol, segment, .. } = *request;
        if client.is_ipv4() != address.is_ipv4() {
            return Err(format!("{client} and {address} are of different families"));
        }
        let origin = match &request.from_peer {
            None => Origin::Outside,
            Some(name) => Origin::Peer(self.peers_mac(name, address)?),
        };
        let on = self.asked_interface(request)?;
        let mac = self.network.link(on.index).and_then(|link| link.mac);
        let mac = mac.ok_or_else(|| format!("{} has no MAC: no frame is for it", on.name))?;
        let new = protocol == Protocol::Udp || segment == Segment::Syn;
        let question = Question {
            client: SocketAddr::new(client, request.client_port.unwrap_or(0)),
            to: address,
            protocol,
            new,
            source_mac: match origin {
                Origin::Outside => CLIENTS_MAC,
                Origin::Peer(mac) => mac,
            },
            mac,
            sequence: 0,
        };
        let question = match request.client_port {
            Some(_) => question,
            None => self.with_a_port(question)?,
        };
        let number = if protocol == Protocol::Tcp { TCP } else { UDP };
        let service = self.services.iter().find(|service| {
            service.address == address.ip()
                && service.key.port_be == address.port().to_be()
                && service.key.protocol == number
        });
        let (ranks, table) = service.map_or_else(Default::default, |s| ranks(s, question.client));
        let chance = table.as_ref().map_or(0, |table: &api::ExplainedTable| table.chance);
        let deciding: Vec<Rank> = ranks.iter().map(|(_, rank)| *rank).collect();
        let choice = choose(&deciding, new, origin, chance);
        Ok(Case { question, origin, on, service, ranks, table, choice })
    }

    fn asked_interface(&self, request: &ExplainRequest) -> Result<&Attached, String> {
        let attached = self.dataplane.attached();
        if let Some(name) = &request.interface {
            let found = attached.iter().find(|attached| attached.name == *name);
            return found.ok_or_else(|| format!("interface {name} is not attached (lbctl status)"));
        }
        let held = self.placements.iter().find(|held| held.vip == request.address.ip());
        let of_vip = held.and_then(|held| {
            attached.iter().find(|attached| attached.index == held.interface.index)
        });
        of_vip
            .or_else(|| attached.first())
            .ok_or_else(|| "no interface is attached: lbctl attach IFACE".to_owned())
    }

    /// By which the frames of another node are known.
    fn peers_mac(&self, name: &str, to: SocketAddr) -> Result<Mac, String> {
        let node = self.config.nodes.iter().find(|node| node.name == name);
        let node = node.filter(|node| node.name != self.node);
        let node = node.ok_or_else(|| format!("{name} is no other node (lbctl nodes)"))?;
        let mut same = node.addresses.iter().filter(|own| own.is_ipv4() == to.is_ipv4());
        let any = same.next().or_else(|| node.addresses.first());
        let hop = any.and_then(|&address| self.network.resolve(address).ok());
        let mac = hop.as_ref().and_then(|hop| {
            hop.mac.or_else(|| self.known_macs.get(&(hop.ifindex, hop.neighbour)).copied())
        });
        mac.ok_or_else(|| {
            format!("the MAC of {name} is not known: it does not answer (lbctl nodes)")
        })
    }

    /// With a port that no flow of this client has here.
    fn with_a_port(&self, mut question: Question) -> Result<Question, String> {
        let translations = self.dataplane.translations().map_err(|error| error.to_string())?;
        for _ in 0..PORTS_TRIED {
            question.client.set_port(EPHEMERAL | u16::from_ne_bytes(random()?));
            let known = translations.of(&tuple(&question)).map_err(|error| error.to_string())?;
            if known.is_none() {
                return Ok(question);
            }
        }
        Err(format!("{} has flows on every port that was tried: name one", question.client.ip()))
    }

    fn explanation(
        &self,
        request: &ExplainRequest,
        case: &Case<'_>,
        ran: &Ran,
        verdict: Option<Verdict>,
    ) -> api::Explanation {
        let Case { question, on, service, choice, .. } = case;
        let after = seen(&ran.frame);
        let reached = after.and_then(|after| reached(case, ran.outcome, verdict, after));
        let (agrees, disagreement) =
            agreement(case, ran.outcome, verdict, reached.map(|(backend, _)| backend));
        let sent = after.filter(|_| ran.outcome == Outcome::Forward);
        api::Explanation {
            client: question.client,
            address: question.to,
            protocol: question.protocol,
            segment: request.segment,
            from_peer: request.from_peer.clone(),
            interface: on.name.clone(),
            mode: on.mode,
            service: service.map(|s| self.config.services[s.configured].name.clone()),
            table: case.table.clone(),
            ranks: self.explained_ranks(case),
            expected: expected_rank(choice.expected).map(|rank| case.ranks[rank].0.address),
            expectation: self.expectation(case),
            outcome: ran.outcome.name().to_owned(),
            verdict: verdict.map(|verdict| verdict.name().to_owned()),
            meaning: verdict.map(|verdict| verdict.help().to_owned()),
            backend: reached.map(|(backend, _)| backend.address),
            delivery: reached.map(|(_, delivery)| delivery),
            next_hop_mac: sent.map(|sent| mac_text(sent.mac)),
            next_hop_interface: reached
                .filter(|_| sent.is_some())
                .and_then(|(backend, _)| self.network.link(backend.entry.ifindex))
                .map(|link| link.name.clone()),
            source: sent.map(|sent| sent.source),
            agrees,
            disagreement,
            left: Vec::new(),
        }
    }

    fn explained_ranks(&self, case: &Case<'_>) -> Vec<api::ExplainedRank> {
        let ranks = case.ranks.iter().zip(&case.choice.passed).enumerate();
        let explained = ranks.map(|(at, ((backend, rank), passed))| {
            let node = self.config.node_of(backend.address.ip());
            api::ExplainedRank {
                rank: at as u32 + 1,
                backend: backend.address,
                node: node.map(|node| node.name.clone()),
                delivery: api_delivery(rank.delivery),
                accepting: rank.accepts,
                alive: rank.alive,
                passed_over: passed.map(|passed| self.why(case, backend, passed)),
            }
        });
        explained.collect()
    }

    /// Why a backend is passed over, with what is known of it.
    fn why(&self, case: &Case<'_>, backend: &PlannedBackend, passed: Passed) -> String {
        let reason = || {
            let service = case.service.map_or(0, |service| service.configured);
            let why = self.why_so(service, backend.place);
            why.unwrap_or_else(|| self.health_of(service, backend.address).reason)
        };
        match passed {
            Passed::NoWay => format!("no way to it: {}", backend.reason),
            Passed::NotAccepting => format!("takes no new connections: {}", reason()),
            Passed::NotAlive => format!("down: {}", reason()),
            Passed::Reluctant => format!("not this client's yet: {}", reason()),
            Passed::NotItsTurn => "it had its turn before this node".to_owned(),
            Passed::ByEntries => "segments of its connections go by NAT entries".to_owned(),
            Passed::Later => "an earlier one gets it".to_owned(),
        }
    }

    fn expectation(&self, case: &Case<'_>) -> String {
        let name = |rank: usize| case.ranks[rank].0.address.to_string();
        let otherwise = |rank: Option<usize>| rank.map_or_else(|| "nobody".to_owned(), name);
        if case.service.is_none() {
            let known = self.config.virtual_addresses.contains(&case.question.to.ip());
            return match known {
                true => "no service has that port (lbctl services)".to_owned(),
                false => "no virtual address of ours (lbctl status)".to_owned(),
            };
        }
        match case.choice.expected {
            Expected::Rank(rank) => format!("goes to {}", name(rank)),
            Expected::Here { rank: Some(rank), otherwise: next } if case.question.new => {
                format!("{} here if it listens, else {}", name(rank), otherwise(next))
            }
            Expected::Here { otherwise: next, .. } => {
                format!("here if a socket has the connection, else {}", otherwise(next))
            }
            Expected::Nobody => "nobody takes it: this node's stack refuses".to_owned(),
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| "the kernel gives no random numbers".to_owned())?;
    Ok(bytes)
}

fn tuple(question: &Question) -> FlowKey {
    FlowKey {
        source: question.client.ip().into(),
        destination: question.to.ip().into(),
        source_port_be: question.client.port().to_be(),
        destination_port_be: question.to.port().to_be(),
        protocol: if question.protocol == Protocol::Tcp { TCP } else { UDP },
        padding: [0; 3],
    }
}

type Ranked<'a> = (Vec<(&'a PlannedBackend, Rank)>, Option<api::ExplainedTable>);

/// The backends that the client's bucket ranks.
fn ranks(service: &PlannedService, client: SocketAddr) -> Ranked<'_> {
    let buckets = service.table.buckets();
    // As after every plan: the kernel has them.
    service.table.release();
    let by_port = service.flags & HASH_PORT != 0;
    let port_be = if by_port { client.port().to_be() } else { 0 };
    let hash = client_hash(service.seed, &Address::from(client.ip()), port_be);
    let at = slot(hash, service.table.slots());
    let Some(bucket) = buckets.get(at as usize) else { return Ranked::default() };
    let ranked = bucket.ranks.iter().take_while(|rank| **rank != NONE);
    let backends = ranked.filter_map(|&rank| service.backends.get(usize::from(rank)));
    let ranks = backends.map(|backend| (backend, rank(backend))).collect();
    let (slots, chance) = (service.table.slots(), chance(hash));
    (ranks, Some(api::ExplainedTable { bucket: at, slots, by_port, chance }))
}

fn rank(backend: &PlannedBackend) -> Rank {
    let entry = &backend.entry;
    let all = [Delivery::Local, Delivery::Direct, Delivery::Nat, Delivery::Tunnel];
    Rank {
        delivery: all.into_iter().find(|it| *it as u8 == entry.delivery).unwrap_or(Delivery::None),
        alive: entry.state & ALIVE != 0,
        accepts: entry.state & ACCEPTS != 0,
        reluctance: entry.reluctance,
        mac: entry.mac,
    }
}

const fn api_delivery(delivery: Delivery) -> api::Delivery {
    match delivery {
        Delivery::Local => api::Delivery::Local,
        Delivery::Direct => api::Delivery::Direct,
        Delivery::Nat => api::Delivery::Nat,
        Delivery::None | Delivery::Tunnel => api::Delivery::Unresolved,
    }
}

const fn expected_rank(expected: Expected) -> Option<usize> {
    match expected {
        Expected::Rank(rank) | Expected::Here { rank: Some(rank), .. } => Some(rank),
        Expected::Here { rank: None, otherwise } => otherwise,
        Expected::Nobody => None,
    }
}

/// The packet's own among the verdicts that fell; none where several would explain it.
fn verdict(case: &Case<'_>, ran: &Ran) -> Option<Verdict> {
    let after = seen(&ran.frame);
    let translated = after.is_some_and(|after| after.destination != case.question.to);
    let fits = |verdict: Verdict| {
        let outcome = match verdict.outcome() {
            Outcome::Deliver => Outcome::Pass,
            outcome => outcome,
        };
        let is_nat = matches!(verdict, Verdict::NatNew | Verdict::NatForward);
        outcome == ran.outcome
            && is_possible(case, verdict)
            && (outcome != Outcome::Forward || is_nat == translated)
    };
    let mut fitting = ran.rose.iter().copied().filter(|verdict| fits(*verdict));
    let first = fitting.next();
    first.filter(|_| fitting.next().is_none())
}

/// Whether such a packet can get that verdict at all: docs/packet-path.md.
fn is_possible(case: &Case<'_>, verdict: Verdict) -> bool {
    use Verdict as V;
    if case.service.is_none() {
        return matches!(
            verdict,
            V::NoService
                | V::NoServiceDropped
                | V::NotOurs
                | V::NatUnknown
                | V::NatReturn
                | V::OtherHost
                | V::NotReady
        );
    }
    let tcp = case.question.protocol == Protocol::Tcp;
    let new = case.question.new;
    match verdict {
        V::LocalNew | V::SynCookie => new && tcp,
        V::LocalUdp => !tcp,
        V::DirectNew => new,
        V::LocalEstablished | V::LocalCookie | V::DirectLast | V::Nobody => !new,
        V::DirectEstablished | V::DirectNext => !new || !tcp,
        V::NatNew
        | V::NatForward
        | V::NatExhausted
        | V::NatFull
        | V::NoBackend
        | V::SynDropped
        | V::Denied
        | V::NotAllowed
        | V::RateLimited
        | V::ConnectionLimited
        | V::Inconsistent
        | V::NotReady
        | V::OtherHost
        | V::OtherVlan
        | V::TooBig
        | V::IcmpTooBig => true,
        _ => false,
    }
}

/// Whom the frame goes to, by what is in it.
fn reached<'a>(
    case: &Case<'a>,
    outcome: Outcome,
    verdict: Option<Verdict>,
    after: Seen,
) -> Option<(&'a PlannedBackend, api::Delivery)> {
    let find = |delivery: Delivery, fits: &dyn Fn(&PlannedBackend) -> bool| {
        // The expected one first: several may be on one node.
        let expected = expected_rank(case.choice.expected);
        let ranks = expected.into_iter().chain(0..case.ranks.len());
        let mut backends = ranks.map(|rank| &case.ranks[rank]);
        let found = backends.find(|(backend, rank)| rank.delivery == delivery && fits(backend));
        found.map(|(backend, _)| (*backend, api_delivery(delivery)))
    };
    match (outcome, verdict) {
        (Outcome::Forward, _) if after.destination != case.question.to => {
            // By an entry it may be one that the bucket does not rank.
            let all = case.service.map_or(&[][..], |service| &service.backends);
            let found = all.iter().find(|backend| backend.address == after.destination);
            found.map(|backend| (backend, api::Delivery::Nat))
        }
        (Outcome::Forward, _) => find(Delivery::Direct, &|it| it.entry.mac == after.mac),
        (
            Outcome::Pass,
            Some(
                Verdict::LocalNew
                | Verdict::LocalUdp
                | Verdict::LocalEstablished
                | Verdict::LocalCookie,
            ),
        ) => find(Delivery::Local, &|_| true),
        _ => None,
    }
}

/// Whether the program did what was expected; where it did not, what is different.
fn agreement(
    case: &Case<'_>,
    outcome: Outcome,
    verdict: Option<Verdict>,
    reached: Option<&PlannedBackend>,
) -> (bool, Option<String>) {
    use Verdict::{
        ConnectionLimited, Denied, LocalCookie, LocalEstablished, NatForward, NotAllowed,
        RateLimited, SynCookie, SynDropped,
    };
    // Decided before a backend is chosen, or by what only the program knows.
    let before = matches!(
        verdict,
        Some(
            ConnectionLimited
                | Denied
                | NotAllowed
                | RateLimited
                | SynCookie
                | SynDropped
                | NatForward
        )
    );
    let stays = case.service.is_some_and(|service| service.flags & STAYS != 0);
    let here = matches!(verdict, Some(LocalEstablished | LocalCookie));
    let address = |rank: usize| case.ranks[rank].0.address;
    let allowed: Vec<Option<SocketAddr>> = match case.choice.expected {
        _ if case.service.is_none() => vec![None],
        Expected::Rank(rank) => vec![Some(address(rank))],
        Expected::Here { rank, otherwise } => vec![rank.map(address), otherwise.map(address)],
        Expected::Nobody => vec![None],
    };
    let found = reached.map(|backend| backend.address);
    // A packet that is passed looks as before: only the verdict says to whom.
    let untold = verdict.is_none() && outcome == Outcome::Pass;
    let of_sockets = here && matches!(case.choice.expected, Expected::Here { .. });
    if before || stays || untold || of_sockets || allowed.contains(&found) {
        return (true, None);
    }
    let name = |backend: Option<SocketAddr>| {
        backend.map_or_else(|| "nobody".to_owned(), |backend| backend.to_string())
    };
    let expected: Vec<String> = allowed.into_iter().map(name).collect();
    let verdict = verdict.map_or("several verdicts fell", Verdict::name);
    let sentence = format!(
        "the program sends it to {} ({verdict}), and not to {}: the maps differ from what the agent knows, or \
         changed this moment; ask again, and report it",
        name(found),
        expected.join(" or ")
    );
    (false, Some(sentence))
}

/// What the packet has left behind, and what counts it.
fn traces(case: &Case<'_>, verdict: Option<Verdict>, tried: u32) -> Vec<String> {
    let named = verdict
        .map_or_else(|| "of its verdict".to_owned(), |verdict| format!("`{}`", verdict.name()));
    let packets = if tried == 1 { "packet" } else { "packets" };
    let mut left = vec![format!("{tried} {packets} more {named}, and at the backend's counters")];
    if case.question.new
        && case.origin == Origin::Outside
        && case.question.protocol == Protocol::Tcp
    {
        left.push(format!("{tried} more of that backend's connections, as they are counted"));
    }
    let Some(service) = case.service else {
        left.truncate(1);
        return left;
    };
    if let Expected::Here { rank: Some(rank), .. } = case.choice.expected
        && case.question.new
        && !matches!(verdict, Some(Verdict::LocalNew | Verdict::LocalUdp | Verdict::SynCookie))
    {
        let backend = case.ranks[rank].0.address;
        left.push(format!("{tried} refused connections more of {backend}, if it did not listen"));
    }
    if service.flags & PROTECTED != 0 && case.question.new {
        left.push(format!("{tried} new connections of that client, where the service limits them"));
    }
    if service.flags & STAYS != 0 && case.question.protocol == Protocol::Udp {
        left.push("the backend of that client and port is remembered".to_owned());
    }
    left
}
