//! A prober: one datagram each millisecond, whatever became of the earlier ones, and the longest time
//! that nobody answered. The clock of the answers is the kernel's, so that a reader that waits for a core
//! delays none, and the sender has real-time priority where the system lets it. [`super::gap`] says what
//! counts.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use lb_agent::vrrp::realtime;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;

use super::gap::{Asked, gap};
use crate::lab::Host;

/// Of its sender: below the agent's own, which it must not hold up.
const PRIORITY: i32 = realtime::PRIORITY / 2;
/// From one datagram to the next.
const PROBE_INTERVAL: Duration = Duration::from_millis(1);

/// For answers that wait for the reader.
const BUFFER_BYTES: usize = 4 << 20;
/// Of the number in a datagram.
const DIGITS: usize = 16;
/// How long a read waits before it looks whether to stop.
const WAIT: Duration = Duration::from_millis(20);
/// Between two looks at how many answers have come.
const POLL: Duration = Duration::from_millis(2);
/// Answers of the last datagrams are waited for so long.
const LAST_ANSWERS: Duration = Duration::from_millis(50);

/// What a prober saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    pub sent: u64,
    pub answered: u64,
    /// The longest time that nobody answered; its own pauses are none ([`super::gap`]).
    pub gap: Duration,
    /// The longest time between a datagram and its own answer, were later ones answered before or not.
    pub slowest: Duration,
    /// The longest time between two datagrams: how far the prober itself was late.
    pub pause: Duration,
    /// Whether it had real-time priority.
    pub realtime: bool,
}

/// A running prober. It ends when it is stopped or dropped.
#[derive(Debug)]
pub struct Prober {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    sender: JoinHandle<Result<Sent>>,
    receiver: JoinHandle<Result<Received>>,
}

/// What the sender did.
#[derive(Debug)]
struct Sent {
    /// When, by the clock of the answers.
    moments: Vec<Duration>,
    pause: Duration,
    realtime: bool,
}

/// The answers, each with the number of its datagram, and when no more were awaited.
#[derive(Debug)]
struct Received {
    answers: Vec<(u64, Duration)>,
    end: Duration,
}

