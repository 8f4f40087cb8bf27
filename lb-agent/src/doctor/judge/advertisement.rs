//! What VRRP routers of the link were heard to say, against what the file says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::config::{Config, Node, VirtualRouter, Vrrp, VrrpVersion, duration_text};
use crate::finding::Finding;
use crate::netlink::{Mac, mac_text};
use crate::vrrp::identity::{Priority, Version};
use crate::vrrp::packet::{Advertisement, Authentication};

/// A packet of VRRP, as it came by the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::doctor) struct Heard {
    /// Since the listening began.
    pub(in crate::doctor) at: Duration,
    pub(in crate::doctor) source: IpAddr,
    pub(in crate::doctor) mac: Mac,
    pub(in crate::doctor) multicast: bool,
    pub(in crate::doctor) ttl: u8,
    /// What it says, or why it is no advertisement.
    pub(in crate::doctor) said: Result<(Version, Advertisement), String>,
}

/// All of one interface.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::doctor) struct Listening {
    pub(in crate::doctor) interface: String,
    pub(in crate::doctor) lasted: Duration,
    pub(in crate::doctor) packets: Vec<Heard>,
    /// Senders whose packets also came behind the firewall, to a socket.
    pub(in crate::doctor) through: BTreeSet<IpAddr>,
}

pub(in crate::doctor) fn judge(
    heard: &Result<Listening, String>,
    interface: &str,
    config: Option<&Config>,
    own: &[IpAddr],
) -> Vec<Finding> {
    const NAME: &str = "advertisements";
    let subject = format!("VRRP on {interface}");
    let listening = match heard {
        Ok(listening) => listening,
        Err(why) => {
            return vec![Finding::not_looked_at(NAME, subject, why, Some("sudo lbctl doctor"))];
        }
    };
    let mut findings = filtered(listening, own);
    findings.extend(impostors(listening, own));
    match config.and_then(|config| Some((config, config.vrrp.as_ref()?))) {
        Some((config, vrrp)) => {
            let view = View { config, vrrp, listening, own };
            findings.extend(view.of_senders());
            findings.extend(view.two_active());
        }
        None => findings.extend(without_a_file(listening)),
    }
    if findings.is_empty() {
        findings.push(Finding::good(NAME, subject, summary(listening)));
    }
    findings
}

fn summary(listening: &Listening) -> String {
    let lasted = duration_text(listening.lasted);
    let said = listening.packets.iter().filter_map(|heard| {
        let (_, advertisement) = heard.said.as_ref().ok()?;
        Some(format!("router {} from {}", advertisement.router_id, heard.source))
    });
    let senders: BTreeSet<String> = said.collect();
    match senders.len() {
        0 => format!("nobody advertised within {lasted}"),
        _ => {
            format!("heard within {lasted}: {}", senders.into_iter().collect::<Vec<_>>().join(", "))
        }
    }
}

/// What came by the wire, and not to a socket.
fn filtered(listening: &Listening, own: &[IpAddr]) -> Vec<Finding> {
    let senders: BTreeSet<IpAddr> = listening.packets.iter().map(|heard| heard.source).collect();
    // The kernel lets no socket hear what comes from this node's own addresses.
    let lost = senders.difference(&listening.through).filter(|sender| !own.contains(sender));
    let interface = &listening.interface;
    lost.map(|source| {
        Finding::bad(
            "vrrp_filtered",
            format!("advertisements from {source}"),
            format!(
                "they come by {interface}, and do not get to a socket: a firewall of this node, or its reverse-path \
                 filter, drops them"
            ),
            "nft insert rule inet filter input meta l4proto vrrp accept (nft list ruleset: in the table and chain \
             that drops)",
        )
    })
    .collect()
}

