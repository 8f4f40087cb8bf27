//! The search over made-up directories.

use super::*;

/// A directory of its own for each test, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = env::temp_dir().join(format!("bpf-build-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory for temporary files");
        Self(dir)
    }

    fn with(self, file: &str) -> Self {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().expect("a file in the place")).expect("create its folder");
        fs::write(path, "").expect("create the file");
        self
    }

    fn with_debian(self) -> Self {
        self.with("usr/bin/rustc")
            .with("usr/bin/cargo")
            .with("usr/lib/rustlib/bpfel-unknown-none/lib/libcore-0123.rlib")
    }

    fn with_toolchain(self, name: &str) -> Self {
        self.with(&format!("rustup/toolchains/{name}/bin/rustc"))
            .with(&format!("rustup/toolchains/{name}/bin/cargo"))
    }

    fn with_source(self, name: &str) -> Self {
        let library = "lib/rustlib/src/rust/library";
        self.with(&format!("rustup/toolchains/{name}/{library}/core/src/lib.rs"))
    }

    fn find(&self) -> Result<Toolchain, NotFound> {
        let search = Search {
            prefix: self.0.join("usr"),
            rustup_home: Some(self.0.join("rustup")),
            linker_dirs: vec![self.0.join("tools"), self.0.join("path")],
        };
        search.find()
    }

    fn rustc(&self) -> String {
        let found = self.find().expect("a toolchain").compiler.rustc;
        found.strip_prefix(&self.0).expect("within the place").display().to_string()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn debian_with_core_for_bpf_and_a_linker_is_found() {
    let place = Place::new("debian").with_debian().with("path/bpf-linker");
    let found = place.find().expect("a toolchain");
    assert_eq!(found.compiler.road, Road::Debian);
    assert_eq!(found.compiler.cargo, place.0.join("usr/bin/cargo"));
    assert_eq!(found.linker, place.0.join("path/bpf-linker"));
}

#[test]
fn debian_comes_before_rustup() {
    let place = Place::new("both").with_debian().with("tools/bpf-linker");
    let place = place.with_toolchain("nightly-x").with_source("nightly-x");
    assert_eq!(place.rustc(), "usr/bin/rustc");
}

#[test]
fn a_rustc_without_core_for_bpf_is_no_road() {
    let place = Place::new("host-only").with("usr/bin/rustc").with("usr/bin/cargo");
    let place = place.with("tools/bpf-linker").with("usr/lib/rustlib/x86_64/lib/libcore-1.rlib");
    assert_eq!(place.find().expect_err("no compiler").missing, [NO_COMPILER]);
}

#[test]
fn debian_without_its_cargo_is_no_road() {
    let place = Place::new("no-cargo").with_debian().with("tools/bpf-linker");
    fs::remove_file(place.0.join("usr/bin/cargo")).expect("it was made");
    assert_eq!(place.find().expect_err("no cargo").missing, [NO_COMPILER]);
}

#[test]
fn only_a_nightly_with_source_is_a_road() {
    let place = Place::new("nightly").with("tools/bpf-linker");
    let place =
        place.with_toolchain("stable-x").with_source("stable-x").with_toolchain("nightly-x");
    assert!(place.find().is_err(), "the nightly has no rust-src, the stable is no nightly");
    let place = place.with_source("nightly-x");
    assert_eq!(place.rustc(), "rustup/toolchains/nightly-x/bin/rustc");
    assert_eq!(place.find().expect("a toolchain").compiler.road, Road::Rustup);
}

#[test]
fn the_tried_nightly_comes_first_then_the_undated_then_the_latest() {
    let mut place = Place::new("dated").with("tools/bpf-linker");
    for name in ["nightly-2025-05-01-x", "nightly-2025-06-01-x"] {
        place = place.with_toolchain(name).with_source(name);
    }
    assert_eq!(place.rustc(), "rustup/toolchains/nightly-2025-06-01-x/bin/rustc");
    place = place.with_toolchain("nightly-x").with_source("nightly-x");
    assert_eq!(place.rustc(), "rustup/toolchains/nightly-x/bin/rustc");
    let tried = format!("{NIGHTLY}-x");
    place = place.with_toolchain(&tried).with_source(&tried);
    assert_eq!(place.rustc(), format!("rustup/toolchains/{tried}/bin/rustc"));
}

#[test]
fn the_linker_of_the_project_comes_before_the_one_in_path() {
    let place = Place::new("order").with_debian();
    let place = place.with("tools/bpf-linker").with("path/bpf-linker");
    assert_eq!(place.find().expect("a toolchain").linker, place.0.join("tools/bpf-linker"));
}

#[test]
fn a_missing_linker_is_named_alone() {
    let place = Place::new("no-linker").with_debian();
    assert_eq!(place.find().expect_err("no linker").missing, [NO_LINKER]);
}

#[test]
fn not_found_is_one_line_that_names_the_remedy() {
    let text = Place::new("nothing").find().expect_err("nothing is there").to_string();
    assert!(!text.contains('\n'), "{text}");
    assert!(text.contains("`cargo xtask setup`"), "{text}");
    assert!(text.contains("rustc-web") && text.contains("bpf-linker"), "{text}");
}
