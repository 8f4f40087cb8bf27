//! UDP: every datagram comes back with who answers. An ordinary server: it replies from the socket
//! that it received on and knows nothing of a VIP.

use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::tcp::told_to_leave;
use super::{Answer, canonical};

/// Answers until told to leave.
pub(super) async fn serve(socket: UdpSocket, name: String, mut listening: watch::Receiver<bool>) {
    let Ok(local) = socket.local_addr().map(canonical) else { return };
    let mut buffer = vec![0; 65_536];
    loop {
        let received = tokio::select! {
            biased;
            () = told_to_leave(&mut listening) => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        // An error is an earlier answer's ICMP error: that client has gone.
        let Ok((length, client)) = received else { continue };
        let answer = Answer { backend: name.clone(), client: canonical(client), local };
        let Ok(answer) = serde_json::to_vec(&answer) else { continue };
        let mut reply = buffer[..length].to_vec();
        reply.push(b'\n');
        reply.extend_from_slice(&answer);
        let _ = socket.send_to(&reply, client).await;
    }
}
