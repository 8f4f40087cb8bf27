//! A link-layer socket on one interface, through pnet.
//!
//! pnet by itself binds to every protocol and turns promiscuous mode on, which would copy all of
//! a load balancer's traffic to the agent. Given a socket of ours and a protocol, it does neither.

use std::io;
use std::os::fd::IntoRawFd as _;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use pnet::datalink::{
    Channel, ChannelType, Config, DataLinkReceiver, DataLinkSender, NetworkInterface, channel,
};

use super::filter;
use super::frame::ETHERTYPE_IPV6;
use super::{AnnounceError, Interface};
use crate::packet_socket::ALL_PROTOCOLS;

/// How long a send may wait for room in the interface's queue.
const SEND_LIMIT: Duration = Duration::from_millis(100);

/// Sends whole frames on an interface, and receives those of one protocol.
///
/// Belongs to the network namespace of the thread that opened it.
pub struct LinkSocket {
    interface: String,
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
}

impl LinkSocket {
    /// A socket that only sends.
    pub fn sender(interface: &Interface) -> Result<Self, AnnounceError> {
        // Protocol 0 receives nothing (packet(7)).
        Self::open(interface, 0, Duration::ZERO)
    }

    /// A socket that also receives the frames of `ethertype`, each call waiting up to `wait`; of
    /// IPv6 only neighbour discovery.
    pub fn receiver(
        interface: &Interface,
        ethertype: u16,
        wait: Duration,
    ) -> Result<Self, AnnounceError> {
        Self::open(interface, ethertype, wait)
    }

    fn open(interface: &Interface, ethertype: u16, wait: Duration) -> Result<Self, AnnounceError> {
        let failed = |source| AnnounceError::Open { interface: interface.name.clone(), source };
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|errno| failed(errno.into()))?;
        let protocol = if ethertype == ETHERTYPE_IPV6 {
            filter::only_neighbour_discovery(&fd).map_err(failed)?;
            ALL_PROTOCOLS
        } else {
            ethertype
        };
        let config = Config {
            channel_type: ChannelType::Layer3(protocol),
            promiscuous: false,
            read_timeout: Some(wait),
            write_timeout: Some(SEND_LIMIT),
            // pnet owns it from here, and closes it also where it fails.
            socket_fd: Some(fd.into_raw_fd()),
            ..Config::default()
        };
        let link = NetworkInterface {
            name: interface.name.clone(),
            description: String::new(),
            index: interface.index,
            mac: Some(interface.mac.into()),
            ips: Vec::new(),
            flags: 0,
        };
        match channel(&link, config).map_err(failed)? {
            Channel::Ethernet(sender, receiver) => {
                Ok(Self { interface: interface.name.clone(), sender, receiver })
            }
            _ => Err(failed(io::Error::from(io::ErrorKind::Unsupported))),
        }
    }

    /// Puts a frame into the interface's queue.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), AnnounceError> {
        // `None` is for frames longer than a buffer that this way of sending doesn't use.
        self.sender
            .send_to(frame, None)
            .unwrap_or(Ok(()))
            .map_err(|source| AnnounceError::Send { interface: self.interface.clone(), source })
    }

    /// The next frame, or `None` where none came in time. Blocks the thread.
    pub fn receive(&mut self) -> Result<Option<&[u8]>, AnnounceError> {
        match self.receiver.next() {
            Ok(frame) => Ok(Some(frame)),
            Err(e) if matches!(e.kind(), io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => {
                Ok(None)
            }
            Err(source) => {
                Err(AnnounceError::Receive { interface: self.interface.clone(), source })
            }
        }
    }
}
