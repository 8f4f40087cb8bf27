//! Scripts as they are: files with owners and modes, and processes that end, hang and fork.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::{User, geteuid, mkfifo};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::testbed::{Scratch, own_name, set_mode};
use super::trust::{self, Distrust, Facts, Form, Identity};
use super::{Input, RunError, Runner, Script};

/// More than anything here takes, on a machine however busy.
const LIMIT: Duration = Duration::from_secs(30);

/// A pipe that ends when the last process that opened it has.
fn fifo(scratch: &Scratch) -> (PathBuf, pipe::Receiver) {
    let path = scratch.0.join("fifo");
    mkfifo(&path, Mode::from_bits_truncate(0o622)).expect("a new pipe");
    // Whatever the umask is.
    set_mode(&path, 0o666);
    let receiver = pipe::OpenOptions::new().open_receiver(&path).expect("a pipe");
    (path, receiver)
}

impl Scratch {
    /// What a script of this body is, with a timeout that does not pass.
    fn of(&self, body: &str) -> Script {
        script(self.script(body), LIMIT)
    }
}

fn script(path: PathBuf, timeout: Duration) -> Script {
    Script { path, arguments: Vec::new(), timeout, user: Some(own_name()) }
}

/// How a run ends, in a word and by its sentence.
async fn run(script: Script) -> String {
    feed(script, Input::default()).await
}

async fn feed(script: Script, input: Input<'_>) -> String {
    let mut runner = Runner::new(script);
    match timeout(LIMIT * 2, runner.run(input)).await.expect("a run is bounded") {
        Ok(ending) if ending.success() => good(&ending.to_string()),
        Ok(ending) => format!("failed: {ending}"),
        Err(error @ (RunError::Late { .. } | RunError::Stuck)) => format!("late: {error}"),
        Err(error) => format!("refused: {error}"),
    }
}

fn good(reason: &str) -> String {
    format!("good: {reason}")
}

fn failed(reason: &str) -> String {
    format!("failed: {reason}")
}

fn late(reason: &str) -> String {
    format!("late: {reason}")
}

/// Waits until every process that has the pipe open is gone.
async fn all_gone(mut receiver: pipe::Receiver) {
    let mut rest = Vec::new();
    timeout(LIMIT, receiver.read_to_end(&mut rest)).await.expect("they are gone").expect("a pipe");
}

#[tokio::test]
async fn the_exit_status_decides_and_the_last_line_is_the_reason() {
    let scratch = Scratch::new();
    for (body, expected) in [
        ("exit 0", good("exit status 0")),
        ("echo fine", good("exit status 0, said: fine")),
        ("echo one; echo two >&2; echo; exit 3", failed("exit status 3, said: two")),
        ("exit 1", failed("exit status 1")),
        ("kill -SEGV $$", failed("killed by SIGSEGV")),
        (r"printf 'a\033[31mb'; exit 1", failed("exit status 1, said: a\u{fffd}[31mb")),
        ("head -c 300000 /dev/zero; echo; echo end", good("exit status 0, said: end")),
    ] {
        assert_eq!(run(scratch.of(body)).await, expected, "{body}");
    }
}

#[tokio::test]
async fn arguments_are_passed_as_they_are() {
    let scratch = Scratch::new();
    let mut script = scratch.of("echo \"$#: $2\"");
    script.arguments = vec!["a b".to_owned(), "$(id); *".to_owned()];
    assert_eq!(run(script).await, good("exit status 0, said: 2: $(id); *"));
}

#[tokio::test]
async fn it_gets_what_it_is_given_and_need_not_read_it() {
    let scratch = Scratch::new();
    let (arguments, variables) = (["two".to_owned()], [("LB_KIND", "role".to_owned())]);
    let input = Input { arguments: &arguments, variables: &variables, bytes: b"a notice\n" };
    let mut script = scratch.of("read line; echo $1 $2 $LB_KIND $line");
    script.arguments = vec!["one".to_owned()];
    let expected = good("exit status 0, said: one two role a notice");
    assert_eq!(feed(script, input).await, expected);
    let endless = vec![b'x'; 1 << 20];
    let input = Input { bytes: &endless, ..Input::default() };
    assert_eq!(feed(scratch.of("exit 0"), input).await, good("exit status 0"));
}

