//! What a long measurement is doing, on stderr, and only when a person watches.

use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// Often enough to watch, and seldom enough to cost nothing.
const EVERY: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    last: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = output::stderr_is_terminal().then(|| {
            let bar = ProgressBar::no_length();
            // The template is a constant; were it wrong, the default style is still a spinner.
            let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar
        });
        Self { bar, last: Instant::now() }
    }

    /// Shows a text, if it is time to.
    pub(super) fn show(&mut self, text: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar
            && self.last.elapsed() >= EVERY
        {
            self.last = Instant::now();
            bar.set_message(text());
            bar.tick();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
