//! How many ICMP errors this node has sent of late (RFC 1812, 4.3.2.8, RFC 4443, 2.4(f)).

/// The value of the per-CPU map `answers`.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Answers {
    /// `CLOCK_MONOTONIC`, in whole seconds.
    pub second: u64,
    /// Errors in that second.
    pub sent: u64,
}

/// Errors that a CPU sends in a second.
pub const ANSWERS_PER_SECOND: u64 = 1000;

impl Answers {
    /// Takes one of this second's; whether one was left.
    #[inline(always)]
    pub const fn take(&mut self, second: u64) -> bool {
        if self.second != second {
            self.second = second;
            self.sent = 0;
        }
        if self.sent >= ANSWERS_PER_SECOND {
            return false;
        }
        self.sent += 1;
        true
    }
}

const _: () = assert!(size_of::<Answers>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_and_the_next_one_as_many_again() {
        let mut answers = Answers::default();
        for second in [7, 8] {
            let taken = (0..5000).filter(|_| answers.take(second)).count();
            assert_eq!(taken as u64, ANSWERS_PER_SECOND);
        }
    }
}
