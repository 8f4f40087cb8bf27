//! `lbctl rebalance SERVICE`.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use super::bar::Bar;
use super::failure::Failure;
use super::screen::Screen;
use super::table::{Cell, Table};
use crate::config::{Rebalance as Terms, duration_of, duration_text};
use crate::control::api::{Rebalance, RebalanceJob, RebalanceLook, RebalanceRequest};
use crate::control::client::Client;

const POLL: Duration = Duration::from_millis(500);

/// Move idle connections from this node to the backends that their clients' new ones go to
///
/// After backends were restarted, or one was added, long-lived connections stay where they are. Those of this node's
/// own backend that would go elsewhere today are ended by a reset, one at a time and only while they are idle; their
/// clients come again. Say it on each node that has a backend. [service.rebalance] says what is idle and how fast.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "\
MISPLACED  connections here whose clients' new ones go to that backend
MOVABLE    of them, those that are idle and old enough now

Examples, after a rolling restart:
  lbctl rebalance kube-apiserver --dry-run
  for node in master1 master2 master3; do ssh $node lbctl rebalance kube-apiserver --wait; done")]
pub struct Arguments {
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Only show what would be moved, and where to
    #[arg(long, conflicts_with_all = ["wait", "stop"])]
    dry_run: bool,
    /// Until none is left that can be moved, and show how many are; also for what goes on already
    #[arg(long, conflicts_with = "stop")]
    wait: bool,
    /// Wait no longer than this, and fail then; it goes on
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = time)]
    timeout: Option<Duration>,
    /// So many a minute, evenly; as [service.rebalance] says without it
    #[arg(long, value_name = "N", conflicts_with = "stop",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(Terms::PER_MINUTE_MAX)))]
    per_minute: Option<u32>,
    /// Move no more
    #[arg(long)]
    stop: bool,
}

fn time(text: &str) -> Result<Duration, String> {
    duration_of(text).ok_or_else(|| "write a number with its unit, such as 90s or 10m".to_owned())
}

pub(super) async fn run(
    arguments: &Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let service = &arguments.service;
    if arguments.stop {
        return show(&client.stop_rebalancing(service).await?, screen);
    }
    let running = |told: &Rebalance| told.job.as_ref().is_some_and(|job| job.ended.is_none());
    let mut told = None;
    if arguments.wait {
        told = Some(client.rebalancing(service).await?).filter(running);
    }
    let mut told = match told {
        Some(told) => told,
        None => {
            let Arguments { dry_run, per_minute, .. } = *arguments;
            client.rebalance(service, RebalanceRequest { dry_run, per_minute }).await?
        }
    };
    if arguments.wait && running(&told) {
        told = until_over(arguments, told, client).await?;
    }
    show(&told, screen)
}

/// Waits for the end of the job that runs.
async fn until_over(
    arguments: &Arguments,
    mut told: Rebalance,
    client: &Client,
) -> Result<Rebalance, Failure> {
    let service = || arguments.service.clone();
    let begun = Instant::now();
    let bar = Bar::new();
    let number = told.job.as_ref().map(|job| job.number);
    loop {
        let Some(job) = told.job.as_ref().filter(|job| Some(job.number) == number) else {
            // Another one has begun: this one is over.
            return Ok(told);
        };
        match (&job.reason, job.complete) {
            (Some(_), true) => return Ok(told),
            (Some(reason), false) => {
                let (reason, moved) = (reason.clone(), job.moved);
                return Err(Failure::RebalancingEnded { service: service(), reason, moved });
            }
            (None, _) => {}
        }
        bar.show(Some(job.left), "left to move");
        if let Some(timeout) = arguments.timeout.filter(|timeout| begun.elapsed() >= *timeout) {
            let (moved, left, waited) = (job.moved, job.left, duration_text(timeout));
            return Err(Failure::StillRebalancing { service: service(), moved, left, waited });
        }
        sleep(POLL).await;
        told = client.rebalancing(&arguments.service).await?;
    }
}

fn show(told: &Rebalance, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if screen.data(told)? {
        return Ok(());
    }
    if let Some(look) = &told.look {
        screen.line(&summary(told, look))?;
        if !look.targets.is_empty() {
            let mut table = Table::new(vec!["TO", "NODE", "MISPLACED", "MOVABLE"]);
            for target in &look.targets {
                table.row(vec![
                    Cell::from(target.address),
                    Cell::from(target.node.as_deref().unwrap_or_default()),
                    Cell::from(target.misplaced),
                    Cell::from(target.movable),
                ]);
            }
            screen.table(&table)?;
        }
    }
    let others = [(told.translated, "through NAT"), (told.own, "of this node's own processes")];
    for (count, whose) in others {
        if let Some(count @ 1..) = count {
            screen.line(&format!("{count} {whose} are not moved"))?;
        }
    }
    if let Some(obstacle) = &told.obstacle {
        screen.line(&format!("none is moved here: {obstacle}"))?;
    }
    match &told.job {
        Some(job) => screen.line(&progress(job)),
        None => Ok(()),
    }
}

fn summary(told: &Rebalance, look: &RebalanceLook) -> String {
    let (service, all) = (&told.service, look.connections);
    let mut text = format!(
        "{service}: {all} connections here, {} of them misplaced, {} movable now",
        look.misplaced, look.movable
    );
    for (count, why) in [
        (look.busy, "not idle"),
        (look.young, "not old enough"),
        (look.unsure, "of backends that are not known to be healthy"),
        (look.returns, "that would come back: do all nodes have the same file and see the same?"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {why}"));
        }
    }
    text
}

fn progress(job: &RebalanceJob) -> String {
    let RebalanceJob { moved, left, per_minute, .. } = job;
    match &job.reason {
        Some(reason) => format!("{moved} were moved: {reason}"),
        None => format!(
            "{moved} were moved, {left} are left, {per_minute} a minute: --wait shows how it goes, --stop ends it"
        ),
    }
}
