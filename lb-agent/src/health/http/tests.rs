//! Checks of real servers on loopback, with TLS and without.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use rustls::RootCertStore;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::config::{Fingerprint, Statuses};
use crate::health::probe::probe;
use crate::health::tests::{TEST_LIMIT, runtime};
use crate::web::testbed::{certificate, serve};

const TOKEN: &str = "Bearer the-second";

/// What the path asks for: a status, and what goes with it.
async fn answer(uri: Uri, headers: HeaderMap) -> Response {
    match uri.path() {
        "/readyz" => "ok".into_response(),
        "/failing" => {
            let body = "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n";
            (StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
        }
        "/away" => (StatusCode::FOUND, [(LOCATION, "/login")]).into_response(),
        "/secret" if headers.get(AUTHORIZATION).is_some_and(|it| it == TOKEN) => {
            "ok".into_response()
        }
        "/secret" => StatusCode::UNAUTHORIZED.into_response(),
        "/host" => headers[HOST].to_str().expect("a host").to_owned().into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn routes() -> Router {
    Router::new().fallback(answer)
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn plain_server() -> SocketAddr {
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes()).await });
    address
}

fn plain(path: &str) -> HttpCheck {
    HttpCheck { path: path.to_owned(), expect: vec![Statuses::SUCCESS], host: None, tls: None }
}

fn with(path: &str, trust: Trust) -> HttpCheck {
    let tls = TlsCheck { server_name: None, trust, certificate: None, token_file: None };
    HttpCheck { tls: Some(tls), ..plain(path) }
}

async fn run(address: SocketAddr, check: HttpCheck) -> Outcome {
    run_with(address, check, &Settings::default()).await
}

async fn run_with(address: SocketAddr, check: HttpCheck, settings: &Settings) -> Outcome {
    probe(address, &Check::Http(check.into()), settings, TEST_LIMIT).await
}

fn passed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Passed(what) if what.starts_with("200 OK in ") && what.ends_with(" ms"))
}

fn failed(why: &str) -> Outcome {
    Outcome::Failed(why.to_owned())
}

