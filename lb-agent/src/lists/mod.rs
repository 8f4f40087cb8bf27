//! The files that a configuration's lists name, read and put together with what stands in the
//! configuration itself.

mod parse;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

pub use parse::{LineFault, parse};

use crate::config::{Config, Family, Prefix, Service};
use crate::plan::{List, Lists};

/// Some four million prefixes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Why a service's list cannot be had.
#[derive(Debug, Error)]
pub enum ListError {
    #[error("service `{service}`: cannot read {}: {source}", path.display())]
    Unreadable { service: String, path: PathBuf, source: io::Error },
    #[error("service `{service}`: {} is larger than {most} bytes: is it a list?", path.display())]
    TooLarge { service: String, path: PathBuf, most: u64 },
    #[error("service `{service}`: {} is not UTF-8 from byte {valid} on", path.display())]
    NotUtf8 { service: String, path: PathBuf, valid: usize },
    #[error("service `{service}`: {}: {}", path.display(), told(faults))]
    Faults { service: String, path: PathBuf, faults: Vec<LineFault> },
    #[error("service `{service}`: {prefix} is both allowed and denied: remove one of the two")]
    Conflict { service: String, prefix: Prefix },
}

fn told(faults: &[LineFault]) -> String {
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    lines.join("\n  ")
}

impl ListError {
    /// Whether the file may be there on another machine.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

type Read = HashMap<PathBuf, Arc<[Prefix]>>;

/// The lists of all services.
///
/// # Errors
/// The first that cannot be had.
pub fn read(config: &Config) -> Result<Lists, ListError> {
    let mut lists = Lists::default();
    let mut files = Read::new();
    for (configured, service) in config.services.iter().enumerate() {
        if let Some(list) = of_service(service, &mut files)? {
            lists.set(configured, list);
        }
    }
    Ok(lists)
}

/// As [`read`], for all services whatever is wrong with another one's; lists that are right are
/// dropped.
pub fn check(config: &Config) -> Vec<ListError> {
    let mut files = Read::new();
    config.services.iter().filter_map(|service| of_service(service, &mut files).err()).collect()
}

fn of_service(service: &Service, files: &mut Read) -> Result<Option<List>, ListError> {
    let lists = &service.lists;
    let Some(address) = service.addresses.first().filter(|_| !lists.is_empty()) else {
        return Ok(None);
    };
    let mut file = |path: &Option<PathBuf>| match path {
        Some(path) => prefixes(&service.name, path, files),
        None => Ok(Arc::from([])),
    };
    let (allow, deny) = (file(&lists.allow_file)?, file(&lists.deny_file)?);
    let allow = lists.allow.iter().chain(allow.iter());
    let deny = lists.deny.iter().chain(deny.iter());
    let list = List::new(Family::of(*address), lists.allows(), allow, deny);
    let conflict = |conflict: crate::plan::Conflict| ListError::Conflict {
        service: service.name.clone(),
        prefix: conflict.0,
    };
    list.map(Some).map_err(conflict)
}

fn prefixes(service: &str, path: &Path, files: &mut Read) -> Result<Arc<[Prefix]>, ListError> {
    if let Some(known) = files.get(path) {
        return Ok(Arc::clone(known));
    }
    let (service, path) = (service.to_owned(), path.to_owned());
    let prefixes: Arc<[Prefix]> = match parse(&text(&service, &path)?) {
        Ok(prefixes) => prefixes.into(),
        Err(faults) => return Err(ListError::Faults { service, path, faults }),
    };
    files.insert(path, Arc::clone(&prefixes));
    Ok(prefixes)
}

fn text(service: &str, path: &Path) -> Result<String, ListError> {
    let unreadable = |source| ListError::Unreadable {
        service: service.to_owned(),
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let open = File::open(path).map_err(unreadable)?;
    open.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let (service, path) = (service.to_owned(), path.to_owned());
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ListError::TooLarge { service, path, most: FILE_BYTES_MAX });
    }
    String::from_utf8(bytes).map_err(|error| ListError::NotUtf8 {
        service,
        path,
        valid: error.utf8_error().valid_up_to(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(lists: &str) -> Config {
        let text = format!(
            "interface = \"e0\"\nvirtual_addresses = [\"192.0.2.1\"]\nactive = \"a\"\n[[node]]\n\
             name = \"a\"\naddress = \"192.0.2.2\"\n[[service]]\nname = \"s\"\nport = 80\n\
             backends = [\"192.0.2.2:81\"]\n{lists}"
        );
        Config::parse(&text).unwrap_or_else(|error| panic!("{}", error.report("x")))
    }

    fn file(name: &str, text: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("lb-lists-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    #[test]
    fn a_file_s_prefixes_are_added_to_those_of_the_configuration() {
        let path = file("deny", "198.51.100.0/24\n");
        let text = format!("deny = [\"203.0.113.0/24\"]\ndeny_file = {path:?}\n");
        let lists = read(&config(&text)).expect("a list");
        // And the synthetic packet's.
        assert_eq!(lists.of(0).map(|list| list.keys().len()), Some(3));
        assert!(read(&config("")).expect("none").of(0).is_none());
    }

    #[test]
    fn what_is_wrong_names_service_file_and_line() {
        let path = file("wrong", "198.51.100.0/24\n198.51.100/24\n");
        let error = read(&config(&format!("allow_file = {path:?}\n"))).expect_err("wrong");
        let told = error.to_string();
        assert!(told.starts_with("service `s`: /") && told.contains("wrong: line 2: "), "{told}");
        let none = read(&config("allow_file = \"/does/not/exist\"\n")).expect_err("no file");
        assert!(none.is_missing(), "{none}");
        let path = file("both", "203.0.113.0/24\n");
        let text = format!("allow = [\"203.0.113.0/24\"]\ndeny_file = {path:?}\n");
        let error = read(&config(&text)).expect_err("a conflict");
        assert!(error.to_string().contains("203.0.113.0/24 is both"), "{error}");
    }
}
