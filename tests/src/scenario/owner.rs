//! Who answers for a virtual address: asked by a client on the link, and judged by every answer that
//! reaches its wire.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::shape::NIC;
use super::stage::Stage;
use crate::lab::{Host, Mac, format_mac};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);
/// Echo requests: a tenth of a second and more, in which a second one would answer too.
const PINGS: u32 = 4;

/// Waits until a client that knows nobody finds this MAC.
///
/// # Errors
/// Where it does not in time.
pub(super) fn await_owner(client: &Host, address: IpAddr, mac: Mac, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        forget(client, address)?;
        client.knock(address)?;
        std::thread::sleep(PAUSE);
        let known = client.neighbour(address)?;
        if known == Some(mac) {
            return Ok(());
        }
        let (known, mac) = (known.map(format_mac), format_mac(mac));
        ensure!(
            Instant::now() < deadline,
            "{address} is answered by {known:?} instead of {mac} after {limit:?}"
        );
    }
}

/// Claims that this MAC alone answers who has the address, and answers pings.
///
/// # Errors
/// Where the client's wire cannot be recorded.
pub(super) fn one_answers(
    stage: &mut Stage,
    text: &str,
    client: &Host,
    address: IpAddr,
    mac: Mac,
) -> Result<()> {
    let capture = client.capture(NIC)?;
    // An entry of before would tell nothing.
    forget(client, address)?;
    let pings = client.ping(address, PINGS)?;
    let recording = capture.stop()?;
    let answers = recording.frames.iter().filter_map(|frame| frame.answer());
    let owners: BTreeSet<Mac> =
        answers.filter(|(whose, _)| *whose == address).map(|(_, mac)| mac).collect();
    let alone = owners.iter().eq([&mac]);
    let owners: Vec<String> = owners.into_iter().map(format_mac).collect();
    let seen = format!("{address} is at {owners:?}, {pings} of {PINGS} pings answered");
    stage.claim(text, alone && pings == PINGS, seen);
    Ok(())
}

fn forget(client: &Host, address: IpAddr) -> Result<()> {
    client.namespace().ip(&format!("neigh flush to {address}"))
}
