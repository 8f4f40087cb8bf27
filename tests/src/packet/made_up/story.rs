//! A story: a setting, and frames that come and go one after another. Read from an input, told to
//! programs, and judged step by step. Pure: the programs are an argument.
//!
//! ```text
//! setting (see there), then for each frame:
//! 0       how: two bits of Place, then REPAIR, ANSWER, AGAIN, OPEN
//! 1       TCP flags, for ANSWER and AGAIN; 0 leaves them
//! 2..=3   length, big-endian; the input's end cuts it short
//! 4..     the frame; what ANSWER or AGAIN make one from has none
//! ```

use super::judge::{Judge, Wrong};
use super::setting::{LENGTH, NODE, Setting};
use super::wire::{self, Content};

/// Longer stories find nothing more, only later.
const STEPS_MAX: usize = 12;
/// What an Ethernet with two tags carries.
const FRAME_MAX: usize = 14 + 8 + 1500;

pub const REPAIR: u8 = 4;
pub const ANSWER: u8 = 8;
pub const AGAIN: u8 = 16;
pub const OPEN: u8 = 32;

/// Where a frame meets the programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Steering, and delivery of what is passed.
    Arrives,
    /// The same, delivered as behind generic XDP.
    ArrivesGenerically,
    /// The guard at egress.
    Leaves,
}

/// What became of a frame, whatever the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Passed,
    Dropped,
    Sent,
}

/// What became of each frame of a story, and what it was then.
pub type Ends = Vec<(End, Vec<u8>)>;

/// One frame.
#[derive(Clone, Copy, Debug)]
pub struct Step<'i> {
    pub place: Place,
    /// Its sender's card is to complete the checksum of TCP or UDP.
    pub open: bool,
    how: u8,
    flags: u8,
    bytes: &'i [u8],
}

/// The programs that a story is told to.
pub trait Programs {
    /// What keeps a program from running at all.
    type Error;
    /// Whether a frame can have a checksum that a card is to complete.
    const OPEN: bool;

    /// # Errors
    /// Where the program does not run.
    fn steer(&mut self, frame: &mut Vec<u8>, open: bool) -> Result<End, Self::Error>;

    /// # Errors
    /// Where the program does not run.
    fn deliver(&mut self, frame: &mut Vec<u8>, place: Place) -> Result<(), Self::Error>;

    /// # Errors
    /// Where the program does not run.
    fn leave(&mut self, frame: &mut Vec<u8>) -> Result<End, Self::Error>;
}

/// Why a story is not as it ought to be.
#[derive(Debug)]
pub enum Failure<E> {
    Run(E),
    Wrong(Wrong),
}

/// Reads an input; none where it has no setting.
pub fn read(input: &[u8]) -> Option<(Setting, Vec<Step<'_>>)> {
    let (setting, mut rest) = input.split_first_chunk::<LENGTH>()?;
    let mut steps = Vec::new();
    while let Some((&[how, flags, high, low], after)) = rest.split_first_chunk()
        && steps.len() < STEPS_MAX
    {
        let length = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        let (bytes, next) = after.split_at(length);
        rest = next;
        let place = match how % 4 {
            1 => Place::ArrivesGenerically,
            2 => Place::Leaves,
            _ => Place::Arrives,
        };
        let bytes = &bytes[..bytes.len().min(FRAME_MAX)];
        steps.push(Step { place, open: how & OPEN != 0, how, flags, bytes });
    }
    Some((Setting::read(setting), steps))
}

/// Tells a story.
///
/// # Errors
/// Where a program does not run, or does what it must not do.
pub fn tell<P: Programs>(
    programs: &mut P,
    setting: &Setting,
    steps: &[Step<'_>],
) -> Result<Ends, Failure<P::Error>> {
    let mut judge = Judge::new(setting);
    let (mut came, mut sent) = (Vec::new(), Vec::new());
    let mut ends = Vec::new();
    for step in steps {
        let Some(before) = step.frame(&came, &sent) else { continue };
        let mut frame = before.clone();
        let end = match step.place {
            Place::Leaves => {
                let end = programs.leave(&mut frame).map_err(Failure::Run)?;
                judge.left(&before, &frame, end).map_err(Failure::Wrong)?;
                end
            }
            place => {
                let open = step.open && P::OPEN;
                let end = programs.steer(&mut frame, open).map_err(Failure::Run)?;
                judge.steered(&before, &frame, end, open).map_err(Failure::Wrong)?;
                match end {
                    End::Passed => {
                        let open = open && frame != before;
                        programs.deliver(&mut frame, place).map_err(Failure::Run)?;
                        judge.delivered(&before, &frame, open).map_err(Failure::Wrong)?;
                    }
                    End::Sent => sent.clone_from(&frame),
                    End::Dropped => {}
                }
                end
            }
        };
        came = before;
        ends.push((end, frame));
    }
    Ok(ends)
}

/// Whether two programs did the same.
pub fn alike(a: &Ends, b: &Ends) -> bool {
    let mut pairs = a.iter().zip(b);
    a.len() == b.len() && pairs.all(|(a, b)| a.0 == b.0 && wire::normal(&a.1) == wire::normal(&b.1))
}

impl Step<'_> {
    /// The frame that comes, after the one that came and the one that was sent last.
    fn frame(&self, came: &[u8], sent: &[u8]) -> Option<Vec<u8>> {
        let mut frame = match self.how {
            how if how & ANSWER != 0 => turned(sent)?,
            how if how & AGAIN != 0 => came.to_vec(),
            _ => self.bytes.to_vec(),
        };
        if self.how & (ANSWER | AGAIN) != 0
            && self.flags != 0
            && let Content::Ip(ip) = wire::read(&frame)
            && ip.protocol == wire::TCP
            && let Some(flags) = frame.get_mut(ip.transport + 13)
        {
            *flags = self.flags;
        }
        if self.how & REPAIR != 0 {
            wire::repair(&mut frame);
        }
        // The kernel runs no program on less than a link header.
        (frame.len() >= 14).then_some(frame)
    }
}

/// What the receiver of a frame answers with: both ends swapped, to this node.
fn turned(frame: &[u8]) -> Option<Vec<u8>> {
    let Content::Ip(ip) = wire::read(frame) else { return None };
    let mut turned = frame.to_vec();
    let (to, from) = turned.split_at_mut(6);
    from[..6].copy_from_slice(to);
    to.copy_from_slice(&NODE.mac);
    let addresses = turned.get_mut(ip.addresses())?;
    let half = addresses.len() / 2;
    addresses.rotate_left(half);
    turned.get_mut(ip.transport..ip.transport + 4)?.rotate_left(2);
    turned[ip.ttl_at()] = 64;
    Some(turned)
}
