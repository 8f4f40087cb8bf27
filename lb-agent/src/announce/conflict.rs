//! Asks the link whether another machine has a VIP, before this node claims it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::frame::{ETHERTYPE_ARP, ETHERTYPE_IPV6, claimant};
use super::{AnnounceError, Interface, LinkSocket, probe};
use crate::netlink::{Mac, ipv6_obstacle};

/// How long to wait for an answer by default. RFC 5227 takes up to nine seconds, for hosts that
/// join a network for the first time; a holder on the same segment answers within a millisecond,
/// and three questions cover a lost frame.
pub const CONFLICT_WAIT: Duration = Duration::from_millis(300);

const PROBES: u32 = 3;

/// Of one address. More are a storm, and as bad as two.
pub const CLAIMANTS_MAX: usize = 8;

/// A received frame is waited for this long before the clock is looked at again.
const STEP: Duration = Duration::from_millis(20);

/// The MAC of another machine that has the VIP, if one answers within `wait`.
///
/// Asks three times without claiming anything. The sockets are opened before the first await, in
/// the calling thread's network namespace.
pub async fn vip_conflict(
    interface: &Interface,
    vip: IpAddr,
    wait: Duration,
) -> Result<Option<Mac>, AnnounceError> {
    let ethertype = if vip.is_ipv4() { ETHERTYPE_ARP } else { ETHERTYPE_IPV6 };
    if vip.is_ipv6()
        && let Some(sentence) = ipv6_obstacle(&interface.name)
    {
        return Err(AnnounceError::NoIpv6(sentence));
    }
    let socket = LinkSocket::receiver(interface, ethertype, STEP.min(wait))?;
    let (name, own) = (interface.name.clone(), interface.mac);
    let asking = tokio::task::spawn_blocking(move || ask(socket, vip, own, wait));
    asking.await.unwrap_or_else(|ended| {
        Err(AnnounceError::Receive { interface: name, source: std::io::Error::other(ended) })
    })
}

/// The MACs of all other machines that answer for an address within `wait`, each once, at most [`CLAIMANTS_MAX`].
///
/// Blocks the thread, in whose network namespace it asks.
///
/// # Errors
///
/// Where there is no socket to ask by.
pub fn claimants(
    interface: &Interface,
    address: IpAddr,
    wait: Duration,
) -> Result<Vec<Mac>, AnnounceError> {
    let ethertype = if address.is_ipv4() { ETHERTYPE_ARP } else { ETHERTYPE_IPV6 };
    let mut socket = LinkSocket::receiver(interface, ethertype, STEP.min(wait))?;
    let start = Instant::now();
    let (mut sent, mut found) = (0, Vec::new());
    while start.elapsed() < wait && found.len() < CLAIMANTS_MAX {
        if sent < PROBES && start.elapsed() >= wait / PROBES * sent {
            socket.send(&probe(address, interface.mac))?;
            sent += 1;
        }
        let claims = socket.receive()?.and_then(|frame| claimant(frame, address, interface.mac));
        if let Some(mac) = claims.filter(|mac| !found.contains(mac)) {
            found.push(mac);
        }
    }
    Ok(found)
}

fn ask(
    mut socket: LinkSocket,
    vip: IpAddr,
    own: Mac,
    wait: Duration,
) -> Result<Option<Mac>, AnnounceError> {
    let start = Instant::now();
    let mut sent = 0;
    loop {
        let elapsed = start.elapsed();
        if elapsed >= wait {
            return Ok(None);
        }
        if sent < PROBES && elapsed >= wait / PROBES * sent {
            socket.send(&probe(vip, own))?;
            sent += 1;
        }
        if let Some(rival) = socket.receive()?.and_then(|frame| claimant(frame, vip, own)) {
            return Ok(Some(rival));
        }
    }
}
