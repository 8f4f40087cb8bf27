//! An AF_PACKET socket that tells when and which way a frame went and how many it had to drop.
//! (pnet's channel tells none of these.)

#![expect(unsafe_code, reason = "sockaddr_ll and tpacket_stats have no safe wrapper in nix")]

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType,
    recvmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike as _};

use super::frame::{Direction, Frame};

/// For bursts while the recorder's thread waits for a core.
const BUFFER_BYTES: usize = 64 << 20;

/// The largest frame with segmentation offload.
const FRAME_BYTES_MAX: usize = 66_000;

/// How long a read waits before it looks whether to stop.
const WAIT_MS: i64 = 50;

pub(super) struct PacketSocket {
    socket: OwnedFd,
}

impl PacketSocket {
    /// On an interface of the calling thread's network namespace.
    pub(super) fn open(interface: &str) -> Result<Self> {
        let index =
            if_nametoindex(interface).with_context(|| format!("no interface {interface}"))?;
        // Without a protocol it hears nothing until it is bound to the interface.
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None::<SockProtocol>,
        )
        .context("cannot open a packet socket (CAP_NET_RAW, CONFIG_PACKET)")?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).context("SO_RCVBUFFORCE")?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("SO_TIMESTAMPNS")?;
        let wait = TimeVal::milliseconds(WAIT_MS);
        setsockopt(&socket, sockopt::ReceiveTimeout, &wait).context("SO_RCVTIMEO")?;
        bind(&socket, index).with_context(|| format!("cannot capture on {interface}"))?;
        Ok(Self { socket })
    }

    /// The next frame; none where nothing came for a moment.
    pub(super) fn receive(&self) -> Result<Option<Frame>> {
        let mut bytes = vec![0; FRAME_BYTES_MAX];
        let mut control = nix::cmsg_space!(TimeSpec);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<LinkAddr>(
            self.socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::empty(),
        );
        let message = match message {
            Ok(message) => message,
            // ENETDOWN is told once when the interface goes down; it may come up again.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => return Ok(None),
            Err(error) => return Err(error).context("cannot read the capture"),
        };
        let outgoing = message.address.is_some_and(|a| a.pkttype() == libc::PACKET_OUTGOING);
        let at = message.cmsgs().context("a control message is cut off")?.find_map(|c| match c {
            ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
            _ => None,
        });
        let length = message.bytes;
        bytes.truncate(length);
        bytes.shrink_to_fit();
        Ok(Some(Frame {
            at: at.context("a frame without a time")?,
            // Seen from the switch port: what leaves the port enters the host.
            direction: if outgoing { Direction::ToHost } else { Direction::FromHost },
            bytes,
        }))
    }

    /// Frames that did not fit into the socket's buffer.
    pub(super) fn dropped(&self) -> Result<u64> {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to a struct of that size.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                std::ptr::from_mut(&mut statistics).cast(),
                &raw mut length,
            )
        };
        Errno::result(result).context("PACKET_STATISTICS")?;
        Ok(u64::from(statistics.tp_drops))
    }
}

fn bind(socket: &OwnedFd, index: u32) -> Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: i32::try_from(index)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address lives through the call and its size is given.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop).context("bind")
}
