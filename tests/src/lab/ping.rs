//! Asking an address for an echo, by the system's ping.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Host;

impl Host {
    /// How many of so many echo requests are answered, each within a second.
    ///
    /// # Errors
    /// Where `ping` is missing.
    pub fn ping(&self, address: IpAddr, count: u32) -> Result<u32> {
        let mut command = Command::new("ping");
        command.args(["-n", "-q", "-i", "0.05", "-W", "1", "-c"]).arg(count.to_string());
        command.arg(address.to_string());
        let output = self.namespace().within(|| {
            command.output().context("cannot run `ping`: install the package iputils-ping")
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        received(&text).with_context(|| {
            format!("ping {address}: {text}{}", String::from_utf8_lossy(&output.stderr))
        })
    }
}

/// The number in `3 packets transmitted, 2 received, 33% packet loss, time 2ms`.
fn received(text: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.contains("packets transmitted"))?;
    line.split(", ").find_map(|part| part.strip_suffix(" received"))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_are_counted_also_where_there_is_none() {
        let line = |rest: &str| format!("--- 192.0.2.1 ping statistics ---\n{rest}\n");
        let some = line("3 packets transmitted, 2 received, 33.3333% packet loss, time 102ms");
        assert_eq!(received(&some), Some(2));
        let none = line("1 packets transmitted, 0 received, +1 errors, 100% packet loss, time 0ms");
        assert_eq!(received(&none), Some(0));
        assert_eq!(received("ping: connect: Network is unreachable"), None);
    }
}
