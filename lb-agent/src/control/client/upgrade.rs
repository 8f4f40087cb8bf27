//! Asking for an upgrade: an answer that comes line by line, while it happens.

use std::time::Duration;

use hyper::{Method, StatusCode};

use super::{Client, ClientError, json};
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
        let patient = self.clone().with_timeout(TIMEOUT);
        let mut lines = patient.lines(Method::POST, PATH, json(request)).await?;
        while let Some(line) = lines.next().await? {
            match line {
                UpgradeLine::Step(step) => told(&step),
                UpgradeLine::Done(upgrade) => return Ok(upgrade),
                UpgradeLine::Failed(message) => {
                    return Err(ClientError::Api { status: StatusCode::OK, message });
                }
            }
        }
        Err(ClientError::Unfinished { socket: self.socket.clone() })
    }
}
