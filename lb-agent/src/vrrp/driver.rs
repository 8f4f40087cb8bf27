//! Runs virtual routers on a thread that does nothing else: health checks, the API and logging of
//! the rest of the agent cannot delay an advertisement. Decides nothing; [`machine`](super::machine)
//! does.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use super::event::{Event, Outbox};
use super::link::Link;
use super::moment::Moment;
use super::realtime;
use super::router::{Cadence, Course, Router, Running, Settings};
use super::status::RouterStatus;
use super::waiter::{Waiter, What, Woken};

/// Commands that wait for the thread; it serves them within microseconds.
const QUEUE: usize = 64;
/// Without a timer the thread still looks around this often.
const IDLE: Duration = Duration::from_secs(1);

/// What is told is at most this much older than the last turn, changes of state apart: at short
/// intervals telling would cost more than the protocol itself.
const TELL: Duration = Duration::from_millis(200);

/// Whom a command is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    All,
    /// By its place among those that were started.
    Router(usize),
}

/// What the rest of the agent wants of virtual routers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Give the role to another node.
    Resign,
    /// Stay Backup because a person wishes so, or no longer.
    Hold(bool),
    /// Stay Backup because this node cannot serve, or no longer.
    Unfit(Option<String>),
    /// The sum of the weights of what fails, added to the configured priority.
    Weigh(i32),
    /// Hand over and end.
    Stop,
}

/// One of the virtual routers that there are to be.
pub enum Part {
    /// The one at this place until now, with other settings or the same.
    Known(usize, Box<Settings>),
    New(Box<Router>),
}

/// What the thread is told.
enum Word {
    Command(Target, Command),
    /// These are all routers from now on, or none of it.
    Configure(Vec<Part>, SyncSender<Result<(), String>>),
    /// Neither send nor listen, and say where everything is.
    Pause(SyncSender<Vec<Course>>),
    /// Go on as if the time in between had been slept.
    Resume,
}

/// How long the thread may take to answer: it does within microseconds.
const PAUSE: Duration = Duration::from_secs(1);

/// The thread, and what it tells.
#[derive(Debug)]
pub struct Vrrp {
    commands: SyncSender<Word>,
    wake: UnixStream,
    status: Arc<Mutex<Vec<RouterStatus>>>,
    thread: JoinHandle<()>,
}

impl Vrrp {
    /// Starts the routers; each listens as soon as its interface lets it. What happens to them is told
    /// to `events`, which should have room for [`QUEUE`](super::QUEUE) of them.
    ///
    /// # Errors
    ///
    /// Where the system has no thread or no socket pair left.
    pub fn start(routers: Vec<Router>, events: &mpsc::Sender<Event>) -> io::Result<Self> {
        let (commands, inbox) = sync_channel(QUEUE);
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let waiter = Waiter::new()?;
        waiter.add(&woken, What::Commands)?;
        let status = Arc::new(Mutex::new(Vec::new()));
        let running = routers
            .into_iter()
            .map(|router| Running::new(router, Outbox::new(events.clone())))
            .collect();
        let events = events.clone();
        let shared = Arc::clone(&status);
        let told = (Moment::default(), u64::MAX);
        let mut thread = Thread {
            running,
            inbox,
            woken,
            waiter,
            status: shared,
            stopping: false,
            paused: false,
            told,
            commands: 0,
            events,
        };
        let thread =
            std::thread::Builder::new().name("vrrp".to_owned()).spawn(move || thread.run())?;
        Ok(Self { commands, wake, status, thread })
    }

    /// Passes a command on; false where the thread does not take any more.
    pub fn command(&self, target: Target, command: Command) -> bool {
        self.say(Word::Command(target, command))
    }

    fn say(&self, word: Word) -> bool {
        let taken = self.commands.try_send(word).is_ok();
        // A full pipe has woken it already.
        let _ = (&self.wake).write(&[0]);
        taken
    }

