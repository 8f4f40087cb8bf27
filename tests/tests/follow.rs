//! An agent whose role no VRRP decides, and another one that follows it. The real binary, in a machine of the lab;
//! needs root.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_agent::control::api::{Role, Status};
use lb_tests::lab::agent::{Agent, LONE_NODE, trusted_binary};
use lb_tests::lab::{Lab, Offloads};

const TOOL: &str = env!("CARGO_BIN_EXE_lb-lab");
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_role_by_hand_and_what_is_known_of_backends_outlive_an_upgrade() -> Result<()> {
    let lab = Lab::new(Path::new(TOOL))?;
    let host = lab.host("node").interface("ens33", "lan", &["192.168.139.133/24"]);
    let host = host.offloads(Offloads::Off).start()?;
    let mut agent = Agent::start(&host, LONE_NODE)?;
    agent.wait_until_active(LIMIT)?;
    // Nobody listens there.
    agent
        .wait_for_backends("its backend is down", LIMIT, |all| all[0].reason.contains("refused"))?;
    let program = trusted_binary("lb-agent", lab.directory())?;
    let (before, program) = (agent.status()?, program.display().to_string());

    let first = agent.upgrade([&program])?;
    ensure!(first.done && first.pid == Some(agent.process().id()), "{first:?}");
    let backend = &agent.backends()?[0];
    ensure!(backend.reason.contains("refused"), "known from the first moment on: {backend:?}");
    let after = agent.wait_until("it has the VIP", LIMIT, |status| status.role == Role::Active)?;
    ensure!(held(&after) && after.role_reason == before.role_reason, "{after:?}");

    agent.set_role(Role::Backup)?;
    // The file that it was started from.
    agent.upgrade::<&str>([])?;
    let after = agent.wait_until("it is settled", LIMIT, |s| s.role_reason.contains("by hand"))?;
    ensure!(after.role == Role::Backup && !held(&after), "{after:?}");
    let refused = agent.upgrade(["--hand-over"]).err().map(|error| format!("{error:#}"));
    ensure!(refused.as_ref().is_some_and(|said| said.contains("without [vrrp]")), "{refused:?}");
    agent.stop()
}

fn held(status: &Status) -> bool {
    status.virtual_addresses.iter().all(|vip| vip.held)
}
