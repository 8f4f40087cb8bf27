//! Another configuration while virtual routers run: those that are in both go on as they are, others come and go.

use std::collections::HashSet;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tracing::warn;

use super::{Election, Standing, Surroundings, by_family};
use crate::agent::core::Agent;
use crate::agent::seats::{Seat, Seats};
use crate::agent::{NodeHolder, seat, seat_router};
use crate::config::Config;
use crate::role::HolderHandle;
use crate::vrrp::{Command, Part, Router, Settings, Target};

/// How long VIPs that go may take: a few calls of the kernel.
const WITHDRAWAL: Duration = Duration::from_secs(2);

/// What does not stay where it was, and is not given up yet.
#[derive(Debug, Default)]
pub(in crate::agent) struct Moved {
    /// VIPs that another holder has now, or nobody.
    pub(in crate::agent) vips: HashSet<IpAddr>,
    /// Holders that end.
    ended: Vec<HolderHandle>,
}

impl Moved {
    pub(in crate::agent) fn is_nothing(&self) -> bool {
        self.vips.is_empty() && self.ended.is_empty()
    }

    /// Waits until they are held no more by who had them.
    pub(in crate::agent) async fn withdrawn(&self, seats: &Seats) {
        let vips: Vec<IpAddr> = self.vips.iter().copied().collect();
        let left = seats.0.iter().map(|seat| seat.holder.left(&vips));
        let ended = self.ended.iter().map(HolderHandle::ended);
        let all = futures::future::join(join_all(left), join_all(ended));
        if tokio::time::timeout(WITHDRAWAL, all).await.is_err() {
            warn!(
                "virtual addresses that are gone from the configuration are not given up in time"
            );
        }
    }
}

/// One that there is to be: where it comes from, and what it is to be.
struct Next {
    name: String,
    settings: Settings,
    source: Source,
}

enum Source {
    /// The one at this place until now.
    Known(usize),
    New(Box<(Seat, NodeHolder, Arc<AtomicBool>)>),
}

/// A virtual router by its number and its addresses, which are of one family.
type Identity<'a> = (u8, &'a [IpAddr]);

impl Agent {
    /// Makes the election what the present configuration says. On an error it is what it was.
    pub(in crate::agent) fn change_election(&mut self, former: &Config) -> Result<Moved, String> {
        let Some(settings) = &self.config.vrrp else { return Ok(Moved::default()) };
        let same = former.vrrp.as_ref() == Some(settings)
            && former.nodes == self.config.nodes
            && former.interfaces == self.config.interfaces;
        if same {
            return Ok(Moved::default());
        }
        match &self.election {
            Election::Static(_) => Ok(Moved::default()),
            Election::Waiting(_) => self.seat_anew(),
            Election::Vrrp(_) => self.change_routers(),
        }
    }

    /// Nothing has begun: it begins with the present configuration.
    fn seat_anew(&mut self) -> Result<Moved, String> {
        let seated = seat(&self.config, &self.node, &self.dataplane, false);
        let (election, seats, holders) = seated.map_err(|error| error.to_string())?;
        (self.election, self.seats) = (election, seats);
        self.begin_holders(holders);
        Ok(Moved::default())
    }

    fn begin_holders(&mut self, holders: Vec<NodeHolder>) {
        self.further_holders.retain(|holder| !holder.is_finished());
        self.further_holders.extend(holders.into_iter().map(|holder| tokio::spawn(holder.run())));
    }

    fn change_routers(&mut self) -> Result<Moved, String> {
        let (parts, next) = self.next_routers()?;
        let Election::Vrrp(elected) = &mut self.election else { return Ok(Moved::default()) };
        let as_it_is = |(place, next): (usize, &Next)| {
            let known = matches!(next.source, Source::Known(at) if at == place);
            known && next.settings == elected.routers[place].settings
        };
        let same = next.len() == elected.routers.len() && next.iter().enumerate().all(as_it_is);
        if !same {
            // The thread opens what sockets it needs, and does all of it or nothing.
            tokio::task::block_in_place(|| elected.vrrp.configure(parts))?;
        }
        let asks = self.config.vrrp.as_ref().is_some_and(|vrrp| vrrp.check_duplicates);
        let mut standings: Vec<_> = mem::take(&mut elected.routers).into_iter().map(Some).collect();
        let mut seats: Vec<_> = mem::take(&mut self.seats.0).into_iter().map(Some).collect();
        let (mut moved, mut holders) = (Moved::default(), Vec::new());
        for (place, Next { name, settings, source }) in next.into_iter().enumerate() {
            let (mut standing, mut seat) = match source {
                Source::Known(at) => match (standings[at].take(), seats[at].take()) {
                    (Some(standing), Some(seat)) => (standing, seat),
                    _ => continue,
                },
                Source::New(new) => {
                    let (seat, holder, asks) = *new;
                    holders.push(holder);
                    // The others were told it already.
                    let weigh = Command::Weigh(elected.weight);
                    elected.vrrp.command(Target::Router(place), weigh);
                    (Standing::new(settings.clone(), asks), seat)
                }
            };
            let stay = &settings.parameters.addresses;
            moved.vips.extend(standing.vips().iter().filter(|vip| !stay.contains(vip)));
            standing.asks.store(asks, Ordering::Relaxed);
            (seat.name, seat.vips) = (name, Some(stay.clone()));
            standing.settings = settings;
            elected.routers.push(standing);
            self.seats.0.push(seat);
        }
        for seat in seats.into_iter().flatten() {
            moved.vips.extend(seat.vips.into_iter().flatten());
            moved.ended.push(seat.holder);
        }
        self.begin_holders(holders);
        Ok(moved)
    }

