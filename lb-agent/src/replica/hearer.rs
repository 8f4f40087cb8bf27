//! Listens to the peers, and takes over the flows that they tell of.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::Shared;
use super::adoption::told;
use super::board::Refusal;
use super::channel::{Channel, ChannelError};
use super::record::Record;
use super::words::{Word, WordError};
use crate::dataplane::{Adopted, DataPlaneError};

/// Until it is tried once more to listen: the agent before this one may have the port still, or the interface has
/// its address later.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
enum HearError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Flows(#[from] DataPlaneError),
    #[error("{0} is no other node of the configuration, or does not have this address")]
    Stranger(String),
    #[error(transparent)]
    Adopting(#[from] tokio::task::JoinError),
}

/// Up to which look of which run each peer was heard.
type Heard = Arc<Mutex<HashMap<usize, (u64, u64)>>>;

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>, listen: SocketAddr) {
    let listener = loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => break listener,
            Err(error) => debug!(%listen, %error, "cannot listen for other nodes' NAT flows yet"),
        }
        sleep(PAUSE).await;
    };
    let heard = Heard::default();
    let mut tasks = JoinSet::new();
    // One connection of each peer: a new one means that the former is dead.
    let mut of_peer: HashMap<usize, AbortHandle> = HashMap::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "accepting another node");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Some(place) = peer_at(&shared, from.ip()) else {
            shared.board.refused(None, Refusal::Stranger);
            continue;
        };
        let task = tasks.spawn(hear(Arc::clone(&shared), place, Arc::clone(&heard), stream));
        if let Some(former) = of_peer.insert(place, task) {
            former.abort();
        }
    }
}

fn peer_at(shared: &Shared, address: IpAddr) -> Option<usize> {
    let address = address.to_canonical();
    shared.settings.peers.iter().position(|peer| peer.addresses.contains(&address))
}

async fn hear(shared: Arc<Shared>, place: usize, heard: Heard, stream: TcpStream) {
    let Err(error) = converse(&shared, place, &heard, stream).await;
    shared.board.hears(place, false);
    let peer = &shared.settings.peers[place].name;
    match refusal(&error) {
        Some(refusal) => {
            shared.board.refused(Some(place), refusal);
            warn!(peer, %error, "what another node says of NAT flows is refused");
        }
        None => info!(peer, %error, "another node tells of its NAT flows no more"),
    }
}

const fn refusal(error: &HearError) -> Option<Refusal> {
    match error {
        HearError::Channel(ChannelError::Key(_)) => Some(Refusal::Key),
        HearError::Channel(ChannelError::Word(WordError::Version(_))) => Some(Refusal::Version),
        HearError::Channel(ChannelError::Word(_)) => Some(Refusal::Malformed),
        HearError::Stranger(_) => Some(Refusal::Stranger),
        HearError::Channel(_) | HearError::Flows(_) | HearError::Adopting(_) => None,
    }
}

async fn converse(
    shared: &Arc<Shared>,
    place: usize,
    heard: &Heard,
    stream: TcpStream,
) -> Result<std::convert::Infallible, HearError> {
    stream.set_nodelay(true).map_err(ChannelError::from)?;
    let mut channel = Channel::answer(stream, &shared.settings.key).await?;
    let Word::Hello { run, node } = channel.hear().await? else { return Err(out_of_turn()) };
    let peer = &shared.settings.peers[place];
    if peer.name != node {
        return Err(HearError::Stranger(node));
    }
    let lock = || heard.lock().unwrap_or_else(PoisonError::into_inner);
    let last = lock().get(&place).copied().filter(|(of, _)| *of == run);
    let (of, look) = last.unwrap_or_default();
    channel.say(&Word::Welcome { run: of, look }).await?;
    shared.board.hears(place, true);
    info!(peer = peer.name, resumed = last.is_some(), "another node tells of its NAT flows");
    loop {
        match channel.hear().await? {
            Word::Flows(records) => take(shared, place, records).await?,
            Word::Mark { look } => {
                lock().insert(place, (run, look));
                shared.board.told(place);
                channel.say(&Word::Heard { look }).await?;
            }
            _ => return Err(out_of_turn()),
        }
    }
}

fn out_of_turn() -> HearError {
    ChannelError::from(WordError::OutOfTurn).into()
}

/// Takes over the flows of a batch, beside the runtime's other work.
async fn take(shared: &Arc<Shared>, place: usize, records: Vec<Record>) -> Result<(), HearError> {
    let shared = Arc::clone(shared);
    let taking = tokio::task::spawn_blocking(move || -> Result<(), DataPlaneError> {
        let ways = shared.ways.now();
        let now_ns = shared.flows.now_ns();
        let mut adopted = 0;
        for record in &records {
            let outcome = match ways.adopt(record, now_ns) {
                Ok(flow) => refused(shared.flows.adopt(&flow, told(record, now_ns))?),
                Err(refusal) => Err(refusal),
            };
            match outcome {
                Ok(is_new) => adopted += u64::from(is_new),
                Err(refusal) => shared.board.refused(Some(place), refusal),
            }
        }
        shared.board.received(place, records.len() as u64, adopted);
        Ok(())
    });
    Ok(taking.await??)
}

/// Whether it is new, or why it was not taken.
const fn refused(adopted: Adopted) -> Result<bool, Refusal> {
    match adopted {
        Adopted::New => Ok(true),
        Adopted::Known => Ok(false),
        Adopted::PortTaken => Err(Refusal::PortTaken),
        Adopted::Differs => Err(Refusal::Differs),
        Adopted::Full => Err(Refusal::Full),
    }
}
