//! A prober: one datagram each millisecond, whatever became of the earlier ones, and the longest
//! silence between two answers. The clock of the answers is the kernel's, so that a reader that waits
//! for a core makes no silence.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;

use crate::lab::Host;

/// From one datagram to the next.
const PROBE_INTERVAL: Duration = Duration::from_millis(1);

/// For answers that wait for the reader.
const BUFFER_BYTES: usize = 4 << 20;
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
    /// The longest time between two answers.
    pub silence: Duration,
    /// The longest time between two datagrams: how far the prober itself was late.
    pub pause: Duration,
}

/// A running prober. It ends when it is stopped or dropped.
#[derive(Debug)]
pub struct Prober {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    sender: JoinHandle<(u64, Duration)>,
    receiver: JoinHandle<Result<Vec<Duration>>>,
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
        let (sent, pause) = self.sender.join().unwrap_or_else(|panic| rejoin(panic));
        let answers = self.receiver.join().unwrap_or_else(|panic| rejoin(panic))?;
        let answered = answers.len() as u64;
        Ok(Probe { sent, answered, silence: longest_silence(answers), pause })
    }
}

/// The longest time between two of these moments.
fn longest_silence(mut moments: Vec<Duration>) -> Duration {
    moments.sort();
    let pairs = moments.windows(2).map(|pair| pair[1] - pair[0]);
    pairs.max().unwrap_or_default()
}

fn send(socket: &UdpSocket, target: SocketAddr, stop: &AtomicBool) -> (u64, Duration) {
    let (mut sent, mut pause) = (0_u64, Duration::ZERO);
    let (mut last, mut due) = (Instant::now(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        // One that cannot be sent is one that is not answered.
        let _ = socket.send_to(format!("{sent:016x}").as_bytes(), target);
        let now = Instant::now();
        pause = pause.max(now - last);
        (sent, last) = (sent + 1, now);
        due += PROBE_INTERVAL;
        match due.checked_duration_since(now) {
            Some(rest) => sleep(rest),
            // What it was late for is not made up by a burst.
            None => due = now,
        }
    }
    (sent, pause)
}

/// When each answer arrived, by the kernel's clock.
fn receive(socket: &UdpSocket, stop: &AtomicBool, count: &AtomicU64) -> Result<Vec<Duration>> {
    let mut arrivals = Vec::new();
    let mut last = None;
    loop {
        if stop.load(Ordering::Relaxed) {
            let until = *last.get_or_insert_with(|| Instant::now() + LAST_ANSWERS);
            if Instant::now() >= until {
                return Ok(arrivals);
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
        arrivals.push(at.context("an answer without a time")?);
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_is_found_whatever_order_the_answers_were_read_in() {
        let moments = [5, 1, 2, 30, 31, 4].map(Duration::from_millis);
        assert_eq!(longest_silence(moments.to_vec()), Duration::from_millis(25));
        assert_eq!(longest_silence(Vec::new()), Duration::ZERO);
    }
}
