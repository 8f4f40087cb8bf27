//! `lbctl attach` and `detach`: interfaces that come and go at run time.

use tracing::info;

use super::core::{Agent, refusal, unkept};
use crate::control::api;
use crate::control::server::Refusal;

impl Agent {
    pub(super) async fn attach_asked(&mut self, name: &str) -> Result<api::Interface, Refusal> {
        // The interface may have come this moment.
        self.network_changed().await;
        let interface = self.attach(name).map_err(|e| refusal(&e))?;
        self.attachments.attach(name).map_err(|e| unkept(&e))?;
        self.replan();
        Ok(interface)
    }

    pub(super) fn detach_asked(&mut self, name: &str) -> Result<(), Refusal> {
        self.dataplane.detach(name).map_err(|e| refusal(&e.into()))?;
        self.attachments.detach(name).map_err(|e| unkept(&e))?;
        info!(event = "detached", interface = name, "detached");
        self.replan();
        Ok(())
    }
}
