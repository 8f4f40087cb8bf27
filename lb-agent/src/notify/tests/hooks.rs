//! Hooks at work: real scripts, real servers, a real disk.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use super::receiver::{LIMIT, Scratch, Server, script_hook};
use super::{trouble, turn};
use crate::config::{Notify, NotifyEvent, NotifyWay};
use crate::notify::notice::Notice;
use crate::notify::{HookStatus, Hooks};
use crate::script::ended;

async fn start(hooks: &[Notify], state: &Scratch) -> Hooks {
    Hooks::start(hooks, "master1", state.as_ref()).await
}

/// Nothing but the status tells how far a hook is.
async fn wait(hooks: &Hooks, what: &str, condition: impl Fn(&[HookStatus]) -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition(&hooks.status()) {
        assert!(Instant::now() < deadline, "{what}: {:?}", hooks.status());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn files(state: &Scratch, hook: &str) -> Vec<String> {
    let entries = fs::read_dir(state.path("notify").join(hook)).expect("a spool");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|n| n.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Waits until so many notices are on disk.
async fn saved(state: &Scratch, hook: &str, count: usize) {
    let deadline = Instant::now() + LIMIT;
    let notices = || files(state, hook).into_iter().filter(|name| name.ends_with(".json")).count();
    while notices() != count {
        assert!(Instant::now() < deadline, "{:?}", files(state, hook));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn numbers(notices: &[Notice]) -> Vec<u64> {
    notices.iter().map(|notice| notice.sequence).collect()
}

#[tokio::test]
async fn a_script_gets_the_notice_as_input_arguments_and_variables() {
    let scratch = Scratch::new();
    let told = scratch.path("told").display().to_string();
    let seen = scratch.path("seen").display().to_string();
    let body = format!(
        "cat >>{told}\necho \"$*; $LB_TO $LB_SEQUENCE $LB_VIRTUAL_ADDRESSES; $(pwd); \
         ${{CARGO_MANIFEST_DIR-clean}}\" >{seen}"
    );
    let hooks = start(&[script_hook(scratch.script(&body))], &scratch).await;
    hooks.offer(&turn(0));
    wait(&hooks, "delivered", |status| status[0].delivered == 1).await;
    let line = fs::read_to_string(seen).expect("the script's note");
    assert_eq!(line, "INSTANCE 51-ipv4 active 90; active 1 192.0.2.1 192.0.2.2; /; clean\n");
    assert_eq!(scratch.told()[0].what, turn(0).what);
    hooks.close().await;
    assert_eq!(files(&scratch, "script"), ["delivered"], "nothing waits on disk");
}

#[tokio::test]
async fn a_webhook_gets_a_post_with_a_key() {
    let (scratch, mut server) = (Scratch::new(), Server::start(204).await);
    let hooks = start(&[server.hook()], &scratch).await;
    hooks.offer(&turn(0));
    let request = server.next().await;
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hook?a=b"));
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.headers["host"], server.address.to_string());
    let key = format!("\"{}-1\"", request.notice.run);
    assert_eq!(request.headers["idempotency-key"], key);
    assert_eq!(request.notice.what, turn(0).what);
    hooks.close().await;
}

#[tokio::test]
async fn whoever_does_not_answer_with_a_success_is_told_again_and_the_next_ones_wait() {
    for status in [500, 404, 302] {
        let (scratch, mut server) = (Scratch::new(), Server::start(status).await);
        let hooks = start(&[server.hook()], &scratch).await;
        for number in 0..3 {
            hooks.offer(&turn(number));
        }
        let first = server.next().await;
        wait(&hooks, "failing", |hooks| hooks[0].failing.is_some()).await;
        let seen = hooks.status().remove(0);
        let why = seen.failing.expect("it fails").why;
        assert!(why.contains(&status.to_string()), "{why}");
        assert_eq!((seen.waiting, seen.delivered), (3, 0));
        server.answer(200);
        let again = server.next().await;
        assert_eq!(again.notice, first.notice);
        assert_eq!(again.headers["idempotency-key"], first.headers["idempotency-key"]);
        assert_eq!(
            [server.next().await.notice.sequence, server.next().await.notice.sequence],
            [2, 3]
        );
        wait(&hooks, "in order", |hooks| hooks[0].failing.is_none() && hooks[0].delivered == 3)
            .await;
        hooks.close().await;
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_told_once_it_is() {
    let (scratch, server) = (Scratch::new(), Server::start(200).await);
    let gone = server.address;
    // A port that nobody listens on.
    let mut hook = server.hook();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("a socket").port();
    drop(free);
    if let NotifyWay::Webhook { url, .. } = &mut hook.way {
        url.port = port;
    }
    assert_ne!(gone.port(), port);
    let hooks = start(&[hook], &scratch).await;
    hooks.offer(&turn(0));
    wait(&hooks, "failing", |hooks| hooks[0].failing.is_some()).await;
    let why = hooks.status()[0].failing.clone().expect("it fails").why;
    assert!(why.starts_with(&format!("cannot connect to 127.0.0.1:{port}")), "{why}");
    hooks.close().await;
}

#[tokio::test]
async fn a_restart_loses_nothing_and_keeps_the_order() {
    let scratch = Scratch::new();
    let failing = script_hook(scratch.script("exit 1"));
    let hooks = start(std::slice::from_ref(&failing), &scratch).await;
    for number in 0..5 {
        hooks.offer(&turn(number));
    }
    saved(&scratch, "script", 5).await;
    // As SIGKILL would end it: nothing is closed.
    drop(hooks);
    let hooks = start(&[script_hook(scratch.noting_script())], &scratch).await;
    hooks.offer(&turn(5));
    wait(&hooks, "all", |hooks| hooks[0].delivered == 6).await;
    let told = scratch.told();
    assert_eq!(numbers(&told), [1, 2, 3, 4, 5, 6]);
    assert_ne!(told[4].run, told[5].run);
    hooks.close().await;
}

#[tokio::test]
async fn an_end_delivers_what_a_hook_takes_and_keeps_what_it_does_not() {
    let (good, bad) = (Scratch::new(), Scratch::new());
    let hooks = [
        script_hook(good.noting_script()),
        Notify { name: "bad".to_owned(), ..script_hook(bad.script("exit 3")) },
    ];
    let hooks = start(&hooks, &good).await;
    for number in 0..3 {
        hooks.offer(&turn(number));
    }
    let began = Instant::now();
    hooks.close().await;
    assert!(began.elapsed() < LIMIT);
    assert_eq!(numbers(&good.told()), [1, 2, 3]);
    saved(&good, "bad", 3).await;
}

#[tokio::test]
async fn a_script_that_hangs_is_killed_with_its_children_and_tried_again() {
    let scratch = Scratch::new();
    let pid = scratch.path("pid").display().to_string();
    let script = scratch.script(&format!("sleep 600 & echo $! >{pid}\necho at it\nsleep 600"));
    let hook = Notify { timeout: Duration::from_millis(500), ..script_hook(script) };
    let hooks = start(&[hook], &scratch).await;
    hooks.offer(&turn(0));
    wait(&hooks, "failing", |hooks| hooks[0].failing.is_some()).await;
    let why = hooks.status()[0].failing.clone().expect("it fails").why;
    assert_eq!(why, "killed after 500ms without an end, said: at it");
    let child =
        fs::read_to_string(pid).expect("a file").trim().parse().expect("the child's number");
    match tokio::time::timeout(LIMIT, ended(child)).await.expect("the child ends") {
        Ok(()) => {}
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESRCH)),
    }
    scratch.noting_script();
    wait(&hooks, "told", |hooks| hooks[0].delivered == 1).await;
    hooks.close().await;
}

#[tokio::test]
async fn a_script_that_leaves_somebody_behind_has_ended() {
    let scratch = Scratch::new();
    let hooks = start(&[script_hook(scratch.script("setsid sleep 3 &\nexit 0"))], &scratch).await;
    let began = Instant::now();
    hooks.offer(&turn(0));
    wait(&hooks, "delivered", |hooks| hooks[0].delivered == 1).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    hooks.close().await;
}

#[tokio::test]
async fn a_script_that_others_can_change_is_not_run_and_the_reason_is_shown() {
    let scratch = Scratch::new();
    let script = scratch.noting_script();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o777)).expect("our own file");
    let hooks = start(&[script_hook(script)], &scratch).await;
    hooks.offer(&turn(0));
    wait(&hooks, "failing", |hooks| hooks[0].failing.is_some()).await;
    let why = hooks.status()[0].failing.clone().expect("it fails").why;
    assert!(why.contains("chmod go-w"), "{why}");
    assert_eq!(scratch.told(), []);
    hooks.close().await;
}

#[tokio::test]
async fn a_hook_that_fails_stops_no_other() {
    let (scratch, mut server) = (Scratch::new(), Server::start(200).await);
    let hooks = start(&[script_hook(scratch.script("exit 1")), server.hook()], &scratch).await;
    for number in 0..10 {
        hooks.offer(&turn(number));
    }
    for number in 1..=10 {
        assert_eq!(server.next().await.notice.sequence, number);
    }
    assert_eq!(hooks.status()[0].waiting, 10);
    hooks.close().await;
}

#[tokio::test]
async fn a_hook_is_told_what_it_asked_for_only() {
    let (scratch, mut server) = (Scratch::new(), Server::start(200).await);
    let hook = Notify { events: vec![NotifyEvent::Trouble], ..server.hook() };
    let hooks = start(&[hook], &scratch).await;
    hooks.offer(&turn(0));
    hooks.offer(&trouble("ttl"));
    let notice = server.next().await.notice;
    assert_eq!((notice.sequence, notice.what), (1, trouble("ttl").what), "and without a gap");
    hooks.close().await;
}

#[tokio::test]
async fn without_a_usable_disk_it_goes_on_in_memory_and_says_so() {
    let (scratch, mut server) = (Scratch::new(), Server::start(200).await);
    // A file where the directory should be: not even root can write there.
    fs::write(scratch.path("notify"), "").expect("a writable directory");
    let hooks = start(&[server.hook()], &scratch).await;
    hooks.offer(&turn(0));
    assert_eq!(server.next().await.notice.sequence, 1);
    let said = hooks.status()[0].spool_trouble.clone().expect("trouble");
    assert!(said.starts_with("cannot keep notices in "), "{said}");
    hooks.close().await;
}

#[tokio::test]
async fn a_spoilt_file_is_put_aside_and_the_others_are_told() {
    let scratch = Scratch::new();
    let hooks = start(&[script_hook(scratch.script("exit 1"))], &scratch).await;
    for number in 0..3 {
        hooks.offer(&turn(number));
    }
    saved(&scratch, "script", 3).await;
    drop(hooks);
    let spool = scratch.path("notify").join("script");
    fs::write(spool.join("00000000000000000002.json"), "{").expect("our own file");
    let hooks = start(&[script_hook(scratch.noting_script())], &scratch).await;
    wait(&hooks, "told", |hooks| hooks[0].delivered == 2).await;
    assert_eq!(numbers(&scratch.told()), [1, 3]);
    assert!(files(&scratch, "script").contains(&"00000000000000000002.spoilt".to_owned()));
    hooks.close().await;
}

#[tokio::test]
async fn https_needs_a_server_that_the_authority_vouches_for() {
    let scratch = Scratch::new();
    let (mut server, authority) = Server::start_tls(200).await;
    let (_, stranger) = Server::start_tls(200).await;
    let file = scratch.path("ca.pem");
    fs::write(&file, stranger).expect("a writable directory");
    let hooks = start(&[server.hook_with(true, Some(file.clone()))], &scratch).await;
    hooks.offer(&turn(0));
    wait(&hooks, "failing", |hooks| hooks[0].failing.is_some()).await;
    let why = hooks.status()[0].failing.clone().expect("it fails").why;
    assert!(why.starts_with("no TLS with 127.0.0.1:"), "{why}");
    fs::write(&file, authority).expect("a writable directory");
    assert_eq!(server.next().await.notice.sequence, 1);
    hooks.close().await;
}