/// Who sends in this node's name.
fn impostors(listening: &Listening, own: &[IpAddr]) -> Vec<Finding> {
    let forged = listening.packets.iter().filter(|heard| own.contains(&heard.source));
    let macs: BTreeSet<(IpAddr, Mac)> = forged.map(|heard| (heard.source, heard.mac)).collect();
    let each = macs.into_iter().map(|(source, mac)| {
        Finding::bad(
            "own_address",
            format!("advertisements from {source}"),
            format!(
                "they come by {} from the MAC {}, and the address is this node's: another machine has it, or the link \
                 returns what is sent",
                listening.interface,
                mac_text(mac)
            ),
            format!("give that machine another address than {source}: its switch port is where {} is learnt", mac_text(mac)),
        )
    });
    each.collect()
}

/// Before there is a file: that a router_id is in use.
fn without_a_file(listening: &Listening) -> Vec<Finding> {
    let mut routers: BTreeMap<u8, BTreeSet<String>> = BTreeMap::new();
    for heard in &listening.packets {
        if let Ok((version, said)) = &heard.said {
            let addresses = list(&said.addresses);
            let text = format!(
                "{} (version {version}, priority {}, every {}, {addresses})",
                heard.source,
                said.priority,
                duration_text(said.interval)
            );
            routers.entry(said.router_id.number()).or_default().insert(text);
        }
    }
    let each = routers.into_iter().map(|(id, by)| {
        let found = format!(
            "in use by {}: a cluster of its own needs another one, a node that joins it the same",
            by.into_iter().collect::<Vec<_>>().join(", ")
        );
        Finding::good("router_id", format!("router_id {id} on {}", listening.interface), found)
    });
    each.collect()
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

struct View<'a> {
    config: &'a Config,
    vrrp: &'a Vrrp,
    listening: &'a Listening,
    own: &'a [IpAddr],
}

