//! Asks for the addresses of a name, again and again, as long as each answer is good for. [`message`] is pure: what is
//! sent and what is read; [`exchange`] sends it; [`servers`] finds whom to ask.
//!
//! Neither a cache nor a resolver: it asks those that resolve for this machine, with recursion, and believes them as
//! the machine's own programs do.

pub(super) mod exchange;
pub(super) mod message;
mod servers;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::sleep;

use self::message::Found;
use super::{Answer, Board, driver, pace};
use crate::config::DnsSource;

/// So often each server is asked before the question counts as not answered.
const ROUNDS: u32 = 2;
/// How long one may take in the first of them, and how much longer in each further one.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks for a service's backends for as long as it is not dropped. `v4`: for IPv4 addresses, else for IPv6.
pub(super) async fn run(service: String, source: DnsSource, v4: bool, board: &Board) {
    let mut draw = driver::seed(&source.name);
    let mut failures = 0;
    loop {
        draw = draw.wrapping_add(1);
        let pause = match resolve(&source, v4).await {
            Ok(Found { addresses, ttl }) => {
                failures = 0;
                let at = |address| SocketAddr::new(address, source.port);
                let wanted = addresses.into_iter().map(at).collect();
                board.answered(&service, Answer { wanted, leaving: BTreeSet::new() });
                pace::after_answer(ttl, source.min_ttl, source.max_ttl, draw)
            }
            Err(why) => {
                failures += 1;
                board.failed(&service, why);
                pace::after_failure(failures, source.min_ttl, draw)
            }
        };
        sleep(pause).await;
    }
}

/// The first answer of any of the servers; what the last of them said where none has one.
async fn resolve(source: &DnsSource, v4: bool) -> Result<Found, String> {
    let servers = match source.servers.is_empty() {
        true => servers::of_the_system().await?,
        false => source.servers.clone(),
    };
    let mut last = String::new();
    for round in 1..=ROUNDS {
        for &server in &servers {
            match exchange::ask(server, &source.name, v4, PATIENCE * round).await {
                Ok(found) => return Ok(found),
                Err(why) => last = format!("{server} {why}"),
            }
        }
    }
    Err(last)
}
