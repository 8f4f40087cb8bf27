//! A kernel's release, as far as it says what the kernel can do.

use std::fmt;

/// Major and minor number, as in `6.1.0-56-cloud-amd64`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Release {
    pub major: u16,
    pub minor: u16,
}

impl Release {
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Reads what `uname -r` prints.
    pub fn read(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_compare_by_number() {
        let read = |text| Release::read(text).unwrap();
        assert_eq!(read("6.1.0-56-cloud-amd64"), Release::new(6, 1));
        assert!(read("6.12.117+deb12-amd64") > read("6.6.0"));
        assert!(read("5.14.0-503.el9.x86_64") < Release::new(5, 18));
        assert_eq!(Release::read("unknown"), None);
    }
}
