//! Asks a link by ARP, each millisecond, who has an address, and keeps all that is said about it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::ownership::Ownership;
use crate::lab::capture::Capture;
use crate::lab::{Host, Mac};

/// From one question to the next.
pub(super) const ASK_INTERVAL: Duration = Duration::from_millis(1);

/// Asks until it is stopped. It draws the neighbour tables of its own host after it, so that host
/// should do nothing else.
#[derive(Debug)]
pub struct Asker {
    own: Mac,
    address: Ipv4Addr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
    capture: Capture,
}

impl Asker {
    /// Starts to ask for `address` on a host's interface whose own address is `from`.
    ///
    /// # Errors
    /// Where there is no such interface, or no packet socket can be opened.
    pub fn start(host: &Host, interface: &str, from: Ipv4Addr, address: Ipv4Addr) -> Result<Self> {
        let own = host.mac(interface)?;
        let mut socket = host.link_socket(interface)?;
        let capture = host.capture(interface)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let frame = question(own, from, address);
        let thread = std::thread::spawn(move || {
            let mut due = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                socket.send(&frame)?;
                due = (due + ASK_INTERVAL).max(Instant::now());
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            Ok(())
        });
        Ok(Self { own, address, stop, thread, capture })
    }

    /// # Errors
    /// Where it could not ask, or missed frames.
    pub fn stop(self) -> Result<Ownership> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(asked) => asked?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(Ownership::of(&self.capture.stop()?, self.own, self.address))
    }
}

/// An ARP request (RFC 826).
pub(super) fn question(own: Mac, from: Ipv4Addr, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(own);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(own);
    frame.extend(from.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}
