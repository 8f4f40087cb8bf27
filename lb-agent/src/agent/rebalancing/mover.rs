//! Moves the connections of one service, one at a time, until none is left that can be moved, or something has changed.

use std::collections::HashMap;
use std::time::{Instant, SystemTime};

use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use super::look::{LookError, connection};
use super::{End, Job, Rebalancer, Ward};
use crate::netlink::{Established, NetlinkError};
use crate::rebalance::{Look, Movable, Sight};

/// So many are taken from one look at most; then another one is taken.
const FROM_ONE_LOOK: usize = 10_000;

type Socket = (Established, Sight);

/// Whoever moves connections.
struct Mover {
    rebalancer: Rebalancer,
    service: String,
    number: u64,
    per_minute: u32,
    /// As it was at the beginning.
    ward: Ward,
    /// What comes later is none of its business, so that it has an end.
    begun: Instant,
}

impl Rebalancer {
    /// Looks at a service's connections and begins to move those that can be. Nothing is begun where none can, or
    /// where some are being moved.
    pub(super) async fn begin(
        &self,
        service: &str,
        ward: &Ward,
        per_minute: Option<u32>,
    ) -> Result<(), LookError> {
        let automatic = per_minute.is_none();
        let per_minute = per_minute.unwrap_or(ward.terms.per_minute);
        let (look, movable) = self.candidates(service, ward).await?;
        let begun = Instant::now();
        if movable.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        let number = state.job + 1;
        let Some(course) = state.services.get_mut(service) else { return Ok(()) };
        if course.job.as_ref().is_some_and(|job| job.ended.is_none()) {
            return Ok(());
        }
        let left = movable.len() as u64;
        course.job = Some(Job {
            number,
            automatic,
            per_minute,
            begun: SystemTime::now(),
            moved: 0,
            left,
            ended: None,
        });
        state.job = number;
        drop(state);
        let Look { connections, misplaced, .. } = look;
        info!(
            event = "rebalance-begins",
            service,
            automatic,
            per_minute,
            connections,
            misplaced,
            movable = left,
            "connections that belong elsewhere are being moved"
        );
        let (rebalancer, service, ward) = (self.clone(), service.to_owned(), ward.clone());
        let mover = Mover { rebalancer, service, number, per_minute, ward, begun };
        tokio::spawn(mover.run(movable));
        Ok(())
    }

    /// What can be moved of a service now.
    async fn candidates(
        &self,
        service: &str,
        ward: &Ward,
    ) -> Result<(Look, Vec<Movable<Socket>>), LookError> {
        let wards = HashMap::from([(service.to_owned(), ward.clone())]);
        let mut looks = self.look_at(wards, |socket, sight| (socket, sight)).await?;
        Ok(looks.remove(service).unwrap_or_default())
    }
}

impl Mover {
    async fn run(self, mut movable: Vec<Movable<Socket>>) {
        let end = loop {
            if let Err(end) = self.move_all(movable).await {
                break end;
            }
            movable = match self.rebalancer.candidates(&self.service, &self.ward).await {
                Ok((_, movable)) => movable,
                Err(error) => {
                    break Some(End::cut(format!("connections cannot be looked at: {error}")));
                }
            };
            movable.retain(|movable| movable.socket.1.there <= self.begun);
            if movable.is_empty() {
                let reason = "none is left that can be moved".to_owned();
                break Some(End { reason, complete: true });
            }
        };
        // Else somebody else has ended it.
        if let Some(end) = end {
            self.rebalancer.finish(&self.service, Some(self.number), &end);
        }
    }

    async fn move_all(&self, mut movable: Vec<Movable<Socket>>) -> Result<(), Option<End>> {
        movable.truncate(FROM_ONE_LOOK);
        let mut left = movable.len() as u64;
        for one in movable {
            self.wait().await?;
            left -= 1;
            let (client, to) = (one.client, one.to);
            let moved = self.move_one(one.socket).await.map_err(|error| {
                warn!(service = self.service, %error, "a connection cannot be moved");
                Some(End::cut(format!("a connection cannot be moved: {error}")))
            })?;
            if moved {
                debug!(service = self.service, %client, %to, "a connection is moved");
            }
            self.note(moved, left);
        }
        Ok(())
    }

    /// Until the next one may be moved.
    async fn wait(&self) -> Result<(), Option<End>> {
        let mut changes = self.rebalancer.changes.subscribe();
        loop {
            self.check()?;
            let due = {
                let state = self.rebalancer.lock();
                state.services.get(&self.service).and_then(|c| c.pace.due(self.per_minute))
            };
            let Some(due) = due.filter(|due| Instant::now() < *due) else { return Ok(()) };
            tokio::select! {
                () = sleep_until(due.into()) => {}
                changed = changes.changed() => if changed.is_err() { return Err(None) },
            }
        }
    }

    /// Whether it is still wanted.
    fn check(&self) -> Result<(), Option<End>> {
        let state = self.rebalancer.lock();
        let Some(course) = state.services.get(&self.service) else { return Err(None) };
        let job = course.job.as_ref();
        let mine = job.filter(|job| job.number == self.number && job.ended.is_none());
        let Some(job) = mine else { return Err(None) };
        let Some(ward) = &course.ward else {
            return Err(Some(End::cut("the service has no backend here any more")));
        };
        if let Some(obstacle) = ward.obstacle() {
            return Err(Some(End::cut(obstacle.sentence())));
        }
        if ward.since != self.ward.since {
            return Err(Some(End::cut("other backends get new connections now")));
        }
        if job.automatic && !ward.terms.automatic {
            return Err(Some(End::cut("it is no longer automatic")));
        }
        Ok(())
    }

    /// Moves a connection if it is still there and still idle. Whether it did.
    async fn move_one(&self, (socket, sight): Socket) -> Result<bool, NetlinkError> {
        let (rebalancer, service) = (self.rebalancer.clone(), self.service.clone());
        let (ward, per_minute) = (self.ward.clone(), self.per_minute);
        let moving = tokio::task::spawn_blocking(move || {
            let Some(now) = socket.again()? else { return Ok(false) };
            if !connection(&now, sight, &ward).is_idle(ward.terms.idle) {
                return Ok(false);
            }
            let mut state = rebalancer.lock();
            let course = state.services.get_mut(&service);
            if !course.is_some_and(|course| course.pace.take(Instant::now(), per_minute)) {
                return Ok(false);
            }
            drop(state);
            now.end()
        });
        // It ends with the runtime, or with the agent.
        moving.await.unwrap_or(Ok(false))
    }

    fn note(&self, moved: bool, left: u64) {
        let mut state = self.rebalancer.lock();
        let Some(course) = state.services.get_mut(&self.service) else { return };
        course.moved += u64::from(moved);
        if let Some(job) = course.job.as_mut().filter(|job| job.number == self.number) {
            job.moved += u64::from(moved);
            job.left = left;
        }
    }
}

impl Rebalancer {
    /// Ends what is being done for a service, or that job alone.
    pub(super) fn finish(&self, service: &str, number: Option<u64>, end: &End) {
        let mut state = self.lock();
        let job = state.services.get_mut(service).and_then(|course| course.job.as_mut());
        let running = |job: &&mut Job| {
            job.ended.is_none() && number.is_none_or(|number| number == job.number)
        };
        let Some(job) = job.filter(running) else { return };
        job.ended = Some((SystemTime::now(), end.clone()));
        info!(
            event = "rebalance-ends",
            service,
            moved = job.moved,
            reason = end.reason,
            "no more connections are moved"
        );
        drop(state);
        self.changes.send_replace(());
    }
}
