//! The servers that resolve names for this machine, by resolv.conf(5). Search lists and options are not used.

use std::net::{IpAddr, SocketAddr};

const FILE: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// As many as the C library asks.
const MOST: usize = 3;

/// # Errors
/// Where the file cannot be read or names nobody.
pub(super) async fn of_the_system() -> Result<Vec<SocketAddr>, String> {
    let text = tokio::fs::read_to_string(FILE).await;
    let text = text.map_err(|error| format!("cannot read {FILE}: {error}"))?;
    let servers = parse(&text);
    match servers.is_empty() {
        true => Err(format!("{FILE} names no server: write `servers` in [service.discover]")),
        false => Ok(servers),
    }
}

/// What cannot be read, as an address with the name of an interface, is left out.
fn parse(text: &str) -> Vec<SocketAddr> {
    let of_line = |line: &str| -> Option<SocketAddr> {
        let mut words = line.split_ascii_whitespace();
        let address: IpAddr =
            (words.next()? == "nameserver").then(|| words.next())??.parse().ok()?;
        Some(SocketAddr::new(address, PORT))
    };
    text.lines().filter_map(of_line).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_servers_are_asked() {
        let text = "# nameserver 9.9.9.9\nsearch example\nnameserver 127.0.0.53\n\
                    nameserver fe80::1%eth0\nnameserver fd00::53\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n";
        let found: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.53:53", "[fd00::53]:53", "192.0.2.1:53"]);
    }
}
