//! `lbctl flows`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::explain::{Endpoint, delivery};
use super::failure::Failure;
use super::screen::{Screen, Tone};
use crate::control::api::{Flow, FlowLine, FlowsEnd, FlowsRequest, Protocol};
use crate::control::client::Client;

/// How often it is looked again, to follow.
const LOOK: Duration = Duration::from_secs(1);

/// More flows than this are not followed: all of them are kept, to know which are new.
const FOLLOWED_MAX: usize = 65_536;

/// List the connections that this node knows: whose, to which backend, how
///
/// Those to servers on this node are its sockets. Those through NAT are its translations. Those that it carries to other
/// nodes it knows by what it noted of them: of services whose clients are told of a backend's end (reset_clients), once
/// the client has sent something, and by the backend that they most probably have.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "\
Examples:
  lbctl flows --client 192.0.2.7
  lbctl flows --backend 192.168.139.134:6443 --limit 0 -o json    all of them, one to a line
  lbctl flows --service kube-apiserver --follow                   + those that come, - those that go")]
pub struct Arguments {
    /// Only those of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only those of this client
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    client: Option<Endpoint>,
    /// Only those to this backend
    #[arg(long, value_name = "ADDRESS:PORT")]
    backend: Option<SocketAddr>,
    /// So many at most; 0 for all
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: u64,
    /// Look again each second, and tell which have come and which have gone
    #[arg(short, long)]
    follow: bool,
}

impl Arguments {
    fn request(&self) -> FlowsRequest {
        FlowsRequest {
            service: self.service.clone(),
            client: self.client.map(|Endpoint(address, _)| address),
            client_port: self.client.and_then(|Endpoint(_, port)| port),
            backend: self.backend,
            // To know what has gone takes all of them.
            limit: (self.limit > 0 && !self.follow).then_some(self.limit),
        }
    }
}

pub(super) async fn run(
    arguments: &Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let request = arguments.request();
    if arguments.follow {
        return follow(&request, client, screen).await;
    }
    if screen.is_for_people() {
        screen.line(&heading())?;
    }
    let end = each(&request, client, |flow| show(&flow, None, screen)).await?;
    if end.more && screen.is_for_people() {
        let limit = arguments.limit;
        screen.line(&format!("these are {limit}; there may be more (--limit 0 for all)"))?;
    }
    Ok(())
}

/// Hands each flow on as it comes.
async fn each(
    request: &FlowsRequest,
    client: &Client,
    mut told: impl FnMut(Flow) -> Result<(), Failure>,
) -> Result<FlowsEnd, Failure> {
    let mut lines = client.flows(request).await?;
    while let Some(line) = lines.next().await? {
        match line {
            FlowLine::Flow(flow) => told(*flow)?,
            FlowLine::End(end) => return Ok(end),
            FlowLine::Failed(why) => return Err(Failure::Flows(why)),
        }
    }
    Err(Failure::Flows("the answer broke off".to_owned()))
}

async fn follow(
    request: &FlowsRequest,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let mut known: HashMap<(SocketAddr, SocketAddr, Protocol), Flow> = HashMap::new();
    loop {
        let mut now = HashMap::new();
        each(request, client, |flow| {
            let key = (flow.client, flow.address, flow.protocol);
            if now.len() >= FOLLOWED_MAX {
                return Err(Failure::TooManyFlows(FOLLOWED_MAX));
            }
            if known.remove(&key).is_none() {
                show(&flow, Some(Change::Came), screen)?;
            }
            now.insert(key, flow);
            Ok(())
        })
        .await?;
        for gone in known.values() {
            show(gone, Some(Change::Went), screen)?;
        }
        screen.flush()?;
        known = now;
        sleep(LOOK).await;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Came,
    Went,
}

fn heading() -> String {
    row([
        "CLIENT", "ADDRESS", "SERVICE", "BACKEND", "DELIVERY", "STATE", "AGE", "IDLE", "PACKETS",
        "BYTES",
    ]
    .map(str::to_owned))
}

/// Flows come one after the other, however many there are: columns have widths that most fit in.
fn row(cells: [String; 10]) -> String {
    const WIDTHS: [usize; 10] = [21, 21, 16, 21, 8, 11, 7, 7, 8, 8];
    let cells = cells.into_iter().zip(WIDTHS);
    let text: String = cells.map(|(cell, width)| format!("{cell:<width$}  ")).collect();
    text.trim_end().to_owned()
}

fn show(flow: &Flow, change: Option<Change>, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if !screen.is_for_people() {
        let line = match change {
            None => serde_json::json!(flow),
            Some(Change::Came) => serde_json::json!({ "came": flow }),
            Some(Change::Went) => serde_json::json!({ "went": flow }),
        };
        return screen.datum(&line).map(drop);
    }
    let sign = match change {
        None => String::new(),
        Some(Change::Came) => screen.painted(Tone::Good, "+ "),
        Some(Change::Went) => screen.painted(Tone::Doubtful, "- "),
    };
    let seconds = |seconds: f64| format!("{seconds:.1}s");
    let some = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let cells = [
        flow.client.to_string(),
        flow.address.to_string(),
        flow.service.clone(),
        some(flow.backend.map(|backend| backend.to_string())),
        delivery(flow.delivery).to_owned(),
        some(flow.state.clone()),
        some(flow.age_seconds.map(seconds)),
        seconds(flow.idle_seconds),
        some(flow.packets.map(|packets| packets.to_string())),
        some(flow.bytes.map(|bytes| bytes.to_string())),
    ];
    // What comes over the API is not to break a line or drive a terminal.
    let text: String = row(cells).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    screen.line(&format!("{sign}{text}"))
}
