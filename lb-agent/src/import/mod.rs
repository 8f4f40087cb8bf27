//! The files of an existing cluster, keepalived's of several nodes and nginx's, as one `lb.toml` and a
//! [`Report`] of what became of each directive. Texts in, text out: nothing is read or written here.
//!
//! ```text
//! nginx's files ───── nginx ───────> directives ── stream ─────────> services ──┐
//! keepalived's, one                                                             ├─ compose ─> lb.toml
//! for each node ───── keepalived ──> directives ── node, instance ── cluster ───┤
//!                                                            └────── tracks ────┘
//!                                       each of them notes in the report what it takes; traps look at all
//! ```

mod cluster;
mod compose;
mod directive;
mod document;
mod instance;
mod keepalived;
mod nginx;
mod node;
mod report;
mod stream;
mod tracks;
mod traps;
mod value;

use std::net::IpAddr;

pub use directive::{Directive, Place, SyntaxError, SyntaxFault};
pub use report::{Entry, Finding, Report};

use compose::Draft;
use node::NodeFile;

/// A file's text, with the name that messages call it by.
#[derive(Clone, Copy, Debug)]
pub struct Source<'s> {
    pub name: &'s str,
    pub text: &'s str,
}

/// What became of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The text of `lb.toml`. Not judged yet: [`crate::config::Config::parse`] does.
    pub toml: String,
    pub report: Report,
}

/// One node for each of `keepalived`, services from `nginx`, which may be none.
///
/// # Errors
/// Where a file cannot be read as one of its kind.
pub fn import(nginx: &[Source<'_>], keepalived: &[Source<'_>]) -> Result<Imported, SyntaxError> {
    let mut report = Report::default();
    let files = keepalived
        .iter()
        .map(|source| Ok(node::read(source.name, &parse_keepalived(source)?, &mut report)))
        .collect::<Result<Vec<NodeFile>, SyntaxError>>()?;
    let streams = nginx.iter().map(parse_nginx).collect::<Result<Vec<_>, _>>()?;
    let cluster = cluster::gather(&files, &mut report);
    let vips: Vec<IpAddr> =
        cluster.iter().flat_map(|c| c.virtual_addresses()).map(|v| v.0).collect();
    let services = stream::read(&streams, &vips, &mut report);
    if services.is_empty() {
        let text = "no service: give nginx's files with --nginx, or write a [[service]]".to_owned();
        report.missing(Vec::new(), text);
    }
    let toml = cluster.map(|cluster| {
        let tracks = tracks::tracks(&cluster, &mut report);
        let hooks = tracks::hooks(&cluster);
        traps::of_cluster(&cluster, &tracks, &mut report);
        traps::of_services(&cluster, &services, &mut report);
        let files = keepalived.iter().chain(nginx).map(|source| source.name).collect();
        let draft =
            Draft { files, cluster: &cluster, services: &services, tracks: &tracks, hooks: &hooks };
        compose::compose(&draft, &mut report)
    });
    report.sort();
    Ok(Imported { toml: toml.unwrap_or_default(), report })
}

/// The directives of a file of nginx's.
///
/// # Errors
/// Where braces, quotation marks or semicolons do not match.
pub fn parse_nginx(source: &Source<'_>) -> Result<Vec<Directive>, SyntaxError> {
    nginx::parse(source.name, source.text)
}

/// The directives of a file of keepalived's.
///
/// # Errors
/// Where braces or quotation marks do not match.
pub fn parse_keepalived(source: &Source<'_>) -> Result<Vec<Directive>, SyntaxError> {
    keepalived::parse(source.name, source.text)
}
