//! The modules that are fuzzed, taken from lb-agent as they are. They are pure and need nothing of
//! the agent, so that a fuzzer is built in seconds and without a compiler for BPF.

/// As in lb-agent, without its drivers.
#[path = "../../lb-agent/src/vrrp"]
pub mod vrrp {
    pub mod identity;
    pub mod machine;
    pub mod moment;
    pub mod packet;
}
