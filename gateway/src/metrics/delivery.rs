//! A histogram that counts many deliveries in one step: one event goes to thousands of sockets in one pass, and a
//! clock read and an atomic for each of them would cost as much as our share of the write.

use prometheus::{
    core::{Collector, Desc},
    proto,
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Upper bounds of the buckets, in microseconds.
pub(super) const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// See the module's documentation. Clones count into the same buckets.
#[derive(Clone)]
pub struct DeliveryHistogram(Arc<Inner>);

struct Inner {
    desc: Desc,
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

impl DeliveryHistogram {
    pub(super) fn new(name: &str, help: &str) -> Self {
        #[expect(clippy::expect_used, reason = "the name is a constant")]
        let desc = Desc::new(name.to_owned(), help.to_owned(), Vec::new(), std::collections::HashMap::new())
            .expect("a valid metric");
        Self(Arc::new(Inner { desc, counts: Default::default(), sum_micros: AtomicU64::new(0) }))
    }

    /// Counts `deliveries` that each took `micros`.
    pub fn observe(&self, micros: u64, deliveries: u64) {
        let bucket = BOUNDS.partition_point(|&bound| bound < micros);
        self.0.counts[bucket].fetch_add(deliveries, Ordering::Relaxed);
        self.0.sum_micros.fetch_add(micros.saturating_mul(deliveries), Ordering::Relaxed);
    }
}

impl Collector for DeliveryHistogram {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut total = 0;
        let mut buckets = Vec::with_capacity(BOUNDS.len());
        for (count, bound) in self.0.counts.iter().zip(BOUNDS) {
            total += count.load(Ordering::Relaxed);
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound as f64 / 1e6);
            bucket.set_cumulative_count(total);
            buckets.push(bucket);
        }
        total += self.0.counts[BOUNDS.len()].load(Ordering::Relaxed);
        let mut histogram = proto::Histogram::default();
        histogram.set_sample_count(total);
        histogram.set_sample_sum(self.0.sum_micros.load(Ordering::Relaxed) as f64 / 1e6);
        histogram.set_bucket(buckets);
        let mut metric = proto::Metric::from_label(Vec::new());
        metric.set_histogram(histogram);
        let mut family = proto::MetricFamily::default();
        family.set_name(self.0.desc.fq_name.clone());
        family.set_help(self.0.desc.help.clone());
        family.set_field_type(proto::MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}
