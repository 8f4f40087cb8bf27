//! An interface: its link, driver and settings, and what is hooked into it.

use std::collections::BTreeMap;

use aya::programs::{SchedClassifier, TcAttachType, loaded_links, loaded_programs};

use super::ethtool::Ethtool;
use super::machine::read;
use crate::config::{Config, Mode};
use crate::doctor::judge::interface::Seen;
use crate::doctor::judge::program::{Hook, Program};
use crate::netlink::{HookedAt, Netlink, Network, ipv6_obstacle};

pub(in crate::doctor) fn look(
    name: &str,
    network: &Network,
    config: Option<&Config>,
    trial: bool,
    is_free: bool,
) -> Seen {
    let link = network.link_by_name(name);
    let ethtool = Ethtool::open(name).ok();
    let v6 = config.is_some_and(|config| config.virtual_addresses.iter().any(|a| a.is_ipv6()));
    let modes = config.and_then(|config| config.data_path.modes.as_ref());
    let tried = link.filter(|_| trial).map(|link| match is_free {
        true => crate::kernel::try_native_xdp(link.index).map_err(crate::dataplane::attach_words),
        false => Err("not tried, since a program is attached".to_owned()),
    });
    Seen {
        name: name.to_owned(),
        there: link.is_some(),
        up: link.is_some_and(|link| link.up),
        running: link.is_some_and(|link| link.running),
        ethernet: link.is_some_and(|link| link.mac.is_some()),
        mtu: link.map_or(0, |link| link.mtu),
        veth: link.is_some_and(|link| link.veth),
        driver: ethtool.as_ref().and_then(|ethtool| ethtool.driver().ok()),
        offloads: ethtool.as_ref().and_then(|ethtool| ethtool.features().ok()),
        native_wanted: modes.is_some_and(|modes| modes.first() == Some(&Mode::Native)),
        native_unwanted: modes.is_some_and(|modes| !modes.contains(&Mode::Native)),
        features: link.and_then(|link| super::features::xdp(link.index).ok()),
        trial: tried,
        rp_filter: rp_filter(name),
        other_ways: other_ways(name, network),
        ipv6_obstacle: ipv6_obstacle(name).filter(|_| v6),
        ipv6_wanted: v6,
    }
}

/// The kernel takes the greater of the two (ip-sysctl: rp_filter).
fn rp_filter(name: &str) -> Option<u8> {
    let of = |name: &str| -> Option<u8> {
        read(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"))?.parse().ok()
    };
    Some(of("all")?.max(of(name)?))
}

/// Those that default routes leave by: where clients of elsewhere are.
fn other_ways(name: &str, network: &Network) -> Vec<String> {
    let ways = network.default_ways(true).into_iter().map(|index| network.link_name(index));
    let mut others: Vec<String> = ways.filter(|way| way != name).collect();
    others.dedup();
    others
}

/// What is hooked into it, and how it is called.
pub(in crate::doctor) async fn programs(
    netlink: &Netlink,
    ifindex: u32,
    name: &str,
) -> Result<Vec<Program>, String> {
    let hooked = netlink.hooked(ifindex).await.map_err(|error| error.to_string())?;
    let names: BTreeMap<u32, String> = loaded_programs()
        .filter_map(Result::ok)
        .map(|program| (program.id(), program.name_as_str().unwrap_or_default().to_owned()))
        .collect();
    let links: BTreeMap<u32, u32> =
        loaded_links().filter_map(Result::ok).map(|link| (link.program_id(), link.id())).collect();
    if names.is_empty() && hooked.iter().any(|hooked| hooked.program.is_some()) {
        return Err("there are some, and only root is told their names".to_owned());
    }
    let mut programs: Vec<Program> = hooked
        .into_iter()
        .map(|hooked| Program {
            hook: match hooked.at {
                HookedAt::Xdp => Hook::Xdp,
                HookedAt::Ingress => Hook::TcIngress,
                HookedAt::Egress => Hook::TcEgress,
            },
            name: hooked.program.and_then(|id| names.get(&id).cloned()).unwrap_or(hooked.kind),
            id: hooked.program,
            priority: hooked.priority,
            link: hooked.program.and_then(|id| links.get(&id).copied()),
        })
        .collect();
    for (hook, attach) in
        [(Hook::TcIngress, TcAttachType::Ingress), (Hook::TcEgress, TcAttachType::Egress)]
    {
        // Kernels before 6.6 have none of these; whoever is not root is not told.
        match SchedClassifier::query_tcx(name, attach) {
            Ok((_, all)) => programs.extend(all.iter().map(|program| Program {
                hook,
                name: program.name_as_str().unwrap_or_default().to_owned(),
                id: Some(program.id()),
                priority: None,
                link: links.get(&program.id()).copied(),
            })),
            Err(_) if nix::unistd::geteuid().is_root() => {}
            Err(_) => return Err("only root is told of links at tc".to_owned()),
        }
    }
    Ok(programs)
}
