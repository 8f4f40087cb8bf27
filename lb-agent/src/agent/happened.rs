//! What the agent does about events of VRRP: they are said in the log, and told to the hooks.

use tracing::{info, warn};

use super::notices::notice;
use crate::config::Config;
use crate::netlink::mac_text;
use crate::notify::Hooks;
use crate::vrrp::{Event, Happening, Trouble};

pub(super) fn happened(event: &Event, config: &Config, hooks: &Hooks) {
    log(event);
    let routers = config.vrrp.iter().flat_map(|vrrp| &vrrp.routers);
    let mut routers = routers.filter(|router| router.router_id == event.router_id.number());
    let vips = routers.next().map_or(&[][..], |router| &router.virtual_addresses);
    hooks.offer(&notice(event, vips));
}

fn log(event: &Event) {
    let (router, interface) = (event.router_id, event.interface.as_str());
    let family = if event.address.is_ipv4() { "ipv4" } else { "ipv6" };
    match &event.happening {
        Happening::Transition { from, to, reason } => {
            info!(event = "vrrp-state", %router, interface, family, %from, %to, reason, "vrrp: another state");
        }
        Happening::Trouble(trouble) => {
            let Trouble { kind, rival, mac, sentence, count, .. } = trouble;
            let mac = mac.map_or_else(|| "unknown".to_owned(), mac_text);
            warn!(event = "vrrp-trouble", %router, interface, kind, %rival, mac, count, "vrrp: {sentence}");
        }
        Happening::Obstacle(obstacle) => {
            warn!(event = "vrrp-obstacle", %router, interface, family, "vrrp: {obstacle}");
        }
    }
}
