//! How to get to the API of a Kubernetes cluster: by a kubeconfig, or as a pod does. Read anew for each connection, so that
//! tokens and certificates may be replaced at any time.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use thiserror::Error;

use crate::config::Url;
use crate::web::tls::{self, TlsError};

/// Where a pod finds what it needs.
const POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const HOST: &str = "KUBERNETES_SERVICE_HOST";
const PORT: &str = "KUBERNETES_SERVICE_PORT";

/// A larger file is none of these.
const FILE_BYTES_MAX: u64 = 1 << 20;

pub(in crate::discovery) struct Access {
    pub(in crate::discovery) url: Url,
    /// None without TLS.
    pub(in crate::discovery) tls: Option<Arc<ClientConfig>>,
    /// What the certificate must be for.
    pub(in crate::discovery) server_name: String,
    pub(in crate::discovery) token: Option<HeaderValue>,
}

#[derive(Debug, Error)]
pub(in crate::discovery) enum AccessError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} is larger than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is no kubeconfig: {source}", path.display())]
    Malformed { path: PathBuf, source: serde_yaml_ng::Error },
    #[error("the kubeconfig names {what} `{name}`, which it does not have")]
    Missing { what: &'static str, name: String },
    #[error("`{server}` is no URL of an API server")]
    Url { server: String },
    #[error("`{key}` in the kubeconfig is not Base64 of PEM")]
    Data { key: &'static str },
    #[error(
        "the kubeconfig {what}: give the agent one with a token, `tokenFile` or a client certificate"
    )]
    Unsupported { what: &'static str },
    #[error(
        "neither `kubeconfig` is given nor is this a pod ({HOST} is not set): write `kubeconfig`"
    )]
    NoPod,
    #[error("the token cannot stand in a header")]
    Token,
    #[error(transparent)]
    Tls(#[from] TlsError),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Debug, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Debug, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    username: Option<String>,
    exec: Option<serde_yaml_ng::Value>,
    auth_provider: Option<serde_yaml_ng::Value>,
}

/// Reads files.
///
/// # Errors
/// Where they are not what they have to be.
pub(in crate::discovery) fn read(kubeconfig: Option<&Path>) -> Result<Access, AccessError> {
    match kubeconfig {
        Some(path) => of_kubeconfig(path),
        None => of_pod(),
    }
}

fn of_pod() -> Result<Access, AccessError> {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let (Some(host), Some(port)) = (variable(HOST), variable(PORT)) else {
        return Err(AccessError::NoPod);
    };
    let server = match host.contains(':') {
        true => format!("https://[{host}]:{port}"),
        false => format!("https://{host}:{port}"),
    };
    let url = url(&server)?;
    let authorities = certificates(&text(&Path::new(POD).join("ca.crt"))?, "ca.crt")?;
    let token = bearer(&text(&Path::new(POD).join("token"))?)?;
    let tls = Some(tls::settings_of(authorities, None)?);
    Ok(Access { server_name: url.host.clone(), url, tls, token: Some(token) })
}

fn of_kubeconfig(path: &Path) -> Result<Access, AccessError> {
    let bytes = text(path)?;
    let malformed = |source| AccessError::Malformed { path: path.to_owned(), source };
    let file: Kubeconfig = serde_yaml_ng::from_slice(&bytes).map_err(malformed)?;
    let missing = |what, name: &String| AccessError::Missing { what, name: name.clone() };
    let name = &file.current_context;
    let context = file.contexts.iter().find(|known| known.name == *name);
    let context = &context.ok_or_else(|| missing("the context", name))?.context;
    let cluster = file.clusters.iter().find(|known| known.name == context.cluster);
    let cluster = &cluster.ok_or_else(|| missing("the cluster", &context.cluster))?.cluster;
    let user = file.users.iter().find(|known| known.name == context.user);
    let user = &user.ok_or_else(|| missing("the user", &context.user))?.user;
    supported(cluster, user)?;
    // Paths in it are seen from where it lies.
    let folder = path.parent().unwrap_or(Path::new("/"));
    let url = url(&cluster.server)?;
    let server_name = cluster.tls_server_name.clone().unwrap_or_else(|| url.host.clone());
    let tls = if url.secure { Some(tls_of(cluster, user, folder)?) } else { None };
    let token = match (&user.token_file, &user.token) {
        (Some(path), _) => Some(bearer(&text(&folder.join(path))?)?),
        (None, Some(token)) => Some(bearer(token.as_bytes())?),
        (None, None) => None,
    };
    Ok(Access { url, tls, server_name, token })
}

fn supported(cluster: &Cluster, user: &User) -> Result<(), AccessError> {
    for (is, what) in [
        (cluster.insecure_skip_tls_verify, "asks not to verify the server"),
        (cluster.proxy_url.is_some(), "asks for a proxy"),
        (user.exec.is_some() || user.auth_provider.is_some(), "asks for a program to log in"),
        (user.username.is_some(), "has a user's name and password"),
    ] {
        if is {
            return Err(AccessError::Unsupported { what });
        }
    }
    Ok(())
}

fn tls_of(cluster: &Cluster, user: &User, folder: &Path) -> Result<Arc<ClientConfig>, AccessError> {
    let pem = |data: &Option<String>, path: &Option<PathBuf>, key| match (data, path) {
        (Some(data), _) => decoded(data, key).map(Some),
        (None, Some(path)) => text(&folder.join(path)).map(Some),
        (None, None) => Ok(None),
    };
    const AUTHORITY: &str = "certificate-authority";
    let authorities =
        pem(&cluster.certificate_authority_data, &cluster.certificate_authority, AUTHORITY)?;
    let authorities = match authorities {
        Some(pem) => certificates(&pem, AUTHORITY)?,
        None => tls::system_authorities()?,
    };
    let chain = pem(&user.client_certificate_data, &user.client_certificate, "client-certificate")?;
    let key = pem(&user.client_key_data, &user.client_key, "client-key")?;
    let own = match chain.zip(key) {
        None => None,
        Some((chain, key)) => {
            let key = PrivateKeyDer::from_pem_slice(&key);
            let key = key.map_err(|_| AccessError::Data { key: "client-key" })?;
            Some((certificates(&chain, "client-certificate")?, key))
        }
    };
    Ok(tls::settings_of(authorities, own)?)
}

fn url(server: &str) -> Result<Url, AccessError> {
    // A path in front of the API's own is rare, and a last slash is none.
    let url = Url::parse(server.trim_end_matches('/'));
    url.ok_or_else(|| AccessError::Url { server: server.to_owned() })
}

fn text(path: &Path) -> Result<Vec<u8>, AccessError> {
    let unreadable = |source| AccessError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(AccessError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

fn decoded(data: &str, key: &'static str) -> Result<Vec<u8>, AccessError> {
    STANDARD.decode(data.trim()).map_err(|_| AccessError::Data { key })
}

fn certificates(
    pem: &[u8],
    key: &'static str,
) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    read.ok().filter(|chain| !chain.is_empty()).ok_or(AccessError::Data { key })
}

fn bearer(token: &[u8]) -> Result<HeaderValue, AccessError> {
    let token = std::str::from_utf8(token).map_err(|_| AccessError::Token)?;
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
        .map_err(|_| AccessError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}
