//! What two nodes say to one another, within a channel that nobody else can read or write. Pure.
//!
//! The one who tells says [`Word::Hello`] and hears [`Word::Welcome`]; then, for each look at its map, any number
//! of [`Word::Flows`] and one [`Word::Mark`], to which it hears [`Word::Heard`]. A word is its kind, one byte, and
//! what follows; numbers are big-endian.

use thiserror::Error;

use super::record::{self, Record};

/// Of what is said here; the first thing that is said.
pub(super) const VERSION: u8 = 1;

/// Flows in one word: it fits a message of Noise, 65,535 bytes.
pub(super) const FLOWS_MAX: usize = 800;

/// Bytes of a node's name.
const NAME_MAX: usize = 255;

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const FLOWS: u8 = 3;
const MARK: u8 = 4;
const HEARD: u8 = 5;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Word {
    /// Who tells, and which run of it: looks are counted anew in each.
    Hello { run: u64, node: String },
    /// Up to which look of which run everything was heard; 0 where nothing was.
    Welcome { run: u64, look: u64 },
    /// At most [`FLOWS_MAX`].
    Flows(Vec<Record>),
    /// All that this look found was told.
    Mark { look: u64 },
    /// It was heard.
    Heard { look: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum WordError {
    #[error(
        "it speaks version {0} of NAT synchronisation, this agent {VERSION}: upgrade one of them"
    )]
    Version(u8),
    #[error("it says what no agent says")]
    Malformed,
    #[error("it speaks out of turn")]
    OutOfTurn,
}

impl Word {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Hello { run, node } => {
                bytes.extend([HELLO, VERSION]);
                bytes.extend(run.to_be_bytes());
                bytes.extend(node.as_bytes().iter().take(NAME_MAX));
            }
            Self::Welcome { run, look } => {
                bytes.push(WELCOME);
                bytes.extend(run.to_be_bytes());
                bytes.extend(look.to_be_bytes());
            }
            Self::Flows(records) => {
                bytes.reserve(1 + records.len() * record::SIZE);
                bytes.push(FLOWS);
                records.iter().take(FLOWS_MAX).for_each(|record| record.write(&mut bytes));
            }
            Self::Mark { look } => {
                bytes.push(MARK);
                bytes.extend(look.to_be_bytes());
            }
            Self::Heard { look } => {
                bytes.push(HEARD);
                bytes.extend(look.to_be_bytes());
            }
        }
        bytes
    }

    /// # Errors
    /// Where the bytes are none that [`bytes`](Self::bytes) makes.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, WordError> {
        let (kind, rest) = bytes.split_first().ok_or(WordError::Malformed)?;
        if *kind == HELLO
            && let Some(version) = rest.first().filter(|version| **version != VERSION)
        {
            return Err(WordError::Version(*version));
        }
        let word = match *kind {
            HELLO => rest.get(1..).and_then(hello),
            WELCOME => numbers(rest).map(|[run, look]| Self::Welcome { run, look }),
            FLOWS => flows(rest),
            MARK => numbers(rest).map(|[look]| Self::Mark { look }),
            HEARD => numbers(rest).map(|[look]| Self::Heard { look }),
            _ => None,
        };
        word.ok_or(WordError::Malformed)
    }
}

fn hello(bytes: &[u8]) -> Option<Word> {
    let (run, node) = bytes.split_at_checked(8)?;
    let node = std::str::from_utf8(node).ok().filter(|node| node.len() <= NAME_MAX)?;
    Some(Word::Hello { run: u64::from_be_bytes(run.try_into().ok()?), node: node.to_owned() })
}

fn flows(bytes: &[u8]) -> Option<Word> {
    let (records, []) = bytes.as_chunks::<{ record::SIZE }>() else { return None };
    if records.len() > FLOWS_MAX {
        return None;
    }
    records.iter().map(Record::read).collect::<Option<_>>().map(Word::Flows)
}

/// So many numbers and nothing more.
fn numbers<const COUNT: usize>(bytes: &[u8]) -> Option<[u64; COUNT]> {
    let (chunks, []) = bytes.as_chunks::<8>() else { return None };
    let numbers: Vec<u64> = chunks.iter().map(|chunk| u64::from_be_bytes(*chunk)).collect();
    numbers.try_into().ok()
}
