//! A refused configuration: every problem with its place in the text, and how it is shown.

use std::fmt;
use std::ops::Range;

use super::problem::Problem;
use super::secret;

/// Bytes of the text.
pub(super) type Span = Range<usize>;

/// Longest piece of a source line that is shown.
const SHOWN_CHARS: usize = 100;

/// Why a configuration was refused: at least one [`Fault`], in the order of the text.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigError {
    pub faults: Vec<Fault>,
}

/// A problem and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub problem: Problem,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The line's text, with asterisks for passwords.
    pub source: String,
    /// Characters of the line that are meant; at least 1.
    pub width: usize,
}

impl ConfigError {
    /// For people, with the file's name:
    ///
    /// ```text
    /// error: unknown key `prot` in [[service]]
    ///   --> /etc/lb/lb.toml:14:1
    ///    |
    /// 14 | prot = 8443
    ///    | ^^^^
    ///    = did you mean `port`?
    /// ```
    pub fn report(&self, file: &str) -> String {
        let shown: Vec<String> = self.faults.iter().map(|fault| fault.report(file)).collect();
        shown.join("\n")
    }
}

impl fmt::Display for ConfigError {
    /// One line for a log: the first problem, and how many more there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.faults.first() else {
            return f.write_str("the configuration is refused");
        };
        let problem = harmless_text(&first.problem.to_string());
        write!(f, "line {}, column {}: {problem}", first.line, first.column)?;
        if let Some(remedy) = first.problem.remedy() {
            write!(f, "; {}", harmless_text(&remedy))?;
        }
        match self.faults.len() - 1 {
            0 => Ok(()),
            1 => write!(f, " (and 1 more problem)"),
            more => write!(f, " (and {more} more problems)"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Fault {
    /// This one as [`ConfigError::report`] shows it.
    pub fn report(&self, file: &str) -> String {
        let Self { problem, line, column, .. } = self;
        let said = harmless_text(&problem.to_string());
        let margin = " ".repeat(line.to_string().len());
        let (before, shown, width) = self.window();
        let padding: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let carets = "^".repeat(width);
        let quoted = format!("{line} | {shown}");
        let mut text = format!(
            "error: {said}\n{margin}--> {file}:{line}:{column}\n{margin} |\n{}\n{margin} | {padding}{carets}\n",
            quoted.trim_end(),
        );
        if let Some(remedy) = problem.remedy() {
            text.push_str(&format!("{margin} = {}\n", harmless_text(&remedy)));
        }
        text
    }

    /// What is shown of the line: the part before the carets, the whole, and the carets' number.
    fn window(&self) -> (String, String, usize) {
        let place = self.column - 1;
        // A line that is too long is shown from a little before the place.
        let from = if self.source.chars().count() > SHOWN_CHARS {
            place.saturating_sub(SHOWN_CHARS / 2)
        } else {
            0
        };
        let shown: String =
            self.source.chars().skip(from).take(SHOWN_CHARS).map(harmless).collect();
        let before: String = shown.chars().take(place - from).collect();
        let room = shown.chars().count().saturating_sub(before.chars().count()).max(1);
        (before, shown, self.width.min(room))
    }
}

/// Control characters are not for somebody's terminal.
fn harmless(c: char) -> char {
    if c.is_control() && c != '\t' { '\u{fffd}' } else { c }
}

/// What is said of a value holds the value, in which the file may have escaped them.
fn harmless_text(text: &str) -> String {
    text.chars().map(harmless).collect()
}

/// Gathers problems while a text is read.
pub(super) struct Faults<'t> {
    text: &'t str,
    /// Where each line begins.
    lines: Vec<usize>,
    /// What is not to be shown of it. Looked for when something is to be shown: it takes longer than
    /// to read a large file.
    secrets: Vec<Span>,
    list: Vec<(Span, Problem)>,
}

impl<'t> Faults<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        let lines = std::iter::once(0).chain(breaks).collect();
        Self { text, lines, secrets: Vec::new(), list: Vec::new() }
    }

    pub(super) fn add(&mut self, span: &Span, problem: Problem) {
        self.list.push((span.clone(), problem));
    }

    /// For "nothing was wrong since": compare with a later value.
    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// The line, from 1, of a place.
    pub(super) fn line_of(&self, span: &Span) -> usize {
        self.lines.partition_point(|begin| *begin <= span.start)
    }

    /// Everything that was wrong, in the order of the text.
    pub(super) fn into_error(mut self) -> ConfigError {
        self.secrets = secret::places(self.text);
        self.list.sort_by_key(|(span, _)| span.start);
        let faults = self.list.iter().map(|(span, problem)| self.fault(span, problem)).collect();
        ConfigError { faults }
    }

    fn fault(&self, span: &Span, problem: &Problem) -> Fault {
        let line = self.line_of(span);
        let begin = self.lines[line - 1];
        let end = self.lines.get(line).map_or(self.text.len(), |next| next - 1);
        let source = self.text.get(begin..end).unwrap_or_default().trim_end_matches('\r');
        let place = span.start.saturating_sub(begin).min(source.len());
        let stop = span.end.saturating_sub(begin).clamp(place, source.len());
        let chars = |piece: Option<&str>| piece.map_or(0, |piece| piece.chars().count());
        Fault {
            problem: problem.clone(),
            line,
            column: chars(source.get(..place)) + 1,
            source: self.without_secrets(begin, source),
            width: chars(source.get(place..stop)).max(1),
        }
    }

    /// A piece of the text that begins there, with an asterisk for each character of a password, so
    /// that columns stay what they are.
    fn without_secrets(&self, begin: usize, piece: &str) -> String {
        let first = self.secrets.partition_point(|secret| secret.end <= begin);
        let here = &self.secrets[first..];
        let here = &here[..here.partition_point(|secret| secret.start < begin + piece.len())];
        let is_secret = |at: usize| here.iter().any(|secret| secret.contains(&at));
        let chars = piece.char_indices();
        chars.map(|(at, c)| if is_secret(begin + at) { '*' } else { c }).collect()
    }
}
