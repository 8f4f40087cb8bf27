//! Weights that cannot do what they are there for: to move the VIPs.

use super::super::{Config, Node, Track};

/// A node whose VIPs a weight leaves where they are.
struct Stuck<'c> {
    node: &'c Node,
    /// Who would be next.
    next: &'c Node,
    lowered: i32,
}

/// Sentences about the weights of all tracks, with the arithmetic.
pub(super) fn remarks(config: &Config) -> Vec<String> {
    let Some(vrrp) = &config.vrrp else { return Vec::new() };
    let weighted = config.tracks.iter().filter_map(|track| Some((track, track.weight?)));
    if vrrp.preempt {
        return weighted.filter_map(|(track, weight)| of_weight(config, track, weight)).collect();
    }
    weighted
        .map(|(Track { name, .. }, weight)| {
            format!(
                "track `{name}`: weight {weight} never moves the VIP: `preempt` is false, and a \
                 Backup that does not preempt leaves it to an Active node of any priority; leave \
                 `weight` out, so that the node resigns, or write `preempt = true`"
            )
        })
        .collect()
}

fn of_weight(config: &Config, track: &Track, weight: i16) -> Option<String> {
    let rivalled = || config.nodes.iter().filter_map(|node| Some((node, next(config, node)?)));
    let stuck: Vec<Stuck<'_>> = rivalled()
        .map(|(node, next)| Stuck { node, next, lowered: lowered(node, [weight]) })
        .filter(|stuck| stuck.lowered >= i32::from(stuck.next.priority))
        .collect();
    let lowest = stuck.iter().map(|s| i32::from(s.next.priority) - 1 - i32::from(s.node.priority));
    let enough = lowest.min()?;
    let what = if stuck.len() == rivalled().count() {
        "never moves the VIP".to_owned()
    } else {
        let names: Vec<&str> = stuck.iter().map(|stuck| stuck.node.name.as_str()).collect();
        format!("does not move the VIP from {}", names.join(" and "))
    };
    // Several that fail at once add up.
    let all = || config.tracks.iter().filter_map(|track| track.weight);
    let together = stuck.iter().any(|s| lowered(s.node, all()) < i32::from(s.next.priority));
    let alone = if together { " by itself" } else { "" };
    let sums: Vec<String> = stuck.iter().map(|stuck| sum(stuck, weight)).collect();
    // Below 1 there is only resignation.
    let possible = stuck.iter().all(|stuck| stuck.next.priority > 1);
    let remedy =
        if possible { format!("use {enough} or less, or leave") } else { "leave".to_owned() };
    Some(format!(
        "track `{}`: weight {weight} {what}{alone}: {}; {remedy} `weight` out to resign",
        track.name,
        sums.join(", "),
    ))
}

fn sum(stuck: &Stuck<'_>, weight: i16) -> String {
    let Stuck { node, next, lowered } = stuck;
    let priority = next.priority;
    let than = if *lowered > i32::from(priority) { "still above" } else { "not below" };
    let least =
        if i32::from(node.priority) + i32::from(weight) < *lowered { " (the least)" } else { "" };
    format!(
        "{} has {} - {} = {lowered}{least}, {than} {}'s {priority}",
        node.name, node.priority, -weight, next.name,
    )
}

/// Who takes over from a node: the best of those that do not outrank it anyway.
fn next<'c>(config: &'c Config, node: &Node) -> Option<&'c Node> {
    let others = config.nodes.iter().filter(|other| other.name != node.name);
    // The first of equals, in the order of the file.
    others.filter(|other| other.priority <= node.priority).rev().max_by_key(|other| other.priority)
}

/// As the agent works it out: never below 1.
fn lowered(node: &Node, weights: impl IntoIterator<Item = i16>) -> i32 {
    let sum: i32 = weights.into_iter().map(i32::from).sum();
    (i32::from(node.priority) + sum).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(priorities: &[u8], weights: &[i16], preempt: bool) -> Config {
        let mut text = format!(
            "virtual_addresses = [\"192.0.2.100\"]\n\
             [vrrp]\nrouter_id = 51\npreempt = {preempt}\n\
             [[service]]\nname = \"s\"\nport = 80\nbackends = [\"192.0.2.1:8080\"]\n"
        );
        for (number, priority) in (1..).zip(priorities) {
            text.push_str(&format!(
                "[[node]]\nname = \"master{number}\"\naddress = \"192.0.2.{number}\"\n\
                 priority = {priority}\n"
            ));
        }
        for (number, weight) in (1..).zip(weights) {
            text.push_str(&format!(
                "[[track]]\nname = \"t{number}\"\ninterface = \"eth1\"\nweight = {weight}\n"
            ));
        }
        Config::parse(&text).unwrap_or_else(|error| panic!("{}", error.report("x")))
    }

    #[test]
    fn a_weight_that_leaves_the_priority_above_the_next_is_reported_with_the_sum() {
        for (priorities, weights, expected) in [
            (
                &[100, 90][..],
                &[-5][..],
                "track `t1`: weight -5 never moves the VIP: master1 has 100 - 5 = 95, still above \
                 master2's 90; use -11 or less, or leave `weight` out to resign",
            ),
            (
                &[100, 90],
                &[-10],
                "track `t1`: weight -10 never moves the VIP: master1 has 100 - 10 = 90, not below \
                 master2's 90; use -11 or less, or leave `weight` out to resign",
            ),
            (
                &[100, 90, 80],
                &[-5],
                "track `t1`: weight -5 never moves the VIP: master1 has 100 - 5 = 95, still above \
                 master2's 90, master2 has 90 - 5 = 85, still above master3's 80; use -11 or less, \
                 or leave `weight` out to resign",
            ),
            (
                &[100, 99, 50],
                &[-20],
                "track `t1`: weight -20 does not move the VIP from master2: master2 has 99 - 20 = \
                 79, still above master3's 50; use -50 or less, or leave `weight` out to resign",
            ),
            (
                &[2, 1],
                &[-50],
                "track `t1`: weight -50 never moves the VIP: master1 has 2 - 50 = 1 (the least), \
                 not below master2's 1; leave `weight` out to resign",
            ),
        ] {
            assert_eq!(remarks(&config(priorities, weights, true)), [expected]);
        }
    }

    #[test]
    fn weights_that_suffice_together_are_said_to_fail_only_by_themselves() {
        let said = remarks(&config(&[100, 90], &[-6, -6], true));
        assert_eq!(said.len(), 2);
        assert!(said[0].contains("never moves the VIP by itself: master1"), "{said:?}");
    }

    #[test]
    fn a_weight_that_moves_the_vip_from_every_node_is_not_reported() {
        for priorities in [&[100, 90, 80][..], &[100, 100, 100], &[100], &[200, 190]] {
            assert_eq!(remarks(&config(priorities, &[-11], true)), [""; 0], "{priorities:?}");
        }
    }

    #[test]
    fn without_preemption_no_weight_moves_the_vip() {
        let said = remarks(&config(&[100, 90], &[-50], false));
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("track `t1`: weight -50 never moves the VIP: `preempt`"));
        assert_eq!(remarks(&config(&[100, 90], &[], false)), [""; 0]);
    }
}
