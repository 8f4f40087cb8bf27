//! How long a service was away for who asks it again and again: what the moments of datagrams and of
//! their answers tell. Pure.
//!
//! The **gap** is the longest wait of a client that asks at some moment and then, until an answer comes,
//! asks again as often as the prober did. A datagram's wait ends with the first answer to it or to any
//! later one. It begins
//!
//! - where the datagram was answered, with its sending: an answer that is late by 30 ms, and so are those
//!   to the next 29 datagrams, is a gap of 30 ms;
//! - where it never was, with the sending of the last one before it that was: the service may have gone
//!   right after that. So one lost datagram is a gap of two intervals, and a hundred of 101.
//!
//! A pause of the prober is no gap: what nobody asked, nobody failed to answer. A pause next to a lost
//! datagram counts in full, since nobody knows when in it the service went or came. What is unanswered in
//! the end counts until the waiting for answers ended.

use std::time::Duration;

/// One datagram, by one clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    pub(super) sent: Duration,
    pub(super) answered: Option<Duration>,
}

/// The gap of datagrams in the order in which they were sent; answers were awaited until `end`.
pub(super) fn gap(asked: &[Asked], end: Duration) -> Duration {
    let mut began: Vec<Duration> = Vec::with_capacity(asked.len());
    for Asked { sent, answered } in asked {
        // What was never answered has the beginning of the one before it.
        let unanswered = began.last().copied().filter(|_| answered.is_none());
        began.push(unanswered.unwrap_or(*sent));
    }
    let (mut longest, mut answer) = (Duration::ZERO, end);
    for (began, Asked { answered, .. }) in began.into_iter().zip(asked).rev() {
        answer = answered.map_or(answer, |at| at.min(answer));
        longest = longest.max(answer.saturating_sub(began));
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::random::Random;

    const END_MS: u64 = 1000;

    fn asked(sent_ms: u64, after_ms: Option<u64>) -> Asked {
        let sent = Duration::from_millis(sent_ms);
        Asked { sent, answered: after_ms.map(|after| sent + Duration::from_millis(after)) }
    }

    /// One each millisecond, up to the end.
    fn each_millisecond(after_ms: impl Fn(u64) -> Option<u64>) -> Vec<Asked> {
        (0..END_MS).map(|sent| asked(sent, after_ms(sent))).collect()
    }

    fn gap_ms(asked: &[Asked]) -> u128 {
        gap(asked, Duration::from_millis(END_MS)).as_millis()
    }

    #[test]
    fn a_pause_alone_is_no_gap() {
        let paused: Vec<_> = [0, 1, 2, 50, 51].map(|sent| asked(sent, Some(0))).into();
        assert_eq!(gap_ms(&paused), 0);
    }

    #[test]
    fn one_lost_datagram_is_a_gap_of_two_intervals_and_a_hundred_of_101() {
        assert_eq!(gap_ms(&each_millisecond(|sent| (sent != 500).then_some(0))), 2);
        let lost = 500..600;
        assert_eq!(gap_ms(&each_millisecond(|sent| (!lost.contains(&sent)).then_some(0))), 101);
    }

    #[test]
    fn two_gaps_count_as_the_longer_one() {
        let lost = [100, 101, 102, 500];
        assert_eq!(gap_ms(&each_millisecond(|sent| (!lost.contains(&sent)).then_some(0))), 4);
    }

    #[test]
    fn a_pause_next_to_a_lost_datagram_counts_in_full() {
        let before: Vec<_> =
            [(0, Some(0)), (30, None), (31, Some(0))].map(|(s, a)| asked(s, a)).into();
        assert_eq!(gap_ms(&before), 31);
        let after: Vec<_> =
            [(0, Some(0)), (1, None), (31, Some(0))].map(|(s, a)| asked(s, a)).into();
        assert_eq!(gap_ms(&after), 31);
    }

    #[test]
    fn datagrams_that_waited_somewhere_are_a_gap_as_long_as_the_first_waited() {
        let queued = |sent| Some(if (500..530).contains(&sent) { 530 - sent } else { 0 });
        assert_eq!(gap_ms(&each_millisecond(queued)), 30);
    }

    #[test]
    fn one_late_answer_among_prompt_ones_costs_a_client_that_asks_again_one_interval() {
        let late = |sent| Some(if sent == 500 { 30 } else { 0 });
        assert_eq!(gap_ms(&each_millisecond(late)), 1);
    }

    #[test]
    fn lost_datagrams_before_late_answers_count_until_those_came() {
        let after = |sent| match sent {
            500..510 => None,
            510..540 => Some(540 - sent),
            _ => Some(0),
        };
        assert_eq!(gap_ms(&each_millisecond(after)), 540 - 499);
    }

    #[test]
    fn what_is_unanswered_in_the_end_or_from_the_beginning_counts() {
        assert_eq!(gap_ms(&each_millisecond(|sent| (sent < 900).then_some(0))), 101);
        assert_eq!(gap_ms(&each_millisecond(|sent| (sent >= 100).then_some(0))), 100);
        assert_eq!(gap_ms(&each_millisecond(|_| None)), u128::from(END_MS));
        assert_eq!(gap_ms(&[]), 0);
    }

    #[test]
    fn losing_or_delaying_an_answer_never_makes_the_gap_shorter() {
        for seed in 0..2000 {
            let random = &mut Random::new(seed);
            let millisecond = Duration::from_millis(1);
            let mut at = Duration::ZERO;
            let count = random.below(49) + 1;
            let mut draw = || {
                at += millisecond + random.time(18 * millisecond);
                let after = random.chance(50).then(|| random.time(40 * millisecond));
                Asked { sent: at, answered: after.map(|after| at + after) }
            };
            let mut all: Vec<_> = std::iter::repeat_with(&mut draw).take(count).collect();
            let end = at + 200 * millisecond;
            let before = gap(&all, end);
            let later = random.chance(50).then(|| random.time(100 * millisecond));
            let one = &mut all[random.below(count)];
            one.answered = one.answered.zip(later).map(|(at, later)| at + later);
            assert!(gap(&all, end) >= before, "seed {seed}: {all:?}");
        }
    }
}
