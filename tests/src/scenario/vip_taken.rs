//! `vip-taken`: another machine has the VIP. A node that is to ask before it takes over leaves it
//! there, says whose it is, and takes it once it is free.

use std::time::Duration;

use anyhow::Result;
use lb_agent::control::api::Role;

use super::shape::{Family, NIC, address, vip};
use super::stage::Stage;
use crate::lab::agent::Agent;
use crate::lab::{Lab, format_mac};

/// The link is asked again every ten seconds.
const LIMIT: Duration = Duration::from_secs(20);
const NODE: &str = "master1";
const SQUATTER: &str = "client1";

pub(super) fn run(stage: &mut Stage) -> Result<()> {
    let lab = Lab::new(stage.tool())?;
    let host = |name: &str| {
        let own = [format!("{}/24", address(name, Family::V4))];
        lab.host(name).interface(NIC, "lan", &own).start()
    };
    let (node, squatter) = (host(NODE)?, host(SQUATTER)?);
    let vip = vip(Family::V4);
    squatter.namespace().ip(&format!("address add {vip}/32 dev {NIC}"))?;
    let mac = format_mac(squatter.mac(NIC)?);

    stage.step("a node that asks");
    let mut agent = Agent::start(&node, &configuration(true))?;
    // Also from VRRP, so that another node could be Active.
    let said = |agent: &Agent| -> Result<Option<String>> {
        Ok(agent.vrrp()?.into_iter().find_map(|router| router.held_back))
    };
    let status = agent.wait_until("it says whose the VIP is", LIMIT, |status| {
        status.warnings.iter().any(|warning| warning.contains(&mac))
    })?;
    let free = status.role == Role::Backup && !node.holds(NIC, vip)?;
    stage.claim("the VIP is left where it is", free, format!("{:?}", status.warnings));
    let held_back = await_some(|| Ok(said(&agent)?.filter(|why| why.contains(&mac))))?;
    stage.claim("it stays Backup, and says why", held_back.is_some(), format!("{held_back:?}"));

    stage.step("the VIP becomes free");
    squatter.namespace().ip(&format!("address del {vip}/32 dev {NIC}"))?;
    let status = agent.wait_until_active(LIMIT)?;
    stage.claim("it takes the VIP", node.holds(NIC, vip)?, status.role_reason);
    agent.stop()?;

    stage.step("a node that does not ask");
    squatter.namespace().ip(&format!("address add {vip}/32 dev {NIC}"))?;
    let mut agent = Agent::start(&node, &configuration(false))?;
    let status = agent.wait_until_active(LIMIT)?;
    stage.claim("it takes the VIP in spite of it", node.holds(NIC, vip)?, status.role_reason);
    agent.stop()
}

fn await_some<T>(mut look: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        let found = look()?;
        if found.is_some() || std::time::Instant::now() > deadline {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn configuration(asks: bool) -> String {
    let own = address(NODE, Family::V4);
    format!(
        "interface = \"{NIC}\"\nvirtual_addresses = [\"{}\"]\n\
         [vrrp]\nrouter_id = 51\ncheck_duplicates = {asks}\n\
         [[node]]\nname = \"{NODE}\"\naddress = \"{own}\"\n\
         [[service]]\nname = \"api\"\nport = 8443\nbackends = [\"{own}:6443\"]\n",
        vip(Family::V4),
    )
}