impl Prober {
    /// Starts to ask an echo server, from a host.
    ///
    /// # Errors
    /// Where no socket can be opened there.
    pub fn start(host: &Host, target: SocketAddr) -> Result<Self> {
        // Not connected: an answer counts whatever address the server sends it from.
        let any: SocketAddr = match target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = host.namespace().within(|| UdpSocket::bind(any).context("a prober"))?;
        socket.set_read_timeout(Some(WAIT))?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).context("SO_RCVBUFFORCE")?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("SO_TIMESTAMPNS")?;
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let outgoing = socket.try_clone()?;
        let stopped = Arc::clone(&stop);
        let sender = std::thread::spawn(move || send(&outgoing, target, &stopped));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&answered));
        let receiver = std::thread::spawn(move || receive(&socket, &stopped, &count));
        Ok(Self { stop, answered, sender, receiver })
    }

    /// Waits until so many more answers have come.
    ///
    /// # Errors
    /// Where they do not in time.
    pub fn wait_for_answers(&self, more: u64, limit: Duration) -> Result<()> {
        let (goal, deadline) =
            (self.answered.load(Ordering::Relaxed) + more, Instant::now() + limit);
        while self.answered.load(Ordering::Relaxed) < goal {
            if Instant::now() > deadline {
                bail!("the prober got no {more} answers within {limit:?}");
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// # Errors
    /// Where it could not read.
    pub fn stop(self) -> Result<Probe> {
        self.stop.store(true, Ordering::Relaxed);
        let rejoin = |panic| -> ! { std::panic::resume_unwind(panic) };
        let sent = self.sender.join().unwrap_or_else(|panic| rejoin(panic))?;
        let received = self.receiver.join().unwrap_or_else(|panic| rejoin(panic))?;
        Ok(probe(&sent, &received))
    }
}

fn probe(sent: &Sent, received: &Received) -> Probe {
    let moments = sent.moments.iter();
    let mut asked: Vec<_> = moments.map(|&sent| Asked { sent, answered: None }).collect();
    for &(number, at) in &received.answers {
        let place = usize::try_from(number).ok().and_then(|number| asked.get_mut(number));
        // The first of several.
        let Some(asked) = place else { continue };
        asked.answered = Some(asked.answered.map_or(at, |first| first.min(at)));
    }
    let waits = asked.iter().filter_map(|asked| Some(asked.answered?.saturating_sub(asked.sent)));
    Probe {
        sent: asked.len() as u64,
        answered: waits.clone().count() as u64,
        gap: gap(&asked, received.end),
        slowest: waits.max().unwrap_or_default(),
        pause: sent.pause,
        realtime: sent.realtime,
    }
}

fn send(socket: &UdpSocket, target: SocketAddr, stop: &AtomicBool) -> Result<Sent> {
    let realtime = realtime::request(PRIORITY).is_ok();
    let (mut moments, mut pause) = (Vec::new(), Duration::ZERO);
    let mut due = Instant::now();
    let mut last = due;
    while !stop.load(Ordering::Relaxed) {
        let number = moments.len();
        let begun = Instant::now();
        moments.push(wall_clock()?);
        // One that cannot be sent is one that is not answered.
        let _ = socket.send_to(format!("{number:0DIGITS$x}").as_bytes(), target);
        pause = pause.max(begun - last);
        last = begun;
        due += PROBE_INTERVAL;
        let now = Instant::now();
        match due.checked_duration_since(now) {
            Some(rest) => sleep(rest),
            // What it was late for is not made up by a burst.
            None => due = now,
        }
    }
    Ok(Sent { moments, pause, realtime })
}

/// The clock that the kernel stamps packets by.
fn wall_clock() -> Result<Duration> {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("a clock before 1970")
}

/// When each answer arrived, by the kernel's clock.
fn receive(socket: &UdpSocket, stop: &AtomicBool, count: &AtomicU64) -> Result<Received> {
    let mut answers = Vec::new();
    let mut last = None;
    loop {
        if stop.load(Ordering::Relaxed) {
            let until = *last.get_or_insert_with(|| Instant::now() + LAST_ANSWERS);
            if Instant::now() >= until {
                return Ok(Received { answers, end: wall_clock()? });
            }
        }
        let mut bytes = [0; 2048];
        let mut control = nix::cmsg_space!(TimeSpec);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty());
        let message = match message {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(error) => return Err(error).context("the prober cannot read"),
        };
        let at = message.cmsgs().context("a control message is cut off")?.find_map(|c| match c {
            ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
            _ => None,
        });
        let at = at.context("an answer without a time")?;
        let length = message.bytes;
        let number = number(&bytes[..length]).context("an answer to nothing that was asked")?;
        answers.push((number, at));
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// An echo begins with the datagram itself.
fn number(answer: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(answer.get(..DIGITS)?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(all: &[u64]) -> Vec<Duration> {
        all.iter().copied().map(Duration::from_millis).collect()
    }

    #[test]
    fn answers_belong_to_their_datagrams_whatever_order_they_were_read_in() {
        let moments = milliseconds(&[10, 11, 12, 40]);
        let sent = Sent { moments, pause: Duration::from_millis(28), realtime: true };
        let at = Duration::from_millis;
        // The third is lost, the second answered twice, a fifth was never sent.
        let answers = vec![(3, at(41)), (1, at(19)), (0, at(10)), (1, at(12)), (4, at(99))];
        let seen = probe(&sent, &Received { answers, end: at(100) });
        let expected = Probe {
            sent: 4,
            answered: 3,
            gap: at(41 - 11),
            slowest: at(1),
            pause: at(28),
            realtime: true,
        };
        assert_eq!(seen, expected);
    }

    #[test]
    fn an_answer_names_its_datagram() {
        assert_eq!(number(b"000000000000002a\n{}"), Some(42));
        assert_eq!(number(b"000000000000002"), None);
        assert_eq!(number(b"00000000000000zz\n{}"), None);
    }
}
