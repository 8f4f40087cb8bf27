//! Scripts that are tracked: what a run means, and that they are run again and again.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;

use super::judge::{Failure, Kind, Outcome};
use super::script::Check;
use super::{Board, Watcher};
use crate::config::{Script, Track, Watched};
use crate::script::testbed::{Scratch, own_name};

/// More than anything here takes, on a machine however busy.
const LIMIT: Duration = Duration::from_secs(30);

impl Scratch {
    /// A tracked script of this body, with a timeout that does not pass.
    fn tracked(&self, body: &str) -> Script {
        script(self.script(body), LIMIT)
    }
}

fn script(path: PathBuf, timeout: Duration) -> Script {
    Script { path, arguments: Vec::new(), interval: timeout, timeout, user: own_name() }
}

fn good(reason: &str) -> Outcome {
    Outcome::Good(reason.to_owned())
}

fn bad(kind: Kind, reason: &str) -> Outcome {
    Outcome::Bad(Failure { kind, reason: reason.to_owned() })
}

#[tokio::test]
async fn an_exit_status_fails_a_timeout_times_out_and_what_cannot_run_is_refused() {
    let scratch = Scratch::new();
    assert_eq!(
        Check::new(scratch.tracked("echo fine")).run().await,
        good("exit status 0, said: fine")
    );
    let failed = bad(Kind::Failed, "exit status 3");
    assert_eq!(Check::new(scratch.tracked("exit 3")).run().await, failed);
    let mut hangs = scratch.tracked("sleep 600");
    hangs.timeout = Duration::from_millis(200);
    let late = bad(Kind::TimedOut, "killed after 200ms without an end");
    assert_eq!(Check::new(hangs).run().await, late);
    let missing = script(scratch.0.join("missing"), LIMIT);
    let refused = bad(Kind::Refused, &format!("there is no {}/missing", scratch.0.display()));
    assert_eq!(Check::new(missing).run().await, refused);
}

#[tokio::test]
async fn a_watcher_runs_each_script_again_and_again_and_tells_each_outcome() {
    let scratch = Scratch::new();
    let mut often = scratch.tracked("exit 1");
    often.interval = Duration::from_millis(10);
    let track = |name: &str, watched| Track {
        name: name.to_owned(),
        watched,
        weight: None,
        rise: 1,
        fall: 1,
    };
    let tracks = [
        track("uplink", Watched::Interface("eth1".to_owned())),
        track("check", Watched::Script(often)),
    ];
    let board = Board::new(&tracks, std::time::UNIX_EPOCH);
    let (watcher, mut events) = Watcher::start(board.tracked());
    for _ in 0..3 {
        let event = timeout(LIMIT, events.recv()).await.expect("in time").expect("it runs");
        assert_eq!(board.tracked()[event.at].name, "check");
        assert_eq!(event.outcome, bad(Kind::Failed, "exit status 1"));
    }
    drop(watcher);
    let ended = async { while events.recv().await.is_some() {} };
    timeout(LIMIT, ended).await.expect("it ends with the watcher");
}
