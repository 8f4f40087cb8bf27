//! Asking for an upgrade: an answer that comes line by line, while it happens.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Method, Response};

use super::{ANSWER_BYTES_MAX, Client, ClientError, json, refusal, request};
use crate::control::api::{Upgrade, UpgradeLine, UpgradeRequest, UpgradeStep};

const PATH: &str = "/v1/upgrade";

/// The agent has bounds of its own, for each of its steps.
const TIMEOUT: Duration = Duration::from_secs(180);

impl Client {
    /// Has another version follow the agent, or asks whether it would. `told` hears of each step.
    ///
    /// # Errors
    /// Where it comes to nothing, with the agent's own sentence; the agent goes on then.
    pub async fn upgrade(
        &self,
        request: &UpgradeRequest,
        told: impl FnMut(&UpgradeStep),
    ) -> Result<Upgrade, ClientError> {
        match tokio::time::timeout(TIMEOUT, self.follow(request, told)).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Timeout { socket: self.socket.clone(), timeout: TIMEOUT }),
        }
    }

    async fn follow(
        &self,
        request: &UpgradeRequest,
        mut told: impl FnMut(&UpgradeStep),
    ) -> Result<Upgrade, ClientError> {
        let socket = || self.socket.clone();
        let response = self.begin(request).await?;
        let (head, mut body) = response.into_parts();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|source| ClientError::Http { socket: socket(), source })?;
            let Ok(data) = frame.into_data() else { continue };
            text.extend_from_slice(&data);
            if text.len() > ANSWER_BYTES_MAX {
                return Err(ClientError::TooLarge { socket: socket(), question: PATH.to_owned() });
            }
            if !head.status.is_success() {
                continue;
            }
            while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                match self.understood(PATH, &line)? {
                    UpgradeLine::Step(step) => told(&step),
                    UpgradeLine::Done(upgrade) => return Ok(upgrade),
                    UpgradeLine::Failed(message) => {
                        return Err(ClientError::Api { status: head.status, message });
                    }
                }
            }
        }
        match head.status.is_success() {
            true => Err(ClientError::Unfinished { socket: socket() }),
            false => Err(refusal(head.status, &text)),
        }
    }

    async fn begin(&self, wanted: &UpgradeRequest) -> Result<Response<Incoming>, ClientError> {
        let question = request(Method::POST, PATH, json(wanted))?;
        let (mut sender, connection) = self.connect().await?;
        // Its errors reach whoever reads the answer.
        tokio::spawn(connection);
        let http = |source| ClientError::Http { socket: self.socket.clone(), source };
        sender.send_request(question).await.map_err(http)
    }
}
