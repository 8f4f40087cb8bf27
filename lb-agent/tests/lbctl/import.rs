//! `lbctl import`: where the file and the report go, and what the exit status says.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use lb_agent::cli::Outcome;
use lb_agent::config::Config;
use serde_json::Value;

use super::{Said, Scratch, lbctl};

/// As `tests/peers/today` has them.
const TODAY: [(&str, &str); 3] = [
    ("stream.conf", include_str!("../../../tests/peers/today/stream/stream.conf")),
    ("master1.conf", include_str!("../../../tests/peers/today/keepalived-master1-unicast.conf")),
    ("master2.conf", include_str!("../../../tests/peers/today/keepalived-master2-unicast.conf")),
];

struct Files {
    scratch: Scratch,
    paths: Vec<PathBuf>,
}

impl Files {
    fn new() -> Self {
        let scratch = Scratch::new();
        let paths = TODAY.iter().map(|(name, text)| scratch.write(name, text)).collect();
        Self { scratch, paths }
    }

    async fn import(&self, further: &[&str]) -> Said {
        let paths: Vec<&str> = self.paths.iter().map(|p| p.to_str().expect("a path")).collect();
        let [nginx, one, other] = paths[..] else { panic!("{paths:?}") };
        let mut arguments = vec!["import", "--nginx", nginx, "--keepalived", one, other];
        arguments.extend(further);
        lbctl(&self.scratch.path("none"), &arguments).await
    }
}

#[tokio::test]
async fn the_file_goes_to_standard_output_and_the_report_beside_it() {
    let files = Files::new();
    let said = files.import(&[]).await;
    assert_eq!(said.outcome, Outcome::Done, "{}", said.err);
    let config = Config::parse(&said.out).unwrap_or_else(|error| panic!("{}", error.report("x")));
    assert_eq!(config.nodes.len(), 2);
    for part in [
        "TAKEN OVER AS",
        "Without a meaning here:",
        "still above master2's 90",
        // What `lbctl check` says of it.
        "remark: track `check_nginx`: weight -5 never moves the VIP",
        "nothing is left to do by hand; the result is valid",
    ] {
        assert!(said.err.contains(part), "no `{part}` in:\n{}", said.err);
    }
    assert!(!said.err.contains("K8SHA"), "{}", said.err);
    assert!(
        said.out.contains("address = \"192.168.139.134\"  # ")
            && said.out.contains("master2.conf:16")
    );
}

#[tokio::test]
async fn a_program_gets_the_report_as_data() {
    let files = Files::new();
    let said = files.import(&["-o", "json"]).await;
    let answer: Value = serde_json::from_str(&said.err).expect("JSON alone");
    assert_eq!(answer["check"]["valid"], true);
    assert_eq!(answer["not_taken"], Value::Array(Vec::new()));
    let first = &answer["taken"][0];
    assert_eq!(first["directive"], "global_defs");
    assert!(first["place"].as_str().is_some_and(|place| place.ends_with("master1.conf:1")));
    assert!(Config::parse(&said.out).is_ok(), "{}", said.out);
}

#[tokio::test]
async fn what_is_left_to_do_by_hand_is_status_1_and_the_file_is_written() {
    let files = Files::new();
    let unknown = TODAY[1].1.replace("    nopreempt\n", "    nopreempt\n    frobnicate 7\n");
    files.scratch.write(TODAY[1].0, unknown);
    let said = files.import(&[]).await;
    assert_eq!(said.outcome, Outcome::Failed);
    assert!(said.err.contains("master1.conf:23: frobnicate 7"), "{}", said.err);
    assert!(Config::parse(&said.out).is_ok(), "{}", said.out);

    let nowhere = TODAY[1].1.replace("192.168.139.150", "224.0.0.1");
    files.scratch.write(TODAY[1].0, nowhere);
    let said = files.import(&[]).await;
    assert_eq!(said.outcome, Outcome::Failed);
    assert!(said.err.contains("the result is not valid yet"), "{}", said.err);
    assert!(said.err.contains("224.0.0.1") && said.out.contains("224.0.0.1"), "{}", said.err);
}

#[tokio::test]
async fn a_file_that_is_none_is_status_2_with_its_line_and_nothing_is_written() {
    let files = Files::new();
    files.scratch.write(TODAY[2].0, "vrrp_instance VI_1 {\n");
    let target = files.scratch.path("lb.toml");
    let said = files.import(&["--write", target.to_str().expect("a path")]).await;
    assert_eq!(said.outcome, Outcome::Misused);
    assert!(
        said.err.contains("master2.conf:1: the block that begins here has no end"),
        "{}",
        said.err
    );
    assert!(!target.exists());
}

#[tokio::test]
async fn a_file_that_is_there_is_replaced_only_by_force() {
    let files = Files::new();
    let target = files.scratch.path("lb.toml");
    let path = target.to_str().expect("a path").to_owned();
    let text = || std::fs::read_to_string(&target).expect("a file");
    let said = files.import(&["--write", &path]).await;
    assert_eq!((said.outcome, said.out.as_str()), (Outcome::Done, ""), "{}", said.err);
    assert!(Config::parse(&text()).is_ok());
    // There is a password in it.
    assert_eq!(target.metadata().expect("a file").permissions().mode() & 0o777, 0o600);

    files.scratch.write("lb.toml", "mine");
    let said = files.import(&["--write", &path]).await;
    assert_eq!((said.outcome, text().as_str()), (Outcome::Failed, "mine"));
    assert!(said.err.contains("is there already") && said.err.contains("--force"), "{}", said.err);
    let said = files.import(&["--write", &path, "--force"]).await;
    assert_eq!(said.outcome, Outcome::Done);
    assert!(Config::parse(&text()).is_ok());
    let left: Vec<_> = std::fs::read_dir(&files.scratch.0).expect("a directory").collect();
    assert_eq!(left.len(), TODAY.len() + 1, "{left:?}");
}
