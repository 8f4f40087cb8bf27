//! TLS towards a server, which must prove who it is.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{
    WantsClientCert, verify_server_cert_signed_by_trust_anchor, verify_server_name,
};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, ConfigBuilder, RootCertStore};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::verifier::Presented;
use crate::config::{ClientCertificate, Trust};

/// Where distributions keep the authorities that the system trusts: Debian and its kin, Fedora and
/// its kin, SUSE, Alpine.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why there is no TLS. What it says of the server begins with the server.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    #[error("the system has no authorities to trust: install ca-certificates, or name a `ca_file`")]
    NoSystemAuthorities,
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: pem::Error },
    #[error("{} has no authority that can be used: it must be a CA's certificate in PEM", path.display())]
    NoAuthority { path: PathBuf },
    #[cfg(feature = "kubernetes")]
    #[error("there is no authority's certificate that can be used")]
    NoUsableAuthority,
    #[error("{host} is no name that a certificate can have")]
    Name { host: String },
    #[error("{0}")]
    Settings(#[from] rustls::Error),
    #[error("{}", words(.0))]
    Handshake(io::Error),
    #[error("reading the authorities: {0}")]
    Reading(io::Error),
}

impl TlsError {
    /// Whether it says something about the server, and not about this machine's files and settings.
    pub(crate) const fn is_of_the_server(&self) -> bool {
        matches!(self, Self::Handshake(_))
    }
}

/// The settings for connections. Reads files.
///
/// # Errors
/// Where a file is not what it has to be.
pub(crate) fn settings(
    trust: &Trust,
    certificate: Option<&ClientCertificate>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let presented = |fingerprint| Arc::new(Presented { fingerprint, provider });
    let builder = match trust {
        Trust::System => builder.with_root_certificates(authorities(None)?),
        Trust::Authorities(path) => builder.with_root_certificates(authorities(Some(path))?),
        Trust::Pinned(fingerprint) => {
            builder.dangerous().with_custom_certificate_verifier(presented(Some(*fingerprint)))
        }
        Trust::Anything => builder.dangerous().with_custom_certificate_verifier(presented(None)),
    };
    Ok(Arc::new(with_certificate(builder, certificate)?))
}

/// The same of what was read already: authorities, and the chain and key to show if asked.
///
/// # Errors
/// Where it is not what it has to be.
#[cfg(feature = "kubernetes")]
pub(crate) fn settings_of(
    authorities: Vec<CertificateDer<'static>>,
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(authorities);
    if added == 0 {
        return Err(TlsError::NoUsableAuthority);
    }
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// Those that the system trusts.
///
/// # Errors
/// Where it has none.
#[cfg(feature = "kubernetes")]
pub(crate) fn system_authorities() -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates(system_file().ok_or(TlsError::NoSystemAuthorities)?)
}

fn system_file<'p>() -> Option<&'p Path> {
    SYSTEM.iter().map(Path::new).find(|path| path.is_file())
}

fn with_certificate(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    certificate: Option<&ClientCertificate>,
) -> Result<ClientConfig, TlsError> {
    let Some(ClientCertificate { certificate_file, key_file }) = certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate_file)?;
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|source| TlsError::Unreadable { path: key_file.clone(), source })?;
    Ok(builder.with_client_auth_cert(chain, key)?)
}

/// Speaks TLS with the server of this name, which its certificate must be for.
///
/// # Errors
/// Where it does not prove that, or does not want to talk.
pub(crate) async fn connect(
    stream: TcpStream,
    host: &str,
    settings: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| TlsError::Name { host: host.to_owned() })?;
    TlsConnector::from(settings).connect(name, stream).await.map_err(TlsError::Handshake)
}

/// What a server shows, whatever it is: its certificate first. `host` is asked for (SNI).
///
/// # Errors
/// Where it does not want to talk.
pub(crate) async fn shown(
    stream: TcpStream,
    host: &str,
    certificate: Option<&ClientCertificate>,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let stream = connect(stream, host, settings(&Trust::Anything, certificate)?).await?;
    let (_, connection) = stream.get_ref();
    Ok(connection.peer_certificates().unwrap_or_default().to_vec())
}

/// Whether a certificate is for an address.
pub(crate) fn is_for(certificate: &CertificateDer<'_>, address: IpAddr) -> bool {
    let name = ServerName::IpAddress(address.into());
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
}

/// Whether an authority still vouches for it then; none where it is no authority that is trusted. Reads files.
pub(crate) fn is_valid_at(
    chain: &[CertificateDer<'_>],
    trust: &Trust,
    at: UnixTime,
) -> Option<bool> {
    let file = match trust {
        Trust::System => None,
        Trust::Authorities(path) => Some(path.as_path()),
        Trust::Pinned(_) | Trust::Anything => return None,
    };
    let roots = authorities(file).ok()?;
    let (own, others) = chain.split_first()?;
    let parsed = ParsedCertificate::try_from(own).ok()?;
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let verified =
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, others, at, algorithms.all);
    Some(verified.is_ok())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

fn authorities(file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let path = file.or_else(system_file).ok_or(TlsError::NoSystemAuthorities)?;
    let mut roots = RootCertStore::empty();
    // Some that distributions ship are too odd for rustls; the others serve.
    let (added, _) = roots.add_parsable_certificates(certificates(path)?);
    if added == 0 { Err(TlsError::NoAuthority { path: path.to_owned() }) } else { Ok(roots) }
}

/// What a failed handshake means.
fn words(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => certificate_words(why),
        Some(rustls::Error::InvalidMessage(_)) => "it does not speak TLS".to_owned(),
        Some(rustls::Error::AlertReceived(alert)) => {
            format!("it broke off the handshake with the alert {alert:?}")
        }
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it closed the connection during the handshake".to_owned()
        }
        None => error.to_string(),
    }
}

fn certificate_words(error: &CertificateError) -> String {
    match error {
        // The latter where another authority has the same name, as one with a new key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is from an authority that is not trusted here".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "its certificate is not for {}, but for {}",
            expected.to_str(),
            presented.join(", ")
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet".to_owned()
        }
        CertificateError::ApplicationVerificationFailure => {
            "its certificate has another fingerprint".to_owned()
        }
        other => format!("its certificate is not valid: {other}"),
    }
}
