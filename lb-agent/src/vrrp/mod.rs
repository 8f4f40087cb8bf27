//! VRRP: which node is Active. RFC 9568 (version 3), and version 2 as clusters still speak it.
//!
//! Pure: [`packet`] is what stands in an advertisement, [`machine`] what a router does about it;
//! neither reads a clock or a socket. [`link`] carries packets, [`driver`] runs the machines on a
//! thread of its own and tells an [`Attract`] what they decide.

mod driver;
mod event;
pub mod identity;
pub mod link;
pub mod machine;
pub mod moment;
pub mod packet;
pub mod realtime;
mod router;
mod status;
mod trouble;
mod waiter;

pub use driver::{Command, Part, Target, Vrrp};
pub use event::{Event, Happening, QUEUE};
pub use router::{Attract, Course, Router, Settings};
pub use status::{Figures, Heard, RouterStatus};
pub use trouble::Trouble;
