//! What did not work in the old files as it reads, with the arithmetic, and what is different from now on.

use std::net::IpAddr;
use std::time::Duration;

use super::cluster::{Cluster, Router};
use super::directive::Place;
use super::report::Report;
use super::stream::Service;
use super::tracks::{Track, Watched};
use crate::config::duration_text;

/// Bytes of a password that are sent (RFC 2338, 5.3.10).
const AUTH_PASS_BYTES: usize = 8;

/// What a script's path names if the program that it looks for is what the load balancer replaces.
const REPLACED: [&str; 2] = ["nginx", "haproxy"];

pub(super) fn of_cluster(cluster: &Cluster<'_>, tracks: &[Track], report: &mut Report) {
    shared_router_id(cluster, report);
    preemption(cluster, report);
    for router in &cluster.routers {
        equal_priorities(router, cluster, report);
    }
    weights(cluster, tracks, report);
    takeover(cluster, report);
    password(cluster, report);
    for track in tracks {
        script(track, report);
    }
    let settings = &cluster.settings;
    if !settings.virtual_mac.is_empty() && !settings.unicast.is_empty() {
        let text = "use_vmac: a MAC that moves is not to be had with unicast here. It is left out";
        report.trap(settings.virtual_mac.clone(), text.to_owned());
    }
    leftovers(cluster, report);
}

pub(super) fn of_services(cluster: &Cluster<'_>, services: &[Service], report: &mut Report) {
    let is_node = |address: IpAddr| {
        cluster.nodes.iter().flat_map(|node| &node.addresses).any(|own| own.value == address)
    };
    let mut strangers: Vec<(IpAddr, Place)> = Vec::new();
    for backend in services.iter().flat_map(|service| &service.backends) {
        let address = backend.address.ip();
        if !is_node(address) && !strangers.iter().any(|(known, _)| *known == address) {
            strangers.push((address, backend.place.clone()));
        }
    }
    if !strangers.is_empty() {
        let (addresses, places): (Vec<_>, Vec<_>) =
            strangers.into_iter().map(|(address, place)| (address.to_string(), place)).unzip();
        let text = format!(
            "no file is of a node with the address {}: such backends are reached by NAT, as by nginx, and see \
             the VIP instead of the client. Where the agent is to run there too, give its file or write its \
             [[node]]: packets reach it unchanged then",
            addresses.join(", ")
        );
        report.trap(places, text);
    }
    let everywhere = services.iter().filter(|service| service.addresses.is_none());
    let places: Vec<Place> = everywhere.map(|service| service.port.place.clone()).collect();
    if !places.is_empty() {
        let text = "nginx answers at the nodes' own addresses and at 127.0.0.1 too. Here only the VIPs do: \
                    clients that use another address are to be changed before nginx ends";
        report.trap(places, text.to_owned());
    }
}

fn shared_router_id(cluster: &Cluster<'_>, report: &mut Report) {
    let ids: Vec<_> = cluster.nodes.iter().filter_map(|node| node.file.router_id()).collect();
    for (index, (first, _)) in ids.iter().enumerate() {
        let same = || ids.iter().filter(|(id, _)| id == first);
        if same().count() < 2 || ids[..index].iter().any(|(id, _)| id == first) {
            continue;
        }
        let places = same().map(|(_, place)| (*place).clone()).collect();
        let text = "router_id is the same in several files, so that mails and logs do not tell the nodes apart. \
                    It has nothing to do with virtual_router_id. The nodes are called after their files";
        report.trap(places, text.to_owned());
    }
}

