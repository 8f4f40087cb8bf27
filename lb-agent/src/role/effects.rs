//! What the holder does to the world, as a trait, and the real thing.

use std::net::IpAddr;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::ledger::{Answer, Placement};
use crate::announce::{Announcement, CONFLICT_WAIT, Schedule, vip_conflict};
use crate::netlink::Netlink;

/// The data path's part, implemented by `dataplane`.
pub trait DataPath: Send + Sync + 'static {
    type Error: std::error::Error + Send + Sync + 'static;

    /// Whether the tables of every service are in the kernel.
    fn tables_written(&self) -> bool;

    /// Lets the kernel program answer ARP and ND for a VIP until this moment of `CLOCK_MONOTONIC`
    /// in nanoseconds; `None` for no longer.
    fn set_lease(&self, vip: IpAddr, until_ns: Option<u64>) -> Result<(), Self::Error>;
}

/// Everything that the holder does. Errors are sentences for people: the holder passes them on.
pub trait Effects: Send + Sync + 'static {
    /// Stops announcing when it is dropped.
    type Announcing: Send;

    /// `CLOCK_MONOTONIC` in nanoseconds.
    fn now_ns(&self) -> u64;

    fn tables_written(&self) -> bool;

    fn ask(&self, placement: Placement) -> impl Future<Output = Answer> + Send + 'static;

    fn set_lease(&self, vip: IpAddr, until_ns: Option<u64>) -> Result<(), String>;

    fn add_address(
        &self,
        placement: &Placement,
        valid: Duration,
    ) -> impl Future<Output = Result<(), String>> + Send;

    fn remove_address(
        &self,
        placement: &Placement,
    ) -> impl Future<Output = Result<(), String>> + Send;

    fn announce(&self, placement: &Placement) -> Result<Self::Announcing, String>;
}

/// The node itself.
#[derive(Debug)]
pub struct NodeEffects<D> {
    data_path: D,
    netlink: Netlink,
    schedule: Schedule,
}

impl<D: DataPath> NodeEffects<D> {
    /// `netlink` is the holder's own, so that no dump of another task's delays a refresh.
    pub fn new(data_path: D, netlink: Netlink, schedule: Schedule) -> Self {
        Self { data_path, netlink, schedule }
    }
}

impl<D: DataPath> Effects for NodeEffects<D> {
    type Announcing = Announcement;

    fn now_ns(&self) -> u64 {
        // CLOCK_MONOTONIC always exists and never is negative.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    }

    fn tables_written(&self) -> bool {
        self.data_path.tables_written()
    }

    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn would borrow self, and the question outlives the call"
    )]
    fn ask(&self, placement: Placement) -> impl Future<Output = Answer> + Send + 'static {
        async move {
            match vip_conflict(&placement.interface, placement.vip, CONFLICT_WAIT).await {
                Ok(None) => Answer::Free,
                Ok(Some(mac)) => Answer::TakenBy(mac),
                Err(error) => Answer::Unknown(error.to_string()),
            }
        }
    }

    fn set_lease(&self, vip: IpAddr, until_ns: Option<u64>) -> Result<(), String> {
        let failed = |error| format!("cannot write the lease of {vip}: {error}");
        self.data_path.set_lease(vip, until_ns).map_err(failed)
    }

    async fn add_address(&self, placement: &Placement, valid: Duration) -> Result<(), String> {
        let added = self.netlink.add_address(placement.interface.index, placement.vip, valid);
        added.await.map_err(|error| error.to_string())
    }

    async fn remove_address(&self, placement: &Placement) -> Result<(), String> {
        let removed = self.netlink.remove_address(placement.interface.index, placement.vip);
        removed.await.map_err(|error| error.to_string())
    }

    fn announce(&self, placement: &Placement) -> Result<Announcement, String> {
        let schedule = self.schedule.clone();
        Announcement::start(&placement.interface, &[placement.vip], schedule)
            .map_err(|error| error.to_string())
    }
}
