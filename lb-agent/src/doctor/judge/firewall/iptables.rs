//! The rules of iptables where they are its own and not those of nftables: the text of `iptables-legacy-save` or
//! `ip6tables-legacy-save`.

use super::{Action, Applies, Packet, Passage, Rule, Rules, is_vrrp, within};

/// Targets that decide nothing about what comes in or goes out.
const MODULES: [&str; 10] =
    ["LOG", "NFLOG", "MARK", "CONNMARK", "TOS", "DSCP", "TTL", "CT", "NOTRACK", "TRACE"];

/// What becomes of the packet, by the text for its family.
pub(in crate::doctor) fn passage(saved: &str, packet: &Packet) -> Passage {
    let mut rules = Rules::default();
    let mut table = String::new();
    let hooks: &[&str] = match packet.outgoing {
        false => &["PREROUTING", "INPUT"],
        true => &["OUTPUT", "POSTROUTING"],
    };
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim().to_owned();
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            let (Some(name), Some(policy)) = (words.next(), words.next()) else { continue };
            if hooks.contains(&name) {
                let drops = policy == "DROP";
                let place = format!("iptables chain {name} of table {table}");
                rules.beginnings.push((key(&table, name), drops, place));
            }
        } else if let Some(rule) = line.strip_prefix("-A ") {
            add(rule, &table, packet, &mut rules);
        }
    }
    rules.passage()
}

fn key(table: &str, chain: &str) -> String {
    format!("{table} {chain}")
}

fn add(rule: &str, table: &str, packet: &Packet, rules: &mut Rules) {
    let mut words = rule.split_whitespace();
    let Some(chain) = words.next() else { return };
    let place = format!("iptables chain {chain} of table {table} (-A {rule})");
    let mut applies = Applies::Yes;
    let mut action = Action::Nothing;
    let mut negated = false;
    while let Some(word) = words.next() {
        let mut argument = || words.next().unwrap_or_default();
        let matched = match word {
            "!" => {
                negated = true;
                continue;
            }
            "-p" => {
                let protocol = argument();
                Applies::of(protocol == "all" || is_vrrp(protocol))
            }
            "-i" => interface(argument(), packet, !packet.outgoing),
            "-o" => interface(argument(), packet, packet.outgoing),
            "-s" => within(packet.source, argument()),
            "-d" => within(packet.destination, argument()),
            "-j" => {
                action = target(argument(), table);
                // What follows says how the target does it.
                break;
            }
            "-g" => {
                action = Action::Goto(key(table, argument()));
                break;
            }
            "-m" => {
                argument();
                continue;
            }
            "--ctstate" | "--state" => {
                Applies::of(argument().split(',').any(|state| state == "NEW"))
            }
            "--comment" => {
                comment(argument(), &mut words);
                continue;
            }
            // Of a match that is not known here.
            _ => Applies::Perhaps,
        };
        applies = applies.and(if negated { matched.not() } else { matched });
        negated = false;
    }
    rules.chains.entry(key(table, chain)).or_default().push(Rule { applies, action, place });
}

fn interface(pattern: &str, packet: &Packet, there: bool) -> Applies {
    let fits = match pattern.strip_suffix('+') {
        Some(beginning) => packet.interface.starts_with(beginning),
        None => packet.interface == pattern,
    };
    Applies::of(there && fits)
}

fn target(name: &str, table: &str) -> Action {
    match name {
        "ACCEPT" => Action::Accept,
        "DROP" | "REJECT" => Action::Drop,
        "RETURN" => Action::Return,
        // The packet goes on to the next rule.
        _ if MODULES.contains(&name) => Action::Nothing,
        _ => Action::Jump(key(table, name)),
    }
}

/// Skips the rest of a text in quotation marks.
fn comment<'w>(first: &'w str, words: &mut impl Iterator<Item = &'w str>) {
    let ends = |word: &str| word.ends_with('"');
    if first.starts_with('"') && (first.len() == 1 || !ends(first)) {
        while words.next().is_some_and(|word| !ends(word)) {}
    }
}
