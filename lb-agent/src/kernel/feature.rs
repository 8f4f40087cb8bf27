//! What the load balancer uses of the kernel, since when kernels have it, and what is lost without it.
//! docs/kernels.md is the same table for people, and is tested against this one.

use super::release::Release;

/// The oldest kernel that every release is tested on.
pub const LOWEST: Release = Release::new(6, 1);

/// How bad it is to lack something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// The agent does not start.
    Required,
    /// Something is worse, as `without` says.
    Better,
}

/// What asks the kernel itself. Distributions take features back to older kernels, so the release is
/// second best.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Question {
    /// No small question tells: the release has to do.
    None,
    XdpFragments,
    SocketLookupInXdp,
    SocketAssign,
    CoarseClock,
    SynCookies,
    PeerNameHook,
    Tcx,
}

#[derive(Debug)]
pub(super) struct Feature {
    pub name: &'static str,
    pub since: Release,
    /// The kernel's commit.
    pub commit: &'static str,
    pub need: Need,
    pub question: Question,
    pub without: &'static str,
}

pub(super) static FEATURES: [Feature; 11] = [
    Feature {
        name: "socket look-ups in XDP",
        since: Release::new(5, 2),
        commit: "edbf8c01de5a",
        need: Need::Required,
        question: Question::SocketLookupInXdp,
        without: "packets cannot be told from those of connections on this node",
    },
    Feature {
        name: "sockets assigned by tc",
        since: Release::new(5, 7),
        commit: "cf7fbe660f2d",
        need: Need::Required,
        question: Question::SocketAssign,
        without: "connections to the VIP cannot be handed to listeners of this node",
    },
    Feature {
        name: "ring buffers",
        since: Release::new(5, 8),
        commit: "457f44363a88",
        need: Need::Required,
        question: Question::None,
        without: "the programs cannot tell it of failed connections",
    },
    Feature {
        name: "hooks on getpeername",
        since: Release::new(5, 8),
        commit: "1b66d253610c",
        need: Need::Required,
        question: Question::PeerNameHook,
        without: "the programs for this node's own processes are refused",
    },
    Feature {
        name: "links of XDP programs",
        since: Release::new(5, 9),
        commit: "aa8d3a716b59",
        need: Need::Required,
        question: Question::None,
        without: "programs would go with the agent",
    },
    Feature {
        name: "inner maps of any size",
        since: Release::new(5, 10),
        commit: "4a8f87e60f6d",
        need: Need::Required,
        question: Question::None,
        without: "the services' tables cannot be of different sizes",
    },
    Feature {
        name: "the coarse clock",
        since: Release::new(5, 11),
        commit: "d05512618056",
        need: Need::Required,
        question: Question::CoarseClock,
        without: "the programs are refused",
    },
    Feature {
        name: "XDP on frames of several buffers",
        since: Release::new(5, 18),
        commit: "c2f2cdbeffda",
        need: Need::Required,
        question: Question::XdpFragments,
        without: "the XDP program is refused",
    },
    Feature {
        name: "SYN cookies made by XDP",
        since: Release::new(6, 0),
        commit: "33bf9885040c",
        need: Need::Required,
        question: Question::SynCookies,
        without: "the program that answers in a SYN flood is refused",
    },
    Feature {
        name: "tcx",
        since: Release::new(6, 6),
        commit: "e420bed02507",
        need: Need::Better,
        question: Question::Tcx,
        without: "tc programs are filters of a clsact qdisc, which whoever deletes that qdisc takes \
                  away, and which stay behind when their pins are removed by hand",
    },
    Feature {
        name: "assigning sockets with SO_REUSEPORT",
        since: Release::new(6, 6),
        commit: "9c02bec95954",
        need: Need::Better,
        question: Question::None,
        without: "new connections are not delivered to a server on this node that listens with \
                  SO_REUSEPORT (nginx's `reuseport`, kube-apiserver's --permit-port-sharing): \
                  switch that off",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kernels.md"));

    #[test]
    fn the_documented_table_is_this_one() {
        for feature in &FEATURES {
            let start = format!("| {} | {} | `{}` |", feature.since, feature.name, feature.commit);
            assert!(TABLE.contains(&start), "{start}");
        }
        let rows = TABLE.lines().filter(|line| line.contains("` | "));
        assert_eq!(rows.count(), FEATURES.len());
    }

    #[test]
    fn the_lowest_kernel_has_all_that_is_required() {
        for feature in FEATURES.iter().filter(|feature| feature.need == Need::Required) {
            assert!(feature.since <= LOWEST, "{}", feature.name);
        }
    }
}
