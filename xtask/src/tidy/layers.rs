//! Rules about who may know whom: the direction between crates, and modules that are to stay pure.

use super::rules::code;
use super::{Complaint, File};

/// Places and what their code, tests apart, may not name, with the reason.
const LAYERS: [Layer; 13] = [
    Layer {
        places: &[
            "lb-agent/src/config/",
            "lb-agent/src/discovery/dns/message.rs",
            "lb-agent/src/discovery/known.rs",
            "lb-agent/src/discovery/kubernetes/slices.rs",
            "lb-agent/src/discovery/pace.rs",
            "lb-agent/src/explain/",
            "lb-agent/src/table/",
            "lb-agent/src/doctor/judge/",
            "lb-agent/src/finding.rs",
            "lb-agent/src/notify/notice.rs",
            "lb-agent/src/notify/pace.rs",
            "lb-agent/src/notify/queue.rs",
            "lb-agent/src/notify/timestamp.rs",
            "lb-agent/src/plan/",
            "lb-agent/src/rebalance/",
            "lb-agent/src/role/ledger.rs",
            "lb-agent/src/role/steps.rs",
            "lb-agent/src/hysteresis.rs",
            "lb-agent/src/import/",
            "lb-agent/src/kernel/feature.rs",
            "lb-agent/src/kernel/finding.rs",
            "lb-agent/src/kernel/release.rs",
            "lb-agent/src/track/board.rs",
            "lb-agent/src/track/frame.rs",
            "lb-agent/src/track/judge.rs",
            "lb-agent/src/vrrp/identity.rs",
            "lb-agent/src/vrrp/machine/",
            "lb-agent/src/vrrp/moment.rs",
            "lb-agent/src/vrrp/packet/",
        ],
        banned: &[
            "tokio",
            "aya::",
            "std::fs",
            "std::env",
            "std::process",
            "std::thread",
            "nix::",
            "libc::",
            "rtnetlink",
            "hyper",
            "axum",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "UnixStream",
            "Instant::now",
            "SystemTime::now",
        ],
        reason: "it is pure: drivers do input, output and time for it",
    },
    Layer {
        places: &["lb-agent/src/health/"],
        banned: &["crate::dataplane", "crate::role", "crate::track", "aya::"],
        reason: "health, role and dataplane know nothing of one another: agent composes them",
    },
    Layer {
        places: &["lb-agent/src/role/"],
        banned: &["crate::dataplane", "crate::health", "aya::"],
        reason: "health, role and dataplane know nothing of one another: agent composes them",
    },
    Layer {
        places: &["lb-agent/src/vrrp/"],
        banned: &["crate::dataplane", "crate::health", "crate::role", "crate::track", "aya::"],
        reason: "vrrp decides the role and knows nothing of who carries it out",
    },
    Layer {
        places: &["lb-agent/src/notify/", "lb-agent/src/script/"],
        banned: &["crate::dataplane", "crate::health", "crate::role", "crate::vrrp", "aya::"],
        reason: "it tells what it is told, and knows nothing of who tells it: agent composes them",
    },
    Layer {
        places: &["lb-agent/src/track/"],
        banned: &["crate::dataplane", "crate::health", "crate::role", "crate::vrrp", "aya::"],
        reason: "track knows what is well, and nothing of who looks at the rest or acts on it",
    },
    Layer {
        places: &["lb-agent/src/discovery/"],
        banned: &["crate::dataplane", "crate::health", "crate::role", "crate::plan", "aya::"],
        reason: "discovery knows who is told of, and nothing of what becomes of them: agent composes them",
    },
    Layer {
        places: &["lb-agent/src/netlink/"],
        banned: &["crate::dataplane", "crate::health", "crate::role", "aya::"],
        reason: "a driver knows the kernel, and nobody who uses it",
    },
    Layer {
        places: &["lb-agent/src/dataplane/"],
        banned: &["crate::health", "crate::role", "crate::track", "crate::control"],
        reason: "health, role and dataplane know nothing of one another: agent composes them",
    },
    Layer {
        places: &["lb-agent/src/cli/", "lb-agent/src/bin/lbctl.rs"],
        banned: &["aya::", "dataplane", "rtnetlink"],
        reason: "lbctl speaks the control API, never maps",
    },
    Layer {
        places: &["lb-common/src/"],
        banned: &["std::", "alloc::"],
        reason: "the kernel side has only core",
    },
    Layer {
        places: &["tests/src/model/"],
        banned: &["lb_ebpf", "lb_agent", "aya::", "std::fs", "libc::", "nix::", "Difference"],
        reason: "the model is written from docs/packet-path.md, and shares the contract only",
    },
    Layer {
        places: &["lb-agent/src/", "lb-common/src/", "lb-ebpf/src/", "bpf-build/src/"],
        banned: &["lb_tests"],
        reason: "the tests know the product, not the other way round",
    },
];

struct Layer {
    /// Prefixes of paths.
    places: &'static [&'static str],
    banned: &'static [&'static str],
    reason: &'static str,
}

/// What the kernel side's pure half is not: the files that may name aya.
const KERNEL_HALF: [&str; 4] = [
    "lb-ebpf/src/kernel/",
    "lb-ebpf/src/main.rs",
    "lb-ebpf/src/programs.rs",
    "lb-ebpf/src/host_hooks.rs",
];

