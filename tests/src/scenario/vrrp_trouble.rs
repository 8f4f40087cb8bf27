//! `vrrp-trouble`: what is wrong with other routers' advertisements is counted and said, with the
//! sender's address and MAC, and changes nothing else.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lb_agent::control::api::{Trouble, VirtualRouter, VrrpState};
use lb_agent::vrrp::identity::{Priority, RouterId, Version};
use lb_agent::vrrp::packet::{Advertisement, Authentication, Checksum};

use super::shape::{Family, NIC, address, vip};
use super::stage::Stage;
use crate::lab::agent::Agent;
use crate::lab::forge::GROUP;

use crate::lab::{Host, Lab, format_mac};

const LIMIT: Duration = Duration::from_secs(10);
const PASSWORD: &str = "K8SHA_KA_AUTH";

/// The machines: our node, one of the file that never runs, and one that nobody knows.
const NODE: &str = "master1";
const PARTNER: &str = "master2";
const STRANGER: &str = "client1";

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let lab = Lab::new(stage.tool())?;
    let host = |name: &str| {
        let own = [format!("{}/24", address(name, Family::V4))];
        lab.host(name).interface(NIC, "lan", &own).start()
    };
    let scene = Scene { node: host(NODE)?, stranger: host(STRANGER)? };

    stage.step("another group has the router_id before the agent starts");
    let other_group = scene.build(
        &Version::V3,
        &Advertisement {
            addresses: vec![IpAddr::from([192, 168, 139, 160])],
            ..scene.advertisement(250)
        },
    )?;
    let mut agent = Agent::start(&scene.node, &scene.configuration("version = 3", "100ms"))?;
    scene.repeat(&other_group, || Ok(scene.find(&agent, "duplicate_router_id")?.is_some()))?;
    agent.wait_until_active(LIMIT)?;
    stage.claim(
        "a router_id in use by others is said, and does not keep this group's VIP from being served",
        true,
        scene.find(&agent, "duplicate_router_id")?.map_or_else(String::new, |t| t.sentence),
    );

    let of_version_3 = scene.of_version_3()?;
    stage.step("wrong advertisements of version 3");
    scene.judge(stage, &agent, &of_version_3)?;
    agent.stop()?;

    stage.step("wrong advertisements of version 2");
    let settings = format!("version = 2\nauth_pass = \"{PASSWORD}\"");
    let mut agent = Agent::start(&scene.node, &scene.configuration(&settings, "1s"))?;
    agent.wait_until_active(LIMIT)?;
    let of_version_2 = scene.of_version_2()?;
    scene.judge(stage, &agent, &of_version_2)?;
    agent.stop()
}

/// Something wrong, and what it is to be counted as.
struct Wrong {
    kind: &'static str,
    source: Ipv4Addr,
    ttl: u8,
    payload: Vec<u8>,
}

struct Scene {
    node: Host,
    stranger: Host,
}

impl Scene {
    fn configuration(&self, settings: &str, interval: &str) -> String {
        let [own, partner] = [NODE, PARTNER].map(|name| address(name, Family::V4));
        format!(
            "interface = \"{NIC}\"\nvirtual_addresses = [\"{}\"]\n\
             [vrrp]\nrouter_id = 51\nadvertisement_interval = \"{interval}\"\n{settings}\n\
             [[node]]\nname = \"{NODE}\"\naddress = \"{own}\"\npriority = 100\n\
             [[node]]\nname = \"{PARTNER}\"\naddress = \"{partner}\"\npriority = 90\n\
             [[service]]\nname = \"api\"\nport = 8443\nbackends = [\"{own}:6443\"]\n",
            vip(Family::V4),
        )
    }

    /// A right one for the agent's first configuration.
    fn advertisement(&self, priority: u8) -> Advertisement {
        Advertisement {
            router_id: RouterId::new(51).expect("not 0"),
            priority: Priority(priority),
            interval: Duration::from_millis(100),
            addresses: vec![vip(Family::V4)],
            authentication: Authentication::None,
        }
    }

    fn build(&self, version: &Version, advertisement: &Advertisement) -> Result<Vec<u8>> {
        let (from, to) = (address(STRANGER, Family::V4), IpAddr::V4(GROUP));
        Ok(advertisement.build(*version, from, to, Checksum::Plain)?)
    }

