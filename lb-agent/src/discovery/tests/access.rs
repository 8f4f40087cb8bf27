//! Kubeconfigs of all kinds, and what is refused.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::discovery::kubernetes::access::{Access, read};
use crate::web::testbed;

const USER: &str = "{ tokenFile: token }";

fn kubeconfig(folder: &Path, cluster: &str, user: &str) -> Result<Access, String> {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: one\n\
         contexts: [{{ name: one, context: {{ cluster: c, user: u }} }}]\n\
         clusters: [{{ name: c, cluster: {cluster} }}]\nusers: [{{ name: u, user: {user} }}]\n"
    );
    let path = folder.join("kubeconfig");
    std::fs::write(&path, text).expect("a file");
    read(Some(&path)).map_err(|error| error.to_string())
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a directory");
    let certified = testbed::certificate("localhost");
    std::fs::write(folder.path().join("ca.pem"), certified.cert.pem()).expect("a file");
    std::fs::write(folder.path().join("key.pem"), certified.signing_key.serialize_pem())
        .expect("a file");
    std::fs::write(folder.path().join("token"), "first\n").expect("a file");
    folder
}

#[test]
fn paths_are_seen_from_the_file_and_the_token_is_read_anew() {
    let folder = folder();
    let cluster = "{ server: 'https://192.0.2.1:6443/', certificate-authority: ca.pem }";
    let token = || {
        let access = kubeconfig(folder.path(), cluster, USER).expect("an access");
        assert_eq!(access.url.authority(), "192.0.2.1:6443");
        access.token.map(|token| token.to_str().expect("a token").to_owned())
    };
    assert_eq!(token().as_deref(), Some("Bearer first"));
    std::fs::write(folder.path().join("token"), "second").expect("a file");
    assert_eq!(token().as_deref(), Some("Bearer second"));
}

#[test]
fn certificates_may_stand_in_the_file_itself() {
    let folder = folder();
    let data = |name: &str| STANDARD.encode(std::fs::read(folder.path().join(name)).expect("it"));
    let cluster = format!(
        "{{ server: 'https://api.example:6443', certificate-authority-data: {}, tls-server-name: kubernetes }}",
        data("ca.pem")
    );
    let user = format!(
        "{{ client-certificate-data: {}, client-key-data: {} }}",
        data("ca.pem"),
        data("key.pem")
    );
    let access = kubeconfig(folder.path(), &cluster, &user).expect("an access");
    assert!(access.tls.is_some() && access.token.is_none());
    assert_eq!(access.server_name, "kubernetes");
}

#[test]
fn what_is_not_done_is_refused_with_what_to_do() {
    let folder = folder();
    let right = "{ server: 'https://192.0.2.1:6443', certificate-authority: ca.pem }";
    for (cluster, user, why) in [
        (right, "{ exec: { command: aws } }", "asks for a program to log in"),
        (right, "{ username: a, password: b }", "a user's name and password"),
        (right, "{ tokenFile: nowhere }", "nowhere"),
        ("{ server: '192.0.2.1:6443' }", USER, "is no URL"),
        ("{ server: 'https://a', insecure-skip-tls-verify: true }", USER, "not to verify"),
        ("{ server: 'https://a', certificate-authority: token }", USER, "certificate-authority"),
        ("{ server: 'https://a', certificate-authority-data: '*' }", USER, "is not Base64"),
    ] {
        let error = kubeconfig(folder.path(), cluster, user).map(drop).unwrap_err();
        assert!(error.contains(why), "{cluster} {user}: {error}");
    }
}
