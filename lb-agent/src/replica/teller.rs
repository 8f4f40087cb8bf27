//! Tells one peer of this node's flows, for as long as this node synchronises.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::adoption::Ways;
use super::channel::{Channel, ChannelError};
use super::journal::Journal;
use super::record::Record;
use super::words::{FLOWS_MAX, Word, WordError};
use super::{Peer, Shared};
use crate::dataplane::{DataPlaneError, Translations};

/// For a peer to be reached. One that is there answers at once; for one that is not a node that starts waits so long.
const CONNECTING: Duration = Duration::from_secs(1);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two looks at the map; at most a twentieth of the time is spent on looking.
const LOOK: Duration = Duration::from_millis(250);
const LOOK_SHARE: u32 = 20;
/// Between two batches: a million flows take about five seconds, a tenth of a link of a gigabit, and leave the peer
/// room for everything else.
const BATCH_PAUSE: Duration = Duration::from_millis(4);

/// Whoever hears nothing for much longer takes the teller for dead.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum TellError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Flows(#[from] DataPlaneError),
    #[error(transparent)]
    Look(#[from] JoinError),
    #[error("no random numbers: {0}")]
    Random(#[from] ring::error::Unspecified),
}

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>, place: usize) {
    let mut teller = Teller { journal: Journal::default(), shared, place, run: 0 };
    loop {
        let begun = Instant::now();
        let Err(error) = teller.tell().await;
        let name = &teller.peer().name;
        if teller.shared.board.failed(place, begun, &error.to_string()) {
            warn!(event = "nat-sync", peer = name, %error, "NAT flows are not told to another node");
        }
        sleep(PAUSE).await;
    }
}

struct Teller {
    shared: Arc<Shared>,
    place: usize,
    /// Empty while it is looked.
    journal: Journal,
    /// A number for all connections of this one, by which the peer knows that looks are counted on; 0 before the
    /// first.
    run: u64,
}

impl Teller {
    fn peer(&self) -> &Peer {
        &self.shared.settings.peers[self.place]
    }

    /// One connection, until it ends. What was told before counts.
    async fn tell(&mut self) -> Result<Infallible, TellError> {
        if self.run == 0 {
            let mut run = [0; 8];
            SystemRandom::new().fill(&mut run)?;
            self.run = u64::from_ne_bytes(run) | 1;
        }
        let mut channel = self.connect().await?;
        channel
            .say(&Word::Hello { run: self.run, node: self.shared.settings.node.clone() })
            .await?;
        let Word::Welcome { run, look } = channel.hear().await? else { return Err(out_of_turn()) };
        let heard = (run == self.run).then_some(look);
        self.journal.resume(heard);
        self.shared.board.connected(self.place);
        info!(
            event = "nat-sync",
            peer = self.peer().name,
            resumed = heard.is_some(),
            "NAT flows are told to another node"
        );
        let mut before = 0;
        loop {
            let begun = Instant::now();
            let (look, flows) = self.look(&mut channel, before).await?;
            mark(&mut channel, look).await?;
            self.journal.end_look();
            self.shared.board.heard(self.place, begun, flows);
            before = look;
            let next = begun + LOOK.max(begun.elapsed() * LOOK_SHARE);
            while let Some(left) = next.checked_duration_since(Instant::now()) {
                sleep(left.min(SIGN_OF_LIFE)).await;
                if left > SIGN_OF_LIFE {
                    mark(&mut channel, look).await?;
                }
            }
        }
    }

    async fn connect(&self) -> Result<Channel<TcpStream>, TellError> {
        let Shared { settings, .. } = &*self.shared;
        let mut last = io::Error::other("it has no address");
        for &address in &self.peer().addresses {
            let to = SocketAddr::new(address, settings.port);
            match timeout(CONNECTING, TcpStream::connect(to)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true).map_err(ChannelError::from)?;
                    return Ok(Channel::begin(stream, &settings.key).await?);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::Error::other(format!("{to} does not answer")),
            }
        }
        Err(ChannelError::from(last).into())
    }

    /// Looks at the map once and tells of what the peer does not know. Returns the look's number, and how many
    /// flows were told of.
    async fn look(
        &mut self,
        channel: &mut Channel<TcpStream>,
        before: u64,
    ) -> Result<(u64, u64), TellError> {
        let mut journal = std::mem::take(&mut self.journal);
        let (flows, ways) = (self.shared.flows.clone(), self.shared.ways.now());
        let look = journal.begin_look(ways.udp_timeout, ways.tcp_timeout);
        // The next batch is gathered while this one is on its way, and no more.
        let (batches, mut gathered) = mpsc::channel(1);
        let looking = tokio::task::spawn_blocking(move || {
            let done = gather(&flows, &ways, &mut journal, &batches);
            (journal, done)
        });
        let told = say_all(channel, &mut gathered, before).await;
        // Whoever looks hears by that that there is nobody to tell.
        drop(gathered);
        let (journal, done) = looking.await?;
        self.journal = journal;
        done?;
        Ok((look, told?))
    }
}

/// Says what is gathered until nothing more is. Returns how many flows that were.
async fn say_all(
    channel: &mut Channel<TcpStream>,
    gathered: &mut mpsc::Receiver<Vec<Record>>,
    before: u64,
) -> Result<u64, TellError> {
    let mut told = 0;
    loop {
        match timeout(SIGN_OF_LIFE, gathered.recv()).await {
            Ok(Some(batch)) => {
                told += batch.len() as u64;
                channel.say(&Word::Flows(batch)).await?;
                sleep(BATCH_PAUSE).await;
            }
            Ok(None) => return Ok(told),
            Err(_) => mark(channel, before).await?,
        }
    }
}

/// Says how far this node is, and waits until that was heard.
async fn mark(channel: &mut Channel<TcpStream>, look: u64) -> Result<(), TellError> {
    channel.say(&Word::Mark { look }).await?;
    match channel.hear().await? {
        Word::Heard { look: heard } if heard == look => Ok(()),
        _ => Err(out_of_turn()),
    }
}

fn out_of_turn() -> TellError {
    ChannelError::from(WordError::OutOfTurn).into()
}

/// Blocks. Ends early where nobody wants more.
fn gather(
    flows: &Translations,
    ways: &Ways,
    journal: &mut Journal,
    batches: &mpsc::Sender<Vec<Record>>,
) -> Result<(), DataPlaneError> {
    let mut batch = Vec::new();
    let mut failed = None;
    flows.for_each(|half| {
        if !journal.may_be_due(half) {
            return true;
        }
        let flow = match flows.of(&half.client) {
            Ok(Some(flow)) if journal.tell(half, &flow) => flow,
            Ok(_) => return true,
            Err(error) => {
                failed = Some(error);
                return false;
            }
        };
        let vip = ways.vips.get(&half.client.destination).map(|end| end.ifindex);
        batch.push(Record::of(&flows.with_hearsay(&flow), vip, flows.now_ns()));
        batch.len() < FLOWS_MAX || batches.blocking_send(std::mem::take(&mut batch)).is_ok()
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    if !batch.is_empty() {
        // Nobody is there to be told where that fails.
        let _ = batches.blocking_send(batch);
    }
    Ok(())
}
