//! The node's own processes: a socket that names a service is sent to a backend before it leaves,
//! with no VIP involved.

use lb_common::backend::{ACCEPTS, Backend, Delivery};
use lb_common::bucket::{NONE, RANKS, chance, slot};
use lb_common::counter::Verdict;
use lb_common::flow::Endpoint;
use lb_common::hash::mix;
use lb_common::service::{HAS_LOCAL, Service, ServiceKey};
use lb_common::settings::HOST_PREFERS_LOCAL;

use crate::environment::Node;

/// The backend for a socket that asks for `asked`; nothing where that is no service, or where no
/// backend accepts (counted).
///
/// The socket's cookie is the hash, so that a UDP socket keeps its backend without any state.
#[inline(always)]
pub fn backend_for<N: Node>(
    node: &N,
    cookie: u64,
    asked: &Endpoint,
    protocol: u8,
) -> Option<Endpoint> {
    if !node.may_be_ours(&asked.address) {
        return None;
    }
    let key = ServiceKey { address: asked.address, port_be: asked.port_be, protocol, padding: 0 };
    let service = node.service(&key)?;
    let flags = node.settings()?.flags;
    let local_first = flags & HOST_PREFERS_LOCAL != 0 && service.flags & HAS_LOCAL != 0;
    let found = if local_first {
        first(node, cookie, service, true).or_else(|| first(node, cookie, service, false))
    } else {
        first(node, cookie, service, false)
    };
    if found.is_none() {
        node.count(Verdict::HostNoBackend);
    }
    found
}

/// The first accepting backend of the socket's bucket, of any delivery: each can be connected to. One that
/// starts slowly may leave it to a later one, or where only one here is asked for, to nobody.
#[inline(always)]
fn first<N: Node>(node: &N, cookie: u64, service: &Service, local_only: bool) -> Option<Endpoint> {
    let hash = mix(service.seed ^ cookie);
    let bucket = node.bucket(service.table, slot(hash, service.slots))?;
    let mut reluctant = None;
    for rank in 0..RANKS {
        let relative = bucket.ranks[rank];
        if relative == NONE {
            break;
        }
        let backend = node.backend(service.backends.wrapping_add(relative as u32))?;
        let fits = !local_only || backend.delivery == Delivery::Local as u8;
        if backend.state & ACCEPTS == 0 || !fits {
            continue;
        }
        if backend.reluctance <= chance(hash) {
            return Some(endpoint(backend));
        }
        if !local_only {
            reluctant = reluctant.or(Some(backend));
        }
    }
    reluctant.map(endpoint)
}

#[inline(always)]
const fn endpoint(backend: &Backend) -> Endpoint {
    Endpoint { address: backend.address, port_be: backend.port_be, padding: [0; 2] }
}
