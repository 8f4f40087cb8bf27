//! Which parts of a file's text no report may show: passwords. Found in the text itself, since a
//! report shows lines also of a file that cannot be parsed, or whose key is misspelt or stands in
//! the wrong table. Rather too much than too little: what is hidden is missing in a message only.
//!
//! Not for values that were read: those hide themselves in `Debug`.

use super::error::Span;
use super::schema;

/// The key whose value is a secret.
const KEY: &str = "auth_pass";

/// The places of all passwords, in order, without their quotation marks.
pub(super) fn places(text: &str) -> Vec<Span> {
    let mut places = Vec::new();
    let mut at = 0;
    while let Some(begin) = text[at..].find(is_of_word).map(|found| at + found) {
        let end = end_of(text, begin, |c| !is_of_word(c));
        at = end;
        if is_secret(&text[begin..end]) {
            let place = value(text, end);
            at = place.end;
            places.push(place);
        }
    }
    places
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// The key, however misspelt, and what people write for it.
fn is_secret(word: &str) -> bool {
    // Most words of a large file are the numbers of addresses.
    if !word.chars().any(char::is_alphabetic) {
        return false;
    }
    let lower: String = word.chars().take(64).collect::<String>().to_lowercase();
    lower.starts_with("auth") || lower.contains("passw") || schema::nearest(word, [KEY]).is_some()
}

/// The first place from `begin` on where the character is such a one, or the end of the text.
fn end_of(text: &str, begin: usize, is_end: impl Fn(char) -> bool) -> usize {
    text[begin..].find(is_end).map_or(text.len(), |found| begin + found)
}

/// The value of the key that ends at `key_end`: TOML's `= ".."`, and anything that it is mistaken
/// for, such as keepalived's `auth_pass K8SHA_KA`. What is no string ends with its line.
fn value(text: &str, key_end: usize) -> Span {
    // The key itself may be quoted.
    let key_end = key_end + usize::from(text[key_end..].starts_with(['"', '\'']));
    let begin = end_of(text, key_end, |c| !matches!(c, ' ' | '\t' | '=' | ':'));
    let line_end = end_of(text, begin, |c| c == '\n');
    for quote in ["\"\"\"", "'''"] {
        if text[begin..].starts_with(quote) {
            let begin = begin + quote.len();
            return begin..text[begin..].find(quote).map_or(text.len(), |found| begin + found);
        }
    }
    string(&text[begin..line_end])
        .map_or(begin..line_end, |inner| begin + inner.start..begin + inner.end)
}

/// What is between the quotation marks that the line begins with, if nothing odd is after them.
fn string(line: &str) -> Option<Span> {
    let quote = line.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut escaped = false;
    let (end, _) = line.char_indices().skip(1).find(|(_, c)| {
        let closes = *c == quote && !escaped;
        escaped = quote == '"' && *c == '\\' && !escaped;
        closes
    })?;
    let after = line[end + 1..].trim_start();
    (after.is_empty() || after.starts_with([',', '}', '#'])).then_some(1..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hidden(text: &str) -> Vec<&str> {
        places(text).into_iter().map(|place| &text[place]).collect()
    }

    #[test]
    fn a_password_is_hidden_however_it_is_written() {
        for line in [
            "auth_pass = \"S3\"",
            "auth_pass='S3'",
            "\"auth_pass\" = \"S3\" # why",
            "vrrp.auth_pass = \"S3\"",
            "vrrp = { auth_pass = \"S3\", version = 2 }",
            "auth_pass = \"\"\"S3\"\"\"",
            "auth_pass = S3",
            "  auth_pass S3\r\n",
            "auth_pass: S3",
            "auth-pass = \"S3\"",
            "Auth_Pas = \"S3\"",
            "uath_pass = \"S3\"",
            "password = \"S3\"",
            "auth_pass = '''\nS3'''",
            "auth_pass = \"S3",
        ] {
            let hidden = hidden(line);
            assert_eq!(hidden.len(), 1, "{line}");
            assert!(hidden[0].contains("S3"), "{line}");
        }
    }

    #[test]
    fn what_follows_a_password_is_shown() {
        assert_eq!(hidden("{ auth_pass = \"a\\\"b\", version = 2 }"), ["a\\\"b"]);
        assert_eq!(hidden("auth_pass = \"a\" # b\nrouter_id = 0"), ["a"]);
        assert_eq!(hidden("auth_pass = 5\nrouter_id = 0"), ["5"]);
        assert_eq!(hidden("auth_pass = \"one\"\nauth_pass = \"two\""), ["one", "two"]);
    }

    #[test]
    fn what_follows_a_broken_string_is_not() {
        assert_eq!(hidden("auth_pass = \"a\"b\"\n"), ["\"a\"b\""]);
        assert_eq!(hidden("auth_pass = \"\"\"a\nb"), ["a\nb"]);
    }

    #[test]
    fn no_other_key_is_hidden() {
        for key in schema::ALL.iter().flat_map(|table| table.keys).filter(|key| **key != KEY) {
            assert_eq!(hidden(&format!("{key} = \"a\"")), [""; 0], "{key}");
        }
        assert_eq!(hidden("unknown_ports = \"pass\""), [""; 0]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(auth_pass|[\"' =\\\\é\n]|[\\PC]){0,40}") {
            for place in places(&text) {
                prop_assert!(text.get(place).is_some());
            }
        }
    }
}
