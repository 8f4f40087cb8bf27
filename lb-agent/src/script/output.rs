//! What a script says, of which the last line is kept, however much it prints.

use std::io::{self, PipeWriter};

use tokio::net::unix::pipe;

/// Longest line that is kept, in characters: it is shown in a sentence.
const LINE_CHARS: usize = 160;
/// Enough for that line in any encoding, and for empty ones behind it.
const TAIL_BYTES: usize = 4096;
/// Reads after the end: more than a pipe holds, and less than a process that got away can write.
const LAST_READS: usize = 64;

/// The reading end of a script's output.
#[derive(Debug)]
pub(super) struct Output {
    reader: pipe::Receiver,
    tail: Tail,
    open: bool,
}

impl Output {
    /// With the end that the script gets.
    pub(super) fn new() -> io::Result<(Self, PipeWriter)> {
        let (reader, writer) = io::pipe()?;
        let reader = pipe::Receiver::from_owned_fd(reader.into())?;
        Ok((Self { reader, tail: Tail::default(), open: true }, writer))
    }

    pub(super) const fn is_open(&self) -> bool {
        self.open
    }

    pub(super) async fn read_on(&mut self) {
        if self.reader.readable().await.is_err() {
            self.open = false;
            return;
        }
        self.read();
    }

    /// False where nothing is there.
    fn read(&mut self) -> bool {
        let mut piece = [0; 1024];
        match self.reader.try_read(&mut piece) {
            Ok(0) => {
                self.open = false;
                false
            }
            Ok(length) => {
                self.tail.push(&piece[..length]);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => {
                self.open = false;
                false
            }
        }
    }

    /// Reads what was still in the pipe.
    pub(super) fn finish(&mut self) {
        for _ in 0..LAST_READS {
            if !self.open || !self.read() {
                return;
            }
        }
    }

    pub(super) fn last_line(&self) -> String {
        self.tail.last_line()
    }
}

/// The end of an output.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let surplus = self.0.len().saturating_sub(TAIL_BYTES);
        self.0.drain(..surplus);
    }

    /// The last line that says something, fit for a terminal.
    fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
        let harmless = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        line.chars().take(LINE_CHARS).map(harmless).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_line(pieces: &[&[u8]]) -> String {
        let mut tail = Tail::default();
        for piece in pieces {
            tail.push(piece);
        }
        tail.last_line()
    }

    #[test]
    fn the_last_line_that_says_something_is_kept() {
        assert_eq!(last_line(&[b"one\ntw", b"o\n", b"\n  \n"]), "two");
        assert_eq!(last_line(&[]), "");
    }

    #[test]
    fn control_characters_and_broken_text_do_no_harm() {
        assert_eq!(last_line(&[b"a\x1b[31mb\xff"]), "a\u{fffd}[31mb\u{fffd}");
    }

    #[test]
    fn endless_output_takes_bounded_room() {
        let mut tail = Tail::default();
        for _ in 0..1000 {
            tail.push(&[b'x'; 1000]);
        }
        assert!(tail.0.len() <= TAIL_BYTES);
        assert_eq!(tail.last_line().len(), LINE_CHARS);
    }
}
