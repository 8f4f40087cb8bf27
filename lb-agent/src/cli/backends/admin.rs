//! What a person wants a backend to be used for.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use super::super::bar::Bar;
use super::super::failure::Failure;
use super::super::screen::Screen;
use super::show;
use crate::config::{duration_of, duration_text};
use crate::control::api::{Admin, AdminChange, Backend, Delivery};
use crate::control::client::Client;

/// How often what is left is asked for; the agent counts once a second.
const POLL: Duration = Duration::from_millis(500);

#[derive(Args, Clone, Debug, PartialEq)]
struct Which {
    /// ADDRESS:PORT, an ADDRESS for all its ports, or the name of a NODE for all its backends
    #[arg(value_name = "BACKEND")]
    backend: String,
    /// As a backend of this service alone; of all without it
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
}

/// Give a backend no new connections, and let those that it has go on
///
/// It holds on this node, also after a restart of the agent, until `enable`. Say it on each node: on the one that
/// has the backend, which passes on what still comes for it and counts what is left (`--wait`), and on the others,
/// whose own processes go elsewhere then. Connections to the backend's own address are not counted.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "Example, before master2 is rebooted:\n  \
    for node in master1 master3; do ssh $node lbctl backends drain master2; done\n  \
    ssh master2 lbctl backends drain master2 --wait --timeout 10m")]
pub(super) struct Drain {
    #[command(flatten)]
    which: Which,
    /// Until its last connection has ended, and show how many are left
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this, and fail then; it goes on draining
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = time)]
    timeout: Option<Duration>,
    /// Also where a service has no healthy backend left then
    #[arg(long)]
    force: bool,
}

/// Use a backend no more, as if it were down
///
/// As `drain`, but its connections are not looked after any longer.
#[derive(Args, Clone, Debug, PartialEq)]
pub(super) struct Disable {
    #[command(flatten)]
    which: Which,
    /// Also where a service has no healthy backend left then
    #[arg(long)]
    force: bool,
}

/// Use a backend again that was drained or disabled
#[derive(Args, Clone, Debug, PartialEq)]
pub(super) struct Enable {
    #[command(flatten)]
    which: Which,
}

fn time(text: &str) -> Result<Duration, String> {
    duration_of(text).ok_or_else(|| "write a number with its unit, such as 90s or 10m".to_owned())
}

impl Which {
    async fn change(
        &self,
        admin: Admin,
        force: bool,
        client: &Client,
    ) -> Result<Vec<Backend>, Failure> {
        let change = AdminChange {
            backend: self.backend.clone(),
            service: self.service.clone(),
            admin,
            force,
        };
        Ok(client.set_admin(&change).await?)
    }
}

impl Disable {
    pub(super) async fn run(
        &self,
        client: &Client,
        screen: &mut Screen<'_>,
    ) -> Result<(), Failure> {
        show(&self.which.change(Admin::Disabled, self.force, client).await?, screen)
    }
}

impl Enable {
    pub(super) async fn run(
        &self,
        client: &Client,
        screen: &mut Screen<'_>,
    ) -> Result<(), Failure> {
        show(&self.which.change(Admin::Enabled, false, client).await?, screen)
    }
}

impl Drain {
    pub(super) async fn run(
        &self,
        client: &Client,
        screen: &mut Screen<'_>,
    ) -> Result<(), Failure> {
        let mut backends = self.which.change(Admin::Draining, self.force, client).await?;
        if self.wait {
            backends = self.until_over(backends, client).await?;
        }
        show(&backends, screen)
    }

    /// Waits until no connection is left to any of them.
    async fn until_over(
        &self,
        mut backends: Vec<Backend>,
        client: &Client,
    ) -> Result<Vec<Backend>, Failure> {
        let begun = Instant::now();
        let bar = Bar::new();
        loop {
            if let Some(elsewhere) = backends.iter().find(|backend| !is_counted_here(backend)) {
                return Err(Failure::CountedElsewhere {
                    backend: elsewhere.address,
                    node: elsewhere.node.clone(),
                });
            }
            if let Some(other) = backends.iter().find(|backend| backend.admin != Admin::Draining) {
                return Err(Failure::NoLongerDraining { backend: other.address });
            }
            let left: Option<u64> = backends.iter().map(|backend| backend.connections_left).sum();
            if left == Some(0) {
                return Ok(backends);
            }
            bar.show(left, "left");
            if let Some(timeout) = self.timeout.filter(|timeout| begun.elapsed() >= *timeout) {
                let waited = duration_text(timeout);
                return Err(Failure::StillConnected { left, waited });
            }
            sleep(POLL).await;
            backends = self.again(&backends, client).await?;
        }
    }

    /// The same backends as they are now.
    async fn again(&self, known: &[Backend], client: &Client) -> Result<Vec<Backend>, Failure> {
        let mut services: Vec<&str> = known.iter().map(|known| known.service.as_str()).collect();
        services.dedup();
        let mut all = Vec::new();
        for service in services {
            all.extend(client.backends(Some(service)).await?);
        }
        all.retain(|now| {
            known.iter().any(|k| k.service == now.service && k.address == now.address)
        });
        Ok(all)
    }
}

/// What is carried to another node leaves nothing here that could be counted.
fn is_counted_here(backend: &Backend) -> bool {
    matches!(backend.delivery, Delivery::Local | Delivery::Nat)
}
