//! HTTP and TLS towards others' servers, as far as the agent is a client of any.

mod exchange;
#[cfg(feature = "kubernetes")]
mod stream;
pub(crate) mod tls;
mod verifier;

#[cfg(test)]
pub(crate) mod testbed;

pub(crate) use exchange::{Answer, USER_AGENT, exchange};
#[cfg(feature = "kubernetes")]
pub(crate) use stream::Streamed;
