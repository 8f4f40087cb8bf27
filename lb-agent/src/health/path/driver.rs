//! When each way is probed, and what is made of it: one task for all of them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lb_common::hash::mix;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::link::{Link, Received};
use super::{Answer, Event, Ports, Probe, Target, Way};
use crate::health::judge::{Judge, Outcome};
use crate::health::{Silence, State, pace};

/// Probes under way at one time, and how long further ones wait for their turn.
const IN_FLIGHT: usize = 256;
const TURN: Duration = Duration::from_millis(10);

/// Events that wait to be read. Where there is no room for one, no way is probed meanwhile.
const EVENTS: usize = 256;
/// Answers that wait for the task; more of them wait in the sockets.
const RECEIVED: usize = 256;

/// How often at most the log tells of probes that could not be made.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Probes ways until it is dropped.
#[derive(Debug)]
pub struct Prober {
    targets: watch::Sender<Vec<Target>>,
    probes: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prober {
    /// Starts on the current tokio runtime, in the process's network namespace, without targets. The receiver gets
    /// every change of what is known of a way.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start() -> (Self, mpsc::Receiver<Event>) {
        let (targets, wanted) = watch::channel(Vec::new());
        let (events, receiver) = mpsc::channel(EVENTS);
        let probes = Arc::new(AtomicU64::new(0));
        let driver = Driver::new(events, Arc::clone(&probes));
        let task = tokio::spawn(driver.run(wanted)).abort_handle();
        (Self { targets, probes, task }, receiver)
    }

    /// Replaces the targets, one for each way. A way that stays keeps what is known of it, also where it is probed
    /// otherwise from now on.
    pub fn set_targets(&self, targets: Vec<Target>) {
        self.targets.send_if_modified(|known| {
            let new = *known != targets;
            if new {
                *known = targets;
            }
            new
        });
    }

    /// Probes sent since the start.
    pub fn probes_total(&self) -> u64 {
        self.probes.load(Ordering::Relaxed)
    }
}

struct Driver {
    ports: Ports,
    watches: HashMap<Way, Watch>,
    /// When each is to be looked after.
    timers: BTreeSet<(Instant, Way)>,
    /// Whose the probes of the last rounds are, so that answers that come late are ended as well.
    asked: HashMap<Probe, Way>,
    under_way: usize,
    links: HashMap<u32, Link>,
    sender: mpsc::Sender<Received>,
    received: mpsc::Receiver<Received>,
    events: mpsc::Sender<Event>,
    probes: Arc<AtomicU64>,
    complained: Option<Instant>,
}

/// One way.
struct Watch {
    target: Target,
    judge: Judge,
    state: State,
    round: u64,
    /// So many began together, with this one.
    beginners: usize,
    /// When it is to be looked after.
    at: Instant,
    /// What is under way, and since when.
    asking: Option<(Asking, Instant)>,
}

struct Asking {
    probe: Probe,
    /// A reset came, and the second question was asked.
    refused: bool,
}

impl Driver {
    fn new(events: mpsc::Sender<Event>, probes: Arc<AtomicU64>) -> Self {
        let (sender, received) = mpsc::channel(RECEIVED);
        Self {
            ports: Ports::choose(),
            watches: HashMap::new(),
            timers: BTreeSet::new(),
            asked: HashMap::new(),
            under_way: 0,
            links: HashMap::new(),
            sender,
            received,
            events,
            probes,
            complained: None,
        }
    }

