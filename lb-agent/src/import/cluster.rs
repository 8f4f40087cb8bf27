//! What the keepalived files of several nodes say together: nodes, virtual routers, and the settings that
//! all of them must agree on.

use std::net::IpAddr;
use std::time::Duration;

use super::directive::Place;
use super::instance::Instance;
use super::node::NodeFile;
use super::report::{Placed, Report};
use super::value;
use crate::config::{Node as ConfigNode, duration_text};

/// Where nodes say different things of what is one thing in the new file.
const FIRST: &str = "it must be the same on every node, and the first is taken";

/// keepalived's, where a file does not say it.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Cluster<'n> {
    pub(super) nodes: Vec<Node<'n>>,
    pub(super) routers: Vec<Router<'n>>,
    pub(super) interfaces: Vec<Placed<String>>,
    pub(super) settings: Settings,
}

pub(super) struct Node<'n> {
    pub(super) file: &'n NodeFile,
    pub(super) name: String,
    /// None: from the file's name.
    pub(super) name_place: Option<&'n Place>,
    pub(super) addresses: Vec<Placed<IpAddr>>,
}

/// Instances, of the nodes by their index, that are one virtual router.
pub(super) struct Router<'n> {
    pub(super) router_id: Option<Placed<u8>>,
    pub(super) members: Vec<(usize, &'n Instance)>,
}

pub(super) struct Settings {
    pub(super) version: Placed<u8>,
    pub(super) interval: Placed<Duration>,
    pub(super) preempt: bool,
    pub(super) nopreempt: Vec<Place>,
    pub(super) preempt_delay: Option<Placed<Duration>>,
    pub(super) unicast: Vec<Place>,
    pub(super) auth_pass: Option<Placed<String>>,
    pub(super) virtual_mac: Vec<Place>,
    pub(super) silent_to_rivals: Vec<Place>,
}

impl Router<'_> {
    /// Each once, with everywhere that it stands.
    pub(super) fn addresses(&self) -> Vec<(IpAddr, Vec<&Place>)> {
        let mut addresses: Vec<(IpAddr, Vec<&Place>)> = Vec::new();
        for Placed { value, place } in self.members.iter().flat_map(|(_, i)| &i.addresses) {
            match addresses.iter_mut().find(|(address, _)| address == value) {
                Some((_, places)) => places.push(place),
                None => addresses.push((*value, vec![place])),
            }
        }
        addresses
    }

    fn has(&self, address: IpAddr) -> bool {
        self.members.iter().any(|(_, i)| i.addresses.iter().any(|own| own.value == address))
    }

    /// Of a node in it, with its place where the file says it.
    pub(super) fn priority(&self, node: usize) -> Option<(u8, &Place)> {
        let mut own = self.members.iter().filter(|(index, _)| *index == node);
        let (_, instance) = own.next()?;
        Some(match &instance.priority {
            Some(priority) => (priority.value, &priority.place),
            None => (ConfigNode::DEFAULT_PRIORITY, &instance.name.place),
        })
    }
}

impl Cluster<'_> {
    pub(super) fn virtual_addresses(&self) -> Vec<(IpAddr, Vec<&Place>)> {
        self.routers.iter().flat_map(Router::addresses).collect()
    }

    pub(super) fn instances(&self) -> impl Iterator<Item = (usize, &Instance)> {
        self.routers.iter().flat_map(|router| &router.members).map(|(node, i)| (*node, *i))
    }
}

/// None where there is no instance at all.
pub(super) fn gather<'n>(files: &'n [NodeFile], report: &mut Report) -> Option<Cluster<'n>> {
    let nodes = nodes(files, report);
    let routers = routers(files, report);
    for router in &routers {
        addresses_agree(router, &nodes, report);
    }
    let settings = settings(&nodes, &routers, report)?;
    let interfaces = interfaces(&routers, report);
    strangers(&nodes, report);
    Some(Cluster { nodes, routers, interfaces, settings })
}

