//! One connection of the client, of any mode: opened, asked, asked again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::Shared;
use crate::backend::{Answer, FAREWELL, Mode};

/// More is no answer of ours.
const LINE_BYTES_MAX: u64 = 4096;

/// Below the range that the kernel chooses from.
const SAME_PORT: u16 = 20_000;

sockopt_impl!(
    /// A header before that of TCP in every packet (RFC 3542, 9).
    DestinationOptions,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_DSTOPTS,
    [u8; 8]
);

/// Options that say nothing: PadN, with four bytes.
const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

enum Kind {
    Https(SendRequest<Empty<Bytes>>),
    Tcp(Box<BufReader<TcpStream>>, Answer),
    Udp(UdpSocket, bool),
}

pub(super) struct Connection {
    kind: Kind,
    /// The socket's own address.
    pub(super) own: SocketAddr,
    /// What the socket believes to talk to.
    pub(super) peer: SocketAddr,
    target: SocketAddr,
    sequence: u64,
    payload_bytes: usize,
}

impl Connection {
    pub(super) async fn open(shared: &Shared, source: Option<IpAddr>) -> Result<Self> {
        let target = shared.arguments.target;
        let (kind, own, peer) = match shared.arguments.mode {
            Mode::Https => {
                let tcp = connect_tcp(socket_tcp(target)?, target, source, 0).await?;
                let (own, peer) = (tcp.local_addr()?, tcp.peer_addr()?);
                (Kind::Https(handshake(shared, tcp, target).await?), own, peer)
            }
            Mode::Tcp => {
                let port = if shared.arguments.same_port { SAME_PORT } else { 0 };
                let socket = socket_tcp(target)?;
                if shared.arguments.destination_options {
                    setsockopt(&socket, DestinationOptions, &PADDING).context("IPV6_DSTOPTS")?;
                }
                let tcp = connect_tcp(socket, target, source, port).await?;
                let (own, peer) = (tcp.local_addr()?, tcp.peer_addr()?);
                let mut tcp = Box::new(BufReader::new(tcp));
                let mut line = Vec::new();
                (&mut tcp).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
                let answer = serde_json::from_slice(&line).context("no greeting")?;
                (Kind::Tcp(tcp, answer), own, peer)
            }
            Mode::Udp => {
                let connected = !shared.arguments.unconnected;
                let socket = open_udp(target, source, connected).await?;
                let own = socket.local_addr()?;
                let peer = if connected { socket.peer_addr()? } else { target };
                (Kind::Udp(socket, connected), own, peer)
            }
        };
        let payload_bytes = shared.arguments.payload_bytes as usize;
        Ok(Self { kind, own, peer, target, sequence: 0, payload_bytes })
    }

    /// Asks the server to close, and waits until it has.
    pub(super) async fn farewell(mut self) -> Result<()> {
        if let Kind::Tcp(stream, _) = &mut self.kind {
            stream.write_all(&[FAREWELL]).await?;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await?;
        }
        Ok(())
    }

    pub(super) async fn request(&mut self) -> Result<Answer> {
        self.sequence += 1;
        match &mut self.kind {
            Kind::Https(sender) => {
                let response = fetch(sender, self.target, "/").await?;
                let body = response.into_body().collect().await?.to_bytes();
                serde_json::from_slice(&body).context("no JSON answer")
            }
            Kind::Tcp(stream, answer) => {
                echo(stream, self.sequence, self.payload_bytes).await?;
                Ok(answer.clone())
            }
            Kind::Udp(socket, connected) => {
                let question = numbered(self.sequence, self.payload_bytes);
                ask_udp(socket, *connected, self.target, &question, &mut self.own).await
            }
        }
    }
}

/// A TLS and HTTP connection over `tcp`; it is driven by a task of its own.
pub(super) async fn handshake(
    shared: &Shared,
    tcp: TcpStream,
    target: SocketAddr,
) -> Result<SendRequest<Empty<Bytes>>> {
    let tls = shared.tls.as_ref().context("https needs --ca")?;
    let name = ServerName::IpAddress(target.ip().into());
    let stream = tls.connect(name, tcp).await.context("tls")?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context("http")?;
    tokio::spawn(async move {
        // Its error reaches whoever waits for the answer.
        let _ = connection.await;
    });
    Ok(sender)
}

/// Sends a GET and waits for the head of the answer.
pub(super) async fn fetch(
    sender: &mut SendRequest<Empty<Bytes>>,
    target: SocketAddr,
    path: &str,
) -> Result<Response<Incoming>> {
    let request = Request::get(path)
        .header(hyper::header::HOST, target.to_string())
        .body(Empty::new())
        .context("request")?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        bail!("status {}", response.status());
    }
    Ok(response)
}

pub(super) fn socket_tcp(target: SocketAddr) -> Result<TcpSocket> {
    Ok(if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?)
}

pub(super) async fn connect_tcp(
    socket: TcpSocket,
    target: SocketAddr,
    source: Option<IpAddr>,
    port: u16,
) -> Result<TcpStream> {
    if let Some(source) = source {
        socket.set_reuseaddr(port != 0)?;
        socket.bind(SocketAddr::new(source, port)).with_context(|| format!("bind to {source}"))?;
    }
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn open_udp(
    target: SocketAddr,
    source: Option<IpAddr>,
    connected: bool,
) -> Result<UdpSocket> {
    let any = match target {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind(SocketAddr::new(source.unwrap_or(any), 0)).await?;
    if connected {
        socket.connect(target).await?;
    }
    Ok(socket)
}

/// A number, and behind it a pattern, so that a segment or fragment in the wrong place is noticed.
fn numbered(sequence: u64, bytes: usize) -> Vec<u8> {
    let mut text = format!("{sequence:016x}").into_bytes();
    text.extend((16..bytes).map(|at| (at % 251) as u8));
    text
}

/// Writes and reads at the same time: an echo of more than the buffers hold would stand still.
async fn echo(stream: &mut BufReader<TcpStream>, sequence: u64, bytes: usize) -> Result<()> {
    let sent = numbered(sequence, bytes);
    let mut back = vec![0; sent.len()];
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (written, read) = futures::join!(writer.write_all(&sent), reader.read_exact(&mut back));
    written?;
    read?;
    if back != sent {
        bail!("the echo is not what was sent");
    }
    Ok(())
}

/// Asks and takes the answer to this question only. An unconnected socket's own address is known
/// only from what the backend saw, so `own` learns it, unless it was bound.
async fn ask_udp(
    socket: &UdpSocket,
    connected: bool,
    target: SocketAddr,
    question: &[u8],
    own: &mut SocketAddr,
) -> Result<Answer> {
    let mut buffer = vec![0; 65_536];
    if connected {
        socket.send(question).await?;
    } else {
        socket.send_to(question, target).await?;
    }
    loop {
        let length = if connected {
            socket.recv(&mut buffer).await?
        } else {
            let (length, from) = socket.recv_from(&mut buffer).await?;
            if from != target {
                bail!("an answer from {from} instead of {target}");
            }
            length
        };
        // A late answer to an earlier question is not this one's.
        let Some(rest) = buffer[..length].strip_prefix(question) else { continue };
        let rest = rest.strip_prefix(b"\n").context("no answer")?;
        let answer: Answer = serde_json::from_slice(rest).context("no JSON answer")?;
        if own.ip().is_unspecified() {
            own.set_ip(answer.client.ip());
        }
        return Ok(answer);
    }
}
