//! What a scenario leaves for whoever looks into a failure: the wires' captures, the agents' logs
//! and what they said last.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::cluster::Node;
use super::shape::NIC;
use crate::lab::Host;
use crate::lab::capture::Capture;

#[derive(Debug)]
pub(super) struct Evidence {
    directory: PathBuf,
    captures: Vec<(String, Capture)>,
}

impl Evidence {
    /// Starts to record every host's wire.
    pub(super) fn collect<'a>(
        directory: &Path,
        hosts: impl Iterator<Item = &'a Host>,
    ) -> Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let record = |host: &Host| Ok((host.name().to_owned(), host.capture(NIC)?));
        let captures = hosts.map(record).collect::<Result<_>>()?;
        Ok(Self { directory: directory.to_owned(), captures })
    }

    /// Writes it all. What cannot be had is left out, its reason in the file.
    pub(super) fn leave(self, nodes: &[Node]) {
        for node in nodes {
            let name = node.host.name();
            let Some(agent) = &node.agent else { continue };
            self.note(&format!("{name}.log"), agent.process().log());
            self.note(&format!("{name}.status"), format!("{:#?}", agent.status()));
            self.note(&format!("{name}.backends"), format!("{:#?}", agent.backends()));
        }
        let directory = self.directory.clone();
        for (name, capture) in self.captures {
            let path = directory.join(format!("{name}.pcap"));
            let written = capture.stop().and_then(|recording| recording.write_pcap(&path));
            if let Err(error) = written {
                let reason = path.with_extension("pcap.failed");
                // Nobody to tell.
                let _ = std::fs::write(reason, format!("{error:#}"));
            }
        }
    }

    fn note(&self, name: &str, text: impl Display) {
        // Nobody to tell.
        let _ = std::fs::write(self.directory.join(name), text.to_string());
    }
}