    /// All virtual routers of the present configuration, for VRRP and for this node.
    fn next_routers(&self) -> Result<(Vec<Part>, Vec<Next>), String> {
        let (Election::Vrrp(elected), Some(settings)) = (&self.election, &self.config.vrrp) else {
            return Ok((Vec::new(), Vec::new()));
        };
        let surroundings = Surroundings {
            config: &self.config,
            settings,
            node: &self.node,
            network: &self.network,
            placements: &self.placements,
        };
        let known: Vec<Identity<'_>> =
            elected.routers.iter().map(|known| (known.router_id(), known.vips())).collect();
        let wanted: Vec<_> = by_family(settings).collect();
        let identities: Vec<Identity<'_>> =
            wanted.iter().map(|(_, router, vips)| (router.router_id, vips.as_slice())).collect();
        let sources = sources(&known, &identities);
        let (mut parts, mut next) = (Vec::new(), Vec::new());
        for ((name, router, vips), source) in wanted.into_iter().zip(sources) {
            if let Some(at) = source {
                let link = self.seats.0[at].link.as_ref();
                let settings = surroundings.settings(surroundings.way(&vips, link)?, router, &vips);
                parts.push(Part::Known(at, Box::new(settings.clone())));
                next.push(Next { name, settings, source: Source::Known(at) });
                continue;
            }
            let wanted = (name.clone(), router, vips.clone());
            let (attractor, seat, holder) = seat_router(wanted, settings, &self.dataplane, false)
                .map_err(|error| error.to_string())?;
            let way = surroundings.way(&vips, seat.link.as_ref())?;
            let settings = surroundings.settings(way, router, &vips);
            let source = Source::New(Box::new((seat, holder, Arc::clone(&attractor.asks))));
            let router =
                Router { settings: settings.clone(), course: None, attract: Box::new(attractor) };
            parts.push(Part::New(Box::new(router)));
            next.push(Next { name, settings, source });
        }
        Ok((parts, next))
    }
}

/// Which of the known routers each wanted one is: the one of its number, or else one that has an address of it and
/// whose number is gone.
fn sources(known: &[Identity<'_>], wanted: &[Identity<'_>]) -> Vec<Option<usize>> {
    let is_v4 = |vips: &[IpAddr]| vips.iter().any(IpAddr::is_ipv4);
    let by_number = |&(number, vips): &Identity<'_>| {
        known.iter().position(|(n, of)| *n == number && is_v4(of) == is_v4(vips))
    };
    let mut sources: Vec<Option<usize>> = wanted.iter().map(by_number).collect();
    for at in 0..wanted.len() {
        let shares = |&place: &usize| known[place].1.iter().any(|vip| wanted[at].1.contains(vip));
        if sources[at].is_none() {
            let free = (0..known.len()).filter(|&place| !sources.contains(&Some(place)));
            sources[at] = free.into_iter().find(shares);
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_is_known_by_its_number_in_its_family_or_by_an_address() {
        let [a, b, c, six]: [IpAddr; 4] = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"]
            .map(|address| address.parse().unwrap());
        let known: [Identity<'_>; 3] = [(51, &[a]), (51, &[six]), (52, &[b])];
        for (wanted, expected) in [
            (vec![(51, &[a][..]), (51, &[six]), (52, &[b])], vec![Some(0), Some(1), Some(2)]),
            // Another order, and addresses that were added or exchanged.
            (vec![(52, &[b, c][..]), (51, &[c])], vec![Some(2), Some(0)]),
            (vec![(51, &[b][..]), (52, &[a])], vec![Some(0), Some(2)]),
            // Another number.
            (vec![(60, &[a, c][..]), (60, &[six])], vec![Some(0), Some(1)]),
            // The one with that number is there: this one is new, whatever it takes from it.
            (vec![(51, &[c][..]), (53, &[a]), (52, &[b])], vec![Some(0), None, Some(2)]),
            (vec![(53, &[c][..])], vec![None]),
        ] {
            assert_eq!(sources(&known, &wanted), expected, "{wanted:?}");
        }
    }
}
