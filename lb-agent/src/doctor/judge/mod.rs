//! What follows from what was found on a machine: facts in, findings out. Pure; [`look`](super::look) gathers.

pub(super) mod address;
pub(super) mod advertisement;
pub(super) mod agent;
pub(super) mod certificate;
pub(super) mod election;
pub(super) mod firewall;
pub(super) mod interface;
pub(super) mod keeper;
pub(super) mod machine;
pub(super) mod path;
pub(super) mod program;
pub(super) mod script;
