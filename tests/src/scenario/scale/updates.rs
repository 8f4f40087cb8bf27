//! Ten thousand changes in a row, applied as the agent applies them, while segments are steered at full
//! speed. A segment may go where the tables said before the change or after it, to nobody else; and a
//! translated flow stays with its backend whatever changes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lb_agent::dataplane::Pins;
use lb_common::counter::Verdict;
use lb_common::hash::mix;

use super::frames::{Seen, Segment, TTL, build};
use super::reckon::Ranked;
use super::rig::{self, CLIENT_MAC, NODE_MAC, ROUTER_MAC, Read, Rig, VIPS, carry, peer, steer};
use crate::lab::{Lab, Mac, Namespace};
use crate::scenario::stage::Stage;

pub(super) const UPDATES: u32 = 10_000;
/// Backends that a service's are taken from: so many on other nodes, as many that are translated for.
const POOL: u8 = 12;
/// Of a service. Up to eight all are ranked, beyond that four.
const FEWEST: usize = 5;
const MOST: usize = 10;
/// So many times a file's change is one, which gives each service another table: the kernel waits for its
/// programs then, some ten milliseconds. The others are of a backend's health.
const ROUND: u64 = 12;
/// Down at one time. Four ranks are more.
const DOWN_MOST: usize = 2;
const CARRIED: u16 = 8444;
const TRANSLATED: u16 = 8443;
/// Clients of each service whose segments are made once and sent again and again.
const CLIENTS: u32 = 2048;
/// New flows through NAT in all: a part of the ports that there are.
const NEW_FLOWS: u32 = 200_000;

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let lab = Lab::new(stage.tool())?;
    let host = lab.host("updates").start()?;
    let pins = Pins::new(&host.bpf_directory());
    host.namespace().within(|| measure(stage, pins, host.namespace()))
}

/// What is configured and who is down: the state of the tables.
#[derive(Clone)]
struct State {
    /// For each service its backends' numbers in the pool, and their weights.
    sets: Vec<Vec<(u8, u16)>>,
    down: Vec<SocketAddr>,
}

/// The services' kinds and families, in the order of the file.
const SERVICES: [(u16, usize); 4] = [(CARRIED, 0), (CARRIED, 1), (TRANSLATED, 0), (TRANSLATED, 1)];

/// A backend of the pool.
fn member(port: u16, family: usize, number: u8) -> SocketAddr {
    let address = match (port, family) {
        (CARRIED, _) => peer(2 + number).0[family],
        (_, 0) => IpAddr::from([10, 30, 0, number]),
        _ => Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, u16::from(number)).into(),
    };
    SocketAddr::new(address, 6443)
}

impl State {
    fn first() -> Self {
        let set = |from: u8| (from..from + 8).map(|number| (number % POOL, 1)).collect();
        Self { sets: (0..SERVICES.len() as u8).map(|n| set(3 * n)).collect(), down: Vec::new() }
    }

    fn text(&self) -> String {
        let mut text = rig::head(POOL);
        text.push_str("\n[nat]\nflows = 524288\nports = \"20000-59999\"\n");
        for (at, ((port, family), set)) in SERVICES.into_iter().zip(&self.sets).enumerate() {
            let backends: Vec<_> =
                set.iter().map(|(n, weight)| (member(port, family, *n), *weight)).collect();
            text.push_str(&rig::service(&format!("s{at}"), VIPS[family], port, &backends));
        }
        text
    }

    /// A backend goes down or comes up again.
    fn flip(&mut self, draw: u64) {
        let (port, family) = SERVICES[pick(draw, 0, SERVICES.len())];
        let at = member(port, family, pick(draw, 16, usize::from(POOL)) as u8);
        if let Some(place) = self.down.iter().position(|down| *down == at) {
            self.down.remove(place);
        } else if self.down.len() < DOWN_MOST {
            self.down.push(at);
        } else {
            self.down.remove(0);
        }
    }

