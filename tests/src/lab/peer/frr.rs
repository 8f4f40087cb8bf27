//! A real FRR, zebra and vrrpd, in a machine. Version 3 without authentication is what it speaks.
//!
//! For each address family FRR wants a macvlan in bridge mode with the virtual MAC and the virtual
//! addresses assigned beforehand, and switches it on and off (protodown). Two things that it leaves
//! to the system are done here, as its manual does not: `arp_ignore` on the machine, without which
//! the interface below answers ARP for the virtual address with its own MAC, as Backup too; and the
//! macvlans go with the processes, since an ended FRR leaves them switched on.

use std::net::IpAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use nix::unistd::User;
use serde_json::Value;

use super::{await_some, directory, write};
use crate::lab::{Host, Mac, Process, format_mac, tool};

const LIMIT: Duration = Duration::from_secs(20);
/// Where the daemons are: in no PATH.
const DAEMONS: &str = "/usr/lib/frr";
/// It insists on a member of the group `frrvty`; its package makes this one.
const USER: &str = "frr";

/// The virtual router.
#[derive(Clone, Debug)]
pub struct Group {
    pub interface: &'static str,
    pub router_id: u8,
    pub priority: u8,
    /// A multiple of 10 ms.
    pub interval: Duration,
    pub addresses: Vec<IpAddr>,
}

/// The virtual MAC of an address family (RFC 9568, 7.3).
pub const fn virtual_mac(router_id: u8, address: IpAddr) -> Mac {
    let family = if address.is_ipv4() { 1 } else { 2 };
    [0, 0, 0x5e, 0, family, router_id]
}

/// Owned: killed on drop.
#[derive(Debug)]
pub struct Frr {
    vrrpd: Process,
    zebra: Process,
    directory: PathBuf,
    macvlans: Vec<String>,
}

impl Frr {
    /// Starts it and waits until it takes commands.
    ///
    /// # Errors
    /// Where a macvlan cannot be made or a daemon does not come up.
    pub fn start(host: &Host, group: &Group) -> Result<Self> {
        host.namespace().sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
        let macvlans = make_macvlans(host, group)?;
        let directory = directory(host, "frr")?;
        let user = User::from_name(USER)?.context("no user frr: install the package frr")?;
        chown(&directory, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        let empty = write(&directory, "zebra.conf", "")?;
        let file = write(&directory, "vrrpd.conf", &configuration(group))?;
        let zebra = daemon(host, &directory, "zebra", &empty)?;
        let vrrpd = daemon(host, &directory, "vrrpd", &file)?;
        Ok(Self { vrrpd, zebra, directory, macvlans })
    }

    /// Its clean end: it resigns.
    ///
    /// # Errors
    /// Where it does not end.
    pub fn end(mut self, host: &Host) -> Result<()> {
        for process in [&mut self.vrrpd, &mut self.zebra] {
            process.signal(Signal::SIGTERM)?;
            process.wait(LIMIT)?;
        }
        remove(host, &self.macvlans)
    }

    /// SIGKILL to all of it, and no macvlan any more.
    ///
    /// # Errors
    /// Where it had ended before.
    pub fn kill(self, host: &Host) -> Result<()> {
        self.vrrpd.kill()?;
        self.zebra.kill()?;
        remove(host, &self.macvlans)
    }

    /// How many advertisements it has taken, in the address family that took fewer.
    ///
    /// # Errors
    /// Where it does not say.
    pub fn received(&self) -> Result<u64> {
        let families = ["v4", "v6"].map(|family| self.show(family)).into_iter();
        let families = families.collect::<Result<Vec<_>>>()?.into_iter().flatten();
        let counts = families.map(|family| family["stats"]["adverRx"].as_u64().unwrap_or(0));
        Ok(counts.min().unwrap_or(0))
    }

    /// What it refused, in its log's words.
    pub fn refusals(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.directory.join("vrrpd.log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("Datagram invalid")).map(str::to_owned).collect()
    }

    /// An address family of the virtual router; none where it has no addresses there.
    fn show(&self, family: &str) -> Result<Option<Value>> {
        let directory = self.directory.display().to_string();
        let arguments = ["--vty_socket", &directory, "-d", "vrrpd", "-c", "show vrrp json"];
        let text = tool::run("vtysh", &arguments)?;
        let routers: Value = serde_json::from_str(&text).context("vtysh does not speak JSON")?;
        let state = routers[0][family].clone();
        let used = state["addresses"].as_array().is_some_and(|addresses| !addresses.is_empty());
        Ok(used.then_some(state))
    }
}

fn make_macvlans(host: &Host, group: &Group) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let Group { interface, router_id, addresses, .. } = group;
    for (family, is_family) in
        [("4", IpAddr::is_ipv4 as fn(&IpAddr) -> bool), ("6", IpAddr::is_ipv6)]
    {
        let own: Vec<_> = addresses.iter().filter(|address| is_family(address)).collect();
        let Some(first) = own.first() else { continue };
        let name = format!("vrrp{family}-{router_id}");
        let mac = format_mac(virtual_mac(*router_id, **first));
        let mut batch =
            format!("link add {name} link {interface} address {mac} type macvlan mode bridge\n");
        for address in own {
            let rest = if address.is_ipv4() { "/32" } else { "/128 nodad" };
            batch.push_str(&format!("addr add {address}{rest} dev {name}\n"));
        }
        batch.push_str(&format!("link set {name} up\n"));
        host.namespace().ip(&batch)?;
        names.push(name);
    }
    Ok(names)
}

fn remove(host: &Host, macvlans: &[String]) -> Result<()> {
    macvlans.iter().try_for_each(|name| host.namespace().ip(&format!("link del {name}")))
}

fn configuration(group: &Group) -> String {
    let Group { interface, router_id, priority, interval, addresses } = group;
    let interval_ms = interval.as_millis();
    let mut text = format!(
        "debug vrrp protocol\ndebug vrrp packets\ninterface {interface}\n \
         vrrp {router_id} version 3\n vrrp {router_id} priority {priority}\n \
         vrrp {router_id} advertisement-interval {interval_ms}\n"
    );
    for address in addresses {
        let word = if address.is_ipv4() { "ip" } else { "ipv6" };
        text.push_str(&format!(" vrrp {router_id} {word} {address}\n"));
    }
    text
}

fn daemon(host: &Host, directory: &Path, name: &str, file: &Path) -> Result<Process> {
    let mut command = Command::new(format!("{DAEMONS}/{name}"));
    command.args(["-u", USER, "-g", USER, "-P", "0"]);
    command.arg("-f").arg(file).arg("-i").arg(directory.join(format!("{name}.pid")));
    command.arg("--vty_socket").arg(directory).arg("-z").arg(directory.join("zserv.api"));
    command.arg("--log").arg(format!("file:{}", directory.join(format!("{name}.log")).display()));
    let mut process = host.spawn(name, command)?;
    await_some(&format!("{name} takes commands"), LIMIT, || {
        process.require_running()?;
        Ok(directory.join(format!("{name}.vty")).exists().then_some(()))
    })?;
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_virtual_mac_is_the_rfcs() {
        let v4 = "192.0.2.1".parse().unwrap();
        assert_eq!(format_mac(virtual_mac(51, v4)), "00:00:5e:00:01:33");
        assert_eq!(format_mac(virtual_mac(51, "fd00::1".parse().unwrap())), "00:00:5e:00:02:33");
    }
}
