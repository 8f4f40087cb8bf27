//! What a driver says that it can do with XDP, without a program being attached: the family `netdev` of generic
//! netlink, which kernels have from 6.3 on (commit d3d854fd6a1d). Two questions, written by hand: no crate of the tree
//! speaks it.

use std::io;

use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

/// `GENL_ID_CTRL`, and what it is asked (linux/genetlink.h).
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// linux/netdev.h
const DEVICE_GET: u8 = 1;
const DEVICE_IFINDEX: u16 = 1;
const DEVICE_XDP_FEATURES: u16 = 3;
const REQUEST: u16 = 1;
const ERROR: u16 = 2;
const HEADER: usize = 16;
/// Behind it: command, version and two bytes that are not used.
const BODY: usize = HEADER + 4;

/// `enum netdev_xdp_act`, a bit for each.
///
/// # Errors
/// Where the kernel has no such question, or no such interface.
pub(in crate::doctor) fn xdp(ifindex: u32) -> io::Result<u64> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let answer = ask(&socket, CONTROL, GET_FAMILY, FAMILY_NAME, b"netdev\0")?;
    let family = attribute(&answer, FAMILY_ID).and_then(|value| value.first_chunk());
    let family = u16::from_ne_bytes(*family.ok_or(io::ErrorKind::InvalidData)?);
    let answer = ask(&socket, family, DEVICE_GET, DEVICE_IFINDEX, &ifindex.to_ne_bytes())?;
    let features = attribute(&answer, DEVICE_XDP_FEATURES).and_then(|value| value.first_chunk());
    Ok(u64::from_ne_bytes(*features.ok_or(io::ErrorKind::InvalidData)?))
}

fn ask(socket: &Socket, family: u16, command: u8, kind: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    socket.send(&request(family, command, kind, value), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answered = answer.get(4..6).and_then(|bytes| bytes.first_chunk());
    if answered.copied().map(u16::from_ne_bytes) == Some(ERROR) {
        let code = answer.get(HEADER..).and_then(|bytes| bytes.first_chunk());
        let code = code.copied().map_or(0, i32::from_ne_bytes);
        return Err(io::Error::from_raw_os_error(code.saturating_neg()));
    }
    Ok(answer)
}

/// A message with one attribute.
fn request(family: u16, command: u8, kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute_length = 4 + value.len();
    let length = BODY + attribute_length.next_multiple_of(4);
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Its number, and ours: nothing else is under way.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend((attribute_length as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(length, 0);
    message
}

/// The value of an attribute. Takes any bytes.
fn attribute(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = message.get(BODY..)?;
    loop {
        let (head, _) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]);
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Netlink;
    use crate::netlink::testbed::{isolated, veth};

    #[test]
    fn a_driver_says_what_it_can_do_with_xdp() {
        isolated(|| async {
            let (left, _) = veth(&Netlink::connect().unwrap()).await;
            match xdp(left.index) {
                // Basic, and frames of several buffers; lo has neither.
                Ok(features) => {
                    assert_eq!(features & 0b10_0001, 0b10_0001, "{features:b}");
                    assert_eq!(xdp(1).unwrap() & 1, 0);
                    assert_eq!(xdp(9999).unwrap_err().raw_os_error(), Some(libc::ENODEV));
                }
                // Before 6.3.
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}"),
            }
        });
    }

    #[test]
    fn an_attribute_is_found_behind_others_and_in_no_wrong_bytes() {
        let mut message = request(7, DEVICE_GET, 9, b"abcde");
        message.extend([8, 0, 3, 0, 1, 2, 3, 4]);
        assert_eq!(attribute(&message, 9), Some(&b"abcde"[..]));
        assert_eq!(attribute(&message, 3), Some(&[1, 2, 3, 4][..]));
        assert_eq!(attribute(&message, 4), None);
        // A length of nothing leads nowhere.
        let at = message.len() - 8;
        message[at] = 0;
        assert_eq!(attribute(&message, 4), None);
        for length in 0..message.len() {
            attribute(&message[..length], 3);
        }
    }
}
