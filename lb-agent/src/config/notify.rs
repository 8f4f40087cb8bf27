//! What `[[notify]]` says, as types: who is told of changes, and how. Not the telling: that is the
//! module `notify`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Somebody who is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Notify {
    /// Unique.
    pub name: String,
    pub way: NotifyWay,
    /// At least one, each once.
    pub events: Vec<NotifyEvent>,
    /// For one attempt.
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum NotifyWay {
    Script {
        /// Absolute. Whether it may be run is seen when it is to be.
        path: PathBuf,
        arguments: Vec<String>,
        /// The agent's own where absent.
        user: Option<String>,
    },
    Webhook {
        url: Url,
        /// Authorities in PEM instead of the system's. Only with https.
        ca_file: Option<PathBuf>,
    },
}

/// What a hook may be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotifyEvent {
    Role,
    Trouble,
}

/// Where a webhook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// https.
    pub secure: bool,
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    /// With the query; begins with a slash.
    pub path: String,
}

impl Url {
    /// `http://192.0.2.7:8080/hook`. Without a user, which nobody should write into a file that many
    /// read, and without a fragment, which no server is sent.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let visible = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&b);
        if !text.bytes().all(visible) {
            return None;
        }
        let (secure, rest) = match text.split_once("://")? {
            ("http", rest) => (false, rest),
            ("https", rest) => (true, rest),
            _ => return None,
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, port)
            }
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let of_name = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
        if host.is_empty() || !host.bytes().all(of_name) {
            return None;
        }
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            None if port.is_empty() => {
                if secure {
                    443
                } else {
                    80
                }
            }
            _ => return None,
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        let url = Self { secure, host: host.to_owned(), port, path: format!("{slash}{path}") };
        (port > 0).then_some(url)
    }

    /// Host and port as a `Host` header has them, without the path, which may hold a secret.
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for NotifyEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Role => "role",
            Self::Trouble => "trouble",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(text: &str) -> Option<(bool, String, String)> {
        Url::parse(text).map(|url| (url.secure, url.authority(), url.path))
    }

    #[test]
    fn a_url_is_taken_apart() {
        for (text, secure, authority, path) in [
            ("http://192.0.2.7:8080/hook", false, "192.0.2.7:8080", "/hook"),
            ("http://192.0.2.7", false, "192.0.2.7:80", "/"),
            ("https://hooks.example.org/a/b?c=d", true, "hooks.example.org:443", "/a/b?c=d"),
            ("https://[2001:db8::7]:8443/", true, "[2001:db8::7]:8443", "/"),
            ("http://host?x", false, "host:80", "/?x"),
        ] {
            let expected = (secure, authority.to_owned(), path.to_owned());
            assert_eq!(parts(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_webhook_is_refused() {
        for text in [
            "",
            "192.0.2.7:8080/hook",
            "ftp://host/",
            "http:///hook",
            "http://user:secret@host/",
            "http://host:0/",
            "http://host:65536/",
            "http://host:+1/",
            "http://host:/",
            "http://2001:db8::7/",
            "http://[::1/",
            "http://[nonsense]/",
            "http://ho st/",
            "http://host/a b",
            "http://host/#here",
            "http://host/\n",
        ] {
            assert_eq!(parts(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(https?://)?[\\PC]{0,30}") {
            let _ = Url::parse(&text);
        }
    }
}
