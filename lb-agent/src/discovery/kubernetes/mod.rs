//! Follows the EndpointSlices of a Kubernetes service, as its own proxies do: a list, then a watch from the list's version
//! on, over one HTTP/1.1 connection each. [`slices`] is pure: what is known by what the API has told. [`access`] finds the
//! API; [`session`] talks to it.
//!
//! A watch that ends, by the server's clock or since a connection was cut, goes on from the last version that was heard
//! of; only where that is too old (410) is everything listed anew. While there is no API nothing changes.

pub(super) mod access;
mod session;
pub(super) mod slices;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use self::session::{Ended, Session};
use self::slices::Slices;
use super::{Board, driver, pace};
use crate::config::{KubernetesSource, Protocol};

/// The pause before the first attempt after a failure; Kubernetes' own clients wait as long.
const RETRY: Duration = Duration::from_millis(500);
/// A watch that ends sooner than this was no watch.
const SHORTEST_WATCH: Duration = Duration::from_secs(5);

/// Which of the endpoints can be backends of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) protocol: Protocol,
    pub(super) v4: bool,
}

/// Asks for a service's backends for as long as it is not dropped.
pub(super) async fn run(service: String, source: KubernetesSource, wanted: Wanted, board: &Board) {
    let mut draw = driver::seed(&service);
    let mut slices: Option<Slices> = None;
    let mut failures = 0;
    loop {
        draw = draw.wrapping_add(1);
        let begun = Instant::now();
        let mut session =
            Session { service: &service, source: &source, wanted, board, heard: false };
        let ended = session.follow(&mut slices, draw).await;
        if session.heard {
            failures = 0;
        }
        match ended {
            Ended::InTime if begun.elapsed() >= SHORTEST_WATCH => continue,
            Ended::InTime => {}
            Ended::Expired => {
                tracing::debug!(service, "the watch is too old to go on: listing anew");
                slices = None;
            }
            Ended::Failed(why) => board.failed(&service, why),
            Ended::Useless(why) => {
                board.failed(&service, why);
                slices = None;
            }
        }
        failures += 1;
        sleep(pace::after_failure(failures, RETRY, draw)).await;
    }
}
