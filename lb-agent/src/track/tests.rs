//! Scripts that are tracked: what a run means, and that they are run again and again.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::unistd::{User, geteuid};
use tokio::time::timeout;

use super::judge::{Failure, Kind, Outcome};
use super::script::Check;
use super::{Board, Watcher};
use crate::config::{Script, Track, Watched};

/// More than anything here takes, on a machine however busy.
const LIMIT: Duration = Duration::from_secs(30);

/// A directory of the test's own, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lb-track-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a new directory");
        set_mode(&path, 0o755);
        Self(path)
    }

    fn script(&self, body: &str) -> PathBuf {
        let path = self.0.join("check");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("a writable directory");
        set_mode(&path, 0o755);
        path
    }

    /// What a script of this body is, with a timeout that does not pass.
    fn of(&self, body: &str) -> Script {
        script(self.script(body), LIMIT)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a file of our own");
}

fn own_name() -> String {
    User::from_uid(geteuid()).expect("users can be read").expect("we are somebody").name
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
    assert_eq!(Check::new(scratch.of("echo fine")).run().await, good("exit status 0, said: fine"));
    let failed = bad(Kind::Failed, "exit status 3");
    assert_eq!(Check::new(scratch.of("exit 3")).run().await, failed);
    let mut hangs = scratch.of("sleep 600");
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
    let mut often = scratch.of("exit 1");
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
