//! Columns of text: upper-case headings, two spaces between, no lines, so that `awk` and `column`
//! read them too.

use super::screen::Tone;

/// A word of the table.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn toned(tone: Tone, text: impl Into<String>) -> Self {
        // What comes over the API is not to break a line or drive a terminal.
        let text: String =
            text.into().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = if text.is_empty() { "-".to_owned() } else { text };
        Self { text, tone }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(value: T) -> Self {
        Self::toned(Tone::Plain, value.to_string())
    }
}

pub(super) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(headings: impl IntoIterator<Item = &'static str>) -> Self {
        Self { headings: headings.into_iter().collect(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let row: Vec<Cell> = cells.into_iter().collect();
        debug_assert_eq!(row.len(), self.headings.len(), "a cell for each heading");
        self.rows.push(row);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn render(&self, colour: bool) -> String {
        let headings: Vec<Cell> = self.headings.iter().map(|text| Cell::from(*text)).collect();
        let mut widths = vec![0; self.headings.len()];
        for row in std::iter::once(&headings).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.width().max(*width);
            }
        }
        let mut text = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut padding = 0;
            for (width, cell) in widths.iter().zip(row) {
                text.push_str(&" ".repeat(padding));
                text.push_str(&cell.tone.paint(&cell.text, colour));
                padding = width - cell.width() + 2;
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(["NAME", "STATE", "REASON"]);
        table.row([Cell::from("one"), Cell::toned(Tone::Good, "healthy"), Cell::from("")]);
        table.row([
            Cell::from("another"),
            Cell::toned(Tone::Bad, "down"),
            Cell::from("a\nb\x1b[31m"),
        ]);
        table
    }

    #[test]
    fn columns_line_up_and_no_line_ends_in_spaces() {
        let text = sample().render(false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "NAME     STATE    REASON");
        assert_eq!(lines[1], "one      healthy  -");
        assert_eq!(lines.len(), 3, "an answer cannot add lines: {text:?}");
        assert!(!text.contains('\x1b'), "nor drive the terminal: {text:?}");
    }

    #[test]
    fn colour_changes_no_width() {
        let coloured = sample().render(true);
        assert!(coloured.contains("\x1b[32mhealthy\x1b[0m"));
        let plain = coloured.replace("\x1b[32m", "").replace("\x1b[31m", "").replace("\x1b[0m", "");
        assert_eq!(plain, sample().render(false));
    }
}
