//! `lbctl check`.

use super::*;

#[tokio::test]
async fn check_says_what_a_good_file_means() {
    let scratch = Scratch::new();
    let file = scratch.write("lb.toml", GOOD);
    let said = lbctl(&scratch.path("none"), &["check", file.to_str().expect("a path")]).await;
    assert_eq!(said.outcome, Outcome::Done, "{}", said.err);
    for meaning in [
        "lb.toml is valid",
        "192.0.2.53, 2001:db8::53",
        "service dns: udp 192.0.2.53:53, 192.0.2.54:53, clients divided by address and port",
        "checked every 500ms (a dead backend is out after 2s150ms at most; with none healthy, all are used)",
        "not checked",
        "nat, as set",
        "nat: no [[node]] has the address",
        "local on left, direct from elsewhere",
        "remark: no node is `active`",
    ] {
        assert!(said.out.contains(meaning), "no `{meaning}` in:\n{}", said.out);
    }
    assert_eq!(said.row("192.0.2.11:5353")[1], "75.0%");
}

#[tokio::test]
async fn check_shows_every_problem_of_a_bad_file() {
    let scratch = Scratch::new();
    let file = scratch.write("lb.toml", GOOD.replace("protocol", "protocoll").replace(":5353", ""));
    let file = file.to_str().expect("a path");
    let said = lbctl(&scratch.path("none"), &["check", file]).await;
    assert_eq!(said.outcome, Outcome::Misused);
    assert!(said.out.contains(&format!("{file}:18:1")), "{}", said.out);
    assert!(said.out.contains("= did you mean `protocol`?"), "{}", said.out);
    assert!(said.out.contains("`192.0.2.11` is not an address with a port"), "{}", said.out);
    assert!(said.out.contains("problems: "), "{}", said.out);
}

#[tokio::test]
async fn check_does_not_flood_the_terminal() {
    let scratch = Scratch::new();
    let file = scratch.write("lb.toml", "no toml\n".repeat(1000));
    let said = lbctl(&scratch.path("none"), &["check", file.to_str().expect("a path")]).await;
    assert_eq!(said.outcome, Outcome::Misused);
    assert_eq!(said.out.matches("error: ").count(), 50);
    assert!(said.out.contains("1000 problems (the first 50 are shown)"), "{}", said.out);
}

#[tokio::test]
async fn check_tells_programs_too() {
    let scratch = Scratch::new();
    let check = async |name: &str, text: &str| -> (Outcome, Value) {
        let file = scratch.write(name, text);
        let file = file.to_str().expect("a path");
        let said = lbctl(&scratch.path("none"), &["check", file, "-o", "json"]).await;
        (said.outcome, serde_json::from_str(&said.out).expect("JSON"))
    };
    let (outcome, answer) = check("good", GOOD).await;
    assert_eq!(outcome, Outcome::Done);
    assert_eq!((&answer["valid"], &answer["problems"]), (&json!(true), &json!([])));
    let (outcome, answer) = check("bad", &GOOD.replace("fall = 1", "fall = 0")).await;
    assert_eq!(outcome, Outcome::Misused);
    assert_eq!(answer["valid"], json!(false));
    let problem = &answer["problems"][0];
    assert_eq!((&problem["line"], &problem["column"]), (&json!(36), &json!(8)), "{answer}");
    assert_eq!(problem["message"], "`fall` is 0, but must be between 1 and 100");
}

/// A file with one script, run as whoever runs the test.
fn with_script(path: &Path) -> String {
    let own = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("users can be read");
    format!(
        "{GOOD}\n[vrrp]\nrouter_id = 51\n[[track]]\nname = \"watch\"\nscript = [{path:?}]\n\
         user = {:?}\n",
        own.expect("we are somebody").name
    )
}

#[tokio::test]
async fn check_looks_at_the_scripts_of_this_machine() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new();
    let script = scratch.write("watch", "#!/bin/sh\n");
    let file = scratch.write("lb.toml", with_script(&script));
    let file = file.to_str().expect("a path");
    let check = async |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&script, mode).expect("a file of our own");
        let people = lbctl(&scratch.path("none"), &["check", file]).await;
        let program = lbctl(&scratch.path("none"), &["check", file, "-o", "json"]).await;
        let program: Value = serde_json::from_str(&program.out).expect("JSON");
        (people, program)
    };
    let (people, program) = check(0o755).await;
    assert_eq!((people.outcome, &program["valid"]), (Outcome::Done, &json!(true)), "{program}");
    assert!(people.out.contains("the node resigns"), "{}", people.out);
    for (mode, why) in [
        (0o775, "is writable by others than its owner (mode 0775): chmod go-w it"),
        (0o644, "is not executable by"),
    ] {
        let (people, program) = check(mode).await;
        assert_eq!(people.outcome, Outcome::Misused);
        assert!(
            people.out.contains("lb.toml is valid, but not for this machine"),
            "{}",
            people.out
        );
        let line = people.out.lines().find(|line| line.starts_with("error: track `watch`: "));
        assert!(line.is_some_and(|line| line.contains(why)), "{}", people.out);
        assert_eq!(program["valid"], json!(false));
        assert!(program["scripts"][0].as_str().is_some_and(|s| s.contains(why)), "{program}");
    }
}

#[tokio::test]
async fn check_only_remarks_that_a_script_is_not_on_this_machine() {
    let scratch = Scratch::new();
    let file = scratch.write("lb.toml", with_script(&scratch.path("absent")));
    let said = lbctl(&scratch.path("none"), &["check", file.to_str().expect("a path")]).await;
    assert_eq!(said.outcome, Outcome::Done, "{}", said.out);
    let expected = format!("there is no {}", scratch.path("absent").display());
    let line = said.out.lines().find(|l| l.starts_with("remark: track `watch` on this machine"));
    assert!(line.is_some_and(|line| line.contains(&expected)), "{}", said.out);
}

#[tokio::test]
async fn check_of_no_file_or_no_text_fails_in_a_sentence() {
    let scratch = Scratch::new();
    let binary = scratch.write("binary", [b'a', 0xff, 0xfe]);
    for (file, part) in [
        (scratch.path("absent"), "cannot read"),
        (scratch.0.clone(), "cannot read"),
        (binary, "is not UTF-8 from byte 1 on"),
    ] {
        let file = file.to_str().expect("a path");
        let said = lbctl(&scratch.path("none"), &["check", file]).await;
        assert_eq!(said.outcome, Outcome::Failed);
        assert!(said.err.contains(part) && said.err.contains(file), "{}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    }
}
