//! VRRP: which node is Active. RFC 9568 (version 3), and version 2 as clusters still speak it.
//!
//! Pure: [`packet`] is what stands in an advertisement, [`machine`] what a router does about it.
//! Neither reads a clock or a socket.

pub mod identity;
pub mod machine;
pub mod moment;
pub mod packet;
