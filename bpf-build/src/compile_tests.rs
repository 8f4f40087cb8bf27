//! The command that is run, and how its output is read.

use super::*;
use crate::search::Compiler;

fn toolchain(road: Road) -> Toolchain {
    let compiler = Compiler { road, cargo: "/c/cargo".into(), rustc: "/c/rustc".into() };
    Toolchain { compiler, linker: "/l/bl".into() }
}

fn request(arch: &str) -> Request<'_> {
    Request { workspace_root: Path::new("/w"), target_dir: Path::new("/t"), arch }
}

fn arguments(road: Road) -> Vec<String> {
    let command = toolchain(road).command(&request("x86_64")).expect("a known architecture");
    command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

#[test]
fn core_is_compiled_on_the_rustup_road_only() {
    assert!(arguments(Road::Rustup).contains(&"-Zbuild-std=core".to_owned()));
    assert!(!arguments(Road::Debian).contains(&"-Zbuild-std=core".to_owned()));
}

#[test]
fn the_linker_is_named_by_its_path_and_the_architecture_by_a_cfg() {
    let command = toolchain(Road::Debian).command(&request("aarch64")).expect("known");
    let flags = command.get_envs().find(|(name, _)| *name == "CARGO_ENCODED_RUSTFLAGS");
    let flags = flags.and_then(|(_, value)| value).expect("flags are set").to_string_lossy();
    let flags: Vec<_> = flags.split('\x1f').collect();
    assert!(flags.contains(&"-Clinker=/l/bl"), "{flags:?}");
    assert!(flags.contains(&"--cfg=bpf_target_arch=\"aarch64\""), "{flags:?}");
}

#[test]
fn a_big_endian_architecture_is_refused_by_name() {
    let error = toolchain(Road::Debian).command(&request("s390x")).expect_err("refused");
    assert!(error.to_string().ends_with("not for s390x"), "{error}");
}

#[test]
fn flags_and_wrappers_of_the_surrounding_build_are_dropped() {
    for name in ["CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER"] {
        assert!(misleads(OsStr::new(name)), "{name}");
    }
    for name in ["RUSTUP_TOOLCHAIN", "CARGO_MAKEFLAGS", "CARGO", "LD_LIBRARY_PATH"] {
        assert!(misleads(OsStr::new(name)), "{name}");
    }
}

#[test]
fn the_object_does_not_depend_on_a_user_s_incremental_builds() {
    let command = toolchain(Road::Debian).command(&request("x86_64")).expect("known");
    let set = command.get_envs().find(|(name, _)| *name == "CARGO_INCREMENTAL");
    assert_eq!(set, Some((OsStr::new("CARGO_INCREMENTAL"), Some(OsStr::new("0")))));
}

#[test]
fn sources_of_packages_are_kept() {
    for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY", "PATH", "HTTPS_PROXY"] {
        assert!(!misleads(OsStr::new(name)), "{name}");
    }
}

#[test]
fn warnings_are_told_from_progress_and_from_the_count() {
    let output = "   Compiling lb-ebpf v0.1.0\nwarning: unused variable: `x`\n --> lb-ebpf/src/a.rs:1:5\n  |\n1 | let x = 1;\n\n\
        warning: `lb-ebpf` (bin \"lb-ebpf\") generated 1 warning\n    Finished `release`\n";
    let found = warnings(output);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("warning: unused variable"), "{found:?}");
}

#[test]
fn a_cargo_that_cannot_run_is_named() {
    let error = toolchain(Road::Debian).build(&Request {
        workspace_root: Path::new("/"),
        target_dir: Path::new("/nonexistent"),
        arch: "x86_64",
    });
    assert_eq!(error.expect_err("no cargo there").to_string(), "cannot run /c/cargo");
}
