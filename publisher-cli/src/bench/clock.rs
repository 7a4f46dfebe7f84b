//! The run's clock.

use std::time::{Duration, Instant};

pub(super) const SECOND: u64 = 1_000_000_000;

/// Nanoseconds since it was made: times that fit into a stamp, and that arithmetic is easy with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> u64 {
        nanoseconds(self.0.elapsed())
    }

    pub(super) fn at(self, moment: Instant) -> u64 {
        nanoseconds(moment.saturating_duration_since(self.0))
    }
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

pub(super) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
