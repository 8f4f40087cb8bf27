//! Which interfaces `lbctl attach` and `detach` chose at run time, kept across restarts.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    /// Attached beside those of the configuration.
    attached: BTreeSet<String>,
    /// In the configuration, but detached.
    detached: BTreeSet<String>,
}

/// The choices, with the file that keeps them.
#[derive(Debug)]
pub(super) struct Attachments {
    path: PathBuf,
    file: File,
}

impl Attachments {
    /// Reads the choices; a file that is missing or spoilt counts as none.
    pub(super) fn read(state: &Path) -> Self {
        let path = state.join("attached.json");
        let file = fs::read_to_string(&path)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        Self { path, file }
    }

    /// The interfaces to attach, in order.
    pub(super) fn wanted(&self, configured: &[String]) -> Vec<String> {
        let mut wanted: Vec<String> =
            configured.iter().filter(|name| !self.file.detached.contains(*name)).cloned().collect();
        for name in &self.file.attached {
            if !wanted.contains(name) {
                wanted.push(name.clone());
            }
        }
        wanted
    }

    pub(super) fn attach(&mut self, name: &str) -> io::Result<()> {
        self.file.detached.remove(name);
        self.file.attached.insert(name.to_owned());
        self.write()
    }

    pub(super) fn detach(&mut self, name: &str) -> io::Result<()> {
        self.file.attached.remove(name);
        self.file.detached.insert(name.to_owned());
        self.write()
    }

    /// Replaces the file in one step, so that a crash leaves the old or the new one.
    fn write(&self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let next = self.path.with_extension("json.new");
        fs::write(&next, serde_json::to_vec_pretty(&self.file)?)?;
        fs::rename(next, &self.path)
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
        fs::remove_dir_all(folder).unwrap();
    }
}
