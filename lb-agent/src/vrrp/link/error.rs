//! What can go wrong between VRRP and the kernel's raw sockets.

use std::io;
use std::net::IpAddr;

/// Why a link does not work, by who has to do something about it.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The node's administrator.
    #[error(
        "cannot {operation} for VRRP on {interface}: not permitted; run as root, or with CAP_NET_RAW"
    )]
    NotPermitted { operation: &'static str, interface: String },
    /// The configuration, or the interface has gone since. A link that says so is of no use any
    /// more: open another one once the interface is there.
    #[error(
        "there is no interface {interface} with index {ifindex} for VRRP; `ip link` lists those \
         that are there"
    )]
    NoSuchInterface { interface: String, ifindex: u32 },
    /// The configuration, or the address has gone since. Such a node must not become Active for
    /// hearing nobody. A link that says so works again when the address is back.
    #[error(
        "VRRP on {interface} cannot speak from {source_address}: this node does not have the \
         address, or still checks it for duplicates; assign it, or configure another one"
    )]
    NoSuchSource { interface: String, source_address: IpAddr },
    /// The configuration.
    #[error("VRRP cannot speak from {source_address} to {peer}: configure peers of one family")]
    Families { source_address: IpAddr, peer: IpAddr },
    /// The node's firewall.
    #[error(
        "VRRP on {interface} to {destination} is not let out by this node's firewall; permit IP \
         protocol 112"
    )]
    Filtered { interface: String, destination: IpAddr },
    /// The network's configuration, or the kernel.
    #[error("cannot send VRRP from {source_address} on {interface} to {destination}: {source}")]
    NotSent { interface: String, source_address: IpAddr, destination: IpAddr, source: io::Error },
    /// The kernel.
    #[error("cannot {operation} for VRRP on {interface}: {source}")]
    Refused { operation: &'static str, interface: String, source: io::Error },
    /// The kernel. The packet is gone, and the link goes on.
    #[error("the kernel brought a packet on {interface} without saying where from and where to")]
    Unreadable { interface: String },
}
