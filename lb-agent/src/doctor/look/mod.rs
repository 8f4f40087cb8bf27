//! Gathering facts: files, sockets and questions to the kernel and to others. Decides nothing, changes nothing.

pub(super) mod agent;
pub(super) mod certificate;
pub(super) mod claim;
pub(super) mod echo;
pub(super) mod ethtool;
pub(super) mod features;
pub(super) mod firewall;
pub(super) mod interface;
pub(super) mod keeper;
pub(super) mod listen;
pub(super) mod machine;
pub(super) mod script;
