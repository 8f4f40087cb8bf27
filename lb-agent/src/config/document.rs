//! Reading a parsed TOML document table by table, keeping places and gathering problems instead of
//! stopping at the first.
//!
//! Not serde: its deserialization ends at the first fault, and loses places inside flattened and
//! untagged types.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Faults, Span};
use super::problem::{KeyAdvice, Problem};
use super::schema::{self, Table};
use super::value::{self, duration_text};

/// A value and where the file says it.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// A table of the document whose keys are known to be in its schema.
pub(super) struct Section<'d> {
    schema: &'static Table,
    /// None where the file does not have the table: every key is absent.
    table: Option<&'d DeTable<'d>>,
    /// The table's header, or the inline table.
    pub(super) span: Span,
}

/// A value with its key, to be read as one type.
#[derive(Clone, Copy)]
pub(super) struct Item<'d> {
    pub(super) key: &'static str,
    pub(super) value: &'d Spanned<DeValue<'d>>,
}

impl<'d> Section<'d> {
    /// Reports every key that the schema does not have.
    pub(super) fn new(
        schema: &'static Table,
        table: &'d DeTable<'d>,
        span: Span,
        faults: &mut Faults<'_>,
    ) -> Self {
        for (key, _) in table {
            let name: &str = key.get_ref();
            if !schema.keys.contains(&name) {
                let problem = Problem::UnknownKey {
                    key: name.to_owned(),
                    table: schema.heading,
                    advice: advice(schema, name),
                };
                faults.add(&key.span(), problem);
            }
        }
        Self { schema, table: Some(table), span }
    }

    fn item(&self, key: &'static str) -> Option<Item<'d>> {
        debug_assert!(self.schema.keys.contains(&key), "{key} is not in {}", self.schema.heading);
        self.table.and_then(|table| table.get(key)).map(|value| Item { key, value })
    }

    pub(super) fn has(&self, key: &'static str) -> bool {
        self.item(key).is_some()
    }

    /// The place of a key's value, or the table's where it is absent.
    pub(super) fn span_of(&self, key: &'static str) -> Span {
        self.item(key).map_or_else(|| self.span.clone(), |item| item.value.span())
    }

    /// None where it is absent or wrong; what is wrong is reported.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        faults: &mut Faults<'_>,
        read: impl Fn(Item<'d>) -> Result<T, Problem>,
    ) -> Option<Placed<T>> {
        self.item(key).and_then(|item| item.placed(faults, read))
    }

    /// As [`optional`](Self::optional), and its absence is reported.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        example: &'static str,
        faults: &mut Faults<'_>,
        read: impl Fn(Item<'d>) -> Result<T, Problem>,
    ) -> Option<Placed<T>> {
        self.demand(key, example, faults);
        self.optional(key, faults, read)
    }

    /// Reports the absence of a key, unless it is there misspelt and reported as that.
    pub(super) fn demand(&self, key: &'static str, example: &'static str, faults: &mut Faults<'_>) {
        if self.lacks(key) {
            let problem = Problem::Missing { table: self.schema.heading, key, example };
            faults.add(&self.span, problem);
        }
    }

    /// Whether a key is neither there nor there misspelt.
    pub(super) fn lacks(&self, key: &'static str) -> bool {
        let mut unknown = self.table.into_iter().flatten().map(|(key, _)| key.get_ref().as_ref());
        let misspelt = |name: &str| {
            !self.schema.keys.contains(&name)
                && advice(self.schema, name) == KeyAdvice::Nearest(key)
        };
        !self.has(key) && !unknown.any(misspelt)
    }

    /// The value of a key that has a default.
    pub(super) fn or<T>(
        &self,
        key: &'static str,
        default: T,
        faults: &mut Faults<'_>,
        read: impl Fn(Item<'d>) -> Result<T, Problem>,
    ) -> T {
        self.optional(key, faults, read).map_or(default, |placed| placed.value)
    }

    /// The elements of an array that are right; what is wrong with the others is reported.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        example: &'static str,
        faults: &mut Faults<'_>,
        read: impl Fn(Item<'d>) -> Result<T, Problem>,
    ) -> Vec<Placed<T>> {
        let elements = self.elements(key, "a list in [brackets]", example, faults);
        elements.filter_map(|item| item.placed(faults, &read)).collect()
    }

    /// The elements of an array. An empty one is reported: leaving the key out says it better.
    pub(super) fn elements(
        &self,
        key: &'static str,
        expected: &'static str,
        example: &'static str,
        faults: &mut Faults<'_>,
    ) -> impl Iterator<Item = Item<'d>> + use<'d> {
        let array = self.item(key).and_then(|item| match item.value.get_ref() {
            DeValue::Array(array) if array.is_empty() => {
                faults.add(&item.value.span(), Problem::Empty { key, example });
                None
            }
            DeValue::Array(array) => Some(array),
            _ => {
                faults.add(&item.value.span(), item.wrong_type(expected));
                None
            }
        });
        array.into_iter().flat_map(|array| array.iter()).map(move |value| Item { key, value })
    }

    /// The table under a key; empty where it is absent.
    pub(super) fn section(
        &self,
        key: &'static str,
        schema: &'static Table,
        faults: &mut Faults<'_>,
    ) -> Section<'d> {
        let found = self.optional_section(key, schema, faults);
        found.unwrap_or(Section { schema, table: None, span: self.span.clone() })
    }

    /// The table under a key; None where it is absent or no table, which is reported.
    pub(super) fn optional_section(
        &self,
        key: &'static str,
        schema: &'static Table,
        faults: &mut Faults<'_>,
    ) -> Option<Section<'d>> {
        self.item(key).and_then(|item| item.section(schema, faults))
    }
}

