//! `vrrp-routers`: three virtual routers on two links, two of them on the same one. Each is Active
//! where its priorities say, and moves by itself.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use lb_agent::control::api::VrrpState;

use super::stage::Stage;
use crate::lab::agent::Agent;
use crate::lab::{Host, Lab};

const LIMIT: Duration = Duration::from_secs(15);
const NAMES: [&str; 2] = ["master1", "master2"];
/// Router, its address, and the link that it is on.
const ROUTERS: [(u8, &str, &str); 3] = [
    (51, "192.168.139.150", "ens33"),
    (52, "192.168.139.151", "ens33"),
    (53, "192.168.140.150", "ens34"),
];

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let lab = Lab::new(stage.tool())?;
    let host = |name: &str, last: u8| {
        lab.host(name)
            .interface("ens33", "lan", &[format!("192.168.139.{last}/24")])
            .interface("ens34", "other", &[format!("192.168.140.{last}/24")])
            .start()
    };
    let nodes = [host(NAMES[0], 133)?, host(NAMES[1], 134)?];
    let client = host("client1", 10)?;
    let start = |node: &Host| Agent::start(node, CONFIGURATION);
    let agents = [start(&nodes[0])?, start(&nodes[1])?];
    let scene = Scene { nodes: &nodes, client: &client };

    scene.owned(stage, &agents, "each is Active where its priority is highest", [0, 1, 0])?;

    stage.step("master1 is held back in one of them");
    agents[0].lbctl(["vrrp", "hold", "51"])?;
    scene.owned(stage, &agents, "it gives up that one, the others stay", [1, 1, 0])?;
    agents[0].lbctl(["vrrp", "release", "51"])?;
    scene.owned(stage, &agents, "and takes it back", [0, 1, 0])?;
    let unknown = agents[0].lbctl(["vrrp", "resign", "77"]);
    let seen = unknown.err().map_or_else(String::new, |error| error.to_string());
    let told = seen.contains("77") && seen.contains("51, 52, 53");
    stage.claim("a router that is not there is refused", told, seen);

    stage.step("master1 loses one of its links");
    nodes[0].set_cable("ens34", false)?;
    scene.owned(stage, &agents, "the router of that link moves, the other stays", [0, 1, 1])?;
    nodes[0].set_cable("ens34", true)?;
    scene.owned(stage, &agents, "and comes back with the link", [0, 1, 0])?;

    stage.step("master2 dies");
    let [mut first, second] = agents;
    second.kill()?;
    first.wait_until("master1 has all", LIMIT, |status| {
        status.virtual_addresses.iter().all(|vip| vip.held)
    })?;
    let known = ROUTERS.map(|(_, vip, _)| scene.answering(vip).unwrap_or_default());
    let seen = format!("{known:?}");
    stage.claim("all are where a node lives", known == ["master1"; 3], seen);
    first.stop()
}

const CONFIGURATION: &str = r#"
interfaces = ["ens33", "ens34"]
virtual_addresses = ["192.168.139.150", "192.168.139.151", "192.168.140.150"]

[vrrp]
preempt = true
[[vrrp.router]]
router_id = 51
virtual_addresses = ["192.168.139.150"]
[[vrrp.router]]
router_id = 52
virtual_addresses = ["192.168.139.151"]
priorities = [{ node = "master2", priority = 120 }]
[[vrrp.router]]
router_id = 53
virtual_addresses = ["192.168.140.150"]

[[node]]
name = "master1"
addresses = ["192.168.139.133", "192.168.140.133"]
[[node]]
name = "master2"
addresses = ["192.168.139.134", "192.168.140.134"]
priority = 90

[[service]]
name = "api"
port = 8443
backends = ["192.168.139.133:6443", "192.168.139.134:6443"]
"#;

struct Scene<'a> {
    nodes: &'a [Host; 2],
    client: &'a Host,
}

impl Scene<'_> {
    /// Each router is Active on one node, which alone holds its address and answers for it.
    fn owned(
        &self,
        stage: &mut Stage,
        agents: &[Agent; 2],
        text: &str,
        owners: [usize; 3],
    ) -> Result<()> {
        let expected = owners.map(|owner| (vec![NAMES[owner]], NAMES[owner].to_owned()));
        let deadline = Instant::now() + LIMIT;
        let mut seen = self.look(agents)?;
        while seen != expected && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            seen = self.look(agents)?;
        }
        stage.claim(text, seen == expected, format!("{seen:?}"));
        Ok(())
    }

    /// For each router who is Active in it with the address, and who answers for that.
    fn look(&self, agents: &[Agent; 2]) -> Result<[(Vec<&'static str>, String); 3]> {
        let mut seen = std::array::from_fn(|_| (Vec::new(), String::new()));
        for (at, (router_id, vip, interface)) in ROUTERS.into_iter().enumerate() {
            for (node, agent) in agents.iter().enumerate() {
                let active = agent.vrrp()?.iter().any(|router| {
                    router.router_id == router_id && router.state == VrrpState::Active
                });
                if active && self.nodes[node].holds(interface, vip.parse()?)? {
                    seen[at].0.push(NAMES[node]);
                }
            }
            seen[at].1 = self.answering(vip)?;
        }
        Ok(seen)
    }

    /// The name of the node that answers a client for an address.
    fn answering(&self, vip: &str) -> Result<String> {
        let address: IpAddr = vip.parse()?;
        self.client.namespace().ip(&format!("neigh flush to {vip}"))?;
        let deadline = Instant::now() + Duration::from_millis(500);
        while Instant::now() < deadline {
            self.client.knock(address)?;
            let known = self.client.neighbour(address)?;
            for node in self.nodes {
                for interface in ["ens33", "ens34"] {
                    if known == Some(node.mac(interface)?) {
                        return Ok(node.name().to_owned());
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok("nobody".to_owned())
    }
}
