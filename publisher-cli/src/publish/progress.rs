//! A progress bar with a rate on stderr, for bulk input and only when a person watches.

use crate::{
    exit::Failure,
    output::{self, Output},
};
use indicatif::{HumanCount, HumanFloatCount, ProgressBar, ProgressStyle};
use std::{cell::Cell, time::Duration};

/// The bar, or nothing where none belongs.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    events: Cell<u64>,
    /// Positions are printed to the same terminal, and must not land in the bar's line.
    shares_terminal: bool,
}

impl Progress {
    pub(super) fn none() -> Self {
        Self { bar: None, events: Cell::new(0), shares_terminal: false }
    }

    /// A bar if stderr is a terminal; `total_bytes` is the input's length if that is known.
    pub(super) fn new(total_bytes: Option<u64>) -> Self {
        if !output::stderr_is_terminal() {
            return Self::none();
        }
        let (bar, template) = match total_bytes {
            Some(total) => (
                ProgressBar::new(total),
                "{msg} [{wide_bar}] {bytes}/{total_bytes} {binary_bytes_per_sec} {elapsed}, {eta} left",
            ),
            None => (ProgressBar::no_length(), "{spinner} {msg} {bytes} {binary_bytes_per_sec} {elapsed}"),
        };
        // The templates are constants; were one wrong, the default style is still a bar.
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar: Some(bar), events: Cell::new(0), shares_terminal: output::stdout_is_terminal() }
    }

    pub(super) fn add(&self, events: usize, bytes: u64) {
        let Some(bar) = &self.bar else { return };
        bar.inc(bytes);
        self.events.set(self.events.get() + events as u64);
        let (events, seconds) = (self.events.get(), bar.elapsed().as_secs_f64());
        if seconds > 0.0 {
            let rate = HumanFloatCount((events as f64 / seconds).round());
            bar.set_message(format!("{} events, {rate}/s", HumanCount(events)));
        }
    }

    /// Runs what writes to stderr, with the bar out of its way.
    pub(super) fn suspended(&self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Prints results, with the bar out of their way.
    pub(super) async fn print(&self, output: &mut Output, results: &str) -> Result<(), Failure> {
        match &self.bar {
            Some(bar) if self.shares_terminal => bar.suspend(|| Output::write_now(results.as_bytes())),
            _ => output.write(results.as_bytes()).await,
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}
