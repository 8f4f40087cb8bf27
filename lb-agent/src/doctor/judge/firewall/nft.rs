//! The rules of nftables, as `nft -j list ruleset` tells them (libnftables-json(5)).

use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::IpAddr;

use serde_json::Value;

use super::{Action, Applies, Packet, Passage, Rule, Rules, is_vrrp, within};

/// Where packets to and from this node's own sockets pass.
const IN: [&str; 3] = ["ingress", "prerouting", "input"];
const OUT: [&str; 3] = ["output", "postrouting", "egress"];

/// Protocols whose headers rules look into: such a rule is about their packets alone.
const OTHERS: [&str; 13] = [
    "tcp", "udp", "udplite", "icmp", "icmpv6", "igmp", "sctp", "dccp", "ah", "esp", "comp", "th",
    "gre",
];

/// What becomes of the packet.
pub(in crate::doctor) fn passage(ruleset: &Value, packet: &Packet) -> Passage {
    let Some(objects) = ruleset.get("nftables").and_then(Value::as_array) else {
        return Passage::Unsure("a ruleset that cannot be read".to_owned());
    };
    let mut reader = Reader { packet, sets: HashMap::new() };
    for set in objects.iter().filter_map(|object| object.get("set")) {
        let elements = set.get("elem").cloned().unwrap_or_else(|| Value::Array(Vec::new()));
        reader.sets.insert(key(set, "name"), elements);
    }
    let mut rules = Rules::default();
    for object in objects {
        if let Some(chain) = object.get("chain") {
            reader.chain(chain, &mut rules);
        } else if let Some(rule) = object.get("rule") {
            reader.rule(rule, &mut rules);
        }
    }
    rules.passage()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// What a chain or a set is told apart by.
fn key(object: &Value, name: &str) -> String {
    [text(object, "family"), text(object, "table"), text(object, name)].join(" ")
}

struct Reader<'p> {
    packet: &'p Packet,
    sets: HashMap<String, Value>,
}

