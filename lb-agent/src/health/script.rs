//! One check by a script of the user's: its exit status tells, and it is told whom it checks.
//!
//! A script that this node may or can not run says nothing about the backend. It would fail for all backends of the
//! service at once, and then those that are dead indeed would be used like the others (`minimum_healthy`), or none at all.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::Target;
use super::judge::Outcome;
use crate::config::{Check, ScriptCheck};
use crate::script::{Input, RunError, Runner, Script};

/// What is run how: a backend, and for how long at most.
type Run = (SocketAddr, ScriptCheck, Duration);

/// Runs the scripts of checks, the one of a backend never twice at a time.
#[derive(Debug)]
pub(super) struct Scripts {
    /// Runs at one time. Each is a process, and holds several file descriptors.
    permits: Semaphore,
    runners: Mutex<HashMap<Run, Arc<tokio::sync::Mutex<Runner>>>>,
}

impl Scripts {
    pub(super) fn new(at_once: usize) -> Self {
        Self { permits: Semaphore::new(at_once), runners: Mutex::default() }
    }

    /// To be had before a check is made: nothing where it runs no script.
    pub(super) async fn permit(&self, check: &Check) -> Option<SemaphorePermit<'_>> {
        match check {
            // It is never closed.
            Check::Script(_) => self.permits.acquire().await.ok(),
            Check::Tcp | Check::Http(_) => None,
        }
    }

    /// Forgets what none of these needs.
    pub(super) fn keep_only<'t>(&self, targets: impl Iterator<Item = &'t Target>) {
        let runs = targets.filter_map(|target| match &*target.check {
            Check::Script(script) => Some((target.address, &**script, target.schedule.timeout)),
            Check::Tcp | Check::Http(_) => None,
        });
        let wanted: HashSet<_> = runs.collect();
        let mut runners = self.runners.lock().unwrap_or_else(PoisonError::into_inner);
        runners.retain(|(address, script, limit), _| wanted.contains(&(*address, script, *limit)));
    }

    /// One run, for at most `limit`.
    pub(super) async fn run(
        &self,
        address: SocketAddr,
        check: &ScriptCheck,
        limit: Duration,
    ) -> Outcome {
        let runner = self.runner(address, check, limit);
        let Ok(mut runner) = timeout(limit, runner.lock()).await else {
            return Outcome::NotChecked("its script still runs for the check before".to_owned());
        };
        let vips: Vec<String> = check.addresses.iter().map(IpAddr::to_string).collect();
        let variables = [
            ("LB_SERVICE", check.service.clone()),
            ("LB_VIP", vips.join(" ")),
            ("LB_BACKEND_ADDRESS", address.ip().to_string()),
            ("LB_BACKEND_PORT", address.port().to_string()),
        ];
        match runner.run(Input { variables: &variables, ..Input::default() }).await {
            Ok(ending) if ending.success() => Outcome::Passed(ending.to_string()),
            Ok(ending) => Outcome::Failed(ending.to_string()),
            Err(error @ (RunError::Late { .. } | RunError::Stuck)) => {
                Outcome::Failed(error.to_string())
            }
            Err(error @ (RunError::Distrust(_) | RunError::Start { .. })) => {
                Outcome::NotChecked(error.to_string())
            }
        }
    }

    fn runner(
        &self,
        address: SocketAddr,
        check: &ScriptCheck,
        timeout: Duration,
    ) -> Arc<tokio::sync::Mutex<Runner>> {
        let ScriptCheck { path, arguments, user, .. } = check;
        let mut runners = self.runners.lock().unwrap_or_else(PoisonError::into_inner);
        let runner = runners.entry((address, check.clone(), timeout)).or_insert_with(|| {
            let (path, arguments, user) = (path.clone(), arguments.clone(), Some(user.clone()));
            Arc::new(Runner::new(Script { path, arguments, user, timeout }).into())
        });
        Arc::clone(runner)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;
    use tokio::net::unix::pipe;

    use super::*;
    use crate::health::driver::Limits;
    use crate::health::tests::{TEST_LIMIT, test_address};
    use crate::health::{Checker, Schedule, State};
    use crate::script::testbed::{Scratch, own_name, set_mode};

    fn check(scratch: &Scratch, body: &str) -> ScriptCheck {
        ScriptCheck {
            path: scratch.script(body),
            arguments: vec!["x".to_owned()],
            user: own_name(),
            service: "dns".to_owned(),
            addresses: ["192.0.2.1", "fd00::1"].map(|it| it.parse().unwrap()).to_vec(),
        }
    }

    async fn run(check: &ScriptCheck, limit: Duration) -> Outcome {
        Scripts::new(1).run("10.0.0.7:53".parse().unwrap(), check, limit).await
    }

    #[tokio::test]
    async fn a_script_is_told_whom_it_checks() {
        let scratch = Scratch::new();
        let body = "echo $1 $LB_SERVICE $LB_VIP $LB_BACKEND_ADDRESS $LB_BACKEND_PORT";
        let said = "exit status 0, said: x dns 192.0.2.1 fd00::1 10.0.0.7 53";
        let check = check(&scratch, body);
        assert_eq!(run(&check, TEST_LIMIT).await, Outcome::Passed(said.to_owned()));
    }

    #[tokio::test]
    async fn how_it_ends_speaks_of_the_backend_and_that_it_does_not_run_of_this_node() {
        let scratch = Scratch::new();
        let failed = |why: &str| Outcome::Failed(why.to_owned());
        let sick = check(&scratch, "echo no disk; exit 3");
        assert_eq!(run(&sick, TEST_LIMIT).await, failed("exit status 3, said: no disk"));
        let hangs = check(&scratch, "sleep 600");
        let late = failed("killed after 100ms without an end");
        assert_eq!(run(&hangs, Duration::from_millis(100)).await, late);
        let writable = check(&scratch, "exit 1");
        set_mode(&writable.path, 0o777);
        let missing = ScriptCheck { path: scratch.0.join("missing"), ..writable.clone() };
        let nobody = ScriptCheck { user: "no-such-user".to_owned(), ..writable.clone() };
        for (check, why) in [
            (&writable, "is writable by others than its owner (mode 0777)"),
            (&missing, "there is no "),
            (&nobody, "there is no user no-such-user"),
        ] {
            let outcome = run(check, TEST_LIMIT).await;
            assert!(matches!(&outcome, Outcome::NotChecked(it) if it.contains(why)), "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn the_one_of_a_backend_never_runs_twice_at_a_time() {
        let scratch = Scratch::new();
        let lock = scratch.0.join("lock");
        let lock = lock.display();
        let check = check(&scratch, &format!("mkdir {lock} || exit 3; sleep 0.1; rmdir {lock}"));
        let (scripts, address) = (Scripts::new(4), "10.0.0.7:53".parse().unwrap());
        let run = || scripts.run(address, &check, TEST_LIMIT);
        for outcome in futures::future::join_all([run(), run(), run()]).await {
            assert!(matches!(outcome, Outcome::Passed(_)), "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn runners_of_former_targets_are_forgotten() {
        let scratch = Scratch::new();
        let check = check(&scratch, "exit 0");
        let (scripts, address) = (Scripts::new(4), "10.0.0.7:53".parse().unwrap());
        scripts.run(address, &check, TEST_LIMIT).await;
        let schedule = Schedule { interval: TEST_LIMIT, timeout: TEST_LIMIT, rise: 1, fall: 1 };
        let target = Target { address, check: Arc::new(Check::Script(check.into())), schedule };
        let left = || scripts.runners.lock().unwrap().len();
        scripts.keep_only([&target].into_iter());
        assert_eq!(left(), 1);
        let other = Target { address: test_address(), ..target };
        scripts.keep_only([&other].into_iter());
        assert_eq!(left(), 0);
    }

    #[tokio::test]
    async fn scripts_that_hang_hold_up_nothing_but_scripts() {
        let scratch = Scratch::new();
        let fifo = scratch.0.join("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).expect("a new pipe");
        let mut started = pipe::OpenOptions::new().open_receiver(&fifo).expect("a pipe");
        let check = check(&scratch, &format!("echo > {}; sleep 600", fifo.display()));
        let check = Arc::new(Check::Script(check.into()));
        let schedule = Schedule { interval: TEST_LIMIT, timeout: TEST_LIMIT, rise: 1, fall: 1 };
        let target = |check| Target { address: test_address(), check, schedule };
        let mut targets: Vec<Target> = (0..3).map(|_| target(Arc::clone(&check))).collect();
        let limits = Limits { in_flight: 2, scripts: 1, events: 4 };
        let (checker, mut events) = Checker::with_limits(limits);
        checker.set_targets(targets.clone());
        timeout(TEST_LIMIT, started.read_u8()).await.expect("one runs").expect("a pipe");
        let server = TcpListener::bind(test_address()).await.unwrap();
        let address = server.local_addr().unwrap();
        targets.push(Target { address, ..target(Arc::new(Check::Tcp)) });
        checker.set_targets(targets);
        let event = timeout(TEST_LIMIT / 2, events.recv()).await.expect("in time").unwrap();
        assert_eq!((event.target.address, event.state), (address, State::Healthy));
    }
}
