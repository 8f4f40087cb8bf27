//! A certificate authority for one run and a server certificate for all its backends, so that
//! clients verify as a Kubernetes client does.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// PEM files in the run's directory.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub authority: PathBuf,
    pub server: PathBuf,
    pub server_key: PathBuf,
}

impl Certificate {
    /// Makes an authority and a server certificate that is valid for `addresses`.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn create(directory: &Path, addresses: &[IpAddr]) -> Result<Self> {
        let authority_key = KeyPair::generate().context("cannot make a key")?;
        let mut authority = CertificateParams::new(Vec::new()).context("authority")?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        authority.distinguished_name.push(DnType::CommonName, "lb-lab authority");
        let authority_pem = authority.self_signed(&authority_key).context("authority")?.pem();
        let issuer = Issuer::new(authority, authority_key);

        let server_key = KeyPair::generate().context("cannot make a key")?;
        let mut server = CertificateParams::new(Vec::new()).context("server")?;
        server.distinguished_name.push(DnType::CommonName, "lb-lab backend");
        server.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        let server_pem = server.signed_by(&server_key, &issuer).context("server")?.pem();

        Ok(Self {
            authority: write(directory, "ca.pem", &authority_pem)?,
            server: write(directory, "server.pem", &server_pem)?,
            server_key: write(directory, "server.key", &server_key.serialize_pem())?,
        })
    }
}

fn write(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
