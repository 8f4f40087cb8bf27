//! `vrrp-keepalived-*`: our agent and a real keepalived in one virtual router. In version 2 keepalived
//! runs the files of today's clusters: master1's, whose `state MASTER` makes it preempt, and master2's.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::duet::{Duet, Peer, Seats};
use super::shape::{Family, NIC, address, vip};
use super::stage::Stage;
use super::wire::Protocol;
use crate::lab::peer::keepalived::Keepalived;
use crate::lab::peer::today;
use crate::lab::{Host, Mac};

/// Short enough for a quick scenario, long enough that five in a hundred of a takeover are more than
/// what a busy machine is late.
const VERSION_3_INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn version_2(stage: &mut Stage) -> Result<()> {
    today_s(stage, false)
}

pub(super) fn unicast(stage: &mut Stage) -> Result<()> {
    today_s(stage, true)
}

fn today_s(stage: &mut Stage, unicast: bool) -> Result<()> {
    let protocol = Protocol {
        router_id: today::ROUTER_ID,
        version: 2,
        interval: Duration::from_secs(today::INTERVAL_S),
        unicast,
        password: Some(today::PASSWORD),
        families: &[Family::V4],
    };
    for (master, ours) in [(1, 2), (2, 1)] {
        let script = |host: &Host| check_that_succeeds(host);
        let file = move |host: &Host| today::keepalived(master, unicast, &script(host)?);
        let seat = |master| (master, today::priority(master));
        play(stage, &protocol, Seats { ours: seat(ours), peer: seat(master) }, Box::new(file))?;
    }
    Ok(())
}

pub(super) fn version_3(stage: &mut Stage) -> Result<()> {
    let protocol = Protocol {
        router_id: 51,
        version: 3,
        interval: VERSION_3_INTERVAL,
        unicast: false,
        password: None,
        families: &[Family::V4],
    };
    for priority in [150, 90] {
        let file = move |host: &Host| {
            let interval_s = VERSION_3_INTERVAL.as_secs_f64();
            Ok(of_version_3(host.name(), priority, interval_s))
        };
        let seats = Seats { ours: (1, 100), peer: (2, priority) };
        play(stage, &protocol, seats, Box::new(file))?;
    }
    Ok(())
}

/// A file of ours, as today's ones are written.
pub(super) fn of_version_3(host: &str, priority: u8, interval_s: f64) -> String {
    format!(
        "vrrp_instance VI_1 {{\n state BACKUP\n interface {NIC}\n mcast_src_ip {}\n version 3\n \
         virtual_router_id 51\n priority {priority}\n advert_int {interval_s}\n \
         virtual_ipaddress {{\n {}\n }}\n}}\n",
        address(host, Family::V4),
        vip(Family::V4),
    )
}

/// For the files' `check_nginx`: here nginx is always there.
fn check_that_succeeds(host: &Host) -> Result<PathBuf> {
    let path = host.directory().join("check_nginx.sh");
    std::fs::write(&path, "#!/bin/sh\nexit 0\n").context("cannot write the script")?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

type File = Box<dyn Fn(&Host) -> Result<String>>;

fn play(stage: &mut Stage, protocol: &Protocol, seats: Seats, file: File) -> Result<()> {
    let mut peer = KeepalivedPeer { file, running: None };
    let outranked = seats.ours.1 < seats.peer.1;
    let mut duet = Duet::new(stage, protocol, seats, &mut peer)?;
    if outranked { duet.below(stage) } else { duet.above(stage) }
}

struct KeepalivedPeer {
    file: File,
    running: Option<Keepalived>,
}

impl KeepalivedPeer {
    fn running(&self) -> Result<&Keepalived> {
        self.running.as_ref().context("no keepalived runs")
    }
}

impl Peer for KeepalivedPeer {
    fn name(&self) -> &'static str {
        "keepalived"
    }

    fn start(&mut self, host: &Host) -> Result<()> {
        self.running = Some(Keepalived::start(host, &(self.file)(host)?)?);
        Ok(())
    }

    fn end(&mut self, _: &Host) -> Result<()> {
        self.running.take().context("no keepalived runs")?.end()
    }

    /// It leaves the address behind, which a machine without power does not.
    fn crash(&mut self, host: &Host) -> Result<()> {
        self.running.take().context("no keepalived runs")?.kill()?;
        host.namespace().ip(&format!("addr del {}/32 dev {NIC}", vip(Family::V4)))
    }

    fn mute(&self, _: Family) -> Duration {
        Duration::ZERO
    }

    fn mac(&self, host: &Host, _: Family) -> Result<Mac> {
        host.mac(NIC)
    }

    fn received(&self) -> Result<u64> {
        Ok(self.running()?.statistics()?.received)
    }

    fn refused(&self) -> Result<Vec<String>> {
        let refused = self.running()?.statistics()?.refused.into_iter();
        let refused = refused.filter(|(_, count)| *count > 0);
        Ok(refused.map(|(why, count)| format!("{count} {why}")).collect())
    }
}