fn nodes<'n>(files: &'n [NodeFile], report: &mut Report) -> Vec<Node<'n>> {
    let mut nodes: Vec<Node<'n>> = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let (name, name_place) = node_name(index, file, files);
        if let Some(router_id) = &file.router_id {
            match name_place {
                Some(_) => report.taken(router_id, "node.name"),
                None => report.meaningless(
                    router_id,
                    "the nodes are called after their files: it is no name, or not this node's alone",
                ),
            }
        }
        let taken: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
        let name = value::unique(&name, &taken);
        let addresses = node_addresses(index, files);
        let begin = file.instances.first().map(|instance| instance.name.place.clone());
        let begin = begin.unwrap_or_else(|| Place { file: file.file.clone(), line: 1 });
        if file.instances.is_empty() {
            let text = "there is no vrrp_instance: is it the right file?".to_owned();
            report.missing(vec![begin.clone()], text);
        }
        if addresses.is_empty() {
            let text = format!(
                "there is neither mcast_src_ip nor unicast_src_ip: write the `address` of node `{name}`"
            );
            report.missing(vec![begin], text);
        }
        nodes.push(Node { file, name, name_place, addresses });
    }
    nodes
}

/// By `router_id` if it is this node's alone, else by the file's name.
fn node_name<'n>(
    index: usize,
    file: &'n NodeFile,
    files: &[NodeFile],
) -> (String, Option<&'n Place>) {
    if let Some((router_id, place)) = file.router_id() {
        let same = |other: &&NodeFile| other.router_id().is_some_and(|(id, _)| id == router_id);
        let name = value::name(router_id);
        if let (Some(name), 1) = (name, files.iter().filter(same).count()) {
            return (name, Some(place));
        }
    }
    let name = file.short_name().and_then(value::name);
    (name.unwrap_or_else(|| format!("node{}", index + 1)), None)
}

/// What its instances send from; where none says so, what all others alone have as their peer.
fn node_addresses(index: usize, files: &[NodeFile]) -> Vec<Placed<IpAddr>> {
    let mut addresses: Vec<Placed<IpAddr>> = Vec::new();
    let mut add = |address: &Placed<IpAddr>| {
        if !addresses.iter().any(|known| known.value == address.value) {
            addresses.push(address.clone());
        }
    };
    let own = &files[index];
    own.instances.iter().filter_map(|instance| instance.source.as_ref()).for_each(&mut add);
    if !addresses.is_empty() || own.instances.iter().all(|instance| instance.peers.is_empty()) {
        return addresses;
    }
    let known = |address: IpAddr| {
        let of = |i: &Instance| i.source.as_ref().is_some_and(|source| source.value == address);
        let own_peer = |i: &Instance| i.peers.iter().any(|peer| peer.value == address);
        files.iter().flat_map(|file| &file.instances).any(of) || own.instances.iter().any(own_peer)
    };
    let others = files.iter().enumerate().filter(|(other, _)| *other != index);
    let instances = others.flat_map(|(_, file)| &file.instances);
    let peers = instances.flat_map(|instance| &instance.peers);
    for peer in peers.filter(|peer| !known(peer.value)) {
        if !addresses.iter().any(|address| address.value == peer.value) {
            addresses.push(peer.clone());
        }
    }
    // Two could be of two nodes.
    let families = addresses.iter().filter(|a| a.value.is_ipv4()).count();
    if families > 1 || addresses.len() - families > 1 { Vec::new() } else { addresses }
}

/// Instances with the same number are one router; with the same name and an address in common too, but then
/// their numbers disagree.
fn routers<'n>(files: &'n [NodeFile], report: &mut Report) -> Vec<Router<'n>> {
    let mut routers: Vec<Router<'n>> = Vec::new();
    for (node, file) in files.iter().enumerate() {
        for instance in &file.instances {
            let number = instance.router_id.as_ref().map(|id| id.value);
            let of_number = |router: &Router<'_>| {
                number.is_some() && router.router_id.as_ref().map(|id| id.value) == number
            };
            let of_name = |router: &Router<'_>| {
                router.members.iter().any(|(other, member)| {
                    *other != node && member.name.value == instance.name.value
                }) && instance.addresses.iter().any(|address| router.has(address.value))
            };
            let found = routers.iter().position(of_number);
            match found.or_else(|| routers.iter().position(of_name)) {
                Some(found) => routers[found].members.push((node, instance)),
                None => routers.push(Router {
                    router_id: instance.router_id.clone(),
                    members: vec![(node, instance)],
                }),
            }
        }
    }
    for router in &mut routers {
        let numbers = router.members.iter().filter_map(|(_, member)| member.router_id.clone());
        router.router_id = report.agree(
            "virtual_router_id",
            numbers.collect::<Vec<_>>(),
            u8::to_string,
            "two routers that do not hear one another are both Active. It must be the same on every node, and the \
             first is taken",
        );
        if let (None, Some((_, first))) = (&router.router_id, router.members.first()) {
            let text = "there is no virtual_router_id: write `router_id` in [vrrp]".to_owned();
            report.missing(vec![first.name.place.clone()], text);
        }
    }
    routers
}

