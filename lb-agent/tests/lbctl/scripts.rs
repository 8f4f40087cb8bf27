//! `lbctl check` looks at the scripts of checks.

use std::path::Path;

use lb_agent::cli::Outcome;

use crate::{GOOD, Scratch, lbctl};

/// A file with one script of a check, run as whoever runs the test.
fn with_check(path: &Path) -> String {
    let own = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("users can be read");
    format!(
        "{GOOD}\n[[service]]\nname = \"checked\"\nport = 9000\nbackends = [\"192.168.139.134:9000\"]\n\
         health = {{ script = [{path:?}], user = {:?} }}\n",
        own.expect("we are somebody").name
    )
}

#[tokio::test]
async fn check_looks_at_the_scripts_of_checks_too() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new();
    let script = scratch.write("watch", "#!/bin/sh\n");
    let file = scratch.write("lb.toml", with_check(&script));
    let mode = std::fs::Permissions::from_mode(0o757);
    std::fs::set_permissions(&script, mode).expect("a file of our own");
    let said = lbctl(&scratch.path("none"), &["check", file.to_str().expect("a path")]).await;
    assert_eq!(said.outcome, Outcome::Misused);
    let begin = "error: the check of service `checked`: ";
    let line = said.out.lines().find(|line| line.starts_with(begin)).unwrap_or_default();
    assert!(line.contains("is writable by others than its owner (mode 0757)"), "{}", said.out);
    assert!(said.out.contains(&format!("checked by {}", script.display())), "{}", said.out);
    let file = scratch.write("lb.toml", with_check(&scratch.path("absent")));
    let said = lbctl(&scratch.path("none"), &["check", file.to_str().expect("a path")]).await;
    assert_eq!(said.outcome, Outcome::Done, "{}", said.out);
    let end = "on a node its backends would not be checked";
    let told = said.out.lines().any(|line| line.starts_with("remark: ") && line.ends_with(end));
    assert!(told, "{}", said.out);
}
