//! How synchronisation stands with each peer, for people, and for the question whether this node may take over.
//! Pure but for the lock and the bell.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// For so long a node waits at most for the flows of another one before it takes over.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a flow that a peer told of was not taken, or what a peer sent was not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Refusal {
    /// The configurations differ, or the backend is not reached by NAT here.
    NoBackend,
    /// Its port is none of `nat.ports`.
    NoPort,
    /// The VIP is on no attached interface.
    NoLink,
    /// Nobody is known who would take frames for the client.
    NoWayBack,
    /// The client is this machine.
    OwnClient,
    /// Its port is another flow's here.
    PortTaken,
    /// The client's connection has another backend or port here.
    Differs,
    /// The map is full.
    Full,
    /// What came was not written by an agent with the same key, or was changed on the way.
    Key,
    /// What came is none of the words.
    Malformed,
    /// Another version.
    Version,
    /// The address, or the name that was said, is no other node's.
    Stranger,
    /// There are too many connections.
    Busy,
}

impl Refusal {
    pub const ALL: [Self; 13] = [
        Self::NoBackend,
        Self::NoPort,
        Self::NoLink,
        Self::NoWayBack,
        Self::OwnClient,
        Self::PortTaken,
        Self::Differs,
        Self::Full,
        Self::Key,
        Self::Malformed,
        Self::Version,
        Self::Stranger,
        Self::Busy,
    ];

    /// As metrics and the API call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoBackend => "no_backend",
            Self::NoPort => "no_port",
            Self::NoLink => "no_link",
            Self::NoWayBack => "no_way_back",
            Self::OwnClient => "own_client",
            Self::PortTaken => "port_taken",
            Self::Differs => "differs",
            Self::Full => "full",
            Self::Key => "key",
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::Stranger => "stranger",
            Self::Busy => "busy",
        }
    }
}

/// How telling a peer goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    NotTried,
    Connected,
    Failed(String),
}

/// What there is to say of a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    pub name: String,
    pub condition: Condition,
    /// It tells this node of its flows.
    pub hears: bool,
    /// Flows that it was told of, each as often as it was.
    pub sent: u64,
    /// Flows that it told of.
    pub received: u64,
    /// Those of them that were not known here, and are now.
    pub adopted: u64,
    pub refused: BTreeMap<Refusal, u64>,
    /// How old what it has heard of this node's flows is; none before it has heard anything.
    pub lag: Option<Duration>,
}

#[derive(Debug)]
struct Peer {
    status: PeerStatus,
    /// When the last look began that it has heard all of.
    heard_at: Option<Instant>,
    /// When it had last told all that it had to tell.
    told_at: Option<Instant>,
    /// When the last attempt to reach it began that failed.
    failed_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    peers: Vec<Peer>,
    /// Of those that no peer sent.
    strangers: u64,
    /// Since when this node wants to know everything before it takes over.
    waits_since: Option<Instant>,
}

/// Of all peers, in the order of the settings.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    bell: Notify,
}

impl Board {
    pub fn new(peers: impl IntoIterator<Item = String>) -> Self {
        let peer = |name| Peer {
            status: PeerStatus {
                name,
                condition: Condition::NotTried,
                hears: false,
                sent: 0,
                received: 0,
                adopted: 0,
                refused: Refusal::ALL.map(|refusal| (refusal, 0)).into(),
                lag: None,
            },
            heard_at: None,
            told_at: None,
            failed_at: None,
        };
        let state = State { peers: peers.into_iter().map(peer).collect(), ..State::default() };
        Self { state: Mutex::new(state), bell: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, place: usize, change: impl FnOnce(&mut Peer)) {
        let mut state = self.lock();
        if let Some(peer) = state.peers.get_mut(place) {
            change(peer);
        }
        if state.waits_since.is_some() {
            self.bell.notify_one();
        }
    }

    /// It was reached.
    pub(super) fn connected(&self, place: usize) {
        self.with(place, |peer| peer.status.condition = Condition::Connected);
    }

    /// It was not reached, or is no more, by an attempt that began then. Returns whether that is news.
    pub(super) fn failed(&self, place: usize, begun: Instant, why: &str) -> bool {
        let mut is_news = false;
        self.with(place, |peer| {
            let failed = Condition::Failed(why.to_owned());
            is_news = peer.status.condition != failed;
            peer.status.condition = failed;
            peer.failed_at = Some(begun);
        });
        is_news
    }

    /// It has heard a look that began then, with so many flows.
    pub(super) fn heard(&self, place: usize, begun: Instant, flows: u64) {
        self.with(place, |peer| {
            peer.heard_at = Some(begun);
            peer.status.sent += flows;
        });
    }

    /// It tells this node of its flows from now on, or no more.
    pub(super) fn hears(&self, place: usize, hears: bool) {
        self.with(place, |peer| peer.status.hears = hears);
    }

    /// It has told of so many flows, of which so many are new here.
    pub(super) fn received(&self, place: usize, flows: u64, adopted: u64) {
        self.with(place, |peer| {
            peer.status.received += flows;
            peer.status.adopted += adopted;
        });
    }

    /// It has told all that it had to tell in a look.
    pub(super) fn told(&self, place: usize) {
        self.with(place, |peer| peer.told_at = Some(Instant::now()));
    }

    /// Something that came from it was not taken. Without a place it came from nobody's address.
    pub(super) fn refused(&self, place: Option<usize>, refusal: Refusal) {
        match place {
            Some(place) => {
                self.with(place, |peer| *peer.status.refused.entry(refusal).or_default() += 1);
            }
            None => self.lock().strangers += 1,
        }
    }

    pub fn peers(&self) -> Vec<PeerStatus> {
        let state = self.lock();
        let status = |peer: &Peer| PeerStatus {
            lag: peer.heard_at.map(|at| at.elapsed()),
            ..peer.status.clone()
        };
        state.peers.iter().map(status).collect()
    }

    /// Connections from addresses that are no other node's.
    pub fn strangers(&self) -> u64 {
        self.lock().strangers
    }

    /// From now on this node wants to know all flows of the others before it takes over.
    pub fn wait(&self, now: Instant) {
        self.lock().waits_since = Some(now);
    }

    /// Whom it still waits for: one that can be reached and has not told everything since. Not longer than
    /// [`PATIENCE`].
    pub fn waits_for(&self, now: Instant) -> Option<String> {
        let mut state = self.lock();
        let since = state.waits_since?;
        let missing = |peer: &&Peer| {
            let last = peer.told_at.max(peer.failed_at);
            last.is_none_or(|last| last < since)
        };
        let name = state.peers.iter().find(missing).map(|peer| peer.status.name.clone());
        if name.is_none() || now.duration_since(since) >= PATIENCE {
            state.waits_since = None;
            return None;
        }
        name
    }

    /// Returns when [`waits_for`](Self::waits_for) may have another answer.
    pub async fn changed(&self) {
        self.bell.notified().await;
    }
}
