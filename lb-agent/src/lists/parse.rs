//! A file of prefixes, as text: one a line, `#` begins a comment. Pure.

use thiserror::Error;

use crate::config::{NoPrefix, Prefix};

/// Problems that are told: more come from a file that is no list at all.
pub(super) const FAULTS_MAX: usize = 10;

/// Characters of a line that are shown.
const SHOWN_CHARS: usize = 60;

/// A line that is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: `{text}` {}", what(reason))]
pub struct LineFault {
    /// From 1.
    pub line: usize,
    /// Of the line, without comment, cut where it is long.
    pub text: String,
    pub reason: NoPrefix,
}

fn what(reason: &NoPrefix) -> String {
    match reason {
        NoPrefix::Malformed => {
            "is not a prefix; write one such as 192.0.2.0/24 or 2001:db8::/32, or an address"
                .to_owned()
        }
        NoPrefix::Mapped => "is an IPv4 address in IPv6 form; write the IPv4 address".to_owned(),
        NoPrefix::HostBits(meant) => {
            format!("has bits behind its length; write {meant}, or a longer length")
        }
    }
}

/// The prefixes of a file.
///
/// # Errors
/// The first lines that are none, [`FAULTS_MAX`] at most.
pub fn parse(text: &str) -> Result<Vec<Prefix>, Vec<LineFault>> {
    let mut prefixes = Vec::new();
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match line.parse() {
            Ok(prefix) => prefixes.push(prefix),
            Err(reason) if faults.len() < FAULTS_MAX => {
                let text = line.chars().map(harmless).take(SHOWN_CHARS).collect();
                faults.push(LineFault { line: index + 1, text, reason });
            }
            Err(_) => break,
        }
    }
    if faults.is_empty() { Ok(prefixes) } else { Err(faults) }
}

/// Control characters are not for somebody's terminal.
fn harmless(c: char) -> char {
    if c.is_control() { '\u{fffd}' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blank_lines_and_spaces_are_no_prefixes() {
        let text = "# ours\n\n 192.0.2.0/24 # the office\r\n2001:db8::/32\n\t198.51.100.7\n";
        let read: Vec<String> =
            parse(text).expect("a list").iter().map(ToString::to_string).collect();
        assert_eq!(read, ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32"]);
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn every_wrong_line_is_told_with_its_number() {
        let faults = parse("192.0.2.0/24\n192.0.2.9/24\nexample.org # a name\n").unwrap_err();
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(told[0].starts_with("line 2: `192.0.2.9/24` has bits"), "{told:?}");
        assert!(told[0].contains("write 192.0.2.0/24"), "{told:?}");
        assert!(told[1].starts_with("line 3: `example.org` is not a prefix"), "{told:?}");
    }

    #[test]
    fn a_file_that_is_something_else_is_not_told_line_by_line() {
        let text = "\u{1b}[31mno list\n".repeat(1000);
        let faults = parse(&text).unwrap_err();
        assert_eq!(faults.len(), FAULTS_MAX);
        assert!(!faults[0].to_string().contains('\u{1b}'));
    }
}
