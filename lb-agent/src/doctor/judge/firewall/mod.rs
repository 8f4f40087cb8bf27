//! Whether a firewall's rules let advertisements through: a packet is followed through chains of rules, as far as
//! what the rules look at is known. What is not known makes the answer unsure, never wrong.

pub(in crate::doctor) mod iptables;
pub(in crate::doctor) mod nft;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;

use crate::finding::Finding;

/// Chains that call chains: more than any firewall's generator nests, and the bound of the kernel's own.
const DEPTH_MAX: usize = 16;

/// An advertisement on its way in or out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::doctor) struct Packet {
    pub(in crate::doctor) interface: String,
    pub(in crate::doctor) source: IpAddr,
    pub(in crate::doctor) destination: IpAddr,
    pub(in crate::doctor) outgoing: bool,
}

/// Whether a rule is about a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Applies {
    Yes,
    No,
    /// It looks at something that is not known here.
    Perhaps,
}

impl Applies {
    pub(super) const fn of(known: bool) -> Self {
        if known { Self::Yes } else { Self::No }
    }

    pub(super) const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Perhaps,
        }
    }

    pub(super) const fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Perhaps => Self::Perhaps,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Accept,
    Drop,
    Return,
    /// To another chain, and back.
    Jump(String),
    /// To another chain, and not back.
    Goto(String),
    /// Counted, logged, marked.
    Nothing,
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) applies: Applies,
    pub(super) action: Action,
    /// Where a person finds it.
    pub(super) place: String,
}

/// The rules for one packet.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) chains: HashMap<String, Vec<Rule>>,
    /// Where packets begin, each by itself: the chain, whether its policy drops, and where a person finds it.
    pub(super) beginnings: Vec<(String, bool, String)>,
}

/// What becomes of the packet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::doctor) enum Passage {
    Passes,
    /// By what, perhaps.
    Unsure(String),
    /// By what.
    Dropped(String),
}

/// How a chain ended.
enum End {
    Accepted,
    Dropped(String),
    Through,
}

/// On the way through one beginning.
#[derive(Default)]
struct Way {
    /// An earlier rule may have let it through.
    perhaps_accepted: bool,
    perhaps_dropped: Option<String>,
}

impl Rules {
    /// Follows the packet through every beginning. The worst counts.
    pub(super) fn passage(&self) -> Passage {
        let each = self.beginnings.iter().map(|(chain, drops, place)| {
            let mut way = Way::default();
            let end = match self.follow(chain, true, &mut way, 0) {
                End::Through if *drops => End::Dropped(format!("the policy of {place}")),
                end => end,
            };
            match (end, way) {
                (End::Dropped(by), Way { perhaps_accepted: false, .. }) => Passage::Dropped(by),
                (End::Dropped(by), _) => Passage::Unsure(by),
                (_, Way { perhaps_dropped: Some(by), .. }) => Passage::Unsure(by),
                _ => Passage::Passes,
            }
        });
        each.max().unwrap_or(Passage::Passes)
    }

    fn follow(&self, chain: &str, surely: bool, way: &mut Way, depth: usize) -> End {
        if depth > DEPTH_MAX {
            return End::Through;
        }
        for rule in self.chains.get(chain).into_iter().flatten() {
            let surely = match rule.applies {
                Applies::No => continue,
                Applies::Yes => surely,
                Applies::Perhaps => false,
            };
            let end = match &rule.action {
                Action::Nothing => continue,
                Action::Accept => End::Accepted,
                Action::Drop => End::Dropped(rule.place.clone()),
                Action::Return if surely => return End::Through,
                // What comes behind it in this chain may not be asked.
                Action::Return => {
                    way.perhaps_accepted = true;
                    continue;
                }
                Action::Jump(to) | Action::Goto(to) => self.follow(to, surely, way, depth + 1),
            };
            match end {
                End::Through if surely && matches!(rule.action, Action::Goto(_)) => {
                    return End::Through;
                }
                End::Through => {}
                end if surely => return end,
                End::Accepted => way.perhaps_accepted = true,
                End::Dropped(by) => way.perhaps_dropped = way.perhaps_dropped.take().or(Some(by)),
            }
        }
        End::Through
    }
}

