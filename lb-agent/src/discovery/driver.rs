//! One task for each service that discovers its backends.

use std::collections::HashMap;
use std::sync::Arc;

use lb_common::hash::mix;
use tokio::task::AbortHandle;

use super::{Board, dns};
use crate::config::{Config, Protocol, Service, Source};

/// Asks until it is dropped.
#[derive(Debug, Default)]
pub struct Driver {
    board: Arc<Board>,
    tasks: HashMap<String, Task>,
}

/// What is asked for a service. Everything that a task needs to know: where any of it changes another one begins.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    source: Source,
    protocol: Protocol,
    v4: bool,
}

#[derive(Debug)]
struct Task {
    asked: Asked,
    handle: AbortHandle,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Asked {
    fn of(service: &Service) -> Option<Self> {
        let discover = service.discover.as_ref()?;
        Some(Self {
            source: discover.source.clone(),
            protocol: service.protocol,
            v4: service.backends.first().is_none_or(|backend| backend.address.is_ipv4()),
        })
    }
}

impl Driver {
    pub const fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Asks for what these services want to know, and for nothing else. What is asked already goes on.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn follow(&mut self, config: &Config) {
        let services = config.services.iter();
        let mut wanted: HashMap<&str, Asked> = services
            .filter_map(|service| Some((service.name.as_str(), Asked::of(service)?)))
            .collect();
        self.tasks.retain(|name, task| {
            let goes_on = wanted.get(name.as_str()) == Some(&task.asked);
            if goes_on {
                wanted.remove(name.as_str());
            } else {
                self.board.forget(name);
            }
            goes_on
        });
        for (name, asked) in wanted {
            let task = tokio::spawn(ask(name.to_owned(), asked.clone(), Arc::clone(&self.board)));
            self.tasks.insert(name.to_owned(), Task { asked, handle: task.abort_handle() });
        }
    }
}

/// What one who asks draws from, different for each process and name.
pub(super) fn seed(name: &str) -> u64 {
    name.bytes().fold(mix(u64::from(std::process::id())), |hash, byte| mix(hash ^ u64::from(byte)))
}

async fn ask(service: String, asked: Asked, board: Arc<Board>) {
    match asked.source {
        Source::Dns(source) => dns::run(service, source, asked.v4, &board).await,
        #[cfg(feature = "kubernetes")]
        Source::Kubernetes(source) => {
            let wanted = super::kubernetes::Wanted { protocol: asked.protocol, v4: asked.v4 };
            super::kubernetes::run(service, source, wanted, &board).await;
        }
        #[cfg(not(feature = "kubernetes"))]
        ref source @ Source::Kubernetes(_) => {
            board.failed(&service, super::unbuilt(source).unwrap_or_default().to_owned());
        }
    }
}
