//! Latencies: recorded in microseconds, told as percentiles.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::io;

/// An hour: what takes longer counts as that.
const MAX_US: u64 = 3_600_000_000;

#[derive(Clone, Debug)]
pub(super) struct Latency(Histogram<u64>);

/// In microseconds, to three digits; absent where nothing was recorded.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) max: u64,
    pub(super) mean: u64,
}

impl Latency {
    pub(super) fn new() -> io::Result<Self> {
        Histogram::new_with_bounds(1, MAX_US, 3).map(Self).map_err(io::Error::other)
    }

    pub(super) fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record((nanoseconds / 1_000).max(1));
    }

    pub(super) fn clear(&mut self) {
        self.0.reset();
    }

    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| self.0.value_at_quantile(quantile).min(self.0.max());
        let mean = self.0.mean().round() as u64;
        let all = Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: self.0.max(), mean };
        (!self.0.is_empty()).then_some(all)
    }
}