/// Cargo sets variables for its tests, so that there is something not to be seen.
#[tokio::test]
async fn a_script_gets_nothing_of_the_agent() {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let scratch = Scratch::new();
    let body = "[ -z \"$CARGO_MANIFEST_DIR\" ] || { echo environment; exit 1; }\n\
                [ \"$(pwd)\" = / ] || { echo directory; exit 1; }\n\
                read line && { echo input; exit 1; }\n\
                set -- $(cat /proc/$$/stat); [ \"$5\" = $$ ] || { echo group; exit 1; }";
    assert_eq!(run(scratch.of(body)).await, good("exit status 0"));
}

#[tokio::test]
async fn another_user_runs_without_the_groups_of_root() {
    if !geteuid().is_root() {
        return;
    }
    let scratch = Scratch::new();
    let mut script = scratch.of("echo $(id -un) $(id -G)");
    script.user = Some("nobody".to_owned());
    let nobody =
        User::from_name("nobody").expect("users can be read").expect("every system has it");
    let expected = format!("exit status 0, said: nobody {}", nobody.gid);
    assert_eq!(run(script).await, good(&expected));
}

#[tokio::test]
async fn a_script_that_hangs_is_killed_with_all_that_it_started() {
    let scratch = Scratch::new();
    let (fifo, receiver) = fifo(&scratch);
    let body = format!("exec 3>{}; echo waiting; sleep 600 & sleep 600", fifo.display());
    let mut script = scratch.of(&body);
    script.timeout = Duration::from_millis(300);
    let expected = late("killed after 300ms without an end, said: waiting");
    assert_eq!(run(script).await, expected);
    all_gone(receiver).await;
}

#[tokio::test]
async fn what_a_script_leaves_running_ends_with_it() {
    let scratch = Scratch::new();
    let (fifo, receiver) = fifo(&scratch);
    let body = format!("exec 3>{}; sleep 600 & exit 0", fifo.display());
    assert_eq!(run(scratch.of(&body)).await, good("exit status 0"));
    all_gone(receiver).await;
}

#[tokio::test]
async fn a_run_that_is_given_up_is_killed() {
    let scratch = Scratch::new();
    let (fifo, mut receiver) = fifo(&scratch);
    let body = format!("exec 3>{}; echo >&3; sleep 600 & sleep 600", fifo.display());
    let task = tokio::spawn(run(scratch.of(&body)));
    receiver.readable().await.expect("a pipe");
    let mut first = [0; 1];
    timeout(LIMIT, receiver.read_exact(&mut first)).await.expect("it runs").expect("a pipe");
    task.abort();
    all_gone(receiver).await;
}

