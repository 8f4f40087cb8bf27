//! Several clients' books taken together, and the claims that most scenarios make about them.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::Result;

use super::stage::Stage;
use crate::client::{Load, Report};

/// A sum of reports.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    requests: u64,
    failed: u64,
    mismatched: u64,
    broken: u64,
    backends: BTreeSet<String>,
    streams: u64,
    streams_broken: u64,
    stream_gap_ms: f64,
    gap_ms: f64,
    /// Broken ones to backends that nothing was done to.
    pub(super) broken_to_remaining: u64,
}

impl Tally {
    /// Takes a report in and claims that every request in it was answered.
    pub(super) fn answered(&mut self, stage: &mut Stage, who: &str, report: &Report) {
        self.add(report);
        let holds = report.failed == 0 && report.backends.values().sum::<u64>() > 0;
        stage.claim(&format!("every request of {who} is answered"), holds, report.summary());
    }

    /// Stops clients, takes their reports in, and claims the same of each.
    ///
    /// # Errors
    /// Where a client does not tell.
    pub(super) fn all_answered(
        &mut self,
        stage: &mut Stage,
        loads: impl IntoIterator<Item = (impl AsRef<str>, Load)>,
    ) -> Result<()> {
        for (who, load) in loads {
            self.answered(stage, who.as_ref(), &load.stop()?);
        }
        Ok(())
    }

    /// Takes a report in.
    pub(super) fn add(&mut self, report: &Report) {
        self.requests += report.requests;
        self.failed += report.failed;
        self.mismatched += report.mismatched;
        self.broken += report.connections_broken();
        self.backends.extend(report.backends.keys().cloned());
        self.backends.extend(report.streams.backends.keys().cloned());
        self.streams += report.streams.opened;
        self.streams_broken += report.streams.broken;
        self.stream_gap_ms = self.stream_gap_ms.max(report.streams.longest_gap_ms);
        self.gap_ms = self.gap_ms.max(report.longest_gap_ms);
    }

    /// Claims that the answers came from so many backends.
    pub(super) fn spread(&self, stage: &mut Stage, backends: usize) {
        let text = format!("{backends} backends share the work");
        stage.claim(&text, self.backends.len() == backends, format!("{:?}", self.backends));
    }

    /// Claims that the streams were opened and none broke.
    pub(super) fn unbroken(&self, stage: &mut Stage, streams: u32) {
        let holds = self.streams == u64::from(streams) && self.streams_broken == 0;
        let seen = format!(
            "{} opened, {} broken, longest silence {:.1} ms",
            self.streams, self.streams_broken, self.stream_gap_ms
        );
        stage.claim(&format!("none of {streams} streams breaks"), holds, seen);
    }

    pub(crate) const fn failed(&self) -> u64 {
        self.failed
    }

    pub(crate) const fn streams_broken(&self) -> u64 {
        self.streams_broken
    }

    /// The figures of a VIP that moved while every backend lived: whatever broke is to be counted.
    pub(super) fn moved(&self, stage: &mut Stage) {
        stage.figure("requests", self.requests);
        stage.figure("requests_failed", self.failed);
        stage.figure("streams", self.streams);
        stage.figure("streams_broken_other_backends", self.streams_broken);
        stage.figure("stream_gap_ms", rounded(self.stream_gap_ms));
    }

    pub(super) fn figures(&self, stage: &mut Stage) {
        stage.figure("requests", self.requests);
        stage.figure("failed", self.failed);
        stage.figure("backends_hit", self.backends.len());
        stage.figure("foreign_client_addresses", self.mismatched);
        stage.figure("connections_broken", self.broken);
        stage.figure("gap_ms", rounded(self.gap_ms));
        if self.streams > 0 {
            stage.figure("streams", self.streams);
            stage.figure("streams_broken", self.streams_broken);
            stage.figure("stream_gap_ms", rounded(self.stream_gap_ms));
        }
    }
}

/// Claims that backends see the client's own address and port, and that their sockets are the
/// VIP's: nothing is translated.
pub(super) fn untranslated(stage: &mut Stage, who: &str, report: &Report, target: SocketAddr) {
    let seen = format!("{} other of {}", report.mismatched, report.requests);
    stage.claim(&format!("backends see the address of {who}"), report.mismatched == 0, seen);
    let locals: Vec<&SocketAddr> = report.local_addresses.keys().collect();
    let text = format!("the backends' sockets towards {who} are the VIP's");
    stage.claim(&text, locals == [&target], format!("{locals:?}"));
}

/// To a tenth: more is noise.
pub(crate) fn rounded(milliseconds: f64) -> f64 {
    (milliseconds * 10.0).round() / 10.0
}
