//! What both parsers make of a file: directives, each with its place. Not for what a directive means.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// Blocks within one another; no file of either kind has more than a handful.
const DEPTH_MAX: usize = 32;

/// Of a directive's text that a report shows.
const SHOWN_CHARS: usize = 120;

/// Stands for a password.
const HIDDEN: &str = "***";

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// As the file was named.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
}

/// One directive: `name argument ..`, with a block or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    pub place: Place,
    pub name: String,
    pub arguments: Vec<String>,
    /// What stands between its braces. None where it has none.
    pub block: Option<Vec<Directive>>,
}

/// Why a file could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {fault}")]
pub struct SyntaxError {
    pub place: Place,
    pub fault: SyntaxFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SyntaxFault {
    #[error("the block that begins here has no end: add the `}}` that is missing")]
    NotClosed,
    #[error("this `}}` ends nothing: remove it, or add the `{{` that is missing before it")]
    ClosesNothing,
    #[error("the quotation mark has no partner: add it")]
    Quote,
    #[error("something must stand before this `{{` or `;`: write the directive's name")]
    NoName,
    #[error("the directive that begins here has no end: add the `;` that is missing")]
    NotEnded,
    #[error("a blank, a `;` or a `{{` must follow the quotation mark")]
    Glued,
    #[error("more than {DEPTH_MAX} blocks within one another: is it a configuration?")]
    TooDeep,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", printable(&self.file), self.line)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Directive {
    /// What stands in its block; nothing where it has none.
    pub fn children(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// The directive as a line for people, without its block and without passwords.
    pub fn text(&self) -> String {
        let words = std::iter::once(&self.name).chain(&self.arguments);
        let mut shown = Vec::new();
        for word in words {
            shown.push(if word.is_empty() || word.contains(char::is_whitespace) {
                format!("\"{}\"", printable(word))
            } else {
                printable(word)
            });
            if names_a_secret(word) {
                shown.push(HIDDEN.to_owned());
                break;
            }
        }
        cut(&shown.join(" "))
    }

    /// The same where any word may be a password, as in a block about passwords.
    pub(super) fn hidden_text(&self) -> String {
        if !self.name.to_ascii_lowercase().starts_with("auth") {
            return HIDDEN.to_owned();
        }
        let arguments = if self.arguments.is_empty() { "" } else { " ***" };
        format!("{}{arguments}", cut(&printable(&self.name)))
    }
}

/// What follows such a word is not for a report.
fn names_a_secret(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    (word.starts_with("auth_p") || word.contains("password") || word.contains("secret"))
        && !word.contains('/')
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{}..", &text[..at]),
        None => text.to_owned(),
    }
}

/// Control characters are for nobody's terminal, and end no comment of the file that is written.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Directives as they are read, one after the other.
pub(super) struct Tree {
    file: Arc<str>,
    top: Vec<Directive>,
    /// Blocks that are not closed yet, the innermost last.
    open: Vec<Directive>,
}

impl Tree {
    pub(super) fn new(file: &str) -> Self {
        Self { file: Arc::from(file), top: Vec::new(), open: Vec::new() }
    }

    pub(super) fn fail(&self, line: usize, fault: SyntaxFault) -> SyntaxError {
        SyntaxError { place: self.place(line), fault }
    }

    fn place(&self, line: usize) -> Place {
        Place { file: Arc::clone(&self.file), line }
    }

    fn level(&mut self) -> &mut Vec<Directive> {
        match self.open.last_mut() {
            Some(block) => block.block.get_or_insert_default(),
            None => &mut self.top,
        }
    }

    fn directive(&self, line: usize, words: Vec<String>) -> Result<Directive, SyntaxError> {
        let mut words = words.into_iter();
        let name = words.next().ok_or_else(|| self.fail(line, SyntaxFault::NoName))?;
        Ok(Directive { place: self.place(line), name, arguments: words.collect(), block: None })
    }

    /// Adds one without a block. There must be a word.
    pub(super) fn add(&mut self, line: usize, words: Vec<String>) -> Result<(), SyntaxError> {
        let directive = self.directive(line, words)?;
        self.level().push(directive);
        Ok(())
    }

    /// Begins the block of a directive. There must be a word.
    pub(super) fn open(&mut self, line: usize, words: Vec<String>) -> Result<(), SyntaxError> {
        let directive = self.directive(line, words)?;
        self.begin(line, directive)
    }

    /// Begins the block of the directive that was added last.
    pub(super) fn open_last(&mut self, line: usize) -> Result<(), SyntaxError> {
        match self.level().pop_if(|last| last.block.is_none()) {
            Some(last) => self.begin(line, last),
            None => Err(self.fail(line, SyntaxFault::NoName)),
        }
    }

    fn begin(&mut self, line: usize, directive: Directive) -> Result<(), SyntaxError> {
        if self.open.len() == DEPTH_MAX {
            return Err(self.fail(line, SyntaxFault::TooDeep));
        }
        self.open.push(Directive { block: Some(Vec::new()), ..directive });
        Ok(())
    }

    /// Ends the innermost block.
    pub(super) fn close(&mut self, line: usize) -> Result<(), SyntaxError> {
        let block = self.open.pop().ok_or_else(|| self.fail(line, SyntaxFault::ClosesNothing))?;
        self.level().push(block);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Vec<Directive>, SyntaxError> {
        match self.open.into_iter().next_back() {
            Some(Directive { place, .. }) => {
                Err(SyntaxError { place, fault: SyntaxFault::NotClosed })
            }
            None => Ok(self.top),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directive(words: &[&str]) -> Directive {
        let mut tree = Tree::new("f");
        tree.add(1, words.iter().map(|&word| word.to_owned()).collect()).expect("a word");
        tree.finish().expect("no block").remove(0)
    }

    #[test]
    fn a_password_is_not_shown_wherever_it_stands() {
        for (words, shown) in [
            (&["auth_pass", "K8SHA"][..], "auth_pass ***"),
            (&["auth_type", "PASS", "auth_pass", "K8SHA"], "auth_type PASS auth_pass ***"),
            (&["auth_password", "K8SHA"], "auth_password ***"),
            (&["proxy_pass", "k8s"], "proxy_pass k8s"),
            (&["script", "/bin/check one"], "script \"/bin/check one\""),
            (&["say", "a\nb\u{1b}"], "say \"a\u{fffd}b\u{fffd}\""),
        ] {
            assert_eq!(directive(words).text(), shown);
        }
        assert_eq!(directive(&["authpas", "K8SHA"]).hidden_text(), "authpas ***");
        assert_eq!(directive(&["K8SHA", "K8SHA"]).hidden_text(), "***");
    }

    #[test]
    fn a_long_line_is_cut() {
        let text = directive(&["é".repeat(500).as_str()]).text();
        assert_eq!(text.chars().count(), SHOWN_CHARS + 2);
    }
}