#[tokio::test]
async fn a_script_that_floods_its_output_is_killed_in_time() {
    let scratch = Scratch::new();
    let mut script = scratch.of("exec yes");
    script.timeout = Duration::from_millis(300);
    let outcome = run(script).await;
    assert!(outcome.starts_with("late: ") && outcome.ends_with("said: y"), "{outcome}");
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_with_the_reason() {
    let scratch = Scratch::new();
    let refused = async |script: Script| {
        let outcome = run(script).await;
        outcome.strip_prefix("refused: ").unwrap_or_else(|| panic!("{outcome}")).to_owned()
    };
    let there = scratch.script("exit 0");
    let missing = refused(script(scratch.0.join("missing"), LIMIT)).await;
    assert_eq!(missing, format!("there is no {}/missing", scratch.0.display()));
    let directory = refused(script(scratch.0.clone(), LIMIT)).await;
    assert_eq!(directory, format!("{} is no file", scratch.0.display()));
    let nobody = Script { user: Some("no-such-user".to_owned()), ..script(there.clone(), LIMIT) };
    assert!(refused(nobody).await.starts_with("there is no user no-such-user"));
    set_mode(&there, 0o775);
    let writable = refused(script(there.clone(), LIMIT)).await;
    assert!(writable.contains("is writable by others than its owner (mode 0775)"), "{writable}");
    set_mode(&there, 0o644);
    let plain = refused(script(there.clone(), LIMIT)).await;
    assert!(plain.contains("is not executable by"), "{plain}");
    std::fs::write(&there, "#!/no/such/interpreter\n").expect("a file of our own");
    set_mode(&there, 0o755);
    let dead = refused(script(there, LIMIT)).await;
    assert!(dead.contains("does not start: No such file"), "{dead}");
}

#[test]
fn the_way_to_a_script_counts_with_its_links() {
    let scratch = Scratch::new();
    let there = scratch.script("exit 0");
    let (open, link) = (scratch.0.join("open"), scratch.0.join("link"));
    std::fs::create_dir(&open).expect("a new directory");
    symlink("../check", open.join("check")).expect("a new link");
    symlink("open/check", &link).expect("a new link");
    assert!(trust::check(&link, Some(&own_name())).is_ok());
    set_mode(&open, 0o777);
    let distrust = trust::check(&link, Some(&own_name())).expect_err("somebody else can change it");
    assert!(matches!(&distrust, Distrust::Writable { path, .. } if *path == open), "{distrust}");
    assert!(trust::check(&there, None).is_ok(), "this way does not go through there");
    let round = scratch.0.join("round");
    symlink("round", &round).expect("a new link");
    assert!(matches!(trust::check(&round, None), Err(Distrust::Links { .. })));
}

/// Where, whose, and with which mode; the user is 7, of group 70.
fn judged(way: &[(Form, u32, u32, u32)]) -> Result<(), String> {
    let facts = |&(form, uid, gid, mode)| Facts { path: PathBuf::from("/x"), form, uid, gid, mode };
    let way: Vec<Facts> = way.iter().map(facts).collect();
    let user = Identity { name: "check".to_owned(), uid: 7, gid: 70 };
    trust::judge(&way, &user).map_err(|distrust| distrust.to_string())
}

#[test]
fn only_root_and_the_user_itself_may_be_able_to_change_a_script() {
    use Form::{Directory, File, Link, Other};
    let root = (Directory, 0, 0, 0o755);
    for way in [
        &[root, (File, 0, 0, 0o755)][..],
        &[root, (File, 7, 70, 0o700)],
        &[root, (File, 0, 70, 0o750)],
        &[root, (File, 0, 0, 0o001)],
        // Nobody can replace another's file in a sticky directory.
        &[root, (Directory, 0, 0, 0o1777), (File, 0, 0, 0o755)],
        &[root, (Link, 0, 0, 0o777), (File, 0, 0, 0o755)],
        &[root, (Directory, 7, 70, 0o700), (File, 7, 70, 0o700)],
    ] {
        assert_eq!(judged(way), Ok(()), "{way:?}");
    }
    let owner = "/x belongs to uid 8, neither to root nor to check: chown it";
    let enter = "/x cannot be entered by check: move the script, or name another `user`";
    let execute = "/x is not executable by check: chmod it, or name another `user`";
    let writable =
        |mode| format!("/x is writable by others than its owner (mode {mode}): chmod go-w it");
    for (way, why) in [
        (&[root, (File, 8, 0, 0o755)][..], owner.to_owned()),
        (&[root, (Link, 8, 0, 0o777), (File, 0, 0, 0o755)], owner.to_owned()),
        (&[root, (Directory, 8, 0, 0o755), (File, 0, 0, 0o755)], owner.to_owned()),
        (&[root, (File, 0, 0, 0o775)], writable("0775")),
        (&[root, (File, 0, 0, 0o757)], writable("0757")),
        // The sticky bit of a file means nothing.
        (&[root, (File, 0, 0, 0o1757)], writable("1757")),
        (&[root, (Directory, 0, 0, 0o775), (File, 0, 0, 0o755)], writable("0775")),
        (&[root, (Directory, 0, 0, 0o700), (File, 0, 0, 0o755)], enter.to_owned()),
        (&[root, (File, 0, 0, 0o700)], execute.to_owned()),
        (&[root, (File, 7, 0, 0o655)], execute.to_owned()),
        (&[root, (File, 0, 70, 0o705)], execute.to_owned()),
        (&[root, (Directory, 0, 0, 0o755)], "/x is no file".to_owned()),
        (&[root, (Other, 0, 0, 0o755)], "/x is no file".to_owned()),
    ] {
        assert_eq!(judged(way), Err(why), "{way:?}");
    }
}