fn preemption(cluster: &Cluster<'_>, report: &mut Report) {
    let settings = &cluster.settings;
    let is_master = |i: &super::instance::Instance| i.master.as_ref().is_some_and(|m| m.value);
    for (node, instance) in cluster.instances() {
        let (Some(nopreempt), true) = (&instance.nopreempt, is_master(instance)) else { continue };
        let state = instance.master.iter().map(|master| master.place.clone());
        let text = format!(
            "`state MASTER` clears `nopreempt` (keepalived logs it and goes on): {} takes the address back when it \
             returns, and only the other nodes leave it where it is. {}",
            cluster.nodes[node].name,
            match settings.preempt {
                true => "Here `preempt = true`, on all nodes",
                false => {
                    "Here `preempt = false` is true of all nodes, as it was written; `preempt = true` is what it did"
                }
            }
        );
        report.trap(state.chain([nopreempt.clone()]).collect(), text);
    }
    for router in &cluster.routers {
        let masters = router.members.iter().filter(|(_, instance)| is_master(instance));
        let places: Vec<Place> =
            masters.filter_map(|(_, i)| i.master.as_ref()).map(|m| m.place.clone()).collect();
        if places.len() > 1 {
            let text = "`state MASTER` on several nodes: each begins as Active, and the others' connections break \
                        when they meet. Here each begins as Backup";
            report.trap(places, text.to_owned());
        }
    }
    let count = cluster.instances().count();
    if !settings.nopreempt.is_empty() && settings.nopreempt.len() < count {
        let text = format!(
            "nopreempt is said on some nodes only. `preempt = {}` is what the node of the highest priority did, and \
             counts for all nodes here",
            settings.preempt
        );
        report.trap(settings.nopreempt.clone(), text);
    }
    if let (Some(delay), false) = (&settings.preempt_delay, settings.preempt) {
        let text = "preempt_delay has no effect without preemption. It is left out";
        report.trap(vec![delay.place.clone()], text.to_owned());
    }
}

/// Nodes by their priority, the highest first.
fn ranking<'c>(router: &'c Router<'_>, cluster: &'c Cluster<'_>) -> Vec<(u8, &'c str, &'c Place)> {
    let nodes = cluster.nodes.iter().enumerate();
    let mut ranking: Vec<_> = nodes
        .filter_map(|(index, node)| {
            let (priority, place) = router.priority(index)?;
            Some((priority, node.name.as_str(), place))
        })
        .collect();
    ranking.sort_by_key(|(priority, ..)| std::cmp::Reverse(*priority));
    ranking
}

fn equal_priorities(router: &Router<'_>, cluster: &Cluster<'_>, report: &mut Report) {
    for pair in ranking(router, cluster).windows(2) {
        let [(a, first, place), (b, second, other)] = pair else { continue };
        if a == b {
            let text = format!(
                "{first} and {second} have the same priority {a}: of two that are Active the one with the greater \
                 address stays, and none of them preempts the other"
            );
            report.trap(vec![(*place).clone(), (*other).clone()], text);
        }
    }
}

/// A weight moves the address only if it takes the priority below the next node's, and that node preempts.
fn weights(cluster: &Cluster<'_>, tracks: &[Track], report: &mut Report) {
    let Some(router) = cluster.routers.first() else { return };
    let ranking = ranking(router, cluster);
    let [(first, name, _), (second, next, next_place), ..] = &ranking[..] else { return };
    for track in tracks {
        let Some((penalty, place)) = track.penalty() else { continue };
        let best = i16::from(*first) + track.raise();
        let rival = i16::from(*second) + track.raise();
        let left = (best + penalty).max(1);
        let by = -penalty;
        let places = || vec![place.clone(), (*next_place).clone()];
        if left >= rival {
            let than = if left > rival { "still above" } else { "not below" };
            report.trap(places(), format!(
                "the weight of {} never moves the address: {name} has {best} - {by} = {left}, {than} {next}'s {rival}. \
                 It is taken over as it is, and `lbctl check` says so; leave `weight` out of its [[track]], and the \
                 node gives the addresses up (priority 0) while it fails",
                track.name
            ));
        } else if !cluster.settings.preempt {
            report.trap(places(), format!(
                "the weight of {} takes {name} to {best} - {by} = {left}, below {next}'s {rival}; but a Backup that does \
                 not preempt takes any lower priority for a sign of life, and the address stays. Leave `weight` out of \
                 its [[track]], and the node gives the addresses up (priority 0) while it fails",
                track.name
            ));
        }
        if track.raise() > 0 {
            report.trap(places(), format!(
                "a weight above 0 raises the priority while all is well. There are only negative ones here: all \
                 priorities are {by} higher, and {by} are taken away while {} fails",
                track.name
            ));
        }
    }
}

