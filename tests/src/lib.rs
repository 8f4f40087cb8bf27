//! The proof: a lab of simulated machines with real servers and clients, and the scenarios that
//! run in it. Nothing here is part of what a user installs.

pub mod backend;
pub mod bench;
pub mod client;
pub mod differential;
pub mod guest;
pub mod lab;
pub mod model;
pub mod packet;
pub mod scenario;
pub mod simulation;
pub mod verifier;
