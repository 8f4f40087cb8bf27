//! A frame in memory, as the programs at XDP and tc see one each.

use std::ptr;

use lb_common::checksum::Difference;
use lb_ebpf::environment::Frame;

/// Whose rules hold for what can be read and written, and for checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Xdp,
    Tc,
}

/// The interface that frames come in on and leave by.
pub const INTERFACE: u32 = 1;

/// What tc has pulled into the first piece before it looks: the longest headers that are read.
const PULLED: usize = 14 + 8 + 60 + 20;

pub struct Bytes {
    pub bytes: Vec<u8>,
    kind: Kind,
    /// Bytes in the first piece.
    linear: usize,
    /// The card is to complete the checksum.
    open: bool,
}

impl Bytes {
    pub fn new(bytes: Vec<u8>, kind: Kind, linear: Option<usize>, open: bool) -> Self {
        let least = match kind {
            Kind::Xdp => 14,
            Kind::Tc => PULLED,
        };
        let linear = linear.map_or(bytes.len(), |linear| linear.max(least).min(bytes.len()));
        Self { bytes, kind, linear, open: open && kind == Kind::Tc }
    }

    /// Pulls so many bytes into the first piece, as tc does before it looks deeper.
    pub fn reach(&mut self, bytes: usize) {
        if self.kind == Kind::Tc {
            self.linear = self.linear.max(bytes.min(self.bytes.len()));
        }
    }

    fn word(&self, offset: usize) -> Option<u16> {
        self.bytes.get(offset..)?.first_chunk().map(|word| u16::from_ne_bytes(*word))
    }

    fn set_word(&mut self, offset: usize, word: u16) -> Option<()> {
        *self.bytes.get_mut(offset..)?.first_chunk_mut()? = word.to_ne_bytes();
        Some(())
    }

    /// `bpf_l4_csum_replace` with a difference (net/core/filter.c, `inet_proto_csum_replace_by_diff`).
    fn replace(&mut self, offset: usize, by: Difference, pseudo: bool, udp: bool) -> Option<()> {
        let sum = self.word(offset)?;
        if udp && sum == 0 {
            return Some(());
        }
        let sum = match (self.open, pseudo) {
            (false, _) => by.apply(sum),
            // The field is a sum, not yet turned round.
            (true, true) => !by.apply(!sum),
            (true, false) => sum,
        };
        self.set_word(offset, if udp && sum == 0 { 0xffff } else { sum })
    }
}

impl Frame for Bytes {
    fn load<T: Copy>(&self, offset: usize) -> Option<T> {
        let bytes = self.bytes[..self.linear].get(offset..offset + size_of::<T>())?;
        // SAFETY: as many bytes as T has; the trait demands that any bytes are a valid T.
        Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
    }

    fn store<T: Copy>(&mut self, offset: usize, value: T) -> Option<()> {
        let end = if self.kind == Kind::Xdp { self.linear } else { self.bytes.len() };
        let bytes = self.bytes[..end].get_mut(offset..offset + size_of::<T>())?;
        // SAFETY: as many bytes as T has.
        unsafe { ptr::write_unaligned(bytes.as_mut_ptr().cast(), value) };
        Some(())
    }

    fn correct_checksum(
        &mut self,
        offset: usize,
        pseudo: Difference,
        body: Difference,
        udp: bool,
    ) -> Option<()> {
        if self.kind == Kind::Tc {
            self.replace(offset, pseudo, true, udp)?;
            return self.replace(offset, body, false, udp);
        }
        let sum = pseudo.and(body).apply(self.load(offset)?);
        self.store(offset, if udp && sum == 0 { 0xffff } else { sum })
    }

    fn grow(&mut self, bytes: usize) -> Option<()> {
        self.bytes.splice(0..0, vec![0; bytes]);
        self.linear += bytes;
        Some(())
    }

    fn end_at(&mut self, length: usize) -> Option<()> {
        self.bytes.resize(length, 0);
        self.linear = self.linear.min(length);
        Some(())
    }

    fn length(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn interface_index(&self) -> u32 {
        INTERFACE
    }
}
