//! Who on the link answers for the virtual addresses, and which MACs the nodes have.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::announce::{Interface, claimants};
use crate::netlink::Mac;

/// Three questions, and time for the answer to the last one.
const WAIT: Duration = Duration::from_millis(600);

/// What was answered about an address.
pub(in crate::doctor) type Claims = BTreeMap<IpAddr, Result<Vec<Mac>, String>>;

/// Asks about all of them at the same time. Blocks.
pub(in crate::doctor) fn ask(wanted: &[(IpAddr, Option<Interface>)]) -> Claims {
    let each = |(address, interface): &(IpAddr, Option<Interface>)| {
        let answer = match interface {
            None => Err("there is no interface to ask on".to_owned()),
            Some(interface) => {
                claimants(interface, *address, WAIT).map_err(|error| error.to_string())
            }
        };
        (*address, answer)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            wanted.iter().map(|wanted| scope.spawn(move || each(wanted))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}
