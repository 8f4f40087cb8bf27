//! The text of the new `lb.toml`: each key with the places in the old files that say it. Values are written
//! by the library that will read them.

use toml::Value;

use super::directive::{Place, printable};

/// As wide as the project's own files.
const WIDTH: usize = 100;

#[derive(Default)]
pub(super) struct Document {
    text: String,
}

impl Document {
    /// A comment on lines of its own.
    pub(super) fn comment(&mut self, text: &str) {
        let mut line = String::from("#");
        for word in text.split_whitespace() {
            if line.len() > 1 && line.len() + word.len() >= WIDTH {
                self.line(&line);
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(&printable(word));
        }
        self.line(&line);
    }

    /// `[vrrp]`, `[[node]]`.
    pub(super) fn heading(&mut self, heading: &str) {
        self.text.push('\n');
        self.line(heading);
    }

    /// A key, with where it comes from.
    pub(super) fn key(&mut self, key: &str, value: impl Into<Value>, from: &[&Place]) {
        let origin = origin(from);
        self.line(&format!("{key} = {}{origin}", value.into()));
    }

    /// A key whose value no file says, with why it is this.
    pub(super) fn key_because(&mut self, key: &str, value: impl Into<Value>, why: &str) {
        self.line(&format!("{key} = {}  # {}", value.into(), printable(why)));
    }

    /// A list, each element on a line with where it comes from.
    pub(super) fn list<'p>(
        &mut self,
        key: &str,
        elements: impl IntoIterator<Item = (Value, Vec<&'p Place>)>,
    ) {
        self.line(&format!("{key} = ["));
        for (value, from) in elements {
            let origin = origin(&from);
            self.line(&format!("    {value},{origin}"));
        }
        self.line("]");
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

fn origin(from: &[&Place]) -> String {
    let mut places: Vec<String> = from.iter().map(ToString::to_string).collect();
    places.dedup();
    if places.is_empty() { String::new() } else { format!("  # {}", places.join(", ")) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn names_of_files_and_values_end_no_comment_and_no_string() {
        let place = Place { file: Arc::from("a\ninterface = 1"), line: 3 };
        let mut document = Document::default();
        document.comment("one\ntwo");
        document.key("key", "va\"l\nue", &[&place, &place]);
        document.list("list", [(Value::from(1), vec![&place])]);
        let text = document.into_text();
        let read: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(read["key"].as_str(), Some("va\"l\nue"));
        assert_eq!(read.len(), 2, "{text}");
        assert!(text.contains("# a\u{fffd}interface = 1:3\n"), "{text}");
    }

    #[test]
    fn a_long_comment_is_divided() {
        let mut document = Document::default();
        document.comment(&"word ".repeat(50));
        let text = document.into_text();
        assert!(
            text.lines().count() > 1
                && text.lines().all(|l| l.len() <= WIDTH && l.starts_with("# "))
        );
    }
}