impl Reader<'_> {
    fn chain(&self, chain: &Value, rules: &mut Rules) {
        let hooks = if self.packet.outgoing { OUT } else { IN };
        let family = text(chain, "family");
        let own = if self.packet.source.is_ipv4() { "ip" } else { "ip6" };
        let device = chain.get("dev");
        let here = match device {
            Some(Value::String(name)) => *name == self.packet.interface,
            Some(Value::Array(names)) => {
                names.iter().any(|name| name.as_str() == Some(&self.packet.interface))
            }
            _ => true,
        };
        if hooks.contains(&text(chain, "hook")) && [own, "inet", "netdev"].contains(&family) && here
        {
            let drops = text(chain, "policy") == "drop";
            let key = key(chain, "name");
            rules.beginnings.push((key.clone(), drops, format!("nft chain {key}")));
        }
    }

    fn rule(&self, rule: &Value, rules: &mut Rules) {
        let chain = key(rule, "chain");
        let handle = rule.get("handle").and_then(Value::as_u64).unwrap_or_default();
        let place = format!("nft chain {chain} (rule with handle {handle})");
        let scope = [text(rule, "family"), text(rule, "table")].join(" ");
        let mut applies = Applies::Yes;
        let into = rules.chains.entry(chain).or_default();
        let add = |into: &mut Vec<Rule>, applies, action| {
            into.push(Rule { applies, action, place: place.clone() });
        };
        let statements = rule.get("expr").and_then(Value::as_array);
        for statement in statements.into_iter().flatten() {
            let Some((kind, body)) = statement.as_object().and_then(|o| o.iter().next()) else {
                applies = applies.and(Applies::Perhaps);
                continue;
            };
            match kind.as_str() {
                "match" => applies = applies.and(self.matches(body, &scope)),
                "vmap" => {
                    for (chosen, action) in self.verdict_map(body, &scope) {
                        add(into, applies.and(chosen), action);
                    }
                }
                // Limits, and what only the kernel knows.
                "limit" | "xt" | "quota" | "ct count" => applies = applies.and(Applies::Perhaps),
                _ => {
                    if let Some(action) = action(kind, body, &scope) {
                        add(into, applies, action);
                    }
                }
            }
        }
    }

    fn verdict_map(&self, body: &Value, scope: &str) -> Vec<(Applies, Action)> {
        let pairs = body.get("data").and_then(|data| data.get("set")).and_then(Value::as_array);
        let Some(key) = body.get("key") else { return Vec::new() };
        let pairs = pairs.into_iter().flatten().filter_map(|pair| {
            let (value, verdict) = (pair.get(0)?, pair.get(1)?);
            let (kind, body) = verdict.as_object()?.iter().next()?;
            Some((self.is(key, value, scope), action(kind, body, scope)?))
        });
        pairs.collect()
    }

    fn matches(&self, body: &Value, scope: &str) -> Applies {
        let (Some(left), Some(right)) = (body.get("left"), body.get("right")) else {
            return Applies::Perhaps;
        };
        if self.is_of_others(left) {
            return Applies::No;
        }
        match text(body, "op") {
            "==" | "in" => self.is(left, right, scope),
            "!=" => self.is(left, right, scope).not(),
            _ => Applies::Perhaps,
        }
    }

    /// Whether a header is looked at that the packet does not have.
    fn is_of_others(&self, left: &Value) -> bool {
        let protocol = left.get("payload").map(|payload| text(payload, "protocol"));
        let v4 = self.packet.source.is_ipv4();
        protocol.is_some_and(|protocol| {
            OTHERS.contains(&protocol) || protocol == if v4 { "ip6" } else { "ip" }
        })
    }

    /// Whether what `left` names is `right`, or among it.
    fn is(&self, left: &Value, right: &Value, scope: &str) -> Applies {
        if let Some(name) = right.as_str().and_then(|name| name.strip_prefix('@')) {
            return match self.sets.get(&format!("{scope} {name}")) {
                Some(elements) => self.is(left, elements, scope),
                None => Applies::Perhaps,
            };
        }
        let several = right.get("set").or(Some(right)).and_then(Value::as_array);
        if let Some(several) = several {
            let each = several.iter().map(|one| self.is(left, one, scope));
            let best = each.fold(Applies::No, |best, one| match (best, one) {
                (Applies::Yes, _) | (_, Applies::Yes) => Applies::Yes,
                (Applies::Perhaps, _) | (_, Applies::Perhaps) => Applies::Perhaps,
                _ => Applies::No,
            });
            return best;
        }
        let right = right.get("elem").and_then(|elem| elem.get("val")).unwrap_or(right);
        self.equals(left, right)
    }

    fn equals(&self, left: &Value, right: &Value) -> Applies {
        let packet = self.packet;
        let word = match right {
            Value::String(word) => word.clone(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        let known =
            |truth: bool| if word.is_empty() { Applies::Perhaps } else { Applies::of(truth) };
        let v4 = packet.source.is_ipv4();
        if let Some(payload) = left.get("payload") {
            return match text(payload, "field") {
                "saddr" => among(packet.source, right),
                "daddr" => among(packet.destination, right),
                "protocol" | "nexthdr" => known(is_vrrp(&word)),
                _ => Applies::Perhaps,
            };
        }
        if let Some(meta) = left.get("meta") {
            let multicast = packet.destination.is_multicast();
            return match (text(meta, "key"), packet.outgoing) {
                ("l4proto", _) => known(is_vrrp(&word)),
                ("iifname" | "iif", false) | ("oifname" | "oif", true) => {
                    known(fits(&word, &packet.interface))
                }
                // Of the other direction there is none.
                ("iifname" | "iif", true) | ("oifname" | "oif", false) => Applies::No,
                ("pkttype", false) => known(word == if multicast { "multicast" } else { "host" }),
                ("nfproto", _) => known(word == if v4 { "ipv4" } else { "ipv6" }),
                ("protocol", _) => known(word == if v4 { "ip" } else { "ip6" }),
                _ => Applies::Perhaps,
            };
        }
        // Nobody answers an advertisement, so that none is of a connection that is established; nor is it translated.
        match left.get("ct").map(|ct| text(ct, "key")) {
            Some("state") => known(word == "new"),
            Some("status") if matches!(word.as_str(), "dnat" | "snat") => Applies::No,
            _ => Applies::Perhaps,
        }
    }
}

/// What a statement does. A jump leads to a chain of the same table, `scope`.
fn action(kind: &str, body: &Value, scope: &str) -> Option<Action> {
    let target = || format!("{scope} {}", text(body, "target"));
    Some(match kind {
        "accept" => Action::Accept,
        "drop" | "reject" => Action::Drop,
        "return" => Action::Return,
        "jump" => Action::Jump(target()),
        "goto" => Action::Goto(target()),
        "queue" => Action::Nothing,
        _ => return None,
    })
}

/// A name, or the beginning of one.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

fn among(address: IpAddr, right: &Value) -> Applies {
    if let Some(text) = right.as_str() {
        return within(address, text);
    }
    if let Some(prefix) = right.get("prefix") {
        let length = prefix.get("len").and_then(Value::as_u64).unwrap_or_default();
        return within(address, &format!("{}/{length}", text(prefix, "addr")));
    }
    let ends = right.get("range").and_then(Value::as_array);
    let parsed = ends.and_then(|ends| {
        let end = |at: usize| ends.get(at)?.as_str()?.parse::<IpAddr>().ok();
        Some((end(0)?, end(1)?))
    });
    match parsed {
        Some((first, last)) => Applies::of(
            address.cmp(&first) != Ordering::Less && address.cmp(&last) != Ordering::Greater,
        ),
        None => Applies::Perhaps,
    }
}
