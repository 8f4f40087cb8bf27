//! The kind of check in `[service.health]`, before it is checked against the rest.

use std::path::PathBuf;

use super::super::check::{
    Check, ClientCertificate, HttpCheck, ScriptCheck, Statuses, TlsCheck, Trust,
};
use super::super::document::{Item, Section};
use super::super::error::Faults;
use super::super::problem::Problem;
use super::super::value;

const EXPECT_EXAMPLE: &str = "expect = [\"200\", \"300-399\"]";
const SCRIPT_EXAMPLE: &str = "script = [\"/usr/local/bin/check\", \"an argument\"]";
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
    match &tcp {
        Some(tcp) if tcp.value && section.has(asks) => {
            faults.add(&section.span_of(asks), Problem::Both { first: "tcp", second: asks });
        }
        Some(tcp) if !tcp.value && !section.has(asks) && !section.has("script") => {
            faults.add(&tcp.span, Problem::NoCheck);
        }
        _ => {}
    }
    let other = ["http", "https"].into_iter().find(|key| section.has(key));
    let other = other.or_else(|| tcp.as_ref().filter(|tcp| tcp.value).map(|_| "tcp"));
    if let Some(first) = other.filter(|_| section.has("script")) {
        let problem = Problem::Both { first, second: "script" };
        faults.add(&section.span_of("script"), problem);
    }
    only_with(section, &["user"], section.has("script"), "script", faults);
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
    let script = script(section, faults).map(|script| Check::Script(Box::new(script)));
    let Some(path) = https.or(http) else { return script.unwrap_or(Check::Tcp) };
    let host = host.map(|host| host.value);
    Check::Http(Box::new(HttpCheck { path: path.value, expect, host, tls }))
}

/// The service is told later.
fn script(section: &Section<'_>, faults: &mut Faults<'_>) -> Option<ScriptCheck> {
    let words = section.list("script", SCRIPT_EXAMPLE, faults, |item| {
        match item.text("a list of strings, the script's path first")? {
            text if text.contains('\0') => Err(Problem::NulByte { key: "script" }),
            text => Ok(text.to_owned()),
        }
    });
    let user = section.or("user", "nobody".to_owned(), faults, |item: Item<'_>| {
        item.not_empty("user = \"nobody\"")
    });
    let (first, arguments) = words.split_first()?;
    let path = match value::path(&first.value) {
        Ok(path) => path,
        Err(problem) => {
            faults.add(&first.span, problem);
            return None;
        }
    };
    let arguments = arguments.iter().map(|word| word.value.clone()).collect();
    Some(ScriptCheck { path, arguments, user, service: String::new(), addresses: Vec::new() })
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
