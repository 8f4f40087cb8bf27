//! Figures as people read them: ages, bytes, shares.

use std::time::Duration;

use crate::config::duration_text;

/// How long ago, in its one or two largest units: `3m12s`, `2d4h`.
pub(super) fn age(seconds: f64) -> String {
    // A clock that was set back, or an answer that makes no sense, is "just now".
    let seconds = if seconds.is_finite() { seconds.max(0.0) } else { 0.0 };
    let whole = seconds as u64;
    let kept = match whole {
        0..3600 => whole,
        3600..86_400 => whole / 60 * 60,
        _ => whole / 3600 * 3600,
    };
    duration_text(Duration::from_secs(kept))
}

pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut scaled = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // 1023.95 would be shown as 1024.0.
        if scaled < 1023.95 {
            break;
        }
        scaled /= 1024.0;
        unit = larger;
    }
    format!("{scaled:.1} {unit}")
}

/// A fraction as a percentage.
pub(super) fn share(fraction: f64) -> String {
    format!("{:.1}%", fraction * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_keep_their_largest_units() {
        for (seconds, text) in [
            (-5.0, "0s"),
            (f64::NAN, "0s"),
            (0.9, "0s"),
            (59.0, "59s"),
            (192.0, "3m12s"),
            (3661.0, "1h1m"),
            (187_300.0, "2d4h"),
        ] {
            assert_eq!(age(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn bytes_change_their_unit_in_time() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
