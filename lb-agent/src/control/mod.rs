//! The control API: its types ([`api`]), its server ([`server`]), and how to ask through it
//! ([`client`]).

pub mod api;
pub mod client;
pub mod server;