fn takeover(cluster: &Cluster<'_>, report: &mut Report) {
    let settings = &cluster.settings;
    let second = cluster.routers.first().and_then(|router| {
        let ranking = ranking(router, cluster);
        ranking.get(1).map(|(priority, name, _)| (*priority, (*name).to_owned()))
    });
    let Some((priority, next)) = second else { return };
    let (interval, version) = (settings.interval.value, settings.version.value);
    let unit = if version == 2 { Duration::from_secs(1) } else { interval };
    let skew = unit * (256 - u32::from(priority)) / 256;
    let whole = interval * 3 + skew;
    if whole < Duration::from_secs(1) {
        return;
    }
    let version_too = if version == 2 { "`version = 3` and " } else { "" };
    let place = settings.interval.place.clone();
    report.trap(vec![place], format!(
        "{next} notices a crash after three intervals of {} and its skew of (256 - {priority}) / 256 of {}: {:.2} s. A \
         node that stops in order says so (priority 0), and then it is the skew alone, {:.2} s. It stays so as long as \
         this file has these values; once no keepalived is left, {version_too}`advertisement_interval = \"100ms\"` make \
         it less than 0.4 s",
        duration_text(interval),
        duration_text(unit),
        whole.as_secs_f64(),
        skew.as_secs_f64(),
    ));
}

fn password(cluster: &Cluster<'_>, report: &mut Report) {
    let Some(pass) = &cluster.settings.auth_pass else { return };
    let cut = match pass.value.len() > AUTH_PASS_BYTES {
        true => "is longer than 8 bytes, and only the first 8 count and are sent; it ",
        false => "",
    };
    let text = format!(
        "auth_pass {cut}goes in the clear with each advertisement: it keeps out mistakes, not attackers. It stands in \
         the new file, as `auth_pass` of [vrrp], and not in this report"
    );
    report.trap(vec![pass.place.clone()], text);
}

fn script(track: &Track, report: &mut Report) {
    let Watched::Script(watch) = &track.watched else { return };
    let words = watch.command.value.join(" ");
    let name = &track.name;
    if let Some(program) =
        REPLACED.iter().find(|program| words.contains(*program) || name.contains(*program))
    {
        let text = format!(
            "script {name} looks for {program}, which the load balancer replaces: once {program} is gone it fails on \
             every node, and one that starts {program} or stops keepalived goes on to do so. Remove its [[track]] \
             when {program} goes: the data path is watched without one, and `healthy_backends` watches the servers"
        );
        report.trap(vec![track.place.clone(), watch.command.place.clone()], text);
    }
    if watch.user.value == "root" {
        let text = format!(
            "script {name} runs as root, as keepalived runs it where there is no user keepalived_script; without \
             `user = \"root\"` in its [[track]] it would be nobody. It must belong to root, and be writable by nobody else"
        );
        report.trap(vec![watch.command.place.clone()], text);
    }
    if watch.timeout.as_ref().is_some_and(|timeout| timeout.value > watch.interval.value) {
        let text = format!(
            "script {name}: a timeout is at most the interval here, and is shortened to it"
        );
        report.trap(watch.timeout.iter().map(|timeout| timeout.place.clone()).collect(), text);
    }
}

/// What keepalived does whatever its file says.
fn leftovers(cluster: &Cluster<'_>, report: &mut Report) {
    let places: Vec<Place> = cluster.instances().map(|(_, i)| i.name.place.clone()).collect();
    report.trap(places.clone(), "a keepalived that is killed (SIGKILL) or hangs leaves the address on its node, and two \
         nodes have it then. Here it is held on a lease: it goes by itself with the agent's last sign of life"
        .to_owned());
    report.trap(places, "systemd-networkd and NetworkManager may delete an address behind keepalived's back. Here it \
         is put back at once, and the node answers for it all the time"
        .to_owned());
    if !cluster.settings.unicast.is_empty() {
        report.trap(
            cluster.settings.unicast.clone(),
            "a Backup of keepalived whose unicast source address vanishes hears \
             nothing any more and becomes Active. Two that are Active both serve here, and \
             break no connection"
                .to_owned(),
        );
    }
}
