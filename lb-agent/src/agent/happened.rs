//! What the agent does about events of VRRP: they are said in the log.

use tracing::{info, warn};

use crate::netlink::mac_text;
use crate::vrrp::{Event, Happening, Trouble};

pub(super) fn happened(event: &Event) {
    let (router, interface) = (event.router_id, event.interface.as_str());
    let family = if event.address.is_ipv4() { "ipv4" } else { "ipv6" };
    match &event.happening {
        Happening::Transition { from, to, reason } => {
            info!(%router, interface, family, %from, %to, reason, "vrrp: another state");
        }
        Happening::Trouble(trouble) => {
            let Trouble { kind, rival, mac, sentence, count, .. } = trouble;
            let mac = mac.map_or_else(|| "unknown".to_owned(), mac_text);
            warn!(%router, interface, kind, %rival, mac, count, "vrrp: {sentence}");
        }
        Happening::Obstacle(obstacle) => {
            warn!(%router, interface, family, "vrrp: {obstacle}");
        }
    }
}
