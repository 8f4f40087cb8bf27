//! One netlink connection: requests out, answers in, each within a limit of time.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};

use super::NetlinkError;

/// The kernel answers within milliseconds; where it holds its lock for longer than this, the
/// caller is better told than kept waiting.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A dump is begun again when the configuration changed under it. Three changes in a row within
/// milliseconds mean that the next notice is near anyway.
const DUMP_ATTEMPTS: usize = 3;

/// A handle to the kernel's network configuration. Clones share the connection; whoever must not
/// wait behind another's dump opens their own.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    /// Ends the connection's task with the last clone.
    _task: Arc<ConnectionTask>,
}

#[derive(Debug)]
struct ConnectionTask(tokio::task::JoinHandle<()>);

impl Drop for ConnectionTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Netlink {
    /// Opens a connection in the calling thread's network namespace and serves it on the current
    /// tokio runtime.
    pub fn connect() -> Result<Self, NetlinkError> {
        // Strict checking lets the kernel filter a dump by table (Linux 4.20).
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()
            .or_else(|_| rtnetlink::new_connection())
            .map_err(NetlinkError::Open)?;
        let task = Arc::new(ConnectionTask(tokio::spawn(connection)));
        Ok(Self { handle, _task: task })
    }

    /// The raw handle, for what only tests set up.
    #[cfg(test)]
    pub(crate) fn raw(&self) -> &rtnetlink::Handle {
        &self.handle
    }

    /// Everything that the kernel lists for a request.
    pub(super) async fn dump(
        &self,
        operation: &str,
        request: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let operation = || operation.to_owned();
        for _ in 0..DUMP_ATTEMPTS {
            let mut message = NetlinkMessage::from(request.clone());
            message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
            let answers = self.exchange(operation, message).await?;
            if answers.iter().any(|a| a.header.flags & NLM_F_DUMP_INTR != 0) {
                continue;
            }
            return Ok(answers.into_iter().filter_map(inner).collect());
        }
        Err(NetlinkError::Unstable { operation: operation() })
    }

    /// A change, acknowledged. The errnos in `fine` mean that there was nothing to do.
    pub(super) async fn change(
        &self,
        operation: impl Fn() -> String,
        request: RouteNetlinkMessage,
        flags: u16,
        fine: &[i32],
    ) -> Result<(), NetlinkError> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        match self.exchange(operation, message).await {
            Err(error) if error.errno().is_some_and(|e| fine.contains(&e)) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    async fn exchange(
        &self,
        operation: impl Fn() -> String,
        message: NetlinkMessage<RouteNetlinkMessage>,
    ) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, NetlinkError> {
        let ended = || NetlinkError::Ended { operation: operation() };
        let mut answers = self.handle.clone().request(message).map_err(|_| ended())?;
        let collect = async {
            let mut all = Vec::new();
            while let Some(answer) = answers.next().await {
                if let NetlinkPayload::Error(error) = &answer.payload
                    && error.code.is_some()
                {
                    return Err(NetlinkError::refused(operation(), error.raw_code().abs()));
                }
                all.push(answer);
            }
            Ok(all)
        };
        tokio::time::timeout(ANSWER_LIMIT, collect).await.unwrap_or_else(|_| {
            Err(NetlinkError::Unanswered { operation: operation(), limit: ANSWER_LIMIT })
        })
    }
}

fn inner(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<RouteNetlinkMessage> {
    match message.payload {
        NetlinkPayload::InnerMessage(inner) => Some(inner),
        _ => None,
    }
}
