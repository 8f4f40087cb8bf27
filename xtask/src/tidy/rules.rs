//! Rules about single files: their head, length, names, and what may not stand in them.

use std::path::Path;

use super::{Complaint, File};

/// A file that is longer holds more than one thing.
const MAX_LINES: usize = 700;

/// Names that say nothing about what is inside.
const VAGUE: [&str; 5] = ["utils", "util", "helpers", "common", "misc"];

/// Where the kernel's maps may be declared.
const MAPS: [&str; 2] = ["lb-ebpf/src/kernel/maps.rs", "lb-ebpf/src/kernel/maps/"];

/// Prefixes of paths that exist on one machine only. Split, so that this file does not match.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];

/// Rules for text of any kind.
pub(super) fn everywhere(file: File<'_>) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (number, line) in lines(file) {
        if let Some(prefix) = MACHINE_PATHS.iter().find(|prefix| names_a_path(line, prefix)) {
            complaints.push(file.complain(number, format!("a path of one machine: {prefix}")));
        }
        if line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ") {
            complaints.push(file.complain(number, "a conflict that was not resolved"));
        }
    }
    complaints
}

/// Rules for Rust.
pub(super) fn rust(file: File<'_>) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    if !file.text.starts_with("//!") {
        complaints.push(file.complain(1, "open the file with `//!`: what it is for"));
    }
    let length = file.text.lines().count();
    if length > MAX_LINES {
        complaints.push(file.complain(0, format!("{length} lines, {MAX_LINES} at most: split it")));
    }
    let stem = Path::new(file.path).file_stem().unwrap_or_default();
    if VAGUE.iter().any(|name| stem == *name) {
        complaints.push(file.complain(0, "name the file after what is inside"));
    }
    for (number, line) in code(file) {
        complaints.extend(about_line(file, line).map(|text| file.complain(number, text)));
    }
    complaints
}

fn about_line(file: File<'_>, line: &str) -> Option<&'static str> {
    if line.starts_with(concat!("#[ig", "nore")) {
        return Some("a test that does not run: mend or remove it");
    }
    let map = ["#[map", "#[btf_map"].iter().any(|attribute| line.starts_with(attribute));
    if map && !MAPS.iter().any(|place| file.path.starts_with(place)) {
        return Some("declare maps in lb-ebpf/src/kernel/maps.rs only");
    }
    if ["fn get_", "pub fn get_", "pub(crate) fn get_"].iter().any(|head| line.starts_with(head)) {
        return Some("name a getter after what it returns, without `get_`");
    }
    None
}

/// Whether an absolute path with this prefix stands in the line, rather than a part of another one.
fn names_a_path(line: &str, prefix: &str) -> bool {
    line.match_indices(prefix).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "./~-_}$".contains(c))
    })
}

fn lines<'a>(file: File<'a>) -> impl Iterator<Item = (usize, &'a str)> {
    file.text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// The lines that are no comments, without their indentation.
pub(super) fn code<'a>(file: File<'a>) -> impl Iterator<Item = (usize, &'a str)> {
    let trimmed = lines(file).map(|(number, line)| (number, line.trim_start()));
    trimmed.filter(|(_, line)| !line.starts_with("//"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust_at(path: &str, text: &str) -> Vec<String> {
        rust(File { path, text }).into_iter().map(|complaint| complaint.text).collect()
    }

    #[test]
    fn a_file_without_a_head_is_refused() {
        assert_eq!(rust_at("a.rs", "//! What for.\nfn f() {}\n"), [""; 0]);
        assert_eq!(rust_at("a.rs", "fn f() {}\n").len(), 1);
        assert_eq!(rust_at("a.rs", "").len(), 1);
    }

    #[test]
    fn a_long_file_is_refused() {
        let fits = format!("//! Long.\n{}", "\n".repeat(MAX_LINES - 1));
        assert_eq!(rust_at("a.rs", &fits), [""; 0]);
        assert_eq!(rust_at("a.rs", &format!("{fits}\n")).len(), 1);
    }

    #[test]
    fn vague_names_are_refused() {
        assert_eq!(rust_at("lb-agent/src/utils.rs", "//! Things.\n").len(), 1);
        assert_eq!(rust_at("lb-agent/src/lease.rs", "//! The lease.\n"), [""; 0]);
    }

    #[test]
    fn maps_outside_their_file_are_refused() {
        let text = "//! Maps.\n#[btf_map(name = \"a\")]\nstatic A: u8 = 0;\n";
        assert_eq!(rust_at("lb-ebpf/src/kernel/maps.rs", text), [""; 0]);
        assert_eq!(rust_at("lb-ebpf/src/kernel/node.rs", text).len(), 1);
    }

    #[test]
    fn tests_that_do_not_run_are_refused_with_or_without_a_reason() {
        for attribute in [concat!("#[ig", "nore]"), concat!("#[ig", "nore = \"slow\"]")] {
            let text = format!("//! T.\n#[test]\n    {attribute}\nfn a() {{}}\n");
            assert_eq!(rust_at("tests/a.rs", &text).len(), 1, "{text}");
        }
    }

    #[test]
    fn paths_of_one_machine_are_refused_wherever_they_stand() {
        let complaints = |text: &str| everywhere(File { path: "README.md", text }).len();
        assert_eq!(complaints(&format!("see {}someone/lb", MACHINE_PATHS[0])), 1);
        assert_eq!(complaints(&format!("cd {}", MACHINE_PATHS[1])), 1);
        assert_eq!(complaints(&format!("https://example.org{}x", MACHINE_PATHS[3])), 0);
        assert_eq!(complaints("/sys/fs/bpf/lb and /etc/lb/lb.toml"), 0);
    }
}
