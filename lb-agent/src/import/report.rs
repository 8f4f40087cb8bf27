//! What became of each directive, and what else there is to know of the old files. Every directive is in
//! exactly one of [`Report::taken`], [`Report::meaningless`] and [`Report::not_taken`].

use std::fmt;

use serde::Serialize;

use super::directive::{Directive, Place};

/// For people and for programs; no password stands in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Directives whose meaning is in the file, with the key.
    pub taken: Vec<Entry>,
    /// Directives that have no meaning here, with what takes their place.
    pub meaningless: Vec<Entry>,
    /// Directives that were not understood, or say what cannot be had, with what to do.
    pub not_taken: Vec<Entry>,
    /// Where the files of several nodes say different things of what is one thing here.
    pub disagreements: Vec<Finding>,
    /// What the files do not say and the new one needs.
    pub missing: Vec<Finding>,
    /// What did not work in the old files as it reads, and what is different from now on.
    pub traps: Vec<Finding>,
}

/// What became of a directive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub place: Place,
    /// Its text, on one line.
    pub directive: String,
    /// The new key, or why there is none.
    pub outcome: String,
}

/// A sentence about some places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub places: Vec<Place>,
    pub text: String,
}

/// A value with the place that says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

impl<T> Placed<T> {
    pub(super) fn new(value: T, place: &Place) -> Self {
        Self { value, place: place.clone() }
    }
}

impl Report {
    /// Whether the new file says everything that the old ones did.
    pub fn is_complete(&self) -> bool {
        self.not_taken.is_empty() && self.disagreements.is_empty() && self.missing.is_empty()
    }

    /// A directive that has no block: should there be one, nobody knows what is in it.
    pub(super) fn taken(&mut self, directive: &Directive, key: impl Into<String>) {
        self.entered(directive, key);
        directive.children().iter().for_each(|child| self.unknown(child));
    }

    /// A directive whose block somebody looks into.
    pub(super) fn entered(&mut self, directive: &Directive, key: impl Into<String>) {
        self.taken.push(entry(directive, key));
    }

    /// A directive and everything in its block.
    pub(super) fn meaningless(&mut self, directive: &Directive, why: &str) {
        entries(directive, false, why, &mut self.meaningless);
    }

    /// A directive and everything in its block.
    pub(super) fn not_taken(&mut self, directive: &Directive, why: &str) {
        entries(directive, false, why, &mut self.not_taken);
    }

    /// A directive that nobody knows, and everything in its block.
    pub(super) fn unknown(&mut self, directive: &Directive) {
        self.not_taken(directive, "not understood: look it up, and write what it does by hand");
    }

    /// The same for one that stands where passwords do, and may be one.
    pub(super) fn not_taken_hidden(&mut self, directive: &Directive, why: &str) {
        entries(directive, true, why, &mut self.not_taken);
    }

    /// A part of a directive that is taken over without it.
    pub(super) fn part_not_taken(&mut self, directive: &Directive, part: &str, why: &str) {
        let text = format!("{} of {}", super::directive::printable(part), directive.text());
        self.not_taken.push(Entry { directive: text, ..entry(directive, why) });
    }

    /// The value of a directive that was read, or not: it is taken over as the key, or it is not, for the
    /// reason.
    pub(super) fn take<T>(
        &mut self,
        directive: &Directive,
        key: &str,
        read: Result<T, String>,
    ) -> Option<Placed<T>> {
        match read {
            Ok(value) => {
                self.taken(directive, key);
                Some(Placed::new(value, &directive.place))
            }
            Err(why) => {
                self.not_taken(directive, &why);
                None
            }
        }
    }

    /// The first of several values that must be one; each that differs from it is a disagreement, for which
    /// `so` says what follows. `show` may hide it.
    pub(super) fn agree<T: PartialEq + Clone>(
        &mut self,
        what: &str,
        values: impl IntoIterator<Item = Placed<T>>,
        show: impl Fn(&T) -> String,
        so: &str,
    ) -> Option<Placed<T>> {
        let mut values = values.into_iter();
        let first = values.next()?;
        for other in values.filter(|other| other.value != first.value) {
            let (a, b) = (show(&first.value), show(&other.value));
            self.disagreements.push(Finding {
                places: vec![first.place.clone(), other.place.clone()],
                text: format!("{what}: {a} in the one and {b} in the other; {so}"),
            });
        }
        Some(first)
    }

    pub(super) fn disagreement(&mut self, places: Vec<Place>, text: String) {
        self.disagreements.push(Finding { places, text });
    }

    pub(super) fn missing(&mut self, places: Vec<Place>, text: String) {
        self.missing.push(Finding { places, text });
    }

    pub(super) fn trap(&mut self, places: Vec<Place>, text: String) {
        self.traps.push(Finding { places, text });
    }

    /// In the order of the files.
    pub(super) fn sort(&mut self) {
        for entries in [&mut self.taken, &mut self.meaningless, &mut self.not_taken] {
            entries.sort_by(|a, b| a.place.cmp(&b.place));
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<String> = self.places.iter().map(ToString::to_string).collect();
        match places.is_empty() {
            true => f.write_str(&self.text),
            false => write!(f, "{}: {}", places.join(", "), self.text),
        }
    }
}

fn entry(directive: &Directive, outcome: impl Into<String>) -> Entry {
    Entry { place: directive.place.clone(), directive: directive.text(), outcome: outcome.into() }
}

/// Of a directive and of everything in its block. `hidden`: any of its words may be a password.
fn entries(directive: &Directive, hidden: bool, outcome: &str, into: &mut Vec<Entry>) {
    let mut entry = entry(directive, outcome);
    if hidden {
        entry.directive = directive.hidden_text();
    }
    into.push(entry);
    let hidden = hidden || directive.name == "authentication";
    for child in directive.children() {
        entries(child, hidden, outcome, into);
    }
}