/// Each node that is in the router has all its addresses.
fn addresses_agree(router: &Router<'_>, nodes: &[Node<'_>], report: &mut Report) {
    for (address, places) in router.addresses() {
        for (index, node) in nodes.iter().enumerate() {
            let mut own = router.members.iter().filter(|(member, _)| *member == index).peekable();
            let Some((_, first)) = own.peek().copied() else { continue };
            if own.any(|(_, i)| i.addresses.iter().any(|a| a.value == address)) {
                continue;
            }
            let text = format!(
                "virtual address {address} is in the one and not in the other, of node `{}`: keepalived \
                 refuses advertisements with another list, so that both are Active. Every node has it now",
                node.name
            );
            let first_place = places.first().map(|place| (*place).clone());
            report.disagreement(
                first_place.into_iter().chain([first.name.place.clone()]).collect(),
                text,
            );
        }
    }
}

fn settings(nodes: &[Node<'_>], routers: &[Router<'_>], report: &mut Report) -> Option<Settings> {
    let all: Vec<(&NodeFile, &Instance)> = routers
        .iter()
        .flat_map(|router| &router.members)
        .map(|(node, instance)| (nodes[*node].file, *instance))
        .collect();
    let version = version(&all, report)?;
    let intervals = all.iter().map(|(_, instance)| match &instance.interval {
        Some(interval) => Placed::new(fitting(interval.value, version.value), &interval.place),
        None => Placed::new(INTERVAL, &instance.name.place),
    });
    let so = "in version 2 each refuses the other's advertisements, and both are Active. It must be the \
              same on every node, and the first is taken";
    let interval = report.agree("advert_int", intervals, |value| duration_text(*value), so)?;
    let delays = all.iter().filter_map(|(_, instance)| instance.preempt_delay.clone());
    let preempt_delay = report.agree("preempt_delay", delays, |value| duration_text(*value), FIRST);
    let places = |of: fn(&Instance) -> Option<&Place>| -> Vec<Place> {
        all.iter().filter_map(|(_, instance)| of(instance)).cloned().collect()
    };
    let unicast = places(|instance| instance.unicast.as_ref());
    some_only("unicast", &unicast, &all, |instance| instance.unicast.is_some(), report);
    Some(Settings {
        auth_pass: auth_pass(&all, version.value, report),
        preempt: preempt(routers),
        nopreempt: places(|instance| instance.nopreempt.as_ref()),
        preempt_delay,
        virtual_mac: places(|instance| instance.virtual_mac.as_ref()),
        silent_to_rivals: places(|instance| instance.silent_to_rivals.as_ref()),
        unicast,
        version,
        interval,
    })
}

/// As an advertisement can carry it: keepalived rounds in the same way.
fn fitting(interval: Duration, version: u8) -> Duration {
    let hundredths = u64::try_from(interval.as_millis().div_ceil(10)).unwrap_or(u64::MAX);
    match version {
        2 => Duration::from_secs((hundredths.saturating_add(50) / 100).max(1)),
        _ => Duration::from_millis(hundredths.saturating_mul(10).max(10)),
    }
}

