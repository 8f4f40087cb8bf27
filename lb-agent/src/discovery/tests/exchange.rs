//! Questions to servers of our own, over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use crate::discovery::dns::exchange::ask;

const NAME: &str = "api.example.internal";
const PATIENCE: Duration = Duration::from_secs(10);
const CUT: [u8; 2] = [0x83, 0x80];
const OK: [u8; 2] = [0x81, 0x80];

/// What a server says to a question: these flags, and one address where it is not cut.
fn answer(question: &[u8], flags: [u8; 2]) -> Vec<u8> {
    let whole = flags == OK;
    let header = [&question[..2], &flags, &[0, 1, 0, u8::from(whole), 0, 0, 0, 0]].concat();
    let record: &[u8] = match whole {
        true => &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, 1],
        false => &[],
    };
    // Without the record that says how much fits.
    [&header[..], &question[12..question.len() - 11], record].concat()
}

/// The same port over UDP and TCP.
async fn sockets() -> (UdpSocket, TcpListener, SocketAddr) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = udp.local_addr().expect("an address");
        // Somebody else may have it over TCP.
        if let Ok(tcp) = TcpListener::bind(address).await {
            return (udp, tcp, address);
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_is_asked_for_over_tcp() {
    let (udp, tcp, server) = sockets().await;
    let serving = async {
        let mut question = [0; 512];
        let (length, client) = udp.recv_from(&mut question).await.expect("a question");
        udp.send_to(&answer(&question[..length], CUT), client).await.expect("sent");
        let (mut stream, _) = tcp.accept().await.expect("a connection");
        let length = usize::from(stream.read_u16().await.expect("a length"));
        stream.read_exact(&mut question[..length]).await.expect("the same question");
        let answer = answer(&question[..length], OK);
        stream.write_u16(answer.len() as u16).await.expect("sent");
        stream.write_all(&answer).await.expect("sent");
    };
    let (found, ()) = tokio::join!(ask(server, NAME, true, PATIENCE), serving);
    let found = found.expect("an address");
    assert_eq!(found.addresses, [[192, 0, 2, 1].into()].into());
}

#[tokio::test]
async fn a_guess_is_not_taken_and_the_answer_behind_it_is() {
    let (udp, _tcp, server) = sockets().await;
    let serving = async {
        let mut question = [0; 512];
        let (length, client) = udp.recv_from(&mut question).await.expect("a question");
        let right = answer(&question[..length], OK);
        let mut wrong = right.clone();
        // Another id, another address.
        wrong[0] ^= 1;
        let last = wrong.len() - 1;
        wrong[last] = 9;
        udp.send_to(&wrong, client).await.expect("sent");
        udp.send_to(&right, client).await.expect("sent");
    };
    let (found, ()) = tokio::join!(ask(server, NAME, true, PATIENCE), serving);
    assert_eq!(found.expect("an address").addresses, [[192, 0, 2, 1].into()].into());
}

#[tokio::test]
async fn who_does_not_answer_is_named_by_what_was_asked() {
    let (_udp, _tcp, server) = sockets().await;
    let error = ask(server, NAME, true, Duration::from_millis(20)).await.unwrap_err();
    assert!(error.contains("does not answer for api.example.internal"), "{error}");
}
