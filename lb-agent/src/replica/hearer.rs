//! Listens to the peers, and takes over the flows that they tell of.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
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
    #[error("it has another connection")]
    Former,
    #[error(transparent)]
    Adopting(#[from] tokio::task::JoinError),
}

/// Connections at one time, of which most have not said yet who they are: whoever has a peer's address and not the
/// key can have no more.
const CONNECTIONS_MAX: usize = 64;

/// How far each peer was heard.
#[derive(Debug, Default)]
struct Heard(Mutex<HashMap<usize, Position>>);

#[derive(Clone, Copy, Debug, Default)]
struct Position {
    /// Up to which look of which run.
    run: u64,
    look: u64,
    /// The peer's last connection that had the key: a former one is dead, or soon will be.
    connection: u64,
}

impl Heard {
    fn of(&self, place: usize) -> Position {
        let positions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        positions.get(&place).copied().unwrap_or_default()
    }

    fn set(&self, place: usize, position: Position) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(place, position);
    }
}

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>, listen: SocketAddr) {
    let listener = loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => break listener,
            Err(error) => debug!(%listen, %error, "cannot listen for other nodes' NAT flows yet"),
        }
        sleep(PAUSE).await;
    };
    let heard = Arc::new(Heard::default());
    let mut tasks = JoinSet::new();
    for connection in 1.. {
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
        if tasks.len() >= CONNECTIONS_MAX {
            shared.board.refused(Some(place), Refusal::Busy);
            continue;
        }
        let one = One { shared: Arc::clone(&shared), heard: Arc::clone(&heard), place, connection };
        tasks.spawn(one.hear(stream));
    }
}

fn peer_at(shared: &Shared, address: IpAddr) -> Option<usize> {
    let address = address.to_canonical();
    shared.settings.peers.iter().position(|peer| peer.addresses.contains(&address))
}

/// A connection.
struct One {
    shared: Arc<Shared>,
    heard: Arc<Heard>,
    /// The peer's, whose address it comes from.
    place: usize,
    connection: u64,
}

impl One {
    async fn hear(self, stream: TcpStream) {
        let Err(error) = self.converse(stream).await;
        let board = &self.shared.board;
        if self.is_current() {
            board.hears(self.place, false);
        }
        let peer = &self.shared.settings.peers[self.place].name;
        match refusal(&error) {
            Some(refusal) => {
                board.refused(Some(self.place), refusal);
                warn!(peer, %error, "what another node says of NAT flows is refused");
            }
            None => {
                info!(event = "nat-sync", peer, %error, "another node tells of its NAT flows no more")
            }
        }
    }

    fn is_current(&self) -> bool {
        self.heard.of(self.place).connection == self.connection
    }

    async fn converse(&self, stream: TcpStream) -> Result<Infallible, HearError> {
        let Self { shared, heard, place, connection } = self;
        stream.set_nodelay(true).map_err(ChannelError::from)?;
        let mut channel = Channel::answer(stream, &shared.settings.key).await?;
        let Word::Hello { run, node } = channel.hear().await? else { return Err(out_of_turn()) };
        let peer = &shared.settings.peers[*place];
        if peer.name != node {
            return Err(HearError::Stranger(node));
        }
        let last = heard.of(*place);
        let is_resumed = last.run == run && last.look > 0;
        let mut now =
            Position { run, look: if is_resumed { last.look } else { 0 }, connection: *connection };
        heard.set(*place, now);
        channel.say(&Word::Welcome { run, look: now.look }).await?;
        shared.board.hears(*place, true);
        info!(
            event = "nat-sync",
            peer = peer.name,
            resumed = is_resumed,
            "another node tells of its NAT flows"
        );
        loop {
            let word = channel.hear().await?;
            if !self.is_current() {
                return Err(HearError::Former);
            }
            match word {
                Word::Flows(records) => take(shared, *place, records).await?,
                Word::Mark { look } => {
                    now.look = look;
                    heard.set(*place, now);
                    shared.board.told(*place);
                    channel.say(&Word::Heard { look }).await?;
                }
                _ => return Err(out_of_turn()),
            }
        }
    }
}

const fn refusal(error: &HearError) -> Option<Refusal> {
    match error {
        HearError::Channel(ChannelError::Key(_)) => Some(Refusal::Key),
        HearError::Channel(ChannelError::Word(WordError::Version(_))) => Some(Refusal::Version),
        HearError::Channel(ChannelError::Word(_)) => Some(Refusal::Malformed),
        HearError::Stranger(_) => Some(Refusal::Stranger),
        HearError::Channel(_)
        | HearError::Flows(_)
        | HearError::Former
        | HearError::Adopting(_) => None,
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
