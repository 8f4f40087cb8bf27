//! The checker against real sockets on loopback. Each test has a loopback address of its own, so
//! that a port which it leaves is not taken by another.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::driver::Limits;
use super::{Checker, Event, Schedule, State, Target};
use crate::config::{Check, HttpCheck, Statuses, TlsCheck, Trust};

/// More than anything here takes, on a machine however busy.
pub(super) const TEST_LIMIT: Duration = Duration::from_secs(20);

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// An address in 127/8 for one test of this process, and a port that no other has there.
pub(super) fn test_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let ip = 0x7f40_0000 | (std::process::id() & 0x3fff) << 8 | n & 0xff;
    SocketAddr::from((Ipv4Addr::from(ip), 6443))
}

fn target(address: SocketAddr) -> Target {
    let interval = Duration::from_millis(10);
    let schedule = Schedule { interval, timeout: TEST_LIMIT, rise: 2, fall: 3 };
    Target { address, check: Arc::new(Check::Tcp), schedule }
}

async fn next(events: &mut Receiver<Event>) -> Event {
    timeout(TEST_LIMIT, events.recv()).await.expect("an event in time").expect("a checker")
}

async fn next_state(events: &mut Receiver<Event>) -> (State, String) {
    let event = next(events).await;
    (event.state, event.reason)
}

/// Waits until so many checks have been made. There is no event to await: that is the point of the
/// tests which use it.
async fn checks_made(checker: &Checker, count: u64) {
    let made = async {
        while checker.checks_total() < count {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_LIMIT, made).await.expect("checks are made");
}

const REFUSED: &str = "connection refused, 3 times in a row";

#[test]
fn a_server_comes_goes_and_comes_back() {
    runtime().block_on(async {
        let server = TcpListener::bind(test_address()).await.unwrap();
        let address = server.local_addr().unwrap();
        let (checker, mut events) = Checker::start();
        checker.set_targets([target(address)]);

        let event = next(&mut events).await;
        assert_eq!((&event.target, event.state), (&target(address), State::Healthy));
        assert!(event.reason.starts_with("connected in "), "{}", event.reason);
        assert!(event.reason.ends_with(" ms"), "{}", event.reason);

        drop(server);
        assert_eq!(next_state(&mut events).await, (State::Down, REFUSED.to_owned()));

        let _server = TcpListener::bind(address).await.unwrap();
        let (state, reason) = next_state(&mut events).await;
        assert_eq!(state, State::Healthy);
        assert!(reason.ends_with(" ms, 2 times in a row"), "{reason}");
        assert!(checker.checks_total() >= 1 + 3 + 2);
    });
}

#[test]
fn a_server_over_ipv6_is_healthy() {
    runtime().block_on(async {
        let server = TcpListener::bind("[::1]:0").await.unwrap();
        let (checker, mut events) = Checker::start();
        checker.set_targets([target(server.local_addr().unwrap())]);
        assert_eq!(next_state(&mut events).await.0, State::Healthy);
    });
}

#[test]
fn a_port_where_nobody_listens_is_down_from_the_start() {
    runtime().block_on(async {
        let (checker, mut events) = Checker::start();
        checker.set_targets([target(test_address())]);
        assert_eq!(next_state(&mut events).await, (State::Down, REFUSED.to_owned()));
    });
}

#[test]
fn a_server_that_no_longer_accepts_is_down_once_its_queue_is_full() {
    runtime().block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(test_address()).unwrap();
        let server = socket.listen(1).unwrap();
        let address = server.local_addr().unwrap();
        // A backlog of 1 holds two connections; the kernel leaves the third without an answer.
        let _first = TcpStream::connect(address).await.unwrap();
        let _second = TcpStream::connect(address).await.unwrap();

        let (checker, mut events) = Checker::start();
        let mut target = target(address);
        target.schedule.timeout = Duration::from_millis(50);
        checker.set_targets([target]);
        let silent = "no answer within 50ms, 3 times in a row";
        assert_eq!(next_state(&mut events).await, (State::Down, silent.to_owned()));
    });
}

#[test]
fn a_target_that_stays_reports_nothing_new_and_duplicates_are_checked_once() {
    runtime().block_on(async {
        let (down, other) = (target(test_address()), target(test_address()));
        let (checker, mut events) = Checker::start();
        checker.set_targets([down.clone(), down.clone()]);
        assert_eq!(next(&mut events).await.target, down);
        checker.set_targets([down.clone(), other.clone(), other.clone()]);
        // Would the first begin anew, it would be down anew, along with the other.
        assert_eq!(next(&mut events).await.target, other);
        checks_made(&checker, checker.checks_total() + 20).await;
        assert!(events.try_recv().is_err());
    });
}