    /// Ends when nobody wants to know any more.
    async fn run(mut self, mut wanted: watch::Receiver<Vec<Target>>) {
        loop {
            let next = self.timers.first().map(|(at, _)| *at);
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // Answers first: one that waits to be read has come in time.
            let event = tokio::select! {
                biased;
                Some(received) = self.received.recv() => self.hear(&received),
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let targets = wanted.borrow_and_update().clone();
                    self.take(targets);
                    None
                }
                () = due => self.look_after_next(),
            };
            if let Some(event) = event
                && self.events.send(event).await.is_err()
            {
                return;
            }
        }
    }

    fn take(&mut self, targets: Vec<Target>) {
        let wanted: HashSet<Way> = targets.iter().map(|target| target.way).collect();
        let gone = self.watches.extract_if(|way, _| !wanted.contains(way));
        for (way, watch) in gone {
            self.timers.remove(&(watch.at, way));
            self.under_way -= usize::from(watch.asking.is_some());
        }
        self.asked.retain(|_, way| wanted.contains(way));
        let interfaces: HashSet<u32> = targets.iter().map(|target| target.ifindex).collect();
        self.links.retain(|ifindex, _| interfaces.contains(ifindex));
        let beginners = targets.iter().filter(|t| !self.watches.contains_key(&t.way)).count();
        for target in targets {
            match self.watches.get_mut(&target.way) {
                Some(watch) if watch.target == target => {}
                Some(watch) => {
                    // What is under way goes on by the former way.
                    watch.judge = Judge::new(&target.schedule, watch.state, Silence::None);
                    watch.target = target;
                }
                None => self.begin(target, beginners),
            }
        }
    }

    fn begin(&mut self, target: Target, beginners: usize) {
        let delay =
            pace::first_delay_of(identity(&target.way), target.schedule.interval, beginners);
        let at = Instant::now() + delay;
        let state = State::Unknown;
        let judge = Judge::new(&target.schedule, state, Silence::None);
        let watch = Watch { target, judge, state, round: 0, beginners, at, asking: None };
        self.timers.insert((at, target.way));
        self.watches.insert(target.way, watch);
    }

    /// The one whose turn it is: what was not answered has failed, and what waits is probed.
    fn look_after_next(&mut self) -> Option<Event> {
        let (_, way) = self.timers.pop_first()?;
        let watch = self.watches.get_mut(&way)?;
        let now = Instant::now();
        if let Some((asking, since)) = watch.asking.take() {
            self.under_way -= 1;
            let why = match asking.refused {
                true => "a reset".to_owned(),
                false => format!("no answer within {:?}", watch.target.schedule.timeout),
            };
            return self.conclude(way, since, Outcome::Failed(why));
        }
        if self.under_way >= IN_FLIGHT {
            self.set_timer(way, now + TURN);
            return None;
        }
        let (target, round) = (watch.target, watch.round);
        let probe = self.ports.probe(way, target.from, round);
        if let Err(error) = self.send(&target, &probe) {
            let why = format!("cannot probe: {error}");
            self.complain(way, &why);
            return self.conclude(way, now, Outcome::NotChecked(why));
        }
        self.probes.fetch_add(1, Ordering::Relaxed);
        if let Some(former) = round.checked_sub(Ports::COUNT.into()) {
            self.asked.remove(&self.ports.probe(way, target.from, former));
        }
        self.asked.insert(probe, way);
        self.under_way += 1;
        if let Some(watch) = self.watches.get_mut(&way) {
            watch.asking = Some((Asking { probe, refused: false }, now));
        }
        self.set_timer(way, now + target.schedule.timeout);
        None
    }

    fn send(&mut self, target: &Target, probe: &Probe) -> io::Result<()> {
        let mixed = || io::Error::from(io::ErrorKind::InvalidInput);
        let packet = probe.packet().ok_or_else(mixed)?;
        let ifindex = target.ifindex;
        self.links.retain(|_, link| !link.is_broken());
        let link = match self.links.get(&ifindex) {
            Some(link) => link,
            None => {
                let link = Link::open(ifindex, &self.ports, self.sender.clone())?;
                self.links.entry(ifindex).or_insert(link)
            }
        };
        link.send(&packet, target.mac)
    }

    fn hear(&mut self, received: &Received) -> Option<Event> {
        let mut about = received.heard.about();
        let (probe, answer, way) =
            about.find_map(|(probe, answer)| Some((probe, answer, *self.asked.get(&probe)?)))?;
        let link = self.links.get(&received.ifindex)?;
        if answer == Answer::Taken
            && let Some(packet) = probe.end()
        {
            // Where it gets lost the other end asks again, and is answered again.
            let _ = link.send(&packet, received.mac);
        }
        let watch = self.watches.get_mut(&way)?;
        let (asking, since) = watch.asking.as_mut()?;
        if asking.probe != probe {
            return None;
        }
        let since = *since;
        let took = since.elapsed();
        let outcome = match answer {
            Answer::Taken | Answer::CarriedBack => {
                Outcome::Passed(format!("answered in {took:.1?}"))
            }
            Answer::Ownerless if received.mac != watch.target.mac => {
                Outcome::Passed(format!("carried on in {took:.1?}"))
            }
            // The stack's, which says nothing of the program before it.
            Answer::Ownerless => return None,
            Answer::Refused if watch.target.drains => {
                if !std::mem::replace(&mut asking.refused, true) {
                    for packet in probe.second_question() {
                        // One that gets lost tells nothing; the next probe asks again.
                        let _ = link.send(&packet, watch.target.mac);
                    }
                }
                return None;
            }
            Answer::Refused => Outcome::Failed("a reset".to_owned()),
        };
        watch.asking = None;
        self.timers.remove(&(watch.at, way));
        self.under_way -= 1;
        self.conclude(way, since, outcome)
    }

    /// After one probe, which began at `since`: what is known now, if that is new, and the next one.
    fn conclude(&mut self, way: Way, since: Instant, outcome: Outcome) -> Option<Event> {
        let watch = self.watches.get_mut(&way)?;
        let interval = watch.target.schedule.interval;
        let pause = pace::pause_of(identity(&way), interval, watch.round, watch.beginners);
        watch.round += 1;
        let verdict = watch.judge.hear(outcome);
        if let Some(verdict) = &verdict {
            watch.state = verdict.state;
        }
        self.set_timer(way, since + pause);
        verdict.map(|verdict| Event { way, state: verdict.state, reason: verdict.reason })
    }

    fn set_timer(&mut self, way: Way, at: Instant) {
        if let Some(watch) = self.watches.get_mut(&way) {
            watch.at = at;
            self.timers.insert((at, way));
        }
    }

    fn complain(&mut self, way: Way, why: &str) {
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            self.complained = Some(Instant::now());
            let Way { service, node } = way;
            tracing::warn!(%service, %node, "ways to other nodes are taken to be as they were: {why}");
        }
    }
}

fn identity(way: &Way) -> u64 {
    let Way { service, node } = way;
    mix(pace::identity(service) ^ pace::identity(&(*node, 0).into()))
}