    /// Another file: of each service a backend leaves, joins or gets another weight.
    fn rewrite(&mut self, draw: u64) {
        for (set, draw) in self.sets.iter_mut().zip((1..).map(|n| mix(draw ^ n))) {
            if draw % 5 < 2 {
                let place = pick(draw, 16, set.len());
                // Another one than before.
                set[place].1 = 1 + (set[place].1 + pick(draw, 24, 4) as u16) % 5;
            } else if set.len() >= MOST || (set.len() > FEWEST && draw & 1 << 40 != 0) {
                set.remove(pick(draw, 16, set.len()));
            } else {
                let is_missing = |n: &u8| set.iter().all(|(there, _)| there != n);
                let missing: Vec<u8> = (0..POOL).filter(is_missing).collect();
                set.push((missing[pick(draw, 16, missing.len())], 1));
            }
        }
    }
}

/// A number below `most`, by some of the bits of a random one.
fn pick(draw: u64, bits: u32, most: usize) -> usize {
    (draw >> bits) as usize % most.max(1)
}

/// The tables after a change, for the reckoning.
struct Epoch {
    services: Vec<Ranked>,
    down: Vec<SocketAddr>,
}

impl Epoch {
    fn backend(&self, service: usize, client: SocketAddr) -> Option<SocketAddr> {
        self.services[service].backend(client, |member| !self.down.contains(&member))
    }
}

/// All epochs, and between which two the maps are.
#[derive(Default)]
struct History {
    epochs: RwLock<Vec<Arc<Epoch>>>,
    begun: AtomicU64,
    done: AtomicU64,
    over: AtomicBool,
}

impl History {
    fn push(&self, epoch: Epoch) {
        let mut epochs = self.epochs.write().unwrap_or_else(PoisonError::into_inner);
        epochs.push(Arc::new(epoch));
        self.begun.store(epochs.len() as u64 - 1, Ordering::SeqCst);
    }

