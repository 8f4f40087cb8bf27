//! What becomes of answers, right and wrong; when to ask again; what DNS and Kubernetes say.

#[cfg(feature = "kubernetes")]
mod access;
mod exchange;
mod known;
mod message;
mod pace;
#[cfg(feature = "kubernetes")]
mod slices;

use std::net::SocketAddr;

/// Servers of the lab by their number.
fn at(numbers: impl IntoIterator<Item = u8>) -> impl Iterator<Item = SocketAddr> {
    numbers.into_iter().map(|n| SocketAddr::from(([192, 168, 139, n], 6443)))
}
