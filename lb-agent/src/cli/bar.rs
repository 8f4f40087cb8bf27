//! The progress of something that ends connections, or waits for their end.

use indicatif::{ProgressBar, ProgressStyle};

/// How many connections are left of how many there were, on a terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let style = ProgressStyle::with_template("{elapsed} [{bar:40}] {msg}");
        // The template is right; without it the bar has its usual look.
        Self(ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    /// `what` becomes of them follows their number.
    pub(super) fn show(&self, left: Option<u64>, what: &str) {
        let Some(left) = left else { return self.0.set_message("counting") };
        let most = self.0.length().unwrap_or(0).max(left);
        self.0.set_length(most);
        self.0.set_position(most - left);
        self.0.set_message(format!("{left} of {most} connections {what}"));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