fn advice(schema: &'static Table, key: &str) -> KeyAdvice {
    if let Some(nearest) = schema::nearest(key, schema.keys.iter().copied()) {
        return KeyAdvice::Nearest(nearest);
    }
    let elsewhere = schema::tables_with(key);
    if elsewhere.is_empty() {
        KeyAdvice::Known(schema.keys)
    } else {
        KeyAdvice::Elsewhere(elsewhere)
    }
}

impl<'d> Item<'d> {
    pub(super) fn placed<T>(
        self,
        faults: &mut Faults<'_>,
        read: impl Fn(Item<'d>) -> Result<T, Problem>,
    ) -> Option<Placed<T>> {
        let span = self.value.span();
        match read(self) {
            Ok(value) => Some(Placed { value, span }),
            Err(problem) => {
                faults.add(&span, problem);
                None
            }
        }
    }

    /// A table, inline or with a header of its own.
    pub(super) fn section(
        self,
        schema: &'static Table,
        faults: &mut Faults<'_>,
    ) -> Option<Section<'d>> {
        match self.value.get_ref() {
            DeValue::Table(table) => Some(Section::new(schema, table, self.value.span(), faults)),
            _ => {
                faults.add(&self.value.span(), self.wrong_type("a table"));
                None
            }
        }
    }

    pub(super) fn is_table(self) -> bool {
        self.value.get_ref().is_table()
    }

    pub(super) fn wrong_type(self, expected: &'static str) -> Problem {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        Problem::WrongType { key: self.key, expected, found }
    }

    pub(super) fn text(self, expected: &'static str) -> Result<&'d str, Problem> {
        self.value.get_ref().as_str().ok_or_else(|| self.wrong_type(expected))
    }

    /// A string, read by one of `value`'s parsers.
    pub(super) fn parsed<T>(self, parse: fn(&str) -> Result<T, Problem>) -> Result<T, Problem> {
        parse(self.text("a string")?)
    }

    pub(super) fn unicast_address(self) -> Result<IpAddr, Problem> {
        value::unicast_address(self.text("an address in quotation marks")?)
    }

    /// A string that says something.
    pub(super) fn not_empty(self, example: &'static str) -> Result<String, Problem> {
        let text = self.text("a string")?;
        if text.trim().is_empty() {
            return Err(Problem::Empty { key: self.key, example });
        }
        Ok(text.to_owned())
    }

    pub(super) fn boolean(self) -> Result<bool, Problem> {
        self.value.get_ref().as_bool().ok_or_else(|| self.wrong_type("true or false"))
    }

    pub(super) fn duration(self, range: RangeInclusive<Duration>) -> Result<Duration, Problem> {
        let found = value::duration(self.text("a duration such as \"2s\" or \"100ms\"")?)?;
        if range.contains(&found) {
            return Ok(found);
        }
        Err(Problem::OutOfRange {
            key: self.key,
            found: duration_text(found),
            lowest: duration_text(*range.start()),
            highest: duration_text(*range.end()),
        })
    }

    pub(super) fn number<T>(self, range: RangeInclusive<T>) -> Result<T, Problem>
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        let DeValue::Integer(integer) = self.value.get_ref() else {
            return Err(self.wrong_type("a number"));
        };
        let found = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = found.and_then(|found| T::try_from(found).ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| Problem::OutOfRange {
            key: self.key,
            found: integer.to_string(),
            lowest: range.start().to_string(),
            highest: range.end().to_string(),
        })
    }

    pub(super) fn choice<T: Copy>(self, choices: &[(&'static str, T)]) -> Result<T, Problem> {
        let text = self.text("a string")?;
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return Ok(*choice);
        }
        let names: Vec<&'static str> = choices.iter().map(|(name, _)| *name).collect();
        Err(Problem::NotAChoice {
            key: self.key,
            text: text.to_owned(),
            nearest: schema::nearest(text, names.iter().copied()),
            choices: names,
        })
    }
}
