//! What the file lets the election do that may surprise: who is first by chance, and who takes the VIPs back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::advertisement::Listening;
use crate::config::{Config, Node, VirtualRouter, Vrrp};
use crate::finding::Finding;
use crate::vrrp::identity::Priority;

const NAME: &str = "preemption";

pub(in crate::doctor) fn judge(config: &Config) -> Vec<Finding> {
    let Some(vrrp) = &config.vrrp else { return Vec::new() };
    let equal = vrrp.routers.iter().flat_map(|router| equal(config, router));
    let mut findings: Vec<Finding> = equal.collect();
    findings.extend(at_once(vrrp));
    if findings.is_empty() {
        let found = match vrrp.preempt {
            true => "the node of the highest priority takes the VIPs back after preempt_delay",
            false => "who has the VIPs keeps them",
        };
        findings.push(Finding::good(NAME, "election", found));
    }
    findings
}

/// Nodes of one priority: the greater address decides, and only where two are Active at once.
fn equal(config: &Config, router: &VirtualRouter) -> Vec<Finding> {
    let mut by_priority: BTreeMap<u8, Vec<&Node>> = BTreeMap::new();
    for node in &config.nodes {
        by_priority.entry(router.priority_of(node)).or_default().push(node);
    }
    let several = by_priority.into_iter().filter(|(_, nodes)| nodes.len() > 1);
    let each = several.map(|(priority, nodes)| {
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        let last = names.last().copied().unwrap_or_default();
        Finding::doubtful(
            NAME,
            format!("priorities in router {}", router.router_id),
            format!(
                "{} all have {priority}: their timers end together, so that several become Active for a moment \
                 and the greater address wins, whichever was meant to",
                names.join(", ")
            ),
            format!("another priority for each [[node]], such as priority = {} for {last}", free(config, router)),
        )
    });
    each.collect()
}

/// The highest priority below the usual one that no node has.
fn free(config: &Config, router: &VirtualRouter) -> u8 {
    let used: BTreeSet<u8> = config.nodes.iter().map(|node| router.priority_of(node)).collect();
    (1..Node::DEFAULT_PRIORITY)
        .rev()
        .step_by(10)
        .find(|priority| !used.contains(priority))
        .unwrap_or(1)
}

fn at_once(vrrp: &Vrrp) -> Option<Finding> {
    (vrrp.preempt && vrrp.preempt_delay == Duration::ZERO).then(|| {
        Finding::doubtful(
            NAME,
            "preempt",
            "a node that comes back takes the VIPs at once, before its backends are checked; one that comes and goes \
             moves them each time",
            "preempt_delay = \"30s\" in [vrrp], or preempt = false",
        )
    })
}

/// Whether the agent would take the VIPs from somebody as soon as it is started here.
pub(in crate::doctor) fn start(
    config: &Config,
    node: &Node,
    listening: &Listening,
    own: &[IpAddr],
) -> Vec<Finding> {
    let Some(vrrp) = config.vrrp.as_ref().filter(|vrrp| vrrp.preempt) else { return Vec::new() };
    let mut findings = BTreeMap::new();
    for heard in listening.packets.iter().filter(|heard| !own.contains(&heard.source)) {
        let Ok((_, said)) = &heard.said else { continue };
        let router = vrrp.routers.iter().find(|router| router.router_id == said.router_id.number());
        let Some(router) = router else { continue };
        let mine = Priority(router.priority_of(node));
        let shared = router.virtual_addresses.iter().any(|vip| said.addresses.contains(vip));
        if shared && said.priority < mine && said.priority != Priority::RESIGN {
            let found = format!(
                "{} is Active in router {} with priority {}, this node has {mine} and preempt = true: an agent that \
                 is started here takes the VIPs from it",
                heard.source, said.router_id, said.priority
            );
            let remedy = "preempt = false in [vrrp] for as long as the VIPs are to stay; or start it when a move is \
                          welcome";
            let subject = format!("start of the agent, router {}", said.router_id);
            findings.insert(
                heard.source,
                Finding::doubtful("preemption_at_start", subject, found, remedy),
            );
        }
    }
    findings.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::judge::advertisement::Heard;
    use crate::finding::Severity;
    use crate::vrrp::identity::{RouterId, Version};
    use crate::vrrp::packet::{Advertisement, Authentication};

    fn config(keys: &str, priorities: [u8; 2]) -> Config {
        let [one, other] = priorities;
        let text = format!(
            "virtual_addresses = [\"192.0.2.1\"]\n[vrrp]\nrouter_id = 51\n{keys}\n\
             [[node]]\nname = \"a\"\naddress = \"192.0.2.2\"\npriority = {one}\n\
             [[node]]\nname = \"b\"\naddress = \"192.0.2.3\"\npriority = {other}\n\
             [[service]]\nname = \"s\"\nport = 80\nbackends = [\"192.0.2.2:8080\"]\n"
        );
        Config::parse(&text).unwrap_or_else(|error| panic!("{}", error.report("x")))
    }

    fn severities(config: &Config) -> Vec<Severity> {
        judge(config).iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn equal_priorities_and_preemption_at_once_surprise() {
        assert_eq!(severities(&config("", [100, 90])), [Severity::Good]);
        let found = judge(&config("", [100, 100]));
        assert!(found[0].remedy.as_ref().unwrap().ends_with("priority = 99 for b"), "{found:?}");
        assert_eq!(severities(&config("preempt = true", [100, 90])), [Severity::Doubtful]);
        let delayed = "preempt = true\npreempt_delay = \"30s\"";
        assert_eq!(severities(&config(delayed, [100, 90])), [Severity::Good]);
    }

    #[test]
    fn who_would_take_the_vips_by_being_started_is_told() {
        let said = Advertisement {
            router_id: RouterId::new(51).unwrap(),
            priority: Priority(90),
            interval: Duration::from_millis(100),
            addresses: vec![IpAddr::from([192, 0, 2, 1])],
            authentication: Authentication::None,
        };
        let packet = Heard {
            at: Duration::ZERO,
            source: [192, 0, 2, 3].into(),
            mac: [2; 6],
            multicast: true,
            ttl: 255,
            said: Ok((Version::V3, said)),
        };
        let listening = Listening { packets: vec![packet], ..Listening::default() };
        let told = |keys, node| {
            let config = config(keys, [100, 90]);
            start(&config, config.node_named(node).unwrap(), &listening, &[]).len()
        };
        assert_eq!(told("preempt = true", "a"), 1);
        assert_eq!(told("preempt = true", "b"), 0, "of the same priority");
        assert_eq!(told("", "a"), 0);
    }
}
