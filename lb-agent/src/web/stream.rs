//! A request whose answer is read piece by piece as it comes, and may never end.

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

/// An answer that is being read. Owned: the connection is closed on drop.
pub(crate) struct Streamed {
    pub(crate) status: StatusCode,
    body: Incoming,
    connection: Connection,
}

/// Drives the connection beside whoever reads.
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Streamed {
    /// Sends a request, and waits for the head of the answer.
    ///
    /// # Errors
    /// Where the conversation breaks off.
    pub(crate) async fn ask(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<Self, hyper::Error> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // What ends it reaches whoever reads the body.
        let driving = tokio::spawn(async move { drop(connection.await) });
        let connection = Connection(driving.abort_handle());
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Self { status: head.status, body, connection })
    }

    /// The next piece; None at the end.
    ///
    /// # Errors
    /// Where the conversation breaks off before.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        // Nothing more comes: the connection is of no use to others.
        self.connection.0.abort();
        Ok(None)
    }

    /// All of it, but not more than so many bytes: None where there is more.
    ///
    /// # Errors
    /// As [`piece`](Self::piece).
    pub(crate) async fn whole(&mut self, most: usize) -> Result<Option<Vec<u8>>, hyper::Error> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            if body.len() + piece.len() > most {
                return Ok(None);
            }
            body.extend_from_slice(&piece);
        }
        Ok(Some(body))
    }
}
