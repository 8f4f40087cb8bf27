//! What a running agent says of itself: what it warns of, whom it hears, and what is attached.

use crate::config::Mode;
use crate::control::api::{Status, VirtualRouter};
use crate::finding::Finding;

/// A trouble with another router is old news after so many seconds.
const FRESH_SECONDS: f64 = 60.0;

/// What it answered, or why it did not.
pub(in crate::doctor) struct Answers {
    pub(in crate::doctor) status: Status,
    pub(in crate::doctor) routers: Vec<VirtualRouter>,
}

/// `wanted`: the interfaces of the file. `now`: seconds since 1970.
pub(in crate::doctor) fn judge(answers: &Answers, wanted: &[String], now: f64) -> Vec<Finding> {
    let Answers { status, routers } = answers;
    let mut findings: Vec<Finding> = wanted.iter().map(|name| attachment(status, name)).collect();
    findings.extend(status.warnings.iter().map(|warning| {
        Finding::doubtful(
            "agent_warning",
            "the agent warns",
            warning,
            "lbctl status; docs/operations.md has each sentence",
        )
    }));
    for router in routers {
        findings.extend(of_router(router, now));
    }
    findings
}

fn attachment(status: &Status, name: &str) -> Finding {
    const NAME: &str = "attachment";
    let subject = format!("agent on {name}");
    match status.interfaces.iter().find(|interface| interface.name == name) {
        None => Finding::bad(
            NAME,
            subject,
            "it is not attached: what arrives there is not balanced",
            format!("lbctl attach {name}"),
        ),
        Some(interface) => {
            let how = match interface.mode {
                Mode::Native => "native XDP",
                Mode::Generic => "generic XDP",
                Mode::Tc => "tc",
            };
            let found = format!("attached by {how}: {}", interface.reason);
            // As the ladder tells what it tried before.
            match interface.reason.starts_with("native: ") {
                false => Finding::good(NAME, subject, found),
                true => Finding::doubtful(
                    NAME,
                    subject,
                    found,
                    format!(
                        "ethtool -K {name} lro off, ethtool -L {name} combined N with two queues for each CPU \
                         (virtio), then lbctl detach {name} and lbctl attach {name}; or modes = [\"generic\", \
                         \"tc\"] in [data_path], where the driver has no XDP"
                    ),
                ),
            }
        }
    }
}

fn of_router(router: &VirtualRouter, now: f64) -> Vec<Finding> {
    let id = router.router_id;
    let subject = format!("router {id} on {}", router.interface);
    let mut findings = Vec::new();
    if let Some(trouble) = &router.trouble {
        findings.push(Finding::bad(
            "vrrp_obstacle",
            &subject,
            trouble,
            "lbctl vrrp, once that is mended",
        ));
    }
    if let Some(why) = &router.held_back {
        let found = format!("it stays Backup: {why}");
        findings.push(Finding::doubtful(
            "vrrp_held_back",
            &subject,
            found,
            "lbctl vrrp release, where a person said so; otherwise mend what it names",
        ));
    }
    let fresh = router.troubles.iter().filter(|trouble| now - trouble.last < FRESH_SECONDS);
    findings.extend(fresh.map(|trouble| {
        let mac = trouble.mac.as_deref().unwrap_or("its MAC was not seen");
        let found = format!("{} ({mac}): {}", trouble.address, trouble.sentence);
        let name = if trouble.kind == "split_brain" { "split_brain" } else { "vrrp_trouble" };
        let remedy = "lbctl doctor there, and lbctl vrrp here until its count stands still";
        Finding::bad(name, &subject, found, remedy)
    }));
    if findings.is_empty() {
        findings.push(Finding::good(
            "vrrp_router",
            subject,
            format!("{:?}: {}", router.state, router.reason),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    const STATUS: &str = r#"{"version":"1","layout_version":1,"table_version":2,"node":"a","role":"backup",
        "role_reason":"","role_since":0,"config":"/etc/lb/lb.toml","interfaces":[{"name":"ens33","index":2,
        "mode":"generic","reason":"a veth","mac":"02:00:00:00:00:01","attached_since":0}],
        "virtual_addresses":[],"host_hooks":{"enabled":true,"reason":""},"counters":{},"warnings":[],
        "uptime_seconds":1}"#;
    const ROUTER: &str = r#"{"router_id":51,"version":3,"interface":"ens33","address":"192.0.2.2","priority":100,
        "interval_seconds":0.1,"state":"backup","holds":false,"held_back":null,"reason":"hears master1","since":0,
        "heard":null,"sent":0,"send_failures":0,"received":1,"refused":{},"transitions":1,
        "lateness_max_seconds":0,"troubles":[{"kind":"split_brain","address":"192.0.2.3","mac":null,
        "sentence":"two nodes are active","count":3,"first":10,"last":100}],"trouble":null}"#;

    fn judged(change: impl Fn(&mut Answers), now: f64) -> Vec<Finding> {
        let mut answers = Answers {
            status: serde_json::from_str(STATUS).unwrap(),
            routers: vec![serde_json::from_str(ROUTER).unwrap()],
        };
        change(&mut answers);
        judge(&answers, &["ens33".to_owned()], now)
    }

    #[test]
    fn a_trouble_is_told_while_it_is_fresh() {
        let names =
            |now| judged(|_| {}, now).iter().map(|f| (f.name, f.severity)).collect::<Vec<_>>();
        assert!(names(110.0).contains(&("split_brain", Severity::Bad)));
        assert!(names(1000.0).iter().all(|(_, severity)| *severity == Severity::Good));
    }

    #[test]
    fn native_xdp_that_was_refused_is_doubtful() {
        let refused = |answers: &mut Answers| {
            answers.status.interfaces[0].reason = "native: the driver does not run XDP".to_owned();
        };
        let found = judged(refused, 1000.0);
        assert_eq!((found[0].name, found[0].severity), ("attachment", Severity::Doubtful));
    }

    #[test]
    fn an_interface_of_the_file_that_is_not_attached_is_bad() {
        let found = judged(|answers| answers.status.interfaces.clear(), 1000.0);
        assert_eq!(found[0].remedy.as_deref(), Some("lbctl attach ens33"));
        let warned = judged(|answers| answers.status.warnings.push("x".to_owned()), 1000.0);
        assert!(
            warned.iter().any(|f| f.name == "agent_warning" && f.severity == Severity::Doubtful)
        );
    }
}