impl View<'_> {
    /// One finding for each kind of trouble with each sender.
    fn of_senders(&self) -> Vec<Finding> {
        let mut found: BTreeMap<(IpAddr, &'static str), Finding> = BTreeMap::new();
        let others =
            self.listening.packets.iter().filter(|heard| !self.own.contains(&heard.source));
        for heard in others {
            for finding in self.of_packet(heard) {
                found.entry((heard.source, finding.name)).or_insert(finding);
            }
        }
        found.into_values().collect()
    }

    fn of_packet(&self, heard: &Heard) -> Vec<Finding> {
        let (version, said) = match &heard.said {
            Ok(said) => said,
            Err(why) => return vec![damaged(heard, why)],
        };
        let router = self.vrrp.routers.iter().find(|r| r.router_id == said.router_id.number());
        let family = |router: &VirtualRouter| -> Vec<IpAddr> {
            let same = |vip: &&IpAddr| vip.is_ipv4() == heard.source.is_ipv4();
            router.virtual_addresses.iter().filter(same).copied().collect()
        };
        let node = self.config.node_of(heard.source);
        let ours = router.map(family).unwrap_or_default();
        if ours.is_empty() {
            return self.another_id(heard, said, node).into_iter().collect();
        }
        let mine = ours.iter().any(|vip| said.addresses.contains(vip));
        if !mine {
            return vec![self.id_in_use(heard, said)];
        }
        let mut findings = Vec::new();
        if node.is_none() && !is_link_local(heard.source) {
            findings.push(stranger(heard, said));
        }
        findings.extend(self.settings(heard, *version, said, &ours));
        findings
    }

    /// An id of none of our virtual routers.
    fn another_id(
        &self,
        heard: &Heard,
        said: &Advertisement,
        node: Option<&Node>,
    ) -> Option<Finding> {
        let vip = self.config.virtual_addresses.iter().find(|vip| said.addresses.contains(vip))?;
        let (router, here) = (said.router_id, self.ids_of(*vip));
        let who = node.map_or_else(|| heard.source.to_string(), |node| node.name.clone());
        Some(Finding::bad(
            "router_id_differs",
            format!("router_id of {who}"),
            format!(
                "it advertises {vip} with the router_id {router}, this file has {here}: both become Active"
            ),
            format!(
                "router_id = {router} in [vrrp] here, or {here} there; then restart that agent"
            ),
        ))
    }

    fn ids_of(&self, vip: IpAddr) -> String {
        let has = |router: &&VirtualRouter| router.virtual_addresses.contains(&vip);
        let id = self.vrrp.routers.iter().find(has).map(|router| router.router_id);
        id.map_or_else(|| "none".to_owned(), |id| id.to_string())
    }

    /// Of others, who have nothing of ours.
    fn id_in_use(&self, heard: &Heard, said: &Advertisement) -> Finding {
        let (id, source) = (said.router_id, heard.source);
        let used = self.listening.packets.iter().filter_map(|heard| heard.said.as_ref().ok());
        let used: BTreeSet<u8> = used.map(|(_, said)| said.router_id.number()).collect();
        let ours = |id: &u8| self.vrrp.routers.iter().any(|router| router.router_id == *id);
        let free = (1..=255).find(|id| !used.contains(id) && !ours(id)).unwrap_or(1);
        Finding::bad(
            "router_id_in_use",
            format!("router_id {id}"),
            format!(
                "{source} ({}) uses it for {}, none of which is in this file: another group has the same one",
                mac_text(heard.mac),
                list(&said.addresses)
            ),
            format!("router_id = {free} in [vrrp], on every node: nobody was heard with it"),
        )
    }

    /// Of a router that takes part, with our addresses.
    fn settings(
        &self,
        heard: &Heard,
        version: Version,
        said: &Advertisement,
        ours: &[IpAddr],
    ) -> Vec<Finding> {
        let source = heard.source;
        let expected = match self.vrrp.version {
            VrrpVersion::V2 => Version::V2,
            VrrpVersion::V3 => Version::V3,
        };
        if version != expected {
            return vec![Finding::bad(
                "vrrp_version_differs",
                format!("VRRP version of {source}"),
                format!(
                    "it speaks version {version}, this file says {expected}: neither takes the other's, both become Active"
                ),
                format!("version = {version} in [vrrp], or version {expected} there"),
            )];
        }
        let mut findings = Vec::new();
        if heard.ttl != 255 {
            findings.push(Finding::bad(
                "vrrp_ttl",
                format!("TTL of {source}"),
                format!("{} instead of 255: it was routed, and is refused", heard.ttl),
                "put all nodes on one link; traceroute shows the router between",
            ));
        }
        if heard.multicast == self.vrrp.unicast {
            let (theirs, this) =
                if heard.multicast { ("multicast", "unicast") } else { ("unicast", "multicast") };
            findings.push(Finding::bad(
                "vrrp_reach_differs",
                format!("how {source} sends"),
                format!("by {theirs}, and this file says {this}: a link hears only what is sent in its own way"),
                format!("unicast = {} in [vrrp], or the other way there", !heard.multicast),
            ));
        }
        findings.extend(self.interval(source, expected, said));
        findings.extend(self.password(source, said));
        findings.extend(addresses(source, said, ours));
        findings
    }

    fn interval(&self, source: IpAddr, version: Version, said: &Advertisement) -> Option<Finding> {
        let ours = self.vrrp.advertisement_interval;
        if said.interval == ours {
            return None;
        }
        let (theirs, here) = (duration_text(said.interval), duration_text(ours));
        let subject = format!("advertisement interval of {source}");
        let remedy = format!("advertisement_interval = \"{theirs}\" in [vrrp], or {here} there");
        let found = format!("{theirs}, this file says {here}");
        Some(match version {
            Version::V2 => {
                let found = format!("{found}: version 2 refuses it, both become Active");
                Finding::bad("vrrp_interval_differs", subject, found, remedy)
            }
            Version::V3 => {
                let found = format!(
                    "{found}: a Backup follows the Active one's, so that a crash takes as long as that says"
                );
                Finding::doubtful("vrrp_interval_differs", subject, found, remedy)
            }
        })
    }

    /// Neither is shown.
    fn password(&self, source: IpAddr, said: &Advertisement) -> Option<Finding> {
        let ours = match &self.vrrp.auth_pass {
            Some(pass) => Authentication::Password(pass.bytes()),
            None => Authentication::None,
        };
        (said.authentication != ours).then(|| {
            let found = match (ours, said.authentication) {
                (_, Authentication::None) => "it sends none, this file has one",
                (Authentication::None, _) => "it sends one, this file has none",
                _ => "it sends another one than this file has",
            };
            Finding::bad(
                "vrrp_password_differs",
                format!("VRRP password of {source}"),
                format!("{found}: neither takes the other's advertisements, both become Active"),
                "auth_pass in [vrrp], the same as auth_pass of keepalived's `authentication` there",
            )
        })
    }

    /// Several that advertise one virtual router at the same time.
    fn two_active(&self) -> Vec<Finding> {
        type Times = BTreeMap<IpAddr, (Duration, Duration, usize)>;
        let mut routers: BTreeMap<(u8, bool), Times> = BTreeMap::new();
        for heard in &self.listening.packets {
            let Ok((_, said)) = &heard.said else { continue };
            let shared =
                said.addresses.iter().any(|vip| self.config.virtual_addresses.contains(vip));
            if said.priority == Priority::RESIGN || !shared {
                continue;
            }
            let times =
                routers.entry((said.router_id.number(), heard.source.is_ipv4())).or_default();
            let (_, last, count) = times.entry(heard.source).or_insert((heard.at, heard.at, 0));
            (*last, *count) = (heard.at, *count + 1);
        }
        let mut findings = Vec::new();
        for ((id, _), times) in routers {
            let lasting: Vec<(&IpAddr, &(Duration, Duration, usize))> =
                times.iter().filter(|(_, (.., count))| *count > 1).collect();
            let begun = lasting.iter().map(|(_, (first, ..))| *first).max();
            let ended = lasting.iter().map(|(_, (_, last, _))| *last).min();
            // One that ended before the other began has handed over.
            if lasting.len() > 1 && begun < ended {
                let who = lasting.iter().map(|(source, _)| source.to_string()).collect::<Vec<_>>();
                findings.push(Finding::bad(
                    "two_active",
                    format!("router {id}"),
                    format!("{} advertise at the same time: they do not hear one another", who.join(" and ")),
                    "lbctl doctor on each of them: a firewall, another password, version or interval",
                ));
            }
        }
        findings
    }
}