    fn applied(&self) {
        self.done.store(self.begun.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Whether a segment that was steered since `done` was this may have gone to `chosen`. The second
    /// value: whether the maps changed meanwhile.
    fn allows(
        &self,
        done: u64,
        service: usize,
        client: SocketAddr,
        chosen: SocketAddr,
    ) -> (bool, bool) {
        let begun = self.begun.load(Ordering::SeqCst);
        let epochs = self.epochs.read().unwrap_or_else(PoisonError::into_inner);
        let mut possible = (done..=begun).filter_map(|at| epochs.get(at as usize));
        (possible.any(|epoch| epoch.backend(service, client) == Some(chosen)), begun != done)
    }

    /// The number of the last change that was applied whole.
    fn now(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

/// What a worker saw.
#[derive(Default)]
struct Books {
    segments: u64,
    /// Steered while a change was being made.
    amid: u64,
    wrong: u64,
    first: Option<String>,
    established: u64,
    strayed: u64,
}

impl Books {
    /// A segment that was steered since `done` was applied, and where it went, or why nowhere.
    fn judge(
        &mut self,
        history: &History,
        done: u64,
        service: usize,
        client: SocketAddr,
        chosen: Result<SocketAddr>,
    ) {
        self.segments += 1;
        let allowed = match &chosen {
            Ok(chosen) => {
                let (allowed, amid) = history.allows(done, service, client, *chosen);
                self.amid += u64::from(amid);
                allowed
            }
            // There is always somebody to take it.
            Err(_) => false,
        };
        if !allowed {
            self.wrong += 1;
            self.first.get_or_insert_with(|| {
                format!("({client} of service {service} after change {done}: {chosen:?})")
            });
        }
    }
}

fn measure(stage: &mut Stage, pins: Pins, place: &Namespace) -> Result<()> {
    stage.step("loading the programs");
    let updates = UPDATES * stage.times();
    let mut state = State::first();
    let mut read = Read::new(&state.text())?;
    let mut rig = Rig::load(pins, &read, POOL)?;
    let history = History::default();
    let plan = rig.plan(&read, &state.down);
    history.push(Epoch { services: rig::ranked(&plan), down: Vec::new() });
    rig.data_path.apply(&plan)?;
    history.applied();
    let program = rig.program()?.try_clone_to_owned()?;
    let program = std::os::fd::AsFd::as_fd(&program);
    stage.step(&format!("{updates} changes under traffic"));
    let bar = stage.bar(u64::from(updates));
    let (result, carried, translated) = std::thread::scope(|scope| {
        let history = &history;
        let carried = scope.spawn(move || place.within(|| carry_on(program, history)));
        let translated = scope.spawn(move || place.within(|| translate_on(program, history)));
        let result = change_on(&mut rig, &mut state, &mut read, history, updates, |made| {
            bar.set_position(made)
        });
        history.over.store(true, Ordering::SeqCst);
        (result, joined(carried), joined(translated))
    });
    let pace = result?;
    let books = [carried?, translated?];
    let sum = |of: fn(&Books) -> u64| books.iter().map(of).sum::<u64>();
    let wrong = sum(|books| books.wrong);
    let first = books.iter().find_map(|books| books.first.clone()).unwrap_or_default();
    let first = if wrong == 0 { first } else { format!("{first}; {}", verdicts(&rig)?) };
    let text = "each segment goes where the tables before or after a change say";
    let seen = format!("{wrong} of {} wrong {first}", sum(|books| books.segments));
    stage.claim(text, wrong == 0 && sum(|books| books.segments) > 0, seen);
    let text = "translated flows stay with their backends";
    let (established, strayed) = (sum(|books| books.established), sum(|books| books.strayed));
    let seen = format!("{strayed} of {established} segments strayed");
    stage.claim(text, strayed == 0 && established > 0, seen);
    let amid = sum(|books| books.amid);
    stage.claim("there is traffic while the maps change", amid > 0, amid);
    stage.figure("updates", pace.tables + pace.flips);
    stage.figure("updates_of_tables", pace.tables);
    stage.figure("updates_of_health", pace.flips);
    stage.figure("updates_wrong_segments", wrong);
    stage.figure("updates_segments", sum(|books| books.segments) + established);
    stage.figure("updates_segments_amid", amid);
    stage.figure("update_longest_ms", pace.longest.as_secs_f64() * 1e3);
    stage.figure("updates_per_second", (f64::from(updates) / pace.took.as_secs_f64()).round());
    Ok(())
}

/// What the program has decided in all, by its own counters.
fn verdicts(rig: &Rig) -> Result<String> {
    let counts = Verdict::ALL.iter().zip(rig.data_path.verdicts()?);
    let seen = counts.filter(|(_, count)| *count != 0);
    let seen: Vec<_> = seen.map(|(verdict, count)| format!("{} {count}", verdict.name())).collect();
    Ok(seen.join(", "))
}

fn joined<T>(worker: std::thread::ScopedJoinHandle<'_, T>) -> T {
    match worker.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// How the changes went.
struct Pace {
    /// Tables that came to be others.
    tables: u32,
    /// Backends that went down or came up again.
    flips: u32,
    longest: Duration,
    took: Duration,
}

fn change_on(
    rig: &mut Rig,
    state: &mut State,
    read: &mut Read,
    history: &History,
    updates: u32,
    told: impl Fn(u64),
) -> Result<Pace> {
    let begun = Instant::now();
    let mut pace = Pace { tables: 0, flips: 0, longest: Duration::ZERO, took: Duration::ZERO };
    let mut number = 0;
    while pace.tables + pace.flips < updates {
        number += 1;
        let draw = mix(number);
        if number % ROUND == 0 {
            state.rewrite(draw);
            *read = Read::new(&state.text())?;
            pace.tables += SERVICES.len() as u32;
        } else {
            state.flip(draw);
            pace.flips += 1;
        }
        let plan = rig.plan(read, &state.down);
        history.push(Epoch { services: rig::ranked(&plan), down: state.down.clone() });
        let change = Instant::now();
        rig.data_path.apply(&plan).with_context(|| format!("change {number}"))?;
        pace.longest = pace.longest.max(change.elapsed());
        history.applied();
        told(u64::from(pace.tables + pace.flips));
    }
    pace.took = begun.elapsed();
    Ok(pace)
}

fn client(family: usize, number: u32) -> SocketAddr {
    let address = match family {
        0 => IpAddr::from((0x0a50_0000 + (number >> 8)).to_be_bytes()),
        _ => Ipv6Addr::from_bits((0xfd00_0050 << 96) + u128::from(number >> 8)).into(),
    };
    SocketAddr::new(address, 20_000 + (number & 0xff) as u16)
}

fn frame(service: usize, number: u32, segment: Segment) -> Result<(SocketAddr, Vec<u8>)> {
    let (port, family) = SERVICES[service];
    let from = client(family, number);
    let to = SocketAddr::new(VIPS[family].parse()?, port);
    let seen = Seen { from_mac: CLIENT_MAC, to_mac: NODE_MAC, from, to, ttl: TTL };
    Ok((from, build(&seen, segment)?))
}

/// Begins connections to backends on other nodes, and goes on with others.
fn carry_on(program: BorrowedFd<'_>, history: &History) -> Result<Books> {
    let mut frames = Vec::new();
    for service in 0..2 {
        for number in 0..CLIENTS {
            for segment in [Segment::Syn, Segment::Data] {
                let (from, frame) = frame(service, number, segment)?;
                frames.push((service, from, frame));
            }
        }
    }
    let by_mac: Vec<(Mac, [SocketAddr; 2])> = (0..POOL)
        .map(|n| (peer(2 + n).1, [member(CARRIED, 0, n), member(CARRIED, 1, n)]))
        .collect();
    let mut books = Books::default();
    while !history.is_over() {
        for (service, from, frame) in &frames {
            let done = history.now();
            let chosen = carry(program, frame).and_then(|seen| {
                let backend = by_mac.iter().find(|(mac, _)| *mac == seen.to_mac);
                let (_, backends) = backend.with_context(|| format!("to nobody: {seen:?}"))?;
                Ok(backends[SERVICES[*service].1])
            });
            books.judge(history, done, *service, *from, chosen);
        }
    }
    Ok(books)
}

/// Goes on with translated flows that began before the first change, and begins new ones.
fn translate_on(program: BorrowedFd<'_>, history: &History) -> Result<Books> {
    let mut books = Books::default();
    let mut flows = Vec::new();
    for service in 2..4 {
        for number in 0..CLIENTS {
            let (from, frame) = frame(service, number, Segment::Data)?;
            let done = history.now();
            let seen = steer(program, &frame)?;
            books.judge(history, done, service, from, Ok(seen.to));
            flows.push((frame, from, seen));
        }
    }
    let mut fresh = CLIENTS;
    while !history.is_over() {
        for (at, (frame, from, first)) in flows.iter().enumerate() {
            let done = history.now();
            let way = both_ways(program, frame, *from, first);
            books.established += 2;
            if let Err(error) = way {
                books.strayed += 1;
                books.first.get_or_insert_with(|| format!("({error:#} after change {done})"));
            }
            if at % 4 == 0 && fresh < CLIENTS + NEW_FLOWS {
                begin(program, history, &mut books, 2 + at / 4 % 2, fresh)?;
                fresh += 1;
            }
            if history.is_over() {
                break;
            }
        }
    }
    Ok(books)
}

fn begin(
    program: BorrowedFd<'_>,
    history: &History,
    books: &mut Books,
    service: usize,
    number: u32,
) -> Result<()> {
    let (from, frame) = frame(service, number, Segment::Syn)?;
    let done = history.now();
    let chosen = steer(program, &frame).map(|seen| seen.to);
    books.judge(history, done, service, from, chosen);
    Ok(())
}

fn both_ways(
    program: BorrowedFd<'_>,
    frame: &[u8],
    client: SocketAddr,
    first: &Seen,
) -> Result<()> {
    let seen = steer(program, frame)?;
    ensure!(seen == *first, "{client} went to {} from {}, not to {}", seen.to, seen.from, first.to);
    let reply =
        Seen { from_mac: ROUTER_MAC, to_mac: NODE_MAC, from: seen.to, to: seen.from, ttl: TTL };
    let back = steer(program, &build(&reply, Segment::Data)?)?;
    ensure!(back.to == client, "a reply to {client} went to {}", back.to);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_leaves_a_file_that_is_accepted_and_somebody_in_every_bucket() {
        let mut state = State::first();
        for number in 0..300 {
            let before = state.sets.clone();
            state.rewrite(mix(number));
            state.flip(mix(number));
            let read = Read::new(&state.text());
            assert!(read.is_ok(), "{:#}", read.err().unwrap());
            assert!(state.sets.iter().zip(&before).all(|(now, before)| now != before));
            assert!(state.sets.iter().all(|set| (FEWEST..=MOST).contains(&set.len())));
            assert!(state.down.len() <= DOWN_MOST);
        }
    }
}
