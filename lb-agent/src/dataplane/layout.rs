//! Layouts of the pinned maps, as values: which version this agent has, and what becomes of another
//! one's maps. Pure.
//!
//! Of two agents the newer one knows both layouts, so it does what is to be done, in either direction. A
//! map that is the same in both is not copied: it is pinned in both places, and no flow is lost in between.

use lb_common::layout::{LAYOUT_VERSION, map};

/// The layout that an agent's maps have.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Part of the pins' path.
    pub version: u32,
    /// Those that can be taken over from, and gone back to.
    pub former: &'static [Former],
}

/// An earlier layout, by what is different in it.
#[derive(Clone, Copy, Debug)]
pub struct Former {
    pub version: u32,
    pub changed: &'static [Changed],
}

/// A map that has another key, value or meaning.
#[derive(Clone, Copy, Debug)]
pub struct Changed {
    pub map: &'static str,
    pub carry: Carry,
}

/// What becomes of a changed map's elements.
#[derive(Clone, Copy, Debug)]
pub enum Carry {
    /// Nothing: the agent writes them anew, or they are not worth it.
    Anew,
    /// They are copied, under the same keys.
    Copied {
        /// From the former to the newer.
        up: Convert,
        /// Back.
        down: Convert,
    },
}

/// Makes a value of another layout: reads the one, fills the other, which is zero before.
pub type Convert = fn(&[u8], &mut [u8]);

/// The conversion where values only have become longer, or shorter: what both have is the same.
pub fn resized(from: &[u8], to: &mut [u8]) {
    let both = from.len().min(to.len());
    to[..both].copy_from_slice(&from[..both]);
}

/// Whether the agent goes to the newer layout or back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    Up,
    Down,
}

/// What becomes of one map.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// The same map is pinned in both places.
    Shared,
    Anew,
    Copied(Convert),
}

impl Layout {
    /// This version's.
    pub const CURRENT: Self = Self { version: LAYOUT_VERSION, former: &[] };

    pub fn former(&self, version: u32) -> Option<&'static Former> {
        self.former.iter().find(|former| former.version == version)
    }
}

impl Former {
    /// What becomes of a map on the way.
    pub(super) fn fate(&self, name: &str, direction: Direction) -> Fate {
        // Programs go on with programs of their own layout alone.
        if [map::XDP_STAGES, map::TC_STAGES].contains(&name) {
            return Fate::Anew;
        }
        let changed = self.changed.iter().find(|changed| changed.map == name);
        match (changed.map(|changed| changed.carry), direction) {
            (None, _) => Fate::Shared,
            (Some(Carry::Anew), _) => Fate::Anew,
            (Some(Carry::Copied { up, .. }), Direction::Up) => Fate::Copied(up),
            (Some(Carry::Copied { down, .. }), Direction::Down) => Fate::Copied(down),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_change_is_shared_and_programs_never_are() {
        const CHANGED: [Changed; 2] = [
            Changed { map: map::NAT_FLOWS, carry: Carry::Copied { up: resized, down: resized } },
            Changed { map: map::TABLES, carry: Carry::Anew },
        ];
        let former = Former { version: 1, changed: &CHANGED };
        for direction in [Direction::Up, Direction::Down] {
            assert!(matches!(former.fate(map::NAT_FLOWS, direction), Fate::Copied(_)));
            assert!(matches!(former.fate(map::TABLES, direction), Fate::Anew));
            assert!(matches!(former.fate(map::XDP_STAGES, direction), Fate::Anew));
            assert!(matches!(former.fate(map::LEASES, direction), Fate::Shared));
        }
    }

    #[test]
    fn a_longer_value_ends_in_zeros_and_a_shorter_one_earlier() {
        let (mut longer, mut shorter) = ([0; 4], [0; 1]);
        resized(&[1, 2], &mut longer);
        resized(&[1, 2], &mut shorter);
        assert_eq!((longer, shorter), ([1, 2, 0, 0], [1]));
    }
}