fn damaged(heard: &Heard, why: &str) -> Finding {
    let Heard { source, mac, .. } = heard;
    Finding::doubtful(
        "vrrp_damaged",
        format!("VRRP from {source}"),
        format!("it is no advertisement that can be read ({}): {why}", mac_text(*mac)),
        format!("tcpdump -vni any host {source} and proto 112 shows it: mend its sender"),
    )
}

fn stranger(heard: &Heard, said: &Advertisement) -> Finding {
    let Heard { source, mac, .. } = heard;
    Finding::bad(
        "vrrp_stranger",
        format!("VRRP from {source}"),
        format!(
            "it takes part in router {} with priority {} ({}) and is no [[node]] of this file",
            said.router_id,
            said.priority,
            mac_text(*mac)
        ),
        format!(
            "a [[node]] with address = \"{source}\" in the file; or end VRRP there, or choose another router_id"
        ),
    )
}

fn addresses(source: IpAddr, said: &Advertisement, ours: &[IpAddr]) -> Option<Finding> {
    let theirs: BTreeSet<IpAddr> = said.addresses.iter().copied().collect();
    // A list of IPv6 addresses begins with a link-local one (RFC 9568, 5.2.9).
    let theirs: BTreeSet<IpAddr> = theirs.into_iter().filter(|vip| !is_link_local(*vip)).collect();
    let ours: BTreeSet<IpAddr> = ours.iter().copied().filter(|vip| !is_link_local(*vip)).collect();
    (theirs != ours).then(|| {
        Finding::doubtful(
            "vrrp_addresses_differ",
            format!("virtual addresses of {source}"),
            format!(
                "it lists {}, this file {}: what only one of them lists goes away with it, and keepalived's \
                 version 2 refuses such a list",
                list(&theirs.into_iter().collect::<Vec<_>>()),
                list(&ours.into_iter().collect::<Vec<_>>())
            ),
            "the same virtual_addresses on every node; then lbctl check and a restart",
        )
    })
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests;
