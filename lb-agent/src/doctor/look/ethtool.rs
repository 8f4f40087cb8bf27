//! What a driver says of an interface: its name, and which offloads are on (ethtool's ioctl).

#![expect(unsafe_code, reason = "ioctl(2) with structures of linux/ethtool.h")]

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

// linux/ethtool.h
const GDRVINFO: u32 = 0x03;
const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const SS_FEATURES: u32 = 4;
const STRING_BYTES: usize = 32;
/// Drivers and kernels know some sixty.
const FEATURES_MAX: usize = 256;
const SIOCETHTOOL: libc::Ioctl = 0x8946;

#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut u32,
    /// The rest of `struct ifreq`'s union.
    rest: [u64; 2],
}

/// A socket to ask by.
#[derive(Debug)]
pub(in crate::doctor) struct Ethtool {
    socket: OwnedFd,
    name: [u8; libc::IFNAMSIZ],
}

impl Ethtool {
    pub(in crate::doctor) fn open(interface: &str) -> io::Result<Self> {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        let mut name = [0; libc::IFNAMSIZ];
        // The last byte stays zero.
        for (to, from) in name.iter_mut().take(libc::IFNAMSIZ - 1).zip(interface.bytes()) {
            *to = from;
        }
        Ok(Self { socket, name })
    }

    /// `virtio_net`, `veth`, ..
    pub(in crate::doctor) fn driver(&self) -> io::Result<String> {
        // struct ethtool_drvinfo: cmd, driver[32], version[32], ..: 196 bytes.
        let mut words = [0; 49];
        words[0] = GDRVINFO;
        self.ask(&mut words)?;
        let bytes: Vec<u8> = words[1..9].iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(text(&bytes))
    }

    /// The names of the features that are on.
    pub(in crate::doctor) fn features(&self) -> io::Result<Vec<String>> {
        // struct ethtool_sset_info: cmd, reserved, mask, lengths.
        let mask = 1_u64 << SS_FEATURES;
        let halves = mask.to_ne_bytes();
        let half =
            |at: usize| halves.get(at..).and_then(|b| b.first_chunk()).copied().unwrap_or_default();
        let mut info = [GSSET_INFO, 0, u32::from_ne_bytes(half(0)), u32::from_ne_bytes(half(4)), 0];
        self.ask(&mut info)?;
        let count = (info[4] as usize).min(FEATURES_MAX);
        // struct ethtool_gstrings: cmd, set, length, strings.
        let mut strings = vec![0; 3 + count * STRING_BYTES / 4];
        (strings[0], strings[1], strings[2]) = (GSTRINGS, SS_FEATURES, count as u32);
        self.ask(&mut strings)?;
        // struct ethtool_gfeatures: cmd, number of blocks; each available, requested, active, never changed.
        let blocks = count.div_ceil(32);
        let mut states = vec![0; 2 + blocks * 4];
        (states[0], states[1]) = (GFEATURES, blocks as u32);
        self.ask(&mut states)?;
        let names: Vec<u8> = strings[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let is_on = |at: &usize| states[2 + at / 32 * 4 + 2] >> (at % 32) & 1 == 1;
        let on = (0..count).filter(is_on);
        Ok(on.map(|at| text(&names[at * STRING_BYTES..][..STRING_BYTES])).collect())
    }

    /// The kernel reads a command from the words and writes its answer there: as many bytes as the command says, which
    /// the callers have made room for.
    fn ask(&self, words: &mut [u32]) -> io::Result<()> {
        let mut request = Request { name: self.name, data: words.as_mut_ptr(), rest: [0; 2] };
        // SAFETY: an `ifreq` whose data points to room for the command's structure; both outlive the call.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Up to the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Netlink;
    use crate::netlink::testbed::{isolated, veth};

    #[test]
    fn a_driver_tells_its_name_and_features() {
        isolated(|| async {
            let netlink = Netlink::connect().unwrap();
            veth(&netlink).await;
            let ethtool = Ethtool::open("left").unwrap();
            assert_eq!(ethtool.driver().unwrap(), "veth");
            let features = ethtool.features().unwrap();
            // Of each veth, as `ethtool -k` shows them.
            assert!(features.iter().any(|name| name == "tx-scatter-gather"), "{features:?}");
            // It could, and is off.
            assert!(!features.iter().any(|name| name == "tx-nocache-copy"), "{features:?}");
            assert!(Ethtool::open("none").unwrap().driver().is_err());
        });
    }
}
