//! Where the virtual addresses are: on which interface here, and which machines of the link answer for them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::finding::Finding;
use crate::netlink::{Mac, mac_text};

/// A virtual address here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::doctor) struct Placed {
    pub(in crate::doctor) interface: String,
    pub(in crate::doctor) prefix_len: u8,
    /// Without a lifetime: nobody leased it.
    pub(in crate::doctor) permanent: bool,
    /// Of an interface that an agent or keepalived made for a virtual router's MAC.
    pub(in crate::doctor) virtual_mac: bool,
}

/// What was seen of a virtual address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::doctor) struct Seen {
    pub(in crate::doctor) address: IpAddr,
    pub(in crate::doctor) placed: Vec<Placed>,
    /// Where it belongs: the interface with its network, or the first. None where there is none.
    pub(in crate::doctor) home: Option<String>,
    /// MACs of other machines that answered for it, or why nobody was asked.
    pub(in crate::doctor) claims: Result<Vec<Mac>, String>,
    /// Whose MACs those of the other nodes are.
    pub(in crate::doctor) nodes: BTreeMap<Mac, String>,
    /// The virtual routers' own.
    pub(in crate::doctor) virtual_macs: Vec<Mac>,
}

/// Whether a MAC is that of some virtual router (RFC 9568, 7.3).
pub(in crate::doctor) const fn is_virtual(mac: Mac) -> bool {
    matches!(mac, [0, 0, 0x5e, 0, 1 | 2, _])
}

pub(in crate::doctor) fn judge(seen: &Seen) -> Vec<Finding> {
    let mut findings = misplaced(seen);
    findings.push(holders(seen));
    findings
}

fn misplaced(seen: &Seen) -> Vec<Finding> {
    const NAME: &str = "vip_place";
    let vip = seen.address;
    let subject = || format!("{vip} on this node");
    let Some(home) = &seen.home else {
        let why = "there is no interface that it could be on: name one with `interface` in the file, or --interface";
        return vec![Finding::not_looked_at(NAME, subject(), why, None)];
    };
    let mut findings: Vec<Finding> = seen
        .placed
        .iter()
        .filter_map(|placed| {
            let Placed { interface, prefix_len, permanent, virtual_mac } = placed;
            let remedy = format!("ip address del {vip}/{prefix_len} dev {interface}");
            if interface != home && !virtual_mac {
                let found = format!("it is on {interface}, and belongs on {home}: it is answered for without a lease");
                return Some(Finding::bad(NAME, subject(), found, remedy));
            }
            (*permanent).then(|| {
                let found = format!(
                    "it is on {interface} without a lifetime, so that no agent has put it there: it stays when \
                     another node has it"
                );
                let remedy = format!("{remedy}, and take it out of whatever configures it (keepalived: end it)");
                Finding::bad(NAME, subject(), found, remedy)
            })
        })
        .collect();
    if findings.is_empty() {
        let found = match seen.placed.first() {
            Some(placed) => format!("on {}, on a lease", placed.interface),
            None => format!("not here; it belongs on {home}"),
        };
        findings.push(Finding::good(NAME, subject(), found));
    }
    findings
}