    /// Stops to take part, without a word to the others, and says where each router is: another process may go
    /// on from there. Active ones advertise a last time, so that the others wait from now on. Blocks for a
    /// moment. None where the thread does not answer; then [`resume`](Self::resume) it.
    pub fn pause(&self) -> Option<Vec<Course>> {
        let (sender, courses) = sync_channel(1);
        if !self.say(Word::Pause(sender)) {
            return None;
        }
        courses.recv_timeout(PAUSE).ok()
    }

    /// These are all routers from now on, at the places that they have here: those that are none of them any more
    /// hand over and end, the others stay what they are. Blocks for a moment.
    ///
    /// # Errors
    /// Where the link of one of them cannot be opened, which is said; then nothing has changed.
    pub fn configure(&self, parts: Vec<Part>) -> Result<(), String> {
        let (sender, done) = sync_channel(1);
        if !self.say(Word::Configure(parts, sender)) {
            return Err("vrrp is stopping".to_owned());
        }
        done.recv_timeout(PAUSE).unwrap_or_else(|_| Err("vrrp does not answer".to_owned()))
    }

    /// Goes on after a pause.
    pub fn resume(&self) -> bool {
        self.say(Word::Resume)
    }

    pub fn status(&self) -> Vec<RouterStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands over to another node, waits until it was heard or must have been, and ends.
    pub fn stop(self) {
        if self.command(Target::All, Command::Stop) {
            // A panic of the thread has been printed; the agent ends anyway.
            let _ = self.thread.join();
        }
    }
}

/// The clock of all timers: no setting of the wall clock moves it.
pub(super) fn now() -> Moment {
    // CLOCK_MONOTONIC always exists and never is negative.
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    Moment::after_origin(time)
}

struct Thread {
    running: Vec<Running>,
    inbox: Receiver<Word>,
    woken: UnixStream,
    waiter: Waiter,
    status: Arc<Mutex<Vec<RouterStatus>>>,
    stopping: bool,
    paused: bool,
    /// When the status was told last, and after how many changes of state and commands.
    told: (Moment, u64),
    commands: u64,
    /// Where routers put what happens to them.
    events: mpsc::Sender<Event>,
}

/// A [`Part`] that nothing can keep from being what it is to be.
enum Ready {
    Known(usize, Box<Settings>, Option<Link>),
    New(Box<Running>, Link),
}

impl Thread {
    fn run(&mut self) {
        if let Err(error) = realtime::request(realtime::PRIORITY) {
            tracing::info!(%error, "vrrp runs without real-time priority");
        }
        let mut woken = Woken::by_all();
        while !(self.stopping && self.running.iter().all(Running::has_handed_over)) {
            let now = now();
            self.turn(now, &woken);
            self.publish_if_due(now);
            woken = self.wait();
        }
        for router in &mut self.running {
            router.shut_down(now());
        }
        self.publish();
    }

    /// Everything that arrived comes before any timer: what lay in a queue while this thread did
    /// not run may be what the timer waits for.
    fn turn(&mut self, now: Moment, woken: &Woken) {
        if self.paused {
            self.obey(now);
            if self.paused {
                return;
            }
        }
        for router in &mut self.running {
            router.open_if_due(now, &self.waiter);
            router.look_for_impostors(now);
            router.listen(woken, now);
            router.tell_waiting();
        }
        if woken.commands {
            self.obey(now);
        }
        if self.paused {
            return;
        }
        for place in 0..self.running.len() {
            if let Some(cadence) = self.running[place].serve_timer(now) {
                self.keep_step(cadence, now);
            }
        }
    }

    /// Routers with the same interval advertise at the same moments, so that the thread wakes once for all: when
    /// one has advertised, those that would do so within the next half of the interval do it now, once earlier
    /// than they had to, and from then on together.
    fn keep_step(&mut self, cadence: Cadence, now: Moment) {
        for router in &mut self.running {
            router.keep_step(cadence, now);
        }
    }

