//! Where a verb's answer goes, in the format that was asked for.

use std::io::Write;

use serde::Serialize;

use super::Surroundings;
use super::arguments::Format;
use super::failure::Failure;
use super::table::Table;

/// What a word's colour says. Nothing is said by colour alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Doubtful,
    Bad,
}

impl Tone {
    pub(super) fn paint(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => 32,
            Self::Doubtful => 33,
            Self::Bad => 31,
        };
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

pub(super) struct Screen<'o> {
    out: &'o mut dyn Write,
    format: Format,
    surroundings: Surroundings,
}

impl<'o> Screen<'o> {
    pub(super) fn new(out: &'o mut dyn Write, format: Format, surroundings: Surroundings) -> Self {
        Self { out, format, surroundings }
    }

    pub(super) fn is_wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// Whether the format is not one for programs.
    pub(super) fn is_for_people(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// Seconds from a point in time until now.
    pub(super) fn seconds_since(&self, epoch_seconds: f64) -> f64 {
        self.surroundings.now - epoch_seconds
    }

    /// Writes the value if the format is one for programs; false where it is one for people.
    pub(super) fn data(&mut self, value: &impl Serialize) -> Result<bool, Failure> {
        match self.format {
            Format::Table | Format::Wide => return Ok(false),
            Format::Json => {
                let text = serde_json::to_string_pretty(value).map_err(Failure::Json)?;
                self.line(&text)?;
            }
            Format::Yaml => {
                let text = serde_yaml_ng::to_string(value)?;
                self.line(text.trim_end())?;
            }
        }
        Ok(true)
    }

    /// As [`data`](Self::data), for one of many that come one after the other: a line, or a document.
    pub(super) fn datum(&mut self, value: &impl Serialize) -> Result<bool, Failure> {
        match self.format {
            Format::Table | Format::Wide => return Ok(false),
            Format::Json => {
                let text = serde_json::to_string(value).map_err(Failure::Json)?;
                self.line(&text)?;
            }
            Format::Yaml => {
                self.line("---")?;
                self.data(value)?;
            }
        }
        self.flush()?;
        Ok(true)
    }

    pub(super) fn table(&mut self, table: &Table) -> Result<(), Failure> {
        let text = table.render(self.surroundings.colour);
        self.bytes(text.as_bytes())
    }

    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.out, "{text}").map_err(Failure::Output)
    }

    /// Before something is waited for.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::Output)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(Failure::Output)
    }

    pub(super) fn painted(&self, tone: Tone, text: &str) -> String {
        tone.paint(text, self.surroundings.colour)
    }
}
