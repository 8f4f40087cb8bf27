//! Values that TOML has no type for: durations, port ranges, addresses, names. Text in, value or
//! [`Problem`] out. Not for rules between values: those are in `validate`.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use rustls_pki_types::ServerName;

use super::Url;
use super::check::{Fingerprint, Statuses};
use super::problem::{AddressKind, Form, Problem};
use super::protection::{NoPrefix, Prefix};

/// Longest name of a node or service: a DNS label's, so that it fits wherever names are shown.
const NAME_MAX: usize = 63;
/// IFNAMSIZ without its terminator.
const INTERFACE_NAME_MAX: usize = 15;
/// `sun_path` without its terminator.
const SOCKET_PATH_MAX: usize = 107;

/// Units of a duration with their milliseconds, longest first.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

fn malformed(text: &str, form: Form) -> Problem {
    Problem::Malformed { text: text.to_owned(), form }
}

/// `100ms`, `2s`, `2h4m`: whole numbers with units, added up.
pub(super) fn duration(text: &str) -> Result<Duration, Problem> {
    duration_of(text).ok_or_else(|| malformed(text, Form::Duration))
}

/// A duration as the file says it: `1m30s`, `250ms`. None where it is none.
pub fn duration_of(text: &str) -> Option<Duration> {
    duration_ms(text).map(Duration::from_millis)
}

fn duration_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit)?;
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(*unit_ms)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(sum)
}

