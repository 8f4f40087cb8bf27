//! Asking the agent, where one runs.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

use crate::control::client::{Client, ClientError};
use crate::doctor::judge::agent::Answers;

/// It answers within milliseconds, or hangs.
const LIMIT: Duration = Duration::from_secs(3);

/// What it answers; none where none runs.
///
/// # Errors
/// Where one runs and does not answer, or not to this user.
pub(in crate::doctor) async fn ask(socket: &Path) -> Result<Option<Answers>, ClientError> {
    let client = Client::new(socket).with_timeout(LIMIT);
    let status = match client.status().await {
        Ok(status) => status,
        Err(ClientError::NoSocket { .. } | ClientError::NobodyListens { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let routers = client.vrrp().await?;
    Ok(Some(Answers { status, routers }))
}

/// Whose process listens there.
pub(in crate::doctor) fn process(socket: &Path) -> Option<i32> {
    let stream = UnixStream::connect(socket).ok()?;
    getsockopt(&stream, PeerCredentials).ok().map(|credentials| credentials.pid())
}
