//! `lbctl explain CLIENT VIP:PORT`.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::Outcome;
use super::failure::Failure;
use super::screen::{Screen, Tone};
use super::table::{Cell, Table};
use crate::control::api::{Delivery, ExplainRequest, Explanation, Protocol, Segment};
use crate::control::client::Client;

/// Tell what becomes of a client's packet to a VIP on this node, and why
///
/// The agent works out which backend's turn it is; then a packet as the client would send it goes through the loaded
/// program, which is the one that decides. Nothing is sent. What the packet leaves in counters is told; NAT entries that
/// it makes are removed.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "\
Examples:
  lbctl explain 192.0.2.7 192.168.139.150:8443
  lbctl explain 192.0.2.7:40123 192.168.139.150:8443 --established
  lbctl explain fd00::7 '[fd00::150]:53' --protocol udp
  lbctl explain 192.0.2.7 192.168.139.150:8443 --from-peer master1   as master1 would carry it here

Exit status: 0 told, 1 not told, or agent and program disagree, 2 the command line is wrong.")]
pub struct Arguments {
    /// The client's address; its port, too, where a service hashes by it or a connection is meant
    #[arg(value_name = "CLIENT[:PORT]")]
    client: Endpoint,
    /// Where it sends to
    #[arg(value_name = "VIP:PORT")]
    address: SocketAddr,
    /// The first segment of a connection, as without this
    #[arg(long, conflicts_with = "established")]
    syn: bool,
    /// A later segment of a connection
    #[arg(long)]
    established: bool,
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    protocol: Transport,
    /// As carried here by that node
    #[arg(long, value_name = "NODE")]
    from_peer: Option<String>,
    /// Comes in here instead of on the VIP's interface
    #[arg(long, value_name = "IFACE")]
    interface: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Transport {
    Tcp,
    Udp,
}

/// An address with or without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoint(pub(super) IpAddr, pub(super) Option<u16>);

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address, None));
        }
        let whole = text.parse::<SocketAddr>();
        whole.map(|whole| Self(whole.ip(), Some(whole.port()))).map_err(|_| {
            "write an address, such as 192.0.2.7, or with its port 192.0.2.7:40123 or [fd00::7]:40123"
                .to_owned()
        })
    }
}

pub(super) async fn run(
    arguments: &Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<Outcome, Failure> {
    let Endpoint(address, port) = arguments.client;
    let request = ExplainRequest {
        client: address,
        client_port: port,
        address: arguments.address,
        protocol: match arguments.protocol {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        },
        segment: if arguments.established { Segment::Established } else { Segment::Syn },
        from_peer: arguments.from_peer.clone(),
        interface: arguments.interface.clone(),
    };
    let told = client.explain(&request).await?;
    if !screen.data(&told)? {
        show(&told, screen)?;
    }
    Ok(if told.agrees { Outcome::Done } else { Outcome::Failed })
}

fn show(told: &Explanation, screen: &mut Screen<'_>) -> Result<(), Failure> {
    screen.line(&format!("packet    {}", packet(told)))?;
    match (&told.service, &told.table) {
        (Some(service), Some(table)) => {
            let by = if table.by_port { "address and port" } else { "address" };
            let (bucket, slots) = (table.bucket, table.slots);
            screen.line(&format!(
                "service   {service}: by the client's {by} bucket {bucket} of {slots}"
            ))?;
        }
        (service, _) => {
            screen.line(&format!("service   {}", service.as_deref().unwrap_or("none")))?;
        }
    }
    if !told.ranks.is_empty() {
        screen.table(&ranks(told))?;
    }
    screen.line(&format!("expected  {}", told.expectation))?;
    let meaning = told.meaning.as_deref().unwrap_or("others' packets of the same moment hide it");
    let verdict = told.verdict.as_deref().unwrap_or("verdict unknown");
    screen.line(&format!("program   {}, {verdict}: {meaning}", told.outcome))?;
    if let Some(backend) = told.backend {
        screen.line(&format!("goes to   {backend}{}", way(told)))?;
    }
    for left in &told.left {
        screen.line(&format!("left      {left}"))?;
    }
    if let Some(disagreement) = &told.disagreement {
        let word = screen.painted(Tone::Bad, "differ");
        screen.line(&format!("{word}    {disagreement}"))?;
    }
    Ok(())
}

fn packet(told: &Explanation) -> String {
    let kind = match (told.protocol, told.segment) {
        (Protocol::Udp, _) => "UDP",
        (Protocol::Tcp, Segment::Syn) => "TCP, SYN",
        (Protocol::Tcp, Segment::Established) => "TCP, established",
    };
    let peer = told.from_peer.as_ref().map_or_else(String::new, |peer| format!(", from {peer}"));
    let (client, address, interface) = (told.client, told.address, &told.interface);
    format!("{client} to {address}, {kind}, on {interface}{peer}")
}

fn ranks(told: &Explanation) -> Table {
    let mut table = Table::new(vec!["RANK", "BACKEND", "NODE", "DELIVERY", "PASSED OVER"]);
    for rank in &told.ranks {
        table.row(vec![
            Cell::from(rank.rank),
            Cell::from(rank.backend),
            Cell::from(rank.node.as_deref().unwrap_or_default()),
            Cell::from(delivery(rank.delivery)),
            Cell::from(rank.passed_over.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

pub(super) const fn delivery(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Local => "local",
        Delivery::Direct => "direct",
        Delivery::Nat => "nat",
        Delivery::Unresolved => "unresolved",
    }
}

fn way(told: &Explanation) -> String {
    let mut text = told.delivery.map_or_else(String::new, |way| format!(", {}", delivery(way)));
    if told.delivery == Some(Delivery::Nat)
        && let Some(source) = told.source
    {
        text.push_str(&format!(" from {source}"));
    }
    if let Some(mac) = &told.next_hop_mac {
        let interface = told.next_hop_interface.as_deref().unwrap_or("an unknown interface");
        text.push_str(&format!(", by {interface} to {mac}"));
    }
    text
}