/// A duration as the file would say it; what is below a millisecond is left out.
pub fn duration_text(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, unit_ms) in UNITS {
        if rest >= unit_ms {
            text.push_str(&format!("{}{unit}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// `61000-64999`.
pub(super) fn port_range(text: &str) -> Result<RangeInclusive<u16>, Problem> {
    let parse = || {
        let (first, last) = text.split_once('-')?;
        let first: u16 = digits(first.trim())?.parse().ok()?;
        let last: u16 = digits(last.trim())?.parse().ok()?;
        (first > 0 && first <= last).then_some(first..=last)
    };
    parse().ok_or_else(|| malformed(text, Form::PortRange))
}

/// The text again if it is digits only: `parse` alone would take a sign.
fn digits(text: &str) -> Option<&str> {
    text.bytes().all(|b| b.is_ascii_digit()).then_some(text)
}

/// An address, of whatever kind.
pub(super) fn address(text: &str) -> Result<IpAddr, Problem> {
    text.parse().map_err(|_| malformed(text, Form::Address))
}

/// An address that one machine can have and others can reach.
pub(super) fn unicast_address(text: &str) -> Result<IpAddr, Problem> {
    let address = address(text)?;
    match unusable(address) {
        Some(kind) => Err(Problem::UnusableAddress { address, kind }),
        None => Ok(address),
    }
}

/// `192.0.2.0/24`, or an address alone.
pub(super) fn prefix(text: &str) -> Result<Prefix, Problem> {
    text.parse().map_err(|error| match error {
        NoPrefix::Malformed | NoPrefix::Mapped => malformed(text, Form::Prefix),
        NoPrefix::HostBits(meant) => Problem::HostBits { text: text.to_owned(), meant },
    })
}

/// `192.0.2.1:6443` or `[2001:db8::1]:6443`, of a machine that others can reach.
pub(super) fn endpoint(text: &str) -> Result<SocketAddr, Problem> {
    let endpoint = socket_address(text)?;
    if let SocketAddr::V6(v6) = endpoint
        && v6.scope_id() != 0
    {
        return Err(malformed(text, Form::Endpoint));
    }
    match unusable(endpoint.ip()) {
        Some(kind) => Err(Problem::UnusableAddress { address: endpoint.ip(), kind }),
        None => Ok(endpoint),
    }
}

/// An address and a port other than 0, for this machine to listen on.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Problem> {
    let endpoint: SocketAddr = text.parse().map_err(|_| malformed(text, Form::Endpoint))?;
    if endpoint.port() == 0 {
        return Err(Problem::PortZero { text: text.to_owned() });
    }
    Ok(endpoint)
}

pub(super) fn unusable(address: IpAddr) -> Option<AddressKind> {
    if address.is_unspecified() {
        return Some(AddressKind::Unspecified);
    }
    if address.is_multicast() {
        return Some(AddressKind::Multicast);
    }
    if address.to_canonical() != address {
        return Some(AddressKind::Mapped);
    }
    if address.is_loopback() {
        return Some(AddressKind::Loopback);
    }
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => Some(AddressKind::Broadcast),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(AddressKind::LinkLocal),
        _ => None,
    }
}

/// The name of a node or service, fit for metrics and shells.
pub(super) fn name(text: &str) -> Result<String, Problem> {
    let fits = text.len() <= NAME_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if fits { Ok(text.to_owned()) } else { Err(malformed(text, Form::Name)) }
}

/// Whether a network interface can have this name, by the kernel's rule (`dev_valid_name`).
pub(crate) fn is_interface_name(text: &str) -> bool {
    (1..=INTERFACE_NAME_MAX).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
}

pub(super) fn interface_name(text: &str) -> Result<String, Problem> {
    let fits = is_interface_name(text);
    if fits { Ok(text.to_owned()) } else { Err(malformed(text, Form::InterfaceName)) }
}

/// A path from the root.
pub(super) fn path(text: &str) -> Result<PathBuf, Problem> {
    let fits = text.starts_with('/') && !text.contains('\0');
    if fits { Ok(PathBuf::from(text)) } else { Err(malformed(text, Form::Path)) }
}

/// What stands behind the host in a URL.
pub(super) fn http_path(text: &str) -> Result<String, Problem> {
    let visible = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&b);
    let fits = text.starts_with('/') && text.bytes().all(visible);
    if fits { Ok(text.to_owned()) } else { Err(malformed(text, Form::HttpPath)) }
}

/// One status of HTTP, or a range.
pub(super) fn statuses(text: &str) -> Result<Statuses, Problem> {
    Statuses::parse(text).ok_or_else(|| malformed(text, Form::Statuses))
}

/// A name or an address, as a Host header has it.
pub(super) fn host(text: &str) -> Result<String, Problem> {
    let of_host = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    let fits = !text.is_empty() && text.bytes().all(of_host);
    if fits { Ok(text.to_owned()) } else { Err(malformed(text, Form::Host)) }
}

/// A name of DNS from the root, without the last dot; in lower case (RFC 1035, 2.3.1; `_` is used all the same).
pub(super) fn dns_name(text: &str) -> Result<String, Problem> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let of_label = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(of_label);
    // An address is no name, and whoever writes one means `backends`.
    let fits =
        name.len() <= 253 && name.split('.').all(is_label) && name.parse::<IpAddr>().is_err();
    if fits { Ok(name.to_ascii_lowercase()) } else { Err(malformed(text, Form::DnsName)) }
}

/// What a certificate can be for: a name or an address.
pub(super) fn server_name(text: &str) -> Result<String, Problem> {
    let fits = ServerName::try_from(text).is_ok();
    if fits { Ok(text.to_owned()) } else { Err(malformed(text, Form::ServerName)) }
}

/// Of a certificate.
pub(super) fn fingerprint(text: &str) -> Result<Fingerprint, Problem> {
    Fingerprint::parse(text).ok_or_else(|| malformed(text, Form::Fingerprint))
}

/// Where a webhook is.
pub(super) fn url(text: &str) -> Result<Url, Problem> {
    Url::parse(text).ok_or_else(|| malformed(text, Form::Url))
}

/// A path that a Unix socket can be bound to.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, Problem> {
    if text.len() > SOCKET_PATH_MAX {
        return Err(malformed(text, Form::SocketPath));
    }
    path(text)
}