fn holders(seen: &Seen) -> Finding {
    const NAME: &str = "vip_holders";
    let vip = seen.address;
    let subject = format!("who answers for {vip}");
    let claims = match &seen.claims {
        Ok(claims) => claims,
        Err(why) => return Finding::not_looked_at(NAME, subject, why, Some("sudo lbctl doctor")),
    };
    let name = |mac: &Mac| match seen.nodes.get(mac) {
        Some(node) => format!("{node} ({})", mac_text(*mac)),
        None if seen.virtual_macs.contains(mac) => {
            format!("the virtual router's MAC {}", mac_text(*mac))
        }
        None => format!("{}, no node's MAC", mac_text(*mac)),
    };
    let mut all: Vec<String> = claims.iter().map(name).collect();
    if !seen.placed.is_empty() {
        all.insert(0, "this node".to_owned());
    }
    if all.len() > 1 {
        return Finding::bad(
            NAME,
            subject,
            format!(
                "{} machines: {}; clients reach now one, now the other",
                all.len(),
                all.join(" and ")
            ),
            format!(
                "on the one that is not to have it: ip address del {vip}/32 dev INTERFACE, or lbctl vrrp there"
            ),
        );
    }
    match claims.first() {
        None if seen.placed.is_empty() => Finding::good(NAME, subject, "nobody; it is free"),
        None => Finding::good(NAME, subject, "this node alone"),
        Some(mac) if seen.nodes.contains_key(mac) || seen.virtual_macs.contains(mac) => {
            Finding::good(NAME, subject, format!("{} alone", name(mac)))
        }
        // Who does not know the nodes' MACs cannot tell.
        Some(mac) if seen.nodes.is_empty() => {
            let why =
                format!("{}: whose that is, is not known, since no other node answered", name(mac));
            Finding::not_looked_at(NAME, subject, why, None)
        }
        Some(mac) => Finding::bad(
            NAME,
            subject,
            format!("another machine has it, with the MAC {}", name(mac)),
            format!(
                "take {vip} from that machine: its switch port is where {} is learnt; or choose another virtual \
                 address",
                mac_text(*mac)
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    const MASTER2: Mac = [2, 0, 0, 0, 0, 2];
    const STRANGER: Mac = [2, 0, 0, 0, 0, 99];

    fn seen() -> Seen {
        Seen {
            address: [192, 168, 139, 150].into(),
            placed: Vec::new(),
            home: Some("ens33".to_owned()),
            claims: Ok(Vec::new()),
            nodes: BTreeMap::from([(MASTER2, "master2".to_owned())]),
            virtual_macs: vec![[0, 0, 0x5e, 0, 1, 51]],
        }
    }

    fn placed(interface: &str, permanent: bool, virtual_mac: bool) -> Placed {
        Placed { interface: interface.to_owned(), prefix_len: 32, permanent, virtual_mac }
    }

    fn severities(seen: &Seen) -> Vec<Severity> {
        judge(seen).iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn one_holder_wherever_it_is_is_sound() {
        let good = [Severity::Good; 2];
        assert_eq!(severities(&seen()), good);
        let here = placed("ens33", false, false);
        assert_eq!(severities(&Seen { placed: vec![here], ..seen() }), good);
        assert_eq!(severities(&Seen { claims: Ok(vec![MASTER2]), ..seen() }), good);
        assert_eq!(severities(&Seen { claims: Ok(vec![[0, 0, 0x5e, 0, 1, 51]]), ..seen() }), good);
        // keepalived's, or our own, with a MAC of the virtual router.
        assert_eq!(
            severities(&Seen { placed: vec![placed("vrrp.51", false, true)], ..seen() }),
            good
        );
    }

    #[test]
    fn a_wrong_interface_and_an_address_without_a_lease_are_told_with_the_command_that_deletes_it()
    {
        for (there, command) in [
            (placed("ens34", false, false), "ip address del 192.168.139.150/32 dev ens34"),
            (placed("ens33", true, false), "ip address del 192.168.139.150/32 dev ens33, and"),
        ] {
            let found = judge(&Seen { placed: vec![there], ..seen() });
            assert_eq!(found[0].severity, Severity::Bad);
            assert!(found[0].remedy.as_ref().unwrap().starts_with(command), "{found:?}");
        }
    }

    #[test]
    fn two_that_answer_are_bad_also_where_this_node_is_one() {
        let two = Seen { claims: Ok(vec![MASTER2, STRANGER]), ..seen() };
        assert_eq!(severities(&two)[1], Severity::Bad);
        let here = Seen {
            placed: vec![placed("ens33", false, false)],
            claims: Ok(vec![MASTER2]),
            ..seen()
        };
        let found = judge(&here);
        assert!(found[1].found.contains("this node and master2"), "{found:?}");
    }

    #[test]
    fn a_stranger_is_one_only_where_the_nodes_are_known() {
        let strange = Seen { claims: Ok(vec![STRANGER]), ..seen() };
        assert_eq!(severities(&strange)[1], Severity::Bad);
        let blind = Seen { nodes: BTreeMap::new(), ..strange };
        assert_eq!(severities(&blind)[1], Severity::NotLookedAt);
    }
}
