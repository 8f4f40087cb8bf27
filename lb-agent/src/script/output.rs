//! What is kept of a script's output: its last line, however much it prints. Pure.

/// Longest line that is kept, in characters: it is shown in a sentence.
const LINE_CHARS: usize = 200;
/// Enough for that line in any encoding, and for empty ones behind it.
const KEPT_BYTES: usize = 4096;

/// The end of an output.
#[derive(Default, Debug)]
pub(super) struct Output {
    tail: Vec<u8>,
}

impl Output {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let surplus = self.tail.len().saturating_sub(KEPT_BYTES);
        self.tail.drain(..surplus);
    }

    /// The last line that is not empty, without what would disturb a terminal.
    pub(super) fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
        line.chars().filter(|c| !c.is_control()).take(LINE_CHARS).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_line(pieces: &[&[u8]]) -> String {
        let mut output = Output::default();
        for piece in pieces {
            output.push(piece);
        }
        output.last_line()
    }

    #[test]
    fn the_last_line_that_says_something_is_kept() {
        assert_eq!(last_line(&[b"one\ntw", b"o\n", b"\n  \n"]), "two");
        assert_eq!(last_line(&[]), "");
    }

    #[test]
    fn control_characters_and_broken_text_do_no_harm() {
        assert_eq!(last_line(&[b"a\x1b[31mb\xff"]), "a[31mb\u{fffd}");
    }

    #[test]
    fn endless_output_takes_bounded_room() {
        let mut output = Output::default();
        for _ in 0..1000 {
            output.push(&[b'x'; 1000]);
        }
        assert!(output.tail.len() <= KEPT_BYTES);
        assert_eq!(output.last_line().len(), LINE_CHARS);
    }
}