fn file(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    // As a renewal does it: another file in its place.
    let fresh = folder.path().join("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, &path).unwrap();
    path
}

#[test]
fn what_is_expected_is_good_and_everything_else_is_told() {
    runtime().block_on(async {
        let address = plain_server().await;
        assert!(passed(&run(address, plain("/readyz")).await));
        let rows = [
            (
                "/failing",
                "/failing answered 500 Internal Server Error: [-]etcd failed: reason withheld",
            ),
            ("/away", "/away answered 302 Found, to /login, where checks do not follow"),
            ("/nowhere", "/nowhere answered 404 Not Found"),
            (
                "/secret",
                "/secret answered 401 Unauthorized: it wants to know who asks; give `token_file` or \
                 `certificate_file`, or let anybody ask for this path",
            ),
        ];
        for (path, why) in rows {
            assert_eq!(run(address, plain(path)).await, failed(why));
        }
        let unauthorized = Statuses { first: 401, last: 401 };
        let check = HttpCheck { expect: vec![Statuses::SUCCESS, unauthorized], ..plain("/secret") };
        assert!(matches!(run(address, check).await, Outcome::Passed(_)));
    });
}

#[test]
fn a_server_is_believed_by_its_authority_its_fingerprint_or_anyway() {
    runtime().block_on(async {
        let folder = TempDir::new().unwrap();
        let own = certificate("127.0.0.1");
        let address = serve(listener().await, routes(), &own, None);
        let ca = file(&folder, "ca.crt", &own.cert.pem());
        let other = file(&folder, "other.crt", &certificate("127.0.0.1").cert.pem());
        let digest = ring::digest::digest(&ring::digest::SHA256, own.cert.der());
        let fingerprint = Fingerprint(digest.as_ref().try_into().unwrap());
        for trust in [Trust::Authorities(ca.clone()), Trust::Pinned(fingerprint), Trust::Anything] {
            let outcome = run(address, with("/readyz", trust.clone())).await;
            assert!(passed(&outcome), "{trust:?}: {outcome:?}");
        }
        let untrusted = "no TLS: its certificate is from an authority that is not trusted here";
        let outcome = run(address, with("/readyz", Trust::Authorities(other))).await;
        assert_eq!(outcome, failed(untrusted));
        let wrong = Trust::Pinned(Fingerprint([0; 32]));
        let outcome = run(address, with("/readyz", wrong)).await;
        assert_eq!(outcome, failed("no TLS: its certificate has another fingerprint"));

        let mut named = with("/readyz", Trust::Authorities(ca));
        named.tls.as_mut().unwrap().server_name = Some("kubernetes".to_owned());
        let Outcome::Failed(why) = run(address, named).await else {
            panic!("another's name passes")
        };
        assert!(
            why.starts_with("no TLS: its certificate is not for kubernetes, but for "),
            "{why}"
        );
    });
}

#[test]
fn a_server_that_asks_who_asks_is_shown_a_certificate_or_a_token() {
    runtime().block_on(async {
        let folder = TempDir::new().unwrap();
        let (own, client) = (certificate("127.0.0.1"), certificate("agent"));
        let mut clients = RootCertStore::empty();
        clients.add(client.cert.der().clone()).unwrap();
        let address = serve(listener().await, routes(), &own, Some(clients));
        let mut check = with("/readyz", Trust::Anything);
        let Outcome::Failed(why) = run(address, check.clone()).await else { panic!("nobody passes") };
        assert!(why.contains("CertificateRequired"), "{why}");
        check.tls.as_mut().unwrap().certificate = Some(ClientCertificate {
            certificate_file: file(&folder, "agent.crt", &client.cert.pem()),
            key_file: file(&folder, "agent.key", &client.signing_key.serialize_pem()),
        });
        let outcome = run(address, check).await;
        assert!(passed(&outcome), "{outcome:?}");

        let address = serve(listener().await, routes(), &own, None);
        let token = file(&folder, "token", "the-first\n");
        let mut check = with("/secret", Trust::Anything);
        check.tls.as_mut().unwrap().token_file = Some(token);
        let why = "/secret answered 401 Unauthorized: it does not take what the agent shows (`token_file`, \
                   `certificate_file`)";
        let settings = Settings::default();
        assert_eq!(run_with(address, check.clone(), &settings).await, failed(why));
        file(&folder, "token", "the-second\n");
        assert!(passed(&run_with(address, check, &settings).await), "a new token counts at once");
    });
}

#[test]
fn a_file_that_is_missing_says_nothing_of_the_server_and_a_renewed_one_counts() {
    runtime().block_on(async {
        let folder = TempDir::new().unwrap();
        let own = certificate("127.0.0.1");
        let address = serve(listener().await, routes(), &own, None);
        let ca = folder.path().join("ca.crt");
        let check = with("/readyz", Trust::Authorities(ca.clone()));
        let settings = Settings::default();
        let run = || run_with(address, check.clone(), &settings);
        let Outcome::NotChecked(why) = run().await else { panic!("a missing file is no failure") };
        assert!(why.contains(&*ca.to_string_lossy()), "{why}");
        file(&folder, "ca.crt", &certificate("127.0.0.1").cert.pem());
        assert!(matches!(run().await, Outcome::Failed(_)));
        file(&folder, "ca.crt", &own.cert.pem());
        assert!(passed(&run().await));

        let mut secret = with("/secret", Trust::Anything);
        secret.tls.as_mut().unwrap().token_file = Some(Path::new("/nowhere/token").to_owned());
        let Outcome::NotChecked(why) = run_with(address, secret, &settings).await else {
            panic!("a missing token is no failure")
        };
        assert!(why.starts_with("the token in /nowhere/token: "), "{why}");
    });
}

#[test]
fn who_does_not_speak_the_protocol_is_told_from_who_does_not_speak_at_all() {
    runtime().block_on(async {
        let address = plain_server().await;
        let outcome = run(address, with("/readyz", Trust::Anything)).await;
        assert_eq!(outcome, failed("no TLS: it does not speak TLS"));

        let silent = listener().await;
        let address = silent.local_addr().unwrap();
        let limit = Duration::from_millis(100);
        for (check, why) in [
            (plain("/readyz"), "connected, but no answer to GET /readyz in time"),
            (with("/readyz", Trust::Anything), "connected, but no TLS handshake in time"),
        ] {
            let outcome =
                probe(address, &Check::Http(check.into()), &Settings::default(), limit).await;
            assert_eq!(outcome, Outcome::Silent(why.to_owned()));
        }
    });
}

#[test]
fn the_host_is_the_address_unless_another_is_given() {
    runtime().block_on(async {
        let address = plain_server().await;
        // The page is what the server was asked as.
        let asked = async |host: Option<&str>| {
            let check = HttpCheck { host: host.map(str::to_owned), ..plain("/host") };
            let stream = TcpStream::connect(address).await.unwrap();
            let request = request(address, &check, None).unwrap();
            String::from_utf8(exchange(stream, request).await.unwrap().body).unwrap()
        };
        assert_eq!(asked(None).await, address.to_string());
        assert_eq!(asked(Some("www.example.com")).await, "www.example.com");
    });
}

#[test]
fn a_file_that_hangs_holds_up_no_check_for_longer_than_it_may_take() {
    runtime().block_on(async {
        let folder = TempDir::new().unwrap();
        let address = serve(listener().await, routes(), &certificate("127.0.0.1"), None);
        // Whoever opens a pipe that nobody writes to waits.
        let pipe = folder.path().join("ca.crt");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let settings = Settings::default();
        let limit = Duration::from_millis(100);
        for trust in [Trust::Authorities(pipe.clone()), Trust::Anything] {
            let check = Check::Http(with("/readyz", trust).into());
            let outcome = probe(address, &check, &settings, limit).await;
            let late = "the check's files could not be read in time".to_owned();
            assert_eq!(outcome, Outcome::NotChecked(late));
        }
        // Once it goes on, so do the checks.
        drop(std::fs::OpenOptions::new().write(true).open(&pipe).unwrap());
        let outcome = run_with(address, with("/readyz", Trust::Anything), &settings).await;
        assert!(passed(&outcome), "{outcome:?}");
    });
}