/// Whether a rule's name of a protocol is that of VRRP.
pub(super) fn is_vrrp(word: &str) -> bool {
    matches!(word, "vrrp" | "112")
}

/// Whether an address is one, or in a prefix, as rules write them.
pub(super) fn within(address: IpAddr, text: &str) -> Applies {
    let (network, length) = text.split_once('/').unwrap_or((text, ""));
    let Ok(network) = network.parse::<IpAddr>() else { return Applies::Perhaps };
    let bits = if network.is_ipv4() { 32 } else { 128 };
    let length = match (length, length.parse::<IpAddr>()) {
        ("", _) => Some(bits),
        // A mask, as iptables shows some.
        (_, Ok(IpAddr::V4(mask))) => Some(mask.to_bits().leading_ones()),
        (text, _) => text.parse().ok().filter(|length| *length <= bits),
    };
    let Some(length) = length else { return Applies::Perhaps };
    Applies::of(match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            length == 0 || (one.to_bits() ^ other.to_bits()) >> (32 - length) == 0
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            length == 0 || (one.to_bits() ^ other.to_bits()) >> (128 - length) == 0
        }
        _ => false,
    })
}

/// What one firewall says of one packet, or why nobody knows.
#[derive(Clone, Debug)]
pub(in crate::doctor) struct Look {
    pub(in crate::doctor) packet: Packet,
    pub(in crate::doctor) passage: Passage,
}

const NAME: &str = "vrrp_filtered";

/// The judgement on all packets that were followed, by either firewall.
pub(in crate::doctor) fn judge(looks: &[Look]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for outgoing in [false, true] {
        let those = looks.iter().filter(|look| look.packet.outgoing == outgoing);
        // Of equals the first.
        let worst =
            those.reduce(|worst, look| if look.passage > worst.passage { look } else { worst });
        let Some(worst) = worst else { continue };
        findings.push(finding(&worst.packet, &worst.passage));
    }
    findings
}

fn finding(packet: &Packet, passage: &Passage) -> Finding {
    let Packet { interface, source, destination, outgoing } = packet;
    let (direction, words, chain) = match outgoing {
        false => (format!("in by {interface}"), "come from", "input"),
        true => (format!("out by {interface}"), "go out from", "output"),
    };
    let subject = format!("firewall: protocol 112 {direction}");
    let what = format!("advertisements that {words} {source} to {destination}");
    match passage {
        Passage::Passes => {
            Finding::good(NAME, subject, format!("no rule and no policy drops {what}"))
        }
        Passage::Dropped(by) => Finding::bad(
            NAME,
            subject,
            format!("{what} are dropped by {by}: each node takes itself for the only one"),
            remedy(packet, chain, by),
        ),
        Passage::Unsure(by) => Finding::not_looked_at(
            NAME,
            subject,
            format!("whether {what} are dropped by {by} depends on more than can be followed here"),
            Some("lbctl vrrp on each node, once agents run: whom does it hear?"),
        ),
    }
}

/// An accept in a table of its own would not do: a drop in any table counts.
fn remedy(packet: &Packet, chain: &str, by: &str) -> String {
    let family = if packet.source.is_ipv4() { "iptables" } else { "ip6tables" };
    let by = by.strip_prefix("the policy of ").unwrap_or(by);
    if let Some(chain) = by.strip_prefix("iptables chain ") {
        let chain = chain.split_whitespace().next().unwrap_or("INPUT");
        return format!("{family} -I {chain} -p vrrp -j ACCEPT");
    }
    let place = by.strip_prefix("nft chain ").unwrap_or(by);
    let place: Vec<&str> = place.split_whitespace().take(3).collect();
    let place = if place.len() == 3 { place.join(" ") } else { format!("inet filter {chain}") };
    match place.contains("firewalld") {
        true => "firewall-cmd --permanent --add-protocol=vrrp && firewall-cmd --reload".to_owned(),
        false => format!("nft insert rule {place} meta l4proto vrrp accept"),
    }
}
