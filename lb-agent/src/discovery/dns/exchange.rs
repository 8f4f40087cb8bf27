//! One question to one server: over UDP, and over TCP where the answer does not fit.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{self, Found, NotFound};

/// A datagram that is larger was not asked for.
const DATAGRAM_BYTES: usize = 4096;

/// Asks, and waits for the answer for so long. What went wrong is in words that follow the server's name.
pub(in crate::discovery) async fn ask(
    server: SocketAddr,
    name: &str,
    v4: bool,
    patience: Duration,
) -> Result<Found, String> {
    let late = |_| format!("does not answer for {name} within {} s", patience.as_secs_f64());
    let question = Question::new(name, v4).map_err(words)?;
    let answer = timeout(patience, question.over_udp(server)).await.map_err(late)?;
    match answer.map_err(|error| error.to_string())? {
        Err(NotFound::Truncated) => {
            let answer = timeout(patience, question.over_tcp(server)).await.map_err(late)?;
            answer.map_err(|error| format!("over TCP: {error}"))?.map_err(words)
        }
        other => other.map_err(words),
    }
}

fn words(not_found: NotFound) -> String {
    match not_found {
        NotFound::Said(words) => words,
        NotFound::Truncated => "cuts its answer over TCP too".to_owned(),
        NotFound::Stray => "answers another question".to_owned(),
    }
}

struct Question<'n> {
    name: &'n str,
    v4: bool,
    id: u16,
    bytes: Vec<u8>,
}

impl<'n> Question<'n> {
    /// With an id that nobody can guess (RFC 5452, 4.2); the kernel draws the port.
    fn new(name: &'n str, v4: bool) -> Result<Self, NotFound> {
        let mut id = [0; 2];
        let drawn = SystemRandom::new().fill(&mut id);
        drawn.map_err(|_| {
            NotFound::Said("is not asked: no random number is to be had".to_owned())
        })?;
        let id = u16::from_be_bytes(id);
        Ok(Self { name, v4, id, bytes: message::question(name, v4, id)? })
    }

    fn read(&self, bytes: &[u8]) -> Result<Found, NotFound> {
        message::answer(bytes, self.name, self.v4, self.id)
    }

    async fn over_udp(&self, server: SocketAddr) -> io::Result<Result<Found, NotFound>> {
        let own: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(own).await?;
        // From now on it hears that server alone.
        socket.connect(server).await?;
        socket.send(&self.bytes).await?;
        let mut datagram = [0; DATAGRAM_BYTES];
        loop {
            let length = socket.recv(&mut datagram).await?;
            match self.read(datagram.get(..length).unwrap_or_default()) {
                Err(NotFound::Stray) => {}
                answer => return Ok(answer),
            }
        }
    }

    /// RFC 7766: the length comes first.
    async fn over_tcp(&self, server: SocketAddr) -> io::Result<Result<Found, NotFound>> {
        let mut stream = TcpStream::connect(server).await?;
        let length = u16::try_from(self.bytes.len()).map_err(io::Error::other)?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&self.bytes);
        stream.write_all(&framed).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        Ok(self.read(&answer))
    }
}
