//! One check: a GET over a connection of its own, with TLS or without.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::judge::Outcome;
use crate::config::{Check, ClientCertificate, HttpCheck, TlsCheck, Trust};
use crate::web::tls::{self, TlsError};
use crate::web::{Answer, USER_AGENT as OWN_NAME, exchange};

/// So much of what a server says about itself is shown.
const SHOWN: usize = 120;

/// TLS settings of checks, each kept for as long as the files that it comes from stay as they are.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Locked while files are read: where a disk hangs one thread does, and the other checks are told.
    known: Arc<Mutex<Known>>,
}

#[derive(Debug)]
struct Kept {
    /// Of its files.
    stamps: Vec<Stamp>,
    config: Arc<ClientConfig>,
}

/// Whom to trust, and who to be.
type Identity = (Trust, Option<ClientCertificate>);

/// By which a changed file is known, also one that was replaced by another.
type Stamp = Option<(u64, u64, i64, i64)>;

/// Settings by what they are for.
type Known = HashMap<Identity, Kept>;

impl Settings {
    /// Forgets those that none of these checks has; another time where they are in use.
    pub(super) fn keep_only<'c>(&self, checks: impl Iterator<Item = &'c Check>) {
        let tls = checks.filter_map(|check| match check {
            Check::Http(check) => check.tls.as_ref(),
            Check::Tcp | Check::Script(_) => None,
        });
        let tls = tls.map(|tls| (&tls.trust, &tls.certificate));
        let wanted: HashSet<_> = tls.collect();
        if let Ok(mut known) = self.known.try_lock() {
            known.retain(|(trust, certificate), _| wanted.contains(&(trust, certificate)));
        }
    }
}

/// Reads files where they have changed.
fn settings(known: &mut Known, check: &TlsCheck) -> Result<Arc<ClientConfig>, TlsError> {
    let identity = (check.trust.clone(), check.certificate.clone());
    let stamps: Vec<Stamp> = files(&identity).map(stamp).collect();
    if let Some(kept) = known.get(&identity)
        && kept.stamps == stamps
    {
        return Ok(Arc::clone(&kept.config));
    }
    let config = tls::settings(&check.trust, check.certificate.as_ref())?;
    known.insert(identity, Kept { stamps, config: Arc::clone(&config) });
    Ok(config)
}

fn files(identity: &Identity) -> impl Iterator<Item = &Path> {
    let authorities = match &identity.0 {
        Trust::Authorities(path) => Some(path.as_path()),
        Trust::System | Trust::Pinned(_) | Trust::Anything => None,
    };
    let own = identity.1.iter().flat_map(|own| [&own.certificate_file, &own.key_file]);
    authorities.into_iter().chain(own.map(PathBuf::as_path))
}

fn stamp(path: &Path) -> Stamp {
    let of = |it: Metadata| (it.ino(), it.size(), it.mtime(), it.mtime_nsec());
    std::fs::metadata(path).ok().map(of)
}

/// What is read before a check.
struct Means {
    tls: Option<Arc<ClientConfig>>,
    token: Option<HeaderValue>,
}

/// Asks a server that has taken the connection. What it answered, in words.
///
/// # Errors
/// With what did not go well.
pub(super) async fn ask(
    stream: TcpStream,
    address: SocketAddr,
    check: &HttpCheck,
    settings: &Settings,
    deadline: Instant,
) -> Result<String, Outcome> {
    let Means { tls, token } = means(check, settings, deadline).await?;
    let late = |what: &str| Outcome::Silent(format!("connected, but {what} in time"));
    let request = request(address, check, token)?;
    let answer = match (tls, &check.tls) {
        (Some(config), Some(tls)) => {
            let host = tls.server_name.clone().unwrap_or_else(|| address.ip().to_string());
            let handshake = timeout_at(deadline, tls::connect(stream, &host, config)).await;
            let stream = handshake.map_err(|_| late("no TLS handshake"))?.map_err(of_tls)?;
            timeout_at(deadline, exchange(stream, request)).await
        }
        _ => timeout_at(deadline, exchange(stream, request)).await,
    };
    let path = &check.path;
    let answer = answer.map_err(|_| late(&format!("no answer to GET {path}")))?;
    let answer = answer.map_err(|error| {
        Outcome::Failed(format!("the conversation about {path} broke off: {}", chain(&error)))
    })?;
    let status = answer.status.as_u16();
    match check.expect.iter().any(|expected| expected.has(status)) {
        true => Ok(named(answer.status)),
        false => Err(Outcome::Failed(unexpected(check, &answer))),
    }
}

