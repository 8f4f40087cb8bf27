//! A watch that the client keeps open: every line must come, in order, in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use http_body_util::BodyExt as _;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Shared;
use super::connection::{connect_tcp, fetch, handshake, socket_tcp};
use super::load::reason;
use crate::backend::WatchLine;

/// A silence after which a stream counts as broken, beyond its own interval: TCP's first
/// retransmissions must fit in.
const STALL: Duration = Duration::from_secs(8);

/// Keeps one open until told to stop. It is not opened again when it breaks.
pub(super) async fn keep(shared: Arc<Shared>, number: u64, mut stop: watch::Receiver<bool>) {
    let mut last = None;
    let outcome = tokio::select! {
        outcome = follow(&shared, number, &mut last) => Some(outcome),
        _ = stop.wait_for(|&stop| stop) => None,
    };
    let mut books = shared.books();
    if let Some((last, _)) = &last {
        // The silence at the end counts as well.
        books.stream_gap(*last);
    }
    if let Some(Err(error)) = outcome {
        books.stream_broke(number, last.map(|(_, backend)| backend), reason("stream", &error));
    }
}

/// When a stream last said something, and whose it is.
type Last = Option<(Instant, String)>;

/// Ends only with an error.
async fn follow(shared: &Arc<Shared>, number: u64, last: &mut Last) -> Result<()> {
    let arguments = &shared.arguments;
    let limit = Duration::from_millis(arguments.timeout_ms);
    let socket = socket_tcp(arguments.target)?;
    let tcp = timeout(limit, connect_tcp(socket, arguments.target, shared.source(number), 0));
    let tcp = tcp.await.context("connecting timed out")??;
    let sender = timeout(limit, handshake(shared, tcp, arguments.target));
    let mut sender = sender.await.context("the handshake timed out")??;
    let path = format!("/watch?interval_ms={}", arguments.stream_interval_ms);
    let response = timeout(limit, fetch(&mut sender, arguments.target, &path));
    let mut body = response.await.context("no answer in time")??.into_body();
    let stall = STALL + Duration::from_millis(arguments.stream_interval_ms);
    let mut pending = Vec::new();
    let mut expected = 0;
    loop {
        let frame = timeout(stall, body.frame()).await;
        let frame = frame.context("stalled")?.context("ended by the server")??;
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let line: WatchLine = serde_json::from_slice(&line).context("no JSON line")?;
            if line.sequence != expected {
                bail!("line {} instead of {expected}", line.sequence);
            }
            expected += 1;
            note(shared, number, &line, last);
        }
    }
}

fn note(shared: &Shared, number: u64, line: &WatchLine, last: &mut Last) {
    let mut books = shared.books();
    match last {
        None => books.stream_opened(&line.backend),
        Some((last, _)) => books.stream_gap(*last),
    }
    books.stream_line(number);
    *last = Some((Instant::now(), line.backend.clone()));
}