pub(super) fn is_prime(n: u32) -> bool {
    if n < 4 {
        return n >= 2;
    }
    let divides = |d: u32| n.is_multiple_of(d);
    if divides(2) {
        return false;
    }
    (3..)
        .step_by(2)
        .take_while(|d| u64::from(*d) * u64::from(*d) <= u64::from(n))
        .all(|d| !divides(d))
}

/// The smallest prime that is at least `n`.
pub(super) fn prime_from(n: u32) -> u32 {
    // Bertrand: there is one below 2n; callers stay far below 2^31.
    (n..).find(|n| is_prime(*n)).unwrap_or(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_add_up() {
        for (text, ms) in [
            ("100ms", 100),
            ("2s", 2000),
            ("2h4m", 7_440_000),
            ("1d", 86_400_000),
            ("0s", 0),
            ("1s500ms", 1500),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn a_duration_without_a_unit_or_with_another_is_refused() {
        for text in [
            "",
            "2",
            "s",
            "2 s",
            "-2s",
            "1.5s",
            "2S",
            "2sec",
            "2s4",
            "99999999999999999999s",
            "9999999999999d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_range_needs_two_ports_in_order() {
        assert_eq!(port_range("61000-64999"), Ok(61000..=64999));
        assert_eq!(port_range("5 - 5"), Ok(5..=5));
        for text in ["", "61000", "2-1", "0-5", "1-65536", "1-2-3", "a-b", "+1-2"] {
            assert!(port_range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_unicast_addresses_of_a_machine_pass() {
        for text in ["192.168.139.150", "fd00::150", "169.254.1.1"] {
            assert!(unicast_address(text).is_ok(), "{text}");
        }
        for text in [
            "0.0.0.0",
            "::",
            "127.0.0.1",
            "::1",
            "224.0.0.18",
            "ff02::12",
            "255.255.255.255",
            "fe80::1",
            "::ffff:1.2.3.4",
            "1.2.3.4/24",
            "master1",
        ] {
            assert!(unicast_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_endpoint_needs_a_port_and_brackets_around_ipv6() {
        for text in ["192.168.139.133:6443", "[fd00::133]:6443"] {
            assert!(endpoint(text).is_ok(), "{text}");
        }
        for text in [
            "192.168.139.133",
            "fd00::133:6443",
            "1.2.3.4:0",
            "1.2.3.4:65536",
            "master1:6443",
            "[fd00::1%2]:80",
            "127.0.0.1:1",
        ] {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_of_dns_has_labels_and_is_no_address() {
        for text in ["api.example.internal", "API.example.internal.", "a", "_k8s.x-1"] {
            assert!(dns_name(text).is_ok(), "{text}");
        }
        let long = "a".repeat(64);
        for text in ["", ".", "a..b", "a b", "192.168.139.133", "fd00::1", "a:53", &long] {
            assert!(dns_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        for text in ["ens33", "eth0.100", "br-lan@x"] {
            assert!(interface_name(text).is_ok(), "{text}");
        }
        for text in ["", ".", "..", "a/b", "a b", "eth0:1", "sixteen-letters-"] {
            assert!(interface_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn primes_are_told_from_the_rest() {
        let primes: Vec<u32> = (0..60).filter(|n| is_prime(*n)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59]);
        assert!(is_prime(65537) && is_prime(655_373) && !is_prime(65536) && !is_prime(65537 * 3));
        assert_eq!(prime_from(65536), 65537);
    }

    proptest! {
        #[test]
        fn a_duration_survives_being_written_and_read(ms in 0u64..10_000_000_000) {
            let written = duration_text(Duration::from_millis(ms));
            prop_assert_eq!(duration(&written), Ok(Duration::from_millis(ms)));
        }

        #[test]
        fn no_text_makes_a_value_parser_panic(text in ".{0,40}") {
            let _ = (duration(&text), port_range(&text), endpoint(&text), unicast_address(&text));
            let _ = (name(&text), interface_name(&text), path(&text), socket_path(&text));
        }
    }
}
