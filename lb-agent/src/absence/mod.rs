//! Backends that are gone: whether one is, asked on the way that its traffic takes, and the segments by which
//! clients come to know.
//!
//! A check that fails says that this node's connections do not get through. That may be this node's fault, and
//! no reason to end what others have with a backend. So another node is asked for a sign of life in the way
//! that clients' segments go to it.
//!
//! A client that waits for something is asked by a segment that it must answer and that changes nothing, like
//! those of TCP's keep-alive. Its answer comes to the service's address and goes the way of all segments: where
//! a living backend has the connection, it gets one acknowledgement more; where nobody has it, the answer ends
//! in a reset, with the numbers that the client takes.

mod question;
mod segment;
mod sender;

pub use question::{Question, is_there};
pub use segment::Segment;
pub use sender::Sender;