    fn of_version_3(&self) -> Result<Vec<Wrong>> {
        let right = self.build(&Version::V3, &self.advertisement(90))?;
        let by = |name: &str| v4(address(name, Family::V4));
        let (stranger, own) = (by(STRANGER), by(NODE));
        let wrong = |kind, payload: &[u8]| Wrong {
            kind,
            source: stranger,
            ttl: 255,
            payload: payload.to_vec(),
        };
        let mut damaged = right.clone();
        damaged[2] ^= 0x10;
        let mut no_interval = self.advertisement(250);
        no_interval.interval = Duration::from_millis(10);
        let mut no_interval = self.build(&Version::V3, &no_interval)?;
        // The last byte of the interval, and what that adds to the checksum.
        no_interval[5] = 0;
        let sum = u16::from_be_bytes([no_interval[6], no_interval[7]]) + 1;
        no_interval[6..8].copy_from_slice(&sum.to_be_bytes());
        let seconds = Advertisement { interval: Duration::from_secs(1), ..self.advertisement(250) };
        let slow = Advertisement { interval: Duration::from_secs(1), ..self.advertisement(90) };
        let mut more = self.advertisement(90);
        more.addresses.push(IpAddr::from([192, 168, 139, 151]));
        let higher = self.build(&Version::V3, &self.advertisement(250))?;
        Ok(vec![
            Wrong { ttl: 64, ..wrong("ttl", &higher) },
            Wrong { source: own, ..wrong("own_address", &higher) },
            wrong("truncated", &higher[..7]),
            wrong("length_mismatch", &higher[..higher.len() - 1]),
            wrong("length_mismatch", &[&higher[..], &[0; 8]].concat()),
            wrong("checksum_wrong", &damaged),
            wrong("interval_zero", &no_interval),
            wrong("other_version", &self.build(&Version::V2, &seconds)?),
            wrong("stranger", &right),
            wrong("split_brain", &right),
            wrong("interval_differs", &self.build(&Version::V3, &slow)?),
            wrong("addresses_differ", &self.build(&Version::V3, &more)?),
        ])
    }

    fn of_version_2(&self) -> Result<Vec<Wrong>> {
        let source = v4(address(PARTNER, Family::V4));
        let right = Advertisement {
            interval: Duration::from_secs(1),
            authentication: Authentication::password(PASSWORD),
            ..self.advertisement(250)
        };
        let password = Authentication::password("another");
        let authentication = Advertisement { authentication: password, ..right.clone() };
        let without = Advertisement { authentication: Authentication::None, ..right.clone() };
        let interval = Advertisement { interval: Duration::from_secs(2), ..right };
        [("authentication", authentication), ("authentication", without), ("interval", interval)]
            .into_iter()
            .map(|(kind, advertisement)| {
                let payload = self.build(&Version::V2, &advertisement)?;
                Ok(Wrong { kind, source, ttl: 255, payload })
            })
            .collect()
    }

    /// Sends each, and claims that it was counted and said, and changed nothing.
    fn judge(&self, stage: &mut Stage, agent: &Agent, all: &[Wrong]) -> Result<()> {
        let before = router(agent)?;
        let mac = format_mac(self.stranger.mac(NIC)?);
        for wrong in all {
            let count = |router: &VirtualRouter| {
                let kinds = [&router.refused, &router.noticed];
                kinds.into_iter().find_map(|k| k.get(wrong.kind)).copied().unwrap_or_default()
            };
            let counted = count(&router(agent)?);
            self.stranger.forge_vrrp(NIC, wrong.source, wrong.ttl, &wrong.payload)?;
            let deadline = Instant::now() + LIMIT;
            while count(&router(agent)?) == counted && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
            let now = router(agent)?;
            let found = self.find(agent, wrong.kind)?;
            let said = found.as_ref().is_some_and(|trouble| {
                trouble.address == IpAddr::V4(wrong.source)
                    && trouble.mac.as_deref() == Some(mac.as_str())
            });
            let text = format!("{}: counted, and said with address and MAC", wrong.kind);
            let counts = count(&now) == counted + 1;
            stage.claim(&text, counts && said, format!("{found:?}"));
        }
        let after = router(agent)?;
        let same = after.state == VrrpState::Active && after.transitions == before.transitions;
        let seen = format!("{:?}, {} transitions", after.state, after.transitions);
        stage.claim("none of it changed who is Active", same, seen);
        let screen = agent.lbctl(["vrrp"])?;
        let log = agent.process().log();
        for wrong in all {
            let line = |text: &str| {
                text.lines().any(|line| line.contains(wrong.kind) && line.contains(&mac))
            };
            let (shown, logged) = (line(&screen), line(&log));
            let text = format!("{}: a line of lbctl vrrp and one of the log", wrong.kind);
            stage.claim(&text, shown && logged, format!("shown: {shown}, logged: {logged}"));
        }
        Ok(())
    }

    /// Sends it every few milliseconds until the condition holds.
    fn repeat(&self, payload: &[u8], done: impl Fn() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !done()? {
            ensure!(Instant::now() < deadline, "nothing was said within {LIMIT:?}");
            self.stranger.forge_vrrp(NIC, v4(address(STRANGER, Family::V4)), 255, payload)?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn find(&self, agent: &Agent, kind: &str) -> Result<Option<Trouble>> {
        let routers = agent.vrrp()?;
        Ok(routers.into_iter().flat_map(|r| r.troubles).find(|trouble| trouble.kind == kind))
    }
}

fn router(agent: &Agent) -> Result<VirtualRouter> {
    agent.vrrp()?.into_iter().next().context("no virtual router")
}

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("{address} is not IPv4"),
    }
}
