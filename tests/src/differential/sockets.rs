//! The node's sockets: really there, in the namespace of the test.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use anyhow::{Context as _, Result};

use crate::model::state::{self, SocketName};
use crate::packet::scene;

#[derive(Default)]
pub(super) struct Open {
    listeners: BTreeMap<SocketName, TcpListener>,
    datagrams: BTreeMap<SocketName, UdpSocket>,
    connections: BTreeMap<(SocketName, SocketName), (TcpStream, TcpStream)>,
}

impl Open {
    /// Opens and closes, until they are what the model has.
    pub(super) fn follow(&mut self, wanted: &state::Sockets) -> Result<()> {
        self.listeners.retain(|name, _| wanted.listeners.contains(name));
        self.datagrams.retain(|name, _| wanted.datagrams.contains(name));
        self.connections.retain(|pair, _| wanted.connections.contains(pair));
        for name in &wanted.listeners {
            if !self.listeners.contains_key(name) {
                let listener = TcpListener::bind(address(name));
                let listener = listener.with_context(|| format!("cannot listen at {name:?}"))?;
                self.listeners.insert(*name, listener);
            }
        }
        for name in &wanted.datagrams {
            if !self.datagrams.contains_key(name) {
                let socket = UdpSocket::bind(address(name));
                let socket = socket.with_context(|| format!("cannot bind UDP to {name:?}"))?;
                self.datagrams.insert(*name, socket);
            }
        }
        for pair in &wanted.connections {
            if !self.connections.contains_key(pair) {
                let ends = scene::connection(address(&pair.0), address(&pair.1))?;
                self.connections.insert(*pair, ends);
            }
        }
        Ok(())
    }
}

fn address((address, port): &SocketName) -> SocketAddr {
    SocketAddr::new(IpAddr::from(*address), *port)
}