#[test]
fn a_target_that_is_gone_is_not_checked_and_begins_anew_when_it_returns() {
    runtime().block_on(async {
        let target = target(test_address());
        let (checker, mut events) = Checker::start();
        for _ in 0..2 {
            checker.set_targets([target.clone()]);
            assert_eq!(next(&mut events).await.state, State::Down);
            checker.set_targets([]);
        }
    });
}

#[test]
fn a_new_schedule_takes_over_what_is_known_of_the_address() {
    runtime().block_on(async {
        let mut target = target(test_address());
        let (checker, mut events) = Checker::start();
        checker.set_targets([target.clone()]);
        let first = next(&mut events).await;
        // So many failures will not come within the test.
        target.schedule.fall = u32::MAX;
        checker.set_targets([target.clone()]);
        assert_eq!(next(&mut events).await, Event { target, ..first });
    });
}

#[test]
fn where_schedules_disagree_a_new_one_takes_the_address_for_healthy() {
    runtime().block_on(async {
        let address = test_address();
        let strict = |rise, fall| {
            let mut target = target(address);
            (target.schedule.rise, target.schedule.fall) = (rise, fall);
            target
        };
        // One is down and will not rise within the test; the other waits for its first success.
        let (down, up, new) = (strict(u32::MAX, 1), strict(1, u32::MAX), strict(9, u32::MAX));
        let (checker, mut events) = Checker::start();
        checker.set_targets([down.clone(), up.clone()]);
        let first = next(&mut events).await;
        assert_eq!((&first.target, first.state), (&down, State::Down));
        let _server = TcpListener::bind(address).await.unwrap();
        let second = next(&mut events).await;
        assert_eq!((&second.target, second.state), (&up, State::Healthy));
        checker.set_targets([down, up, new.clone()]);
        assert_eq!(next(&mut events).await, Event { target: new, ..second });
    });
}

#[test]
fn a_full_channel_holds_up_checks_and_loses_nothing() {
    runtime().block_on(async {
        let (checker, mut events) =
            Checker::with_limits(Limits { in_flight: 1, scripts: 1, events: 1 });
        let mut targets: HashSet<_> = (0..40).map(|_| target(test_address())).collect();
        checker.set_targets(targets.clone());
        // Each has found out that its target is down, and one event has found room.
        checks_made(&checker, 3 * 40).await;
        while !targets.is_empty() {
            let event = next(&mut events).await;
            assert_eq!(event.state, State::Down);
            assert!(targets.remove(&event.target), "{event:?} came twice");
        }
    });
}

#[test]
fn a_checker_that_is_dropped_ends_its_checks() {
    runtime().block_on(async {
        let (checker, mut events) = Checker::start();
        checker.set_targets((0..40).map(|_| target(test_address())));
        assert_eq!(next(&mut events).await.state, State::Down);
        drop(checker);
        // The channel ends when the last of the tasks has.
        let end = async { while events.recv().await.is_some() {} };
        timeout(TEST_LIMIT, end).await.expect("every task ends");
    });
}

#[test]
fn that_a_check_cannot_be_made_is_told_and_that_it_can_again() {
    runtime().block_on(async {
        let server = TcpListener::bind(test_address()).await.unwrap();
        let address = server.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("token");
        let tls = TlsCheck {
            server_name: None,
            trust: Trust::Anything,
            certificate: None,
            token_file: Some(missing.clone()),
        };
        let check = HttpCheck {
            path: "/".to_owned(),
            expect: vec![Statuses::SUCCESS],
            host: None,
            tls: Some(tls),
        };
        let check = Arc::new(Check::Http(check.into()));
        let (checker, mut events) = Checker::start();
        checker.set_targets([Target { check, ..target(address) }]);
        let event = next(&mut events).await;
        assert_eq!((event.state, event.reason.as_str()), (State::Unknown, "not checked yet"));
        let why = event.unchecked.expect("a reason");
        assert!(why.contains(&*missing.to_string_lossy()), "{why}");
        // Nobody speaks TLS there: that is found out once the file is there, and told as a failure.
        std::fs::write(&missing, "a-token").unwrap();
        drop(server);
        let mut event = next(&mut events).await;
        if event.state == State::Unknown {
            // The first failures came before the last one.
            assert_eq!(event.unchecked, None);
            event = next(&mut events).await;
        }
        assert_eq!((event.state, event.unchecked), (State::Down, None));
    });
}
