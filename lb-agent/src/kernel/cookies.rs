//! Whether the kernel takes SYN cookies that a program made.

use std::fs;

/// The kernel's setting, of this network namespace, for both families.
const SETTING: &str = "/proc/sys/net/ipv4/tcp_syncookies";

/// Why the programs are not to make SYN cookies here; nothing where they may.
///
/// A listener takes a cookie only while it made one itself within the last two minutes. With the setting 2
/// it answers every SYN by one, so that a few SYNs that are left to it suffice. With 1 it does so only
/// once its queue is full, which never happens while the programs keep the SYNs from it.
pub fn no_cookies() -> Option<String> {
    let why = match fs::read_to_string(SETTING) {
        Ok(text) if text.trim() == "2" => return None,
        Ok(text) => format!("net.ipv4.tcp_syncookies is {}", text.trim()),
        Err(error) => format!("{SETTING}: {error}"),
    };
    Some(format!(
        "in a SYN flood the stack has to answer for the listeners here, not XDP: {why}; \
         `sysctl -w net.ipv4.tcp_syncookies=2` lets the program do it"
    ))
}