/// Complaints about what a file's code names.
pub(super) fn imports(file: File<'_>) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for layer in LAYERS.iter().filter(|layer| is_in(file, layer.places)) {
        for name in layer.banned {
            complaints.extend(mentions(file, name, layer.reason));
        }
    }
    if is_in(file, &["lb-ebpf/src/"]) && !is_in(file, &KERNEL_HALF) {
        complaints.extend(mentions(file, "aya_ebpf", "the pure half knows nothing of aya"));
    }
    complaints
}

/// Complaints about a manifest: who depends on whom, and features that must not be.
pub(super) fn manifest(file: File<'_>) -> Vec<Complaint> {
    let mut section = "";
    let mut complaints = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            continue;
        }
        let key = line.split(['=', '.']).next().unwrap_or_default().trim();
        if key.is_empty() || key.starts_with('#') {
            continue;
        }
        let text = match section {
            "features" if key == "testing" => "a `testing` feature: test what is shipped",
            "dev-dependencies" => continue,
            _ if section.ends_with("dependencies") => match unwanted(file.path, key) {
                Some(text) => text,
                None => continue,
            },
            _ => continue,
        };
        complaints.push(file.complain(index + 1, text));
    }
    complaints
}

fn unwanted(path: &str, dependency: &str) -> Option<&'static str> {
    match (path, dependency) {
        ("lb-common/Cargo.toml", "aya") => None,
        ("lb-common/Cargo.toml", _) => Some("lb-common depends on nothing but aya, for the agent"),
        ("lb-ebpf/Cargo.toml", "lb-common" | "aya-ebpf") => None,
        ("lb-ebpf/Cargo.toml", _) => Some("lb-ebpf depends on lb-common and aya-ebpf only"),
        ("Cargo.toml", _) => None,
        (_, "lb-tests") => Some("nothing depends on the tests"),
        _ => None,
    }
}

fn is_in(file: File<'_>, places: &[&str]) -> bool {
    places.iter().any(|place| file.path.starts_with(place))
}

/// Where the code of a file, its tests apart, names something.
fn mentions<'a>(
    file: File<'a>,
    name: &'a str,
    reason: &'a str,
) -> impl Iterator<Item = Complaint> + 'a {
    let is_test = file.path.contains("tests");
    let product = code(file).take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
    product
        .filter(move |(_, line)| !is_test && names(line, name))
        .map(move |(number, _)| file.complain(number, format!("{name}: {reason}")))
}

/// Whether a line names it as a word of its own: `aya::` is not in `maya::`.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports_at(path: &str, text: &str) -> Vec<String> {
        imports(File { path, text }).into_iter().map(|complaint| complaint.to_string()).collect()
    }

    fn manifest_at(path: &str, text: &str) -> Vec<usize> {
        manifest(File { path, text }).into_iter().map(|complaint| complaint.line).collect()
    }

    #[test]
    fn a_pure_module_that_reads_the_clock_is_refused_with_its_place() {
        let text = "//! Plan.\n\nfn f() {\n    let now = Instant::now();\n}\n";
        let complaints = imports_at("lb-agent/src/plan/mod.rs", text);
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].starts_with("lb-agent/src/plan/mod.rs:4: Instant::now"));
        assert_eq!(imports_at("lb-agent/src/agent.rs", text), [""; 0]);
    }

    #[test]
    fn addresses_are_no_sockets() {
        let text = "//! Plan.\nuse std::net::{IpAddr, SocketAddr};\n";
        assert_eq!(imports_at("lb-agent/src/plan/mod.rs", text), [""; 0]);
    }

    #[test]
    fn comments_and_tests_may_name_anything() {
        let text = "//! No tokio here.\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert_eq!(imports_at("lb-agent/src/table/mod.rs", text), [""; 0]);
        assert_eq!(imports_at("lb-agent/src/table/tests.rs", "//! T.\nuse std::fs;\n"), [""; 0]);
    }

    #[test]
    fn the_pure_half_of_the_kernel_side_may_not_name_aya() {
        let text = "//! X.\nuse aya_ebpf::programs::XdpContext;\n";
        assert_eq!(imports_at("lb-ebpf/src/parse.rs", text).len(), 1);
        assert_eq!(imports_at("lb-ebpf/src/kernel/node.rs", text), [""; 0]);
    }

    #[test]
    fn lb_common_depends_on_aya_alone() {
        let text = "[dependencies]\naya = { workspace = true }\nlibc.workspace = true\n\n\
            [dev-dependencies]\nproptest.workspace = true\n";
        assert_eq!(manifest_at("lb-common/Cargo.toml", text), [3]);
        assert_eq!(manifest_at("lb-agent/Cargo.toml", text), [0; 0]);
    }

    #[test]
    fn dependencies_for_one_target_count_too() {
        let text =
            "[target.'cfg(target_arch = \"bpf\")'.dependencies]\naya-ebpf = \"1\"\nrand = \"1\"\n";
        assert_eq!(manifest_at("lb-ebpf/Cargo.toml", text), [3]);
    }

    #[test]
    fn nothing_depends_on_the_tests_and_no_feature_is_called_testing() {
        let text = "[features]\ntesting = []\n[dependencies]\nlb-tests.workspace = true\n";
        assert_eq!(manifest_at("lb-agent/Cargo.toml", text), [2, 4]);
    }
}
