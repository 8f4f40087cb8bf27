//! The certificates that backends show, and what becomes of them with the checks' own settings.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use rustls::pki_types::UnixTime;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{Check, Config, Service, TlsCheck};
use crate::doctor::judge::certificate::{SOON_DAYS, Seen, Shown};
use crate::web::tls;

/// For a connection and a handshake.
const LIMIT: Duration = Duration::from_secs(2);
/// Backends that are asked, and at one time.
const BACKENDS_MAX: usize = 64;
const AT_ONE_TIME: usize = 16;

/// Those of all services that are checked by HTTPS, as far as [`BACKENDS_MAX`], and how many were left out.
pub(in crate::doctor) async fn all(config: &Config) -> (Vec<Seen>, usize) {
    let mut asked = BTreeSet::new();
    let mut wanted = Vec::new();
    for service in &config.services {
        let Check::Http(check) = &*service.health.check else { continue };
        let Some(tls) = check.tls.as_ref().filter(|_| service.health.enabled) else { continue };
        for backend in &service.backends {
            if asked.insert((backend.address, service.name.clone())) {
                wanted.push((service, tls, backend.address));
            }
        }
    }
    let left_out = wanted.len().saturating_sub(BACKENDS_MAX);
    wanted.truncate(BACKENDS_MAX);
    let each = futures::stream::iter(wanted).map(|(service, tls, backend)| async move {
        let shown = match timeout(LIMIT, ask(service, tls, backend)).await {
            Ok(shown) => shown,
            Err(_) => Err(format!("no TLS within {} s", LIMIT.as_secs())),
        };
        Seen { service: service.name.clone(), backend, shown }
    });
    (each.buffered(AT_ONE_TIME).collect().await, left_out)
}

async fn ask(service: &Service, check: &TlsCheck, backend: SocketAddr) -> Result<Shown, String> {
    let host = check.server_name.clone().unwrap_or_else(|| backend.ip().to_string());
    let connect = || async {
        TcpStream::connect(backend).await.map_err(|error| format!("no connection: {error}"))
    };
    let chain = tls::shown(connect().await?, &host, check.certificate.as_ref())
        .await
        .map_err(|error| error.to_string())?;
    let own = chain.first().ok_or("it shows none")?;
    let settings = tls::settings(&check.trust, check.certificate.as_ref());
    let refused = match settings {
        Ok(settings) => tls::connect(connect().await?, &host, settings).await.err(),
        Err(error) => Some(error),
    };
    let then = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
        + Duration::from_secs(SOON_DAYS * 24 * 3600);
    let lasts = tls::is_valid_at(&chain, &check.trust, UnixTime::since_unix_epoch(then));
    let vips = service.addresses.iter().copied();
    Ok(Shown {
        server_name: check.server_name.clone(),
        refused: refused.map(|error| error.to_string()),
        uncovered: vips.filter(|vip| !tls::is_for(own, *vip)).collect(),
        lasts,
    })
}
