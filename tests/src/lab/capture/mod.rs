//! Recording frames on a link of the lab, with the proof that none was missed. What a frame holds
//! is [`frame`]'s matter, and what routers say in it [`router`]'s.

mod frame;
mod router;
mod socket;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};

pub use frame::{Direction, Frame, Packet};
pub use router::Advertisement;

use socket::PacketSocket;

/// Frames kept; more are counted as missed. A scenario records a few seconds.
const FRAMES_MAX: usize = 1_000_000;

/// Frames as they passed, oldest first.
#[derive(Debug, Default)]
pub struct Recording {
    pub frames: Vec<Frame>,
}

impl Recording {
    /// Writes a file for tcpdump and its like (libpcap's format with nanoseconds).
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_pcap(&self, path: &Path) -> Result<()> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut file = BufWriter::new(file);
        let header: [u32; 6] = [PCAP_NANOSECONDS, PCAP_VERSION, 0, 0, PCAP_SNAPLEN, PCAP_ETHERNET];
        for word in header {
            file.write_all(&word.to_le_bytes())?;
        }
        for frame in &self.frames {
            let length = u32::try_from(frame.bytes.len()).context("a frame too large")?;
            // The format's seconds have 32 bits.
            let seconds = frame.at.as_secs() as u32;
            for word in [seconds, frame.at.subsec_nanos(), length, length] {
                file.write_all(&word.to_le_bytes())?;
            }
            file.write_all(&frame.bytes)?;
        }
        file.flush().context("cannot write the capture")
    }
}

/// https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html, section 4
const PCAP_NANOSECONDS: u32 = 0xa1b2_3c4d;
/// Minor 4 above major 2.
const PCAP_VERSION: u32 = 4 << 16 | 2;
const PCAP_SNAPLEN: u32 = 262_144;
const PCAP_ETHERNET: u32 = 1;

/// Frames and how many more there were.
type Tape = (Vec<Frame>, u64);

/// A running capture. It ends when it is stopped or dropped.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Tape>>>,
}

impl Capture {
    /// Starts on an interface of the calling thread's network namespace. Frames count from the
    /// moment when this returns.
    pub(super) fn start(interface: &str) -> Result<Self> {
        let socket = PacketSocket::open(interface)?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || record(&socket, &seen));
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it. Everything that passed before this call is in the recording.
    ///
    /// # Errors
    /// Where the kernel or the recorder had to drop frames: then nothing is proven by what is not
    /// in the recording.
    pub fn stop(mut self) -> Result<Recording> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the capture has been stopped")?;
        let (frames, missed) = match thread.join() {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        if missed > 0 {
            bail!("the capture missed {missed} of {} frames", frames.len() as u64 + missed);
        }
        Ok(Recording { frames })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn record(socket: &PacketSocket, stop: &AtomicBool) -> Result<Tape> {
    let mut frames = Vec::new();
    let mut missed = 0;
    let mut end = None;
    loop {
        // Read before the socket is found empty, so that nothing is left behind.
        if end.is_none() && stop.load(Ordering::Relaxed) {
            end = Some(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?);
        }
        match socket.receive()? {
            // A busy wire is never found empty.
            Some(frame) if end.is_some_and(|end| frame.at > end) => break,
            Some(frame) if frames.len() < FRAMES_MAX => frames.push(frame),
            Some(_) => missed += 1,
            None if end.is_some() => break,
            None => {}
        }
    }
    Ok((frames, missed + socket.dropped()?))
}
