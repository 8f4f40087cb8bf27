//! Announces VIPs in bursts, and again, until it is dropped: frames get lost, and a switch or a
//! host may come to know the holder only at the second try.

use std::net::IpAddr;
use std::time::Duration;

use super::{AnnounceError, Interface, LinkSocket, announcements};

/// When announcements are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// When each burst begins, counted from the first; in order.
    pub bursts_at: Vec<Duration>,
    /// Announcements of each VIP in a burst.
    pub repeats: u32,
    /// Between two announcements of a burst.
    pub spacing: Duration,
}

impl Default for Schedule {
    /// keepalived's five at once and five again after 5 s, with a burst after 1 s in between: most
    /// of what is lost is lost while a switch learns a port.
    fn default() -> Self {
        Self {
            bursts_at: [0, 1, 5].map(Duration::from_secs).to_vec(),
            repeats: 5,
            spacing: Duration::from_millis(20),
        }
    }
}

/// Announcements under way. Dropping it stops them.
#[derive(Debug)]
pub struct Announcement {
    task: tokio::task::JoinHandle<()>,
}

impl Announcement {
    /// Sends the first announcement of each VIP before it returns, and the rest by a task.
    pub fn start(
        interface: &Interface,
        vips: &[IpAddr],
        schedule: Schedule,
    ) -> Result<Self, AnnounceError> {
        let mut socket = LinkSocket::sender(interface)?;
        let frames: Vec<_> =
            vips.iter().flat_map(|&vip| announcements(vip, interface.mac)).collect();
        send_all(&mut socket, &frames)?;
        let task = tokio::spawn(async move { rest(socket, frames, schedule).await });
        Ok(Self { task })
    }

    /// Waits for the last announcement.
    pub async fn finished(mut self) {
        // It ends by itself or, with the runtime, by being cancelled.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn rest(mut socket: LinkSocket, frames: Vec<Vec<u8>>, schedule: Schedule) {
    let start = tokio::time::Instant::now();
    for (burst, at) in schedule.bursts_at.iter().enumerate() {
        tokio::time::sleep_until(start + *at).await;
        // The first one of the first burst was sent by `start`.
        let already = u32::from(burst == 0);
        for repeat in already..schedule.repeats {
            if repeat > 0 {
                tokio::time::sleep(schedule.spacing).await;
            }
            if let Err(error) = send_all(&mut socket, &frames) {
                tracing::warn!(%error, "an announcement of the virtual addresses was not sent");
            }
        }
    }
}

fn send_all(socket: &mut LinkSocket, frames: &[Vec<u8>]) -> Result<(), AnnounceError> {
    frames.iter().try_for_each(|frame| socket.send(frame))
}
