//! What systemd-networkd, NetworkManager and other programs of VRRP leave to be seen: no question to them.

use std::fs;
use std::path::{Path, PathBuf};

use super::machine::read;
use crate::doctor::judge::keeper::Networkd;

/// Programs that speak VRRP.
const SPEAKERS: [&str; 3] = ["keepalived", "vrrpd", "ucarp"];

pub(in crate::doctor) fn networkd(ifindex: u32) -> Networkd {
    let Some(link) = read(format!("/run/systemd/netif/links/{ifindex}")) else {
        return Networkd { link: None, files: Vec::new() };
    };
    let file = link.lines().find_map(|line| line.strip_prefix("NETWORK_FILE="));
    let files = file.map(|file| with_drop_ins(Path::new(file))).unwrap_or_default();
    Networkd { files: files.iter().filter_map(read).collect(), link: Some(link) }
}

/// A file and its drop-ins, in the order in which later ones count more (systemd.network(5)).
fn with_drop_ins(file: &Path) -> Vec<PathBuf> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folders = ["/usr/lib/systemd/network", "/run/systemd/network", "/etc/systemd/network"];
    let mut drop_ins = std::collections::BTreeMap::new();
    for folder in folders {
        let folder = Path::new(folder).join(format!("{name}.d"));
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            // One of the same name in a later folder takes the place of an earlier one.
            drop_ins.insert(entry.file_name(), entry.path());
        }
    }
    std::iter::once(file.to_owned()).chain(drop_ins.into_values()).collect()
}

pub(in crate::doctor) fn network_manager(ifindex: u32) -> Option<String> {
    read(format!("/run/NetworkManager/devices/{ifindex}"))
}

/// Those that run in this network namespace.
pub(in crate::doctor) fn speakers() -> Vec<(i32, String)> {
    let own = fs::read_link("/proc/self/ns/net").ok();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut found: Vec<(i32, String)> = processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let name = read(entry.path().join("comm"))?;
            let here = fs::read_link(entry.path().join("ns/net")).ok() == own;
            (SPEAKERS.contains(&name.as_str()) && here).then_some((pid, name))
        })
        .collect();
    found.sort_unstable();
    found
}
