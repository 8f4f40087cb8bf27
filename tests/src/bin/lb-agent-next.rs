//! The next version of the agent, as `upgrade-under-load` needs one: another number, and another layout of the maps.
//! Everything else is the agent as it is.

use std::process::ExitCode;

use lb_agent::agent::{self, Edition};
use lb_agent::dataplane::{Carry, Changed, Former, Layout, resized};
use lb_common::layout::{LAYOUT_VERSION, map};

const COPIED: Carry = Carry::Copied { up: resized, down: resized };

/// Maps of every kind are others: hash maps that programs write, per-CPU arrays, arrays that the agent writes. What
/// is left is shared between the two.
static FORMER: [Former; 1] = [Former {
    version: LAYOUT_VERSION,
    changed: &[
        Changed { map: map::NAT_FLOWS, carry: COPIED },
        Changed { map: map::UDP_REPLIES, carry: COPIED },
        Changed { map: map::HOST_ORIGINS, carry: COPIED },
        Changed { map: map::COUNTERS, carry: COPIED },
        Changed { map: map::BACKEND_COUNTERS, carry: COPIED },
        Changed { map: map::BACKENDS, carry: COPIED },
        Changed { map: map::FRAGMENTS, carry: Carry::Anew },
    ],
}];

static NEXT: Edition =
    Edition { version: "next", layout: Layout { version: LAYOUT_VERSION + 1, former: &FORMER } };

fn main() -> ExitCode {
    agent::process(&NEXT)
}
