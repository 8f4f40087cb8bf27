//! What a check asks of a backend.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// The kind of check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// Its port takes a connection.
    Tcp,
    /// It answers a GET as expected.
    Http(Box<HttpCheck>),
    /// A program ends with exit status 0.
    Script(Box<ScriptCheck>),
}

/// The program, and what it is told besides the backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScriptCheck {
    pub path: PathBuf,
    pub arguments: Vec<String>,
    /// Whom it runs as.
    pub user: String,
    /// The name and the addresses of the service, so that no two services share a run.
    pub service: String,
    pub addresses: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpCheck {
    /// Begins with a slash; with the query.
    pub path: String,
    /// At least one: which statuses are good.
    pub expect: Vec<Statuses>,
    /// The Host header; the backend's address and port where absent.
    pub host: Option<String>,
    /// HTTPS.
    pub tls: Option<TlsCheck>,
}

/// How a backend proves who it is, and the agent towards it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsCheck {
    /// What its certificate must be for, and what it is asked for (SNI); the backend's address where absent.
    pub server_name: Option<String>,
    pub trust: Trust,
    pub certificate: Option<ClientCertificate>,
    /// A bearer token (RFC 6750), read for each check.
    pub token_file: Option<PathBuf>,
}

/// Which certificates are taken for the backend's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Those that the system's authorities vouch for.
    System,
    /// Those that these authorities vouch for, in PEM.
    Authorities(PathBuf),
    /// The one with this SHA-256 fingerprint, whatever it is for and until when.
    Pinned(Fingerprint),
    /// Any.
    Anything,
}

/// Of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// Both in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// With what leads from it to the authority.
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
}

/// Statuses of HTTP, from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Statuses {
    pub first: u16,
    pub last: u16,
}

impl Statuses {
    /// Success.
    pub const SUCCESS: Self = Self { first: 200, last: 299 };

    /// `"200"` or `"200-299"`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| {
            let three = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            let status: u16 = text.parse().ok()?;
            (three && (100..=599).contains(&status)).then_some(status)
        };
        let (first, last) = (status(first)?, status(last)?);
        (first <= last).then_some(Self { first, last })
    }

    pub const fn has(self, status: u16) -> bool {
        self.first <= status && status <= self.last
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        Ok(())
    }
}

impl Fingerprint {
    /// 64 hexadecimal digits, with colons between bytes or without, as `openssl x509 -fingerprint -sha256`
    /// shows them.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits: String = if text.contains(':') {
            let bytes: Vec<&str> = text.split(':').collect();
            if bytes.iter().any(|byte| byte.len() != 2) {
                return None;
            }
            bytes.concat()
        } else {
            text.to_owned()
        };
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_one_or_a_range() {
        for text in ["200", "200-299", "401-401"] {
            let read = Statuses::parse(text).unwrap();
            assert_eq!(read.to_string(), if text == "401-401" { "401" } else { text });
        }
        for text in ["", "2xx", "99", "600", "299-200", "200-", "+20", "0200", "200 - 299"] {
            assert_eq!(Statuses::parse(text), None, "{text}");
        }
        let success = Statuses::SUCCESS;
        assert_eq!(
            [199, 200, 299, 300].map(|status| success.has(status)),
            [false, true, true, false]
        );
    }

    #[test]
    fn a_fingerprint_is_read_as_openssl_shows_it() {
        let plain = "00ff".repeat(16);
        let colons = vec!["00:FF"; 16].join(":");
        let read = Fingerprint::parse(&plain).unwrap();
        assert_eq!(read.to_string(), plain);
        assert_eq!(Fingerprint::parse(&colons), Some(read));
        for text in
            ["", "00ff", &plain[1..], &format!("{plain}00"), &colons.replace("00:FF", "0:0FF")]
        {
            assert_eq!(Fingerprint::parse(text), None, "{text}");
        }
    }
}