/// The highest, since only that has both families.
fn version(all: &[(&NodeFile, &Instance)], report: &mut Report) -> Option<Placed<u8>> {
    let of = |(file, instance): &(&NodeFile, &Instance)| {
        let said = instance.version.as_ref().or(file.version.as_ref()).cloned();
        said.unwrap_or_else(|| {
            let v6 = instance.addresses.first().is_some_and(|address| address.value.is_ipv6());
            Placed::new(if v6 { 3 } else { 2 }, &instance.name.place)
        })
    };
    let mut versions: Vec<Placed<u8>> = all.iter().map(of).collect();
    versions.sort_by_key(|version| std::cmp::Reverse(version.value));
    let so = "all speak one version here, and the higher one is taken; keepalived must speak it too while \
              both run";
    report.agree("vrrp_version", versions, u8::to_string, so)
}

/// The node that comes first decides: whoever comes after it has nobody to take the addresses from.
fn preempt(routers: &[Router<'_>]) -> bool {
    let Some(router) = routers.first() else { return false };
    let priority = |instance: &Instance| {
        instance.priority.as_ref().map_or(ConfigNode::DEFAULT_PRIORITY, |priority| priority.value)
    };
    let highest = router.members.iter().map(|(_, instance)| priority(instance)).max();
    let mut first = router.members.iter().filter(|(_, i)| Some(priority(i)) == highest);
    first.any(|(_, instance)| instance.nopreempt.is_none())
}

fn auth_pass(
    all: &[(&NodeFile, &Instance)],
    version: u8,
    report: &mut Report,
) -> Option<Placed<String>> {
    let passwords: Vec<Placed<Option<&String>>> = all
        .iter()
        .map(|(_, instance)| match &instance.auth_pass {
            Some(pass) => Placed::new(Some(&pass.value), &pass.place),
            None => Placed::new(None, &instance.name.place),
        })
        .collect();
    let show =
        |pass: &Option<&String>| if pass.is_some() { "one password" } else { "none" }.to_owned();
    let so = "they differ: each refuses the other's advertisements, and both are Active. It must be the same \
              on every node, and the first is taken";
    let first = report.agree("auth_pass", passwords, show, so)?;
    let pass = Placed::new(first.value?.clone(), &first.place);
    if version == 3 {
        let text =
            "auth_pass: version 3 has no passwords, and keepalived ignored it. It is left out";
        report.trap(vec![pass.place], text.to_owned());
        return None;
    }
    Some(pass)
}

/// What some instances say counts for all.
fn some_only(
    what: &str,
    said: &[Place],
    all: &[(&NodeFile, &Instance)],
    says: impl Fn(&Instance) -> bool,
    report: &mut Report,
) {
    let silent = all.iter().find(|(_, instance)| !says(instance));
    if let (Some(first), Some((_, silent))) = (said.first(), silent) {
        let text =
            format!("{what} is said in the one and not in the other; here it is for all nodes");
        report.disagreement(vec![first.clone(), silent.name.place.clone()], text);
    }
}

fn interfaces(routers: &[Router<'_>], report: &mut Report) -> Vec<Placed<String>> {
    const SO: &str = "the file is the same on every node, so that the interface must have one name: \
                      rename it, or run `lbctl attach` on each node instead of `interface`";
    let mut interfaces: Vec<Placed<String>> = Vec::new();
    for router in routers {
        let said = || router.members.iter().filter_map(|(_, i)| i.interface.clone());
        report.agree("interface", said(), String::clone, SO);
        let devices = router.members.iter().flat_map(|(_, i)| i.devices.clone());
        for interface in said().chain(devices) {
            if !interfaces.iter().any(|known| known.value == interface.value) {
                interfaces.push(interface);
            }
        }
    }
    interfaces
}

/// Peers that no file is of.
fn strangers(nodes: &[Node<'_>], report: &mut Report) {
    let is_known = |address: IpAddr| {
        nodes.iter().flat_map(|node| &node.addresses).any(|own| own.value == address)
    };
    let mut told: Vec<IpAddr> = Vec::new();
    let instances = nodes.iter().flat_map(|node| &node.file.instances);
    for peer in instances.flat_map(|instance| &instance.peers) {
        if !is_known(peer.value) && !told.contains(&peer.value) {
            told.push(peer.value);
            let text = format!(
                "no file is of the unicast_peer {}: give its keepalived.conf too, or write its [[node]]",
                peer.value
            );
            report.missing(vec![peer.place.clone()], text);
        }
    }
}
