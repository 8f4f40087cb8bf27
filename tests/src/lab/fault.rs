//! Faults that a lab's machine can be given, as rules of nftables in its namespace.

use anyhow::Result;

use super::{Host, tool};

/// The table of all faults of a machine; it has no other rules.
const TABLE: &str = "lab_fault";

/// Owned: the fault ends when this is dropped.
#[derive(Debug)]
pub struct Fault<'a> {
    host: &'a Host,
}

impl Host {
    /// Loses what the machine's own processes send from `interface` to a TCP port elsewhere. What
    /// XDP or tc sends on does not pass here.
    ///
    /// # Errors
    /// Where `nft` is missing or refuses it, as it does while the machine has a fault already.
    pub fn lose_own_segments_to(&self, interface: &str, port: u16) -> Result<Fault<'_>> {
        let rules = format!(
            "create table inet {TABLE}
             add chain inet {TABLE} output {{ type filter hook output priority 0; }}
             add rule inet {TABLE} output oifname \"{interface}\" tcp dport {port} drop"
        );
        self.fault(&rules)
    }

    /// The machine no longer hears an IP protocol, by IPv4 and IPv6; what it sends is heard.
    ///
    /// # Errors
    /// As [`lose_own_segments_to`](Self::lose_own_segments_to).
    pub fn lose_heard(&self, interface: &str, protocol: u8) -> Result<Fault<'_>> {
        let rules = format!(
            "create table inet {TABLE}
             add chain inet {TABLE} input {{ type filter hook input priority 0; }}
             add rule inet {TABLE} input iifname \"{interface}\" meta l4proto {protocol} drop"
        );
        self.fault(&rules)
    }

    /// The machine's own kernel neither hears nor says anything of IP by `interface`, though its link is up.
    ///
    /// # Errors
    /// As [`lose_own_segments_to`](Self::lose_own_segments_to).
    pub fn lose_everything(&self, interface: &str) -> Result<Fault<'_>> {
        let rules = format!(
            "create table inet {TABLE}
             add chain inet {TABLE} input {{ type filter hook input priority 0; }}
             add rule inet {TABLE} input iifname \"{interface}\" drop
             add chain inet {TABLE} output {{ type filter hook output priority 0; }}
             add rule inet {TABLE} output oifname \"{interface}\" drop"
        );
        self.fault(&rules)
    }

    fn fault(&self, rules: &str) -> Result<Fault<'_>> {
        self.namespace().within(|| tool::run("nft", &[rules]))?;
        Ok(Fault { host: self })
    }
}

impl Drop for Fault<'_> {
    fn drop(&mut self) {
        // Gone with the namespace at the latest.
        let rules = format!("delete table inet {TABLE}");
        let _ = self.host.namespace().within(|| tool::run("nft", &[&rules]));
    }
}
