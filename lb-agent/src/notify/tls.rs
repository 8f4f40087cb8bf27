//! TLS towards a webhook's server, which must prove that it is the one that the URL names.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where distributions keep the authorities that the system trusts: Debian and its kin, Fedora and
/// its kin, SUSE, Alpine.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

#[derive(Debug, Error)]
pub(super) enum TlsError {
    #[error("the system has no authorities to trust: install ca-certificates, or name a `ca_file`")]
    NoSystemAuthorities,
    #[error("cannot read authorities from {}: {source}", path.display())]
    Authorities { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{} has no authority that can be used: it must be a CA's certificate in PEM", path.display())]
    NoAuthority { path: PathBuf },
    #[error("{host} is no name that a certificate can have")]
    Name { host: String },
    #[error("{0}")]
    Settings(#[from] rustls::Error),
    #[error("{0}")]
    Handshake(io::Error),
    #[error("reading the authorities: {0}")]
    Reading(io::Error),
}

/// Authorities are read for each connection: a changed file counts from the next attempt on.
pub(super) async fn connect(
    stream: TcpStream,
    host: &str,
    ca_file: Option<&Path>,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| TlsError::Name { host: host.to_owned() })?;
    let ca_file = ca_file.map(Path::to_owned);
    let reading = tokio::task::spawn_blocking(move || authorities(ca_file)).await;
    let roots = reading.map_err(|error| TlsError::Reading(io::Error::other(error)))??;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.map_err(TlsError::Handshake)
}

fn authorities(ca_file: Option<PathBuf>) -> Result<RootCertStore, TlsError> {
    let system = || SYSTEM.iter().map(PathBuf::from).find(|path| path.is_file());
    let path = ca_file.or_else(system).ok_or(TlsError::NoSystemAuthorities)?;
    let unreadable = |source| TlsError::Authorities { path: path.clone(), source };
    let certificates = CertificateDer::pem_file_iter(&path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    // Some that distributions ship are too odd for rustls; the others serve.
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 { Err(TlsError::NoAuthority { path }) } else { Ok(roots) }
}
