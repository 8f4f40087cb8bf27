//! Which of the file's nodes this machine is.

use std::net::IpAddr;

use thiserror::Error;

use super::{Config, Node, schema};

/// Why this machine is not found in the file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NodeError {
    #[error(
        "no [[node]] has an address of this machine ({own}): add it to the file, whose nodes are \
         {nodes}, or say which one it is with --node"
    )]
    NotListed { own: String, nodes: String },
    #[error(
        "this machine has addresses of several nodes ({nodes}): correct the addresses, or say \
         which one it is with --node"
    )]
    Several { nodes: String },
    #[error("no [[node]] is called `{name}`: {advice}")]
    Unknown { name: String, advice: String },
}

impl Config {
    /// The node that this machine is, by the addresses that it has.
    pub fn this_node(&self, own_addresses: &[IpAddr]) -> Result<&Node, NodeError> {
        let is_own = |address: &IpAddr| own_addresses.contains(address);
        let mut found = self.nodes.iter().filter(|node| node.addresses.iter().any(is_own));
        let Some(first) = found.next() else {
            let own = own_addresses.iter().filter(|address| !address.is_loopback());
            let own = join(own.map(IpAddr::to_string));
            let own = if own.is_empty() { "it has none".to_owned() } else { own };
            let nodes = join(self.nodes.iter().map(described));
            return Err(NodeError::NotListed { own, nodes });
        };
        let others: Vec<String> = found.map(|node| node.name.clone()).collect();
        if others.is_empty() {
            return Ok(first);
        }
        let nodes = join(std::iter::once(first.name.clone()).chain(others));
        Err(NodeError::Several { nodes })
    }

    /// The node of that name (`--node`).
    pub fn node_named(&self, name: &str) -> Result<&Node, NodeError> {
        self.nodes.iter().find(|node| node.name == name).ok_or_else(|| {
            let names = self.nodes.iter().map(|node| node.name.as_str());
            let advice = match schema::nearest(name, names.clone()) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("the nodes are {}", join(names.map(str::to_owned))),
            };
            NodeError::Unknown { name: name.to_owned(), advice }
        })
    }

    /// The node that has this address.
    pub fn node_of(&self, address: IpAddr) -> Option<&Node> {
        self.nodes.iter().find(|node| node.addresses.contains(&address))
    }
}

fn described(node: &Node) -> String {
    format!("{} ({})", node.name, join(node.addresses.iter().map(IpAddr::to_string)))
}

fn join(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(", ")
}
