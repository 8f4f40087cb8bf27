//! What has to be done on a system to complete it. Pure: decides from what was seen.

use anyhow::bail;
use bpf_build::{NIGHTLY, Road};

use super::system::System;

/// What compiles for BPF on Debian, without a nightly and without building core.
const COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
/// What bpf-linker is built with there: the LLVM of that rustc.
const LLVM: [&str; 5] =
    ["llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev", "libxml2-dev"];

/// One thing to do, in the order in which they stand in the plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Install these packages with apt.
    Packages(Vec<&'static str>),
    /// Install the tried nightly with rust-src.
    Nightly,
    /// Build bpf-linker with the compiler's LLVM.
    Linker,
}

/// The steps that complete the system, or a text that says what to install by hand.
pub(crate) fn plan(system: &System) -> anyhow::Result<Vec<Step>> {
    let mut packages = Vec::new();
    let mut by_hand = Vec::new();
    let mut nightly = false;

    let road = match &system.compiler {
        Some(compiler) => compiler.road,
        None if system.debian_core => {
            packages.extend(COMPILER);
            Road::Debian
        }
        None => {
            nightly = system.rustup;
            if !system.rustup {
                by_hand.push(format!(
                    "rustup, from https://rustup.rs; then `rustup toolchain install {NIGHTLY} \
                     --profile minimal --component rust-src`"
                ));
            }
            Road::Rustup
        }
    };
    let linker = system.linker.is_none();
    if linker && road == Road::Debian && !system.llvm {
        packages.extend(LLVM);
    }
    packages.extend(system.missing_programs().map(|program| program.package));
    packages.dedup();

    if !system.apt {
        let named = packages.drain(..).map(|package| format!("the package {package}, or its like"));
        by_hand.extend(named);
    }
    if !by_hand.is_empty() {
        bail!(
            "setup cannot complete this system ({}) by itself; install by hand\n  - {}\nand run \
             `cargo xtask setup` again, which does the rest",
            system.name,
            by_hand.join("\n  - ")
        );
    }
    let mut steps = Vec::new();
    if !packages.is_empty() {
        steps.push(Step::Packages(packages));
    }
    if nightly {
        steps.push(Step::Nightly);
    }
    if linker {
        steps.push(Step::Linker);
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::system::PROGRAMS;
    use bpf_build::Compiler;

    fn complete(road: Road) -> System {
        System {
            name: "Some Linux 1".into(),
            compiler: Some(Compiler { road, cargo: "/c".into(), rustc: "/r".into() }),
            linker: Some("/l".into()),
            programs: PROGRAMS.iter().map(|program| (program, true)).collect(),
            apt: true,
            debian_core: road == Road::Debian,
            llvm: road == Road::Debian,
            rustup: true,
        }
    }

    fn bare(road: Road) -> System {
        let programs = PROGRAMS.iter().map(|program| (program, false)).collect();
        System { compiler: None, linker: None, programs, llvm: false, ..complete(road) }
    }

    #[test]
    fn a_complete_system_needs_nothing() {
        assert_eq!(plan(&complete(Road::Debian)).expect("a plan"), []);
    }

    #[test]
    fn a_bare_debian_gets_packages_and_a_linker_but_no_nightly() {
        let steps = plan(&bare(Road::Debian)).expect("a plan");
        let [Step::Packages(packages), Step::Linker] = steps.as_slice() else {
            panic!("{steps:?}");
        };
        for name in COMPILER.iter().chain(&LLVM).chain(&["iproute2", "nftables"]) {
            assert!(packages.contains(name), "{name} in {packages:?}");
        }
    }

    #[test]
    fn an_ubuntu_gets_a_nightly_and_no_llvm() {
        let steps = plan(&bare(Road::Rustup)).expect("a plan");
        let [Step::Packages(packages), Step::Nightly, Step::Linker] = steps.as_slice() else {
            panic!("{steps:?}");
        };
        assert!(packages.iter().all(|name| !name.contains("llvm") && !name.contains("rustc")));
    }

    #[test]
    fn only_the_missing_linker_is_built() {
        let system = System { linker: None, ..complete(Road::Rustup) };
        assert_eq!(plan(&system).expect("a plan"), [Step::Linker]);
    }

    #[test]
    fn without_rustup_the_user_is_told_what_to_type() {
        let system = System { rustup: false, ..bare(Road::Rustup) };
        let text = plan(&system).expect_err("it cannot be done").to_string();
        assert!(text.contains("https://rustup.rs") && text.contains(NIGHTLY), "{text}");
    }

    #[test]
    fn an_unknown_system_is_named_with_each_package_that_it_lacks() {
        let system = System { apt: false, ..bare(Road::Rustup) };
        let text = plan(&system).expect_err("it cannot be done").to_string();
        assert!(text.contains("Some Linux 1"), "{text}");
        for program in &PROGRAMS {
            assert!(text.contains(program.package), "{} in {text}", program.package);
        }
    }
}
