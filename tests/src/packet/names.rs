//! The machines that fixtures speak of, by name: `master1` is the node whose program runs.

use std::net::IpAddr;

use anyhow::{Context as _, Result};

/// A MAC as in a frame.
pub type Mac = [u8; 6];

/// Name, and the last number of its MAC (02:00:00:00:00:n) and addresses (192.168.139.n,
/// fd00:139::n in hexadecimal digits of the same look).
const MACHINES: [(&str, u8, u8); 10] = [
    ("client", 0x10, 10),
    ("client2", 0x11, 11),
    ("stranger", 0x77, 77),
    ("master1", 0x01, 133),
    ("master2", 0x02, 134),
    ("master3", 0x03, 135),
    ("server", 0x40, 140),
    ("server2", 0x41, 141),
    ("vip", 0x00, 150),
    ("vip2", 0x0f, 151),
];

/// The MAC of a machine, or one written out.
pub fn mac(name: &str) -> Result<Mac> {
    if name == "broadcast" {
        return Ok([0xff; 6]);
    }
    if let Some((_, last, _)) = MACHINES.iter().find(|(machine, ..)| *machine == name) {
        return Ok([2, 0, 0, 0, 0, *last]);
    }
    let bytes: Result<Vec<u8>, _> = name.split(':').map(|b| u8::from_str_radix(b, 16)).collect();
    bytes
        .ok()
        .and_then(|bytes| Mac::try_from(bytes).ok())
        .with_context(|| format!("{name} is neither a machine nor a MAC"))
}

/// The address of a machine in a family (4 or 6), or one written out.
pub fn address(name: &str, family: u8) -> Result<IpAddr> {
    if let Some((_, _, last)) = MACHINES.iter().find(|(machine, ..)| *machine == name) {
        let text = match family {
            4 => format!("192.168.139.{last}"),
            _ => format!("fd00:139::{last}"),
        };
        return text.parse().context("an address made from a number");
    }
    name.parse().with_context(|| format!("{name} is neither a machine nor an address"))
}
