//! Which connections to services that limit them are over: their client's end went unseen, or they never
//! began.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use lb_common::connection::{CLOSED, Connection, ESTABLISHED};
use lb_common::flow::FlowKey;
use lb_common::layout::map;

use super::error::DataPlaneError;
use super::nat::NatTimeouts;
use super::shared::SharedArray;
use super::{batch, monotonic_ns};

/// The maps of connections, by handles of their own.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) known: OwnedFd,
    pub(super) open: SharedArray,
}

impl Connections {
    /// Removes those that are over. Returns how many are open.
    ///
    /// # Errors
    /// Where the kernel refuses to read the map or to remove from it.
    pub(super) fn sweep(
        &self,
        timeouts: &NatTimeouts,
        stopped: &AtomicBool,
    ) -> Result<u64, DataPlaneError> {
        let now_ns = monotonic_ns();
        let (mut over, mut open) = (Vec::new(), 0);
        batch::for_each(&self.known, Connection::default(), |flow: &FlowKey, connection| {
            if is_over(connection, timeouts, now_ns) {
                over.push(*flow);
            } else {
                open += u64::from(connection.stage != CLOSED);
            }
            !stopped.load(Ordering::Relaxed)
        })
        .map_err(|e| DataPlaneError::io("reading", map::CONNECTIONS, e))?;
        for flow in over {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            open += self.remove_if_over(&flow, timeouts)?;
        }
        Ok(open)
    }

    /// A packet may have come since it was read. Returns 1 where it stays open.
    fn remove_if_over(
        &self,
        flow: &FlowKey,
        timeouts: &NatTimeouts,
    ) -> Result<u64, DataPlaneError> {
        let found = batch::lookup(&self.known, flow, Connection::default())
            .map_err(|e| DataPlaneError::io("reading", map::CONNECTIONS, e))?;
        match found {
            Some(connection) if !is_over(&connection, timeouts, monotonic_ns()) => {
                return Ok(u64::from(connection.stage != CLOSED));
            }
            Some(_) => {}
            None => return Ok(0),
        }
        // What goes is looked at, rather than what was found: the client's end may come in between.
        let gone = batch::take(&self.known, flow, Connection::default())
            .map_err(|e| DataPlaneError::io("removing from", map::CONNECTIONS, e))?;
        if let Some(gone) = gone.filter(|gone| gone.stage != CLOSED) {
            for index in gone.counted {
                if let Some(word) = self.open.get(index).and_then(|words| words.first()) {
                    word.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
        Ok(0)
    }
}

fn is_over(connection: &Connection, timeouts: &NatTimeouts, now_ns: u64) -> bool {
    let limit = match connection.stage {
        CLOSED => timeouts.tcp_closing,
        ESTABLISHED => timeouts.tcp_established,
        _ => timeouts.tcp_opening,
    };
    u128::from(now_ns.saturating_sub(connection.last_seen_ns)) > limit.as_nanos()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lb_common::connection::OPENING;

    use super::*;

    #[test]
    fn each_stage_has_its_time() {
        const TIMEOUTS: NatTimeouts = NatTimeouts {
            tcp_opening: Duration::from_secs(30),
            tcp_established: Duration::from_secs(7440),
            tcp_closing: Duration::from_secs(60),
            udp: Duration::from_secs(120),
        };
        let over_after = |stage: u32, seconds: u64| {
            let connection = Connection { stage, last_seen_ns: 1, ..Connection::default() };
            is_over(&connection, &TIMEOUTS, 2 + seconds * 1_000_000_000)
        };
        for (stage, seconds) in [(OPENING, 30), (ESTABLISHED, 7440), (CLOSED, 60)] {
            assert!(!over_after(stage, seconds - 1) && over_after(stage, seconds), "{stage}");
        }
    }
}