    fn obey(&mut self, now: Moment) {
        loop {
            match self.inbox.try_recv() {
                Ok(Word::Pause(reply)) => {
                    let courses = self.running.iter_mut().map(|router| router.pause(now)).collect();
                    // Where nobody waits for it any more, it was not to be.
                    self.paused = reply.try_send(courses).is_ok();
                    if self.paused {
                        return;
                    }
                }
                Ok(Word::Resume) => self.paused = false,
                Ok(Word::Configure(parts, reply)) => {
                    self.commands += 1;
                    // Whoever asked waits for it, and decides nothing by itself meanwhile.
                    let _ = reply.try_send(self.configure(parts, now));
                }
                Ok(Word::Command(target, command)) => {
                    self.commands += 1;
                    self.stopping |= command == Command::Stop;
                    for (place, router) in self.running.iter_mut().enumerate() {
                        if target == Target::All || target == Target::Router(place) {
                            router.obey(&command, now);
                        }
                    }
                }
                Err(TryRecvError::Empty) => return,
                // The agent is gone without a word.
                Err(TryRecvError::Disconnected) => {
                    self.stopping = true;
                    for router in &mut self.running {
                        router.obey(&Command::Stop, now);
                    }
                    return;
                }
            }
        }
    }

    fn configure(&mut self, parts: Vec<Part>, now: Moment) -> Result<(), String> {
        let ready: Vec<Ready> =
            parts.into_iter().map(|part| self.prepare(part)).collect::<Result<_, _>>()?;
        let mut former: Vec<Option<Running>> =
            std::mem::take(&mut self.running).into_iter().map(Some).collect();
        // What one gives up another may take over.
        for part in &ready {
            if let Ready::Known(place, settings, _) = part
                && let Some(router) = &mut former[*place]
            {
                router.readdress(settings);
            }
        }
        let stays = |place: usize| {
            ready.iter().any(|part| matches!(part, Ready::Known(known, ..) if *known == place))
        };
        for (place, router) in former.iter_mut().enumerate() {
            if let Some(router) = router.as_mut().filter(|_| !stays(place)) {
                router.shut_down(now);
            }
        }
        for part in ready {
            self.running.extend(match part {
                Ready::Known(place, settings, link) => former[place].take().map(|mut router| {
                    router.configure(*settings, link, now);
                    router
                }),
                Ready::New(mut router, link) => {
                    router.take_part(link, now);
                    Some(*router)
                }
            });
        }
        Ok(())
    }

    /// Does all of it that may fail.
    fn prepare(&self, part: Part) -> Result<Ready, String> {
        match part {
            Part::Known(place, settings) => {
                let router = self.running.get(place).ok_or("there is no such virtual router")?;
                let link = router.open_for(&settings, &self.waiter).map_err(|e| e.to_string())?;
                Ok(Ready::Known(place, settings, link))
            }
            Part::New(router) => {
                let router = Running::new(*router, Outbox::new(self.events.clone()));
                let link = router.open(&self.waiter).map_err(|error| error.to_string())?;
                Ok(Ready::New(Box::new(router), link))
            }
        }
    }

    fn publish_if_due(&mut self, now: Moment) {
        let (at, before) = self.told;
        let changes = self.running.iter().map(Running::transitions).sum::<u64>() + self.commands;
        if changes != before || now.since(at) >= TELL {
            self.told = (now, changes);
            self.publish();
        }
    }

    fn publish(&self) {
        let status = self.running.iter().map(Running::status).collect();
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// Until something arrives, or the next timer is due.
    fn wait(&mut self) -> Woken {
        let due = self.running.iter().filter_map(Running::due).min().filter(|_| !self.paused);
        let timeout = due.map_or(IDLE, |due| due.since(now()).min(IDLE));
        let woken = self.waiter.wait(timeout);
        if woken.commands {
            let mut words = [0; QUEUE];
            let _ = self.woken.read(&mut words);
        }
        woken
    }
}
