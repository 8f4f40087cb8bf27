//! A check for an occasion, beside the regular ones: it moves nothing of theirs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::driver::Shared;
use super::judge::Outcome;
use crate::config::Check;

/// What it found: nothing where it could not be made.
pub type Found = Option<Result<(), String>>;

/// Where what was found is told, with what it was looked for.
#[derive(Clone, Debug)]
pub struct Looks<S>(mpsc::Sender<(S, Found)>);

impl<S: Clone + Send + 'static> Looks<S> {
    /// With room for so many that were not heard yet. A check waits for room with its answer.
    pub fn new(room: usize) -> (Self, mpsc::Receiver<(S, Found)>) {
        let (sender, receiver) = mpsc::channel(room);
        (Self(sender), receiver)
    }
}

pub(super) async fn look<S: Clone + Send + 'static>(
    shared: Arc<Shared>,
    (address, check, timeout): (SocketAddr, Arc<Check>, Duration),
    looks: Looks<S>,
    subject: S,
) {
    let (_, outcome) = shared.check(address, &check, timeout).await;
    let found = match outcome {
        Outcome::Passed(_) => Some(Ok(())),
        Outcome::Failed(why) | Outcome::Silent(why) | Outcome::Unreachable(why) => Some(Err(why)),
        Outcome::NotChecked(_) => None,
    };
    // Whoever wanted to know may have ended.
    let _ = looks.0.send((subject, found)).await;
}