/// Files are read beside the others' work: they may be on a disk that hangs.
async fn means(check: &HttpCheck, all: &Settings, deadline: Instant) -> Result<Means, Outcome> {
    let Some(tls) = check.tls.clone() else { return Ok(Means { tls: None, token: None }) };
    let late = |_| Outcome::NotChecked("the check's files could not be read in time".to_owned());
    let locked = timeout_at(deadline, Arc::clone(&all.known).lock_owned()).await;
    let mut known = locked.map_err(late)?;
    let reading = tokio::task::spawn_blocking(move || {
        let token = tls.token_file.as_deref().map(token).transpose()?;
        let tls = settings(&mut known, &tls).map_err(of_tls)?;
        Ok(Means { tls: Some(tls), token })
    });
    let ended = |error| Outcome::NotChecked(format!("reading the check's files: {error}"));
    timeout_at(deadline, reading).await.map_err(late)?.map_err(ended)?
}

fn token(path: &Path) -> Result<HeaderValue, Outcome> {
    let of_file =
        |why: String| Outcome::NotChecked(format!("the token in {}: {why}", path.display()));
    let text =
        std::fs::read_to_string(path).map_err(|error: io::Error| of_file(error.to_string()))?;
    let mut value = HeaderValue::try_from(format!("Bearer {}", text.trim()))
        .map_err(|_| of_file("it is more than a line of printable characters".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn of_tls(error: TlsError) -> Outcome {
    if error.is_of_the_server() {
        Outcome::Failed(format!("no TLS: {error}"))
    } else {
        Outcome::NotChecked(error.to_string())
    }
}

fn request(
    address: SocketAddr,
    check: &HttpCheck,
    token: Option<HeaderValue>,
) -> Result<Request<Full<Bytes>>, Outcome> {
    let host = check.host.clone().unwrap_or_else(|| address.to_string());
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(&check.path)
        .header(HOST, host)
        .header(USER_AGENT, OWN_NAME)
        .header(CONNECTION, "close");
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, token);
    }
    let made = request.body(Full::default());
    made.map_err(|error| Outcome::NotChecked(format!("no request for a check: {error}")))
}

/// `200 OK`.
fn named(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// What is wrong with an answer, and what to do where that is known.
fn unexpected(check: &HttpCheck, answer: &Answer) -> String {
    let HttpCheck { path, tls, .. } = check;
    let said = named(answer.status);
    let has = |credential: fn(&TlsCheck) -> bool| tls.as_ref().is_some_and(credential);
    let (token, certificate) =
        (has(|it| it.token_file.is_some()), has(|it| it.certificate.is_some()));
    let why = match answer.status {
        StatusCode::UNAUTHORIZED if token || certificate => {
            ": it does not take what the agent shows (`token_file`, `certificate_file`)".to_owned()
        }
        StatusCode::UNAUTHORIZED => {
            ": it wants to know who asks; give `token_file` or `certificate_file`, or let anybody ask for \
             this path"
                .to_owned()
        }
        StatusCode::FORBIDDEN => ": whom it takes the agent for may not ask for this path".to_owned(),
        status if status.is_redirection() => match answer.headers.get(LOCATION).map(HeaderValue::to_str) {
            Some(Ok(location)) => format!(", to {location}, where checks do not follow"),
            _ => ", where checks do not follow".to_owned(),
        },
        _ => words(&answer.body).map(|words| format!(": {words}")).unwrap_or_default(),
    };
    format!("{path} answered {said}{why}")
}

/// What a server says about itself: a line that begins with `[-]`, as Kubernetes marks what is not in order,
/// or else the first.
fn words(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let failed = text.lines().map(str::trim).find(|line| line.starts_with("[-]"));
    let line = failed.or_else(|| lines.next())?;
    let shown: String = line.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    Some(if line.chars().count() > SHOWN { format!("{shown}..") } else { shown })
}

/// An error with what it comes from, which hyper says only if asked.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
