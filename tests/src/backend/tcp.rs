//! TCP: one line that says who answers, then an echo, until the client asks to be left.

use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Answer, canonical};

/// Alone in a segment: the server closes first, so that TIME-WAIT is on its side. (End of
/// transmission in ASCII.)
pub(crate) const FAREWELL: u8 = 4;

/// Alone in a segment: from then on the server speaks by itself, and the client listens. (Enquiry in ASCII.)
pub(crate) const SUBSCRIBE: u8 = 5;
pub(crate) const PUSH_EVERY: Duration = Duration::from_millis(500);

/// A moment for the kernel to find descriptors again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Accepts until told to leave; connections outlive the listener.
pub(super) async fn serve(
    listener: TcpListener,
    name: String,
    mut listening: watch::Receiver<bool>,
) {
    while let Some(stream) = accept(&listener, &mut listening).await {
        let name = name.clone();
        tokio::spawn(async move {
            // A client that goes away is no fault of the server's.
            let _ = converse(stream, name).await;
        });
    }
}

/// The next connection; none once told to leave.
pub(super) async fn accept(
    listener: &TcpListener,
    listening: &mut watch::Receiver<bool>,
) -> Option<TcpStream> {
    loop {
        tokio::select! {
            biased;
            () = told_to_leave(listening) => return None,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => return Some(stream),
                // The client gave up before it was accepted, or descriptors are short.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
}

/// Also where nobody is left to tell.
pub(super) async fn told_to_leave(listening: &mut watch::Receiver<bool>) {
    let _ = listening.wait_for(|&on| !on).await;
}

async fn converse(mut stream: TcpStream, backend: String) -> Result<()> {
    stream.set_nodelay(true)?;
    let client = canonical(stream.peer_addr()?);
    let local = canonical(stream.local_addr()?);
    let mut line = serde_json::to_vec(&Answer { backend, client, local })?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut buffer = vec![0; 65_536];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 || buffer.get(..length) == Some(&[FAREWELL]) {
            return Ok(());
        }
        if buffer.get(..length) == Some(&[SUBSCRIBE]) {
            return speak(stream).await;
        }
        stream.write_all(&buffer[..length]).await?;
    }
}

/// Until nobody listens any more.
async fn speak(mut stream: TcpStream) -> Result<()> {
    loop {
        stream.write_all(b".").await?;
        tokio::time::sleep(PUSH_EVERY).await;
    }
}
