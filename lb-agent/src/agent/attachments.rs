//! Which interfaces `lbctl attach` and `detach` chose at run time, kept across restarts.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::kept::Kept;
use crate::config::is_interface_name;

/// The choices.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct File {
    /// Attached beside those of the configuration.
    attached: BTreeSet<String>,
    /// In the configuration, but detached.
    detached: BTreeSet<String>,
}

impl File {
    /// Reads what an earlier run wrote, or says what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let mut names = file.attached.iter().chain(&file.detached);
        match names.find(|name| !is_interface_name(name)) {
            Some(name) => Err(format!("{name:?} is no interface's name")),
            None => Ok(file),
        }
    }

    pub(super) fn wanted(&self, configured: &[String]) -> Vec<String> {
        let mut wanted: Vec<String> =
            configured.iter().filter(|name| !self.detached.contains(*name)).cloned().collect();
        for name in &self.attached {
            if !wanted.contains(name) {
                wanted.push(name.clone());
            }
        }
        wanted
    }
}

/// The choices, with the file that keeps them.
#[derive(Debug)]
pub(super) struct Attachments(Kept<File>);

impl Attachments {
    pub(super) fn read(state: &Path) -> Self {
        Self(Kept::read(state.join("attached.json"), "what lbctl attached", File::parse))
    }

    /// The interfaces to attach, in order.
    pub(super) fn wanted(&self, configured: &[String]) -> Vec<String> {
        self.0.value().wanted(configured)
    }

    pub(super) fn attach(&mut self, name: &str) -> io::Result<()> {
        self.0.change(|file| {
            file.detached.remove(name);
            file.attached.insert(name.to_owned());
        })
    }

    pub(super) fn detach(&mut self, name: &str) -> io::Result<()> {
        self.0.change(|file| {
            file.attached.remove(name);
            file.detached.insert(name.to_owned());
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_outlive_the_agent() {
        let folder = std::env::temp_dir().join(format!("lb-attachments-{}", std::process::id()));
        let configured = ["ens33".to_owned()];
        let mut choices = Attachments::read(&folder);
        assert_eq!(choices.wanted(&configured), ["ens33"]);
        choices.attach("ens34").unwrap();
        choices.detach("ens33").unwrap();
        assert_eq!(Attachments::read(&folder).wanted(&configured), ["ens34"]);
        choices.attach("ens33").unwrap();
        assert_eq!(Attachments::read(&folder).wanted(&configured), ["ens33", "ens34"]);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_spoilt_file_counts_as_none_and_says_why() {
        for (spoilt, why) in [
            ("", "EOF"),
            ("{\"attached\":[", "EOF"),
            ("{\"attached\":[\"ens33\"]}", "detached"),
            ("{\"attached\":[\"../e\\u0000\"],\"detached\":[]}", "interface's name"),
        ] {
            let error = File::parse(spoilt.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{spoilt}: {error}");
        }
        assert!(File::parse(b"{\"attached\":[\"\xff\"],\"detached\":[]}").is_err());
    }
}
