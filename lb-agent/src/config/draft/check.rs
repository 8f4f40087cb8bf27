//! The kind of check in `[service.health]`, before it is checked against the rest.

use std::path::PathBuf;

use super::super::check::{Check, ClientCertificate, HttpCheck, Statuses, TlsCheck, Trust};
use super::super::document::Section;
use super::super::error::Faults;
use super::super::problem::Problem;
use super::super::value;

const EXPECT_EXAMPLE: &str = "expect = [\"200\", \"300-399\"]";
/// What only a request has, and what only TLS has.
const OF_HTTP: [&str; 2] = ["expect", "host"];
const OF_TLS: [&str; 7] = [
    "server_name",
    "ca_file",
    "fingerprint",
    "verify",
    "certificate_file",
    "key_file",
    "token_file",
];

pub(super) fn check(section: &Section<'_>, faults: &mut Faults<'_>) -> Check {
    let tcp = section.optional("tcp", faults, |item| item.boolean());
    let http = section.optional("http", faults, |item| item.parsed(value::http_path));
    let https = section.optional("https", faults, |item| item.parsed(value::http_path));
    let asks = if section.has("https") { "https" } else { "http" };
    if section.has("http") && section.has("https") {
        let problem = Problem::Both { first: "http", second: "https" };
        faults.add(&section.span_of("https"), problem);
    }
    match tcp {
        Some(tcp) if tcp.value && section.has(asks) => {
            faults.add(&section.span_of(asks), Problem::Both { first: "tcp", second: asks });
        }
        Some(tcp) if !tcp.value && !section.has(asks) => {
            faults.add(&tcp.span, Problem::NoCheck);
        }
        _ => {}
    }
    only_with(section, &OF_HTTP, section.has(asks), "http` or `https", faults);
    only_with(section, &OF_TLS, section.has("https"), "https", faults);
    let tls = tls(section, faults);
    let expect =
        section.list("expect", EXPECT_EXAMPLE, faults, |item| item.parsed(value::statuses));
    let expect: Vec<Statuses> = match section.has("expect") {
        true => expect.into_iter().map(|placed| placed.value).collect(),
        false => vec![Statuses::SUCCESS],
    };
    let host = section.optional("host", faults, |item| item.parsed(value::host));
    let tls = https.is_some().then_some(tls);
    let Some(path) = https.or(http) else { return Check::Tcp };
    let host = host.map(|host| host.value);
    Check::Http(Box::new(HttpCheck { path: path.value, expect, host, tls }))
}

fn only_with(
    section: &Section<'_>,
    keys: &[&'static str],
    is: bool,
    with: &'static str,
    faults: &mut Faults<'_>,
) {
    for &key in keys.iter().filter(|key| !is && section.has(key)) {
        faults.add(&section.span_of(key), Problem::OnlyWith { key, with });
    }
}

fn tls(section: &Section<'_>, faults: &mut Faults<'_>) -> TlsCheck {
    let server_name =
        section.optional("server_name", faults, |item| item.parsed(value::server_name));
    let trust = trust(section, faults);
    let mut path = |key| -> Option<PathBuf> {
        section.optional(key, faults, |item| item.parsed(value::path)).map(|placed| placed.value)
    };
    let (certificate_file, key_file) = (path("certificate_file"), path("key_file"));
    let token_file = path("token_file");
    for (key, with) in [("certificate_file", "key_file"), ("key_file", "certificate_file")] {
        if section.has(key) && !section.has(with) {
            faults.add(&section.span_of(key), Problem::OnlyWith { key, with });
        }
    }
    let certificate = certificate_file.zip(key_file);
    TlsCheck {
        server_name: server_name.map(|name| name.value),
        trust,
        certificate: certificate
            .map(|(certificate_file, key_file)| ClientCertificate { certificate_file, key_file }),
        token_file,
    }
}

fn trust(section: &Section<'_>, faults: &mut Faults<'_>) -> Trust {
    let ca_file = section.optional("ca_file", faults, |item| item.parsed(value::path));
    let fingerprint =
        section.optional("fingerprint", faults, |item| item.parsed(value::fingerprint));
    let verify = section.or("verify", true, faults, |item| item.boolean());
    if section.has("ca_file") && section.has("fingerprint") {
        let problem = Problem::Both { first: "ca_file", second: "fingerprint" };
        faults.add(&section.span_of("fingerprint"), problem);
    }
    if !verify {
        for key in ["ca_file", "fingerprint"].into_iter().filter(|key| section.has(key)) {
            let problem = Problem::Pointless { key, with: "`verify = false`" };
            faults.add(&section.span_of(key), problem);
        }
        return Trust::Anything;
    }
    match (ca_file, fingerprint) {
        (_, Some(fingerprint)) => Trust::Pinned(fingerprint.value),
        (Some(ca_file), None) => Trust::Authorities(ca_file.value),
        (None, None) => Trust::System,
    }
}
