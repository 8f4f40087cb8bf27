//! Values as nginx and keepalived write them. Text in, value or a sentence out.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::directive::Directive;
use crate::config::duration_of;

/// The one argument of a directive.
pub(super) fn only(directive: &Directive) -> Result<&str, String> {
    match &directive.arguments[..] {
        [one] if directive.block.is_none() => Ok(one),
        _ => Err("not understood: it should have one word behind it".to_owned()),
    }
}

/// A number as the one argument.
pub(super) fn number<T: FromStr + PartialOrd + Display>(
    directive: &Directive,
    range: RangeInclusive<T>,
) -> Result<T, String> {
    let text = only(directive)?;
    let (least, most) = (range.start(), range.end());
    let wanted = || format!("not understood: it should be a number from {least} to {most}");
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(wanted)
}

/// An address as the one argument.
pub(super) fn address(directive: &Directive) -> Result<IpAddr, String> {
    only(directive)?.parse().map_err(|_| "not understood: it should be an address".to_owned())
}

/// keepalived's seconds as the one argument, to a microsecond: `2`, `0.1`.
pub(super) fn seconds(directive: &Directive) -> Result<Duration, String> {
    let wanted = || "not understood: it should be a number of seconds".to_owned();
    decimal_seconds(only(directive)?).ok_or_else(wanted)
}

fn decimal_seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 6 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let micros: u64 = format!("{fraction:0<6}").parse().ok()?;
    Some(Duration::from_secs(u32::from_str(whole).ok()?.into()) + Duration::from_micros(micros))
}

/// nginx's time: `30s`, `1m 30s`, `500ms`, and seconds where it is a number alone.
pub(super) fn nginx_time(text: &str) -> Option<Duration> {
    match text.parse::<u32>() {
        Ok(seconds) => Some(Duration::from_secs(seconds.into())),
        Err(_) => duration_of(&text.replace(' ', "")),
    }
}

/// A name for a node, service, track or hook, as near to the text as it can be. None where nothing is left.
pub(super) fn name(text: &str) -> Option<String> {
    const LONGEST: usize = 63;
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = text
        .chars()
        .map(|c| if fits(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(LONGEST)
        .collect();
    let name = name.trim_end_matches(['-', '.', '_']);
    (!name.is_empty()).then(|| name.to_owned())
}

/// The name, with a number behind it where one of `taken` has it.
pub(super) fn unique(name: &str, taken: &[String]) -> String {
    let numbered = (2..).map(|number| {
        let room = name.len().min(57);
        format!("{}-{number}", &name[..room])
    });
    let mut candidates = std::iter::once(name.to_owned()).chain(numbered);
    // One of so many is free.
    let free = candidates.find(|candidate| !taken.contains(candidate));
    free.unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_a_fraction() {
        for (text, ms) in [("2", 2000), ("0.1", 100), ("1.25", 1250), ("10.", 10_000)] {
            assert_eq!(decimal_seconds(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", ".5", "-1", "1s", "1.2.3", "1e3", "99999999999", "0.1234567"] {
            assert_eq!(decimal_seconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_of_nginx_has_units_or_is_seconds() {
        for (text, ms) in [("1s", 1000), ("30", 30_000), ("1m 30s", 90_000), ("500ms", 500)] {
            assert_eq!(nginx_time(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "1y", "s", "-1s", "1.5s"] {
            assert_eq!(nginx_time(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_is_made_to_fit_and_to_be_unique() {
        for (text, expected) in [
            ("LVS_DEVEL", Some("LVS_DEVEL")),
            ("node one", Some("node-one")),
            ("_x", Some("x")),
            ("ü", None),
            ("", None),
        ] {
            assert_eq!(name(text).as_deref(), expected, "{text}");
        }
        assert_eq!(name(&"x".repeat(100)).map(|name| name.len()), Some(63));
        let taken = ["a".to_owned(), "a-2".to_owned()];
        assert_eq!(unique("a", &taken), "a-3");
        assert_eq!(unique("b", &taken), "b");
    }
}
