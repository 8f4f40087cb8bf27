//! New stories out of known ones: bytes changed, cut out, repeated, and ends of two put together. Blind,
//! unlike libFuzzer, whose finds it begins with. Pure.

use crate::simulation::random::Random;

/// Changes to one story. More make nonsense of it.
const CHANGES_MAX: usize = 6;
/// Values at which code often changes its mind.
const EDGES: [u8; 8] = [0, 1, 4, 5, 0x7f, 0x80, 0xfe, 0xff];

/// A story that nobody told before, by the numbers drawn.
pub(super) fn story(random: &mut Random, known: &[Vec<u8>]) -> Vec<u8> {
    let mut story = known[random.below(known.len())].clone();
    if random.chance(20) {
        let other = &known[random.below(known.len())];
        story.truncate(random.below(story.len() + 1));
        story.extend_from_slice(&other[random.below(other.len() + 1)..]);
    }
    for _ in 0..=random.below(CHANGES_MAX) {
        change(random, &mut story);
    }
    story
}

fn change(random: &mut Random, story: &mut Vec<u8>) {
    let at = random.below(story.len());
    let Some(byte) = story.get_mut(at) else { return };
    match random.below(6) {
        0 => *byte ^= 1 << random.below(8),
        1 => *byte = random.between(0, u8::MAX),
        2 => *byte = random.pick(&EDGES),
        3 => *byte = byte.wrapping_add(random.pick(&[1, u8::MAX])),
        4 => {
            let end = (at + 1 + random.below(8)).min(story.len());
            story.drain(at..end);
        }
        _ => {
            let end = (at + 1 + random.below(8)).min(story.len());
            let again = story[at..end].to_vec();
            story.splice(at..at, again);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_story_and_most_stories_are_new() {
        let known = [vec![7; 40], (0..60).collect::<Vec<u8>>()];
        let of = |seed| story(&mut Random::new(seed), &known);
        let new = (0..100).filter(|seed| !known.contains(&of(*seed))).count();
        assert!(new > 90, "{new} of 100");
        assert!((0..100).all(|seed| of(seed) == of(seed)));
        story(&mut Random::new(1), &[Vec::new()]);
    }
}
