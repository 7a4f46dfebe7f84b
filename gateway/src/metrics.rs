//! Every metric of the gateway, made in one place; `docs/metrics.md` lists the same names and a test compares them.
//!
//! No metric has a label per channel, client or address: their number is bounded by this file.

mod delivery;
mod preset;

pub use delivery::DeliveryHistogram;
use preset::preset;

use crate::lifecycle::Phase;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Why a stream ended, as `sse_disconnects_total{reason}` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The client closed it, or its connection broke.
    Client,
    /// Its outbox was full.
    Slow,
    /// It took no bytes for `stream.write_timeout`.
    WriteTimeout,
    /// The gateway is being stopped.
    Drain,
    /// It was as old as `stream.max_age` allows.
    MaxAge,
    /// Closed through the HTTP interface.
    Closed,
    /// Its token has expired.
    TokenExpired,
}

impl Reason {
    pub const ALL: [Self; 7] =
        [Self::Client, Self::Slow, Self::WriteTimeout, Self::Drain, Self::MaxAge, Self::Closed, Self::TokenExpired];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Slow => "slow",
            Self::WriteTimeout => "write_timeout",
            Self::Drain => "drain",
            Self::MaxAge => "max_age",
            Self::Closed => "closed",
            Self::TokenExpired => "token_expired",
        }
    }
}

/// The registry and a handle for everything that is counted.
pub struct Metrics {
    registry: Registry,
    pub connections_active: IntGauge,
    pub connections: IntCounter,
    pub disconnects: IntCounterVec,
    pub refused: IntCounterVec,
    pub publish_refused: IntCounterVec,
    pub publish_failed: IntCounter,
    pub messages: IntCounter,
    pub problems: IntCounterVec,
    pub turned_away: IntCounterVec,
    pub timed_out: IntCounterVec,
    pub tls_reloads: IntCounterVec,
    pub tls_expires: IntGauge,
    pub auth_failures: IntCounterVec,
    pub key_reloads: IntCounterVec,
    pub jwks_fetches: IntCounterVec,
    pub trace_exports: IntCounterVec,
    pub bytes_sent: IntCounter,
    pub compressed_before: IntCounterVec,
    pub compressed_after: IntCounterVec,
    pub compressions: IntCounterVec,
    pub compressed_connections: IntGaugeVec,
    pub published: IntCounterVec,
    /// Of `published`, kept at hand.
    pub published_http: IntCounter,
    pub received: IntCounter,
    pub invalid_messages: IntCounter,
    pub tasks: IntGauge,
    pub channels_active: IntGauge,
    pub delivery: DeliveryHistogram,
    pub publish_seconds: Histogram,
    pub redis_up: IntGauge,
    pub redis_reachable: Gauge,
    redis_info: IntGaugeVec,
    pub redis_reconnects: IntCounter,
    pub redis_subscribes: IntCounter,
    pub rule_conflicts: IntCounter,
    pub redis_findings: IntGaugeVec,
    pub intake: IntCounterVec,
    pub intake_held: IntGaugeVec,
    pub slow_consumers: IntCounterVec,
    pub dropped_events: IntCounterVec,
    pub outbox_bytes: IntGauge,
    pub queue_overflows: IntCounter,
    pub resumes: IntCounterVec,
    pub replayed_events: IntCounter,
    pub gaps: IntCounterVec,
    pub repairs: IntCounterVec,
    pub replays_in_flight: IntGauge,
    pub history_read_seconds: Histogram,
    pub replay_bytes: IntGauge,
    pub replay_waits: IntCounter,
    pub connections_pending: IntGauge,
    pub ready: IntGauge,
    phase: IntGaugeVec,
    pub drain_progress: Gauge,
    pub connections_limit: IntGauge,
    pub outbox_limit: IntGauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry of its own with every metric at zero.
    ///
    /// # Panics
    /// Never: names are constants, and a test makes one.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let make = Make(&registry);
        let delivery = DeliveryHistogram::new(
            "sse_delivery_seconds",
            "Seconds from publishing an event to handing it to a client's socket; without replays.",
        );
        make.register(Box::new(delivery.clone()));
        let build = make.gauges("sse_build_info", "Always 1; the labels say what is running.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        #[cfg(target_os = "linux")]
        make.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()));
        let published = make.counters("sse_events_published_total", "Events published: `http` by this replica and taken by the broker, `raw` seen as a raw PUBLISH on a subscribed channel.", &["source"]);
        let metrics = Self {
            connections_active: make.gauge("sse_connections_active", "Event streams open now."),
            connections: make.counter("sse_connections_total", "Event streams ever opened."),
            disconnects: make.counters("sse_disconnects_total", "Event streams ended, by reason.", &["reason"]),
            publish_refused: make.counters(
                "sse_publish_refused_total",
                "Requests to publish, or events of one, refused for their rate, by whose it was.",
                &["reason"],
            ),
            publish_failed: make.counter(
                "sse_publish_failed_total",
                "Events that the broker did not take, or not for certain, as their publishers were told.",
            ),
            refused: make.counters(
                "sse_refused_total",
                "Streams refused for now, by reason; `accept`: connections that the kernel had no room for.",
                &["reason"],
            ),
            problems: make.counters(
                "sse_problems_total",
                "Requests answered with a problem, by the last part of its type.",
                &["type"],
            ),
            timed_out: make.counters(
                "sse_connections_timed_out_total",
                "Connections closed because a request's head did not come in time, or no next request.",
                &["reason"],
            ),
            turned_away: make.counters(
                "sse_connections_turned_away_total",
                "Connections closed before their first request, by reason.",
                &["reason"],
            ),
            tls_reloads: make.counters(
                "sse_tls_reloads_total",
                "Times that the files of TLS had changed, by whether the new ones could be used.",
                &["result"],
            ),
            tls_expires: make.gauge(
                "sse_tls_certificate_expires_seconds",
                "Until when the certificate in force is valid, in seconds since 1970; 0 without TLS.",
            ),
            auth_failures: make.counters(
                "sse_auth_failures_total",
                "Requests refused for want of a right, by reason.",
                &["reason"],
            ),
            key_reloads: make.counters(
                "sse_key_reloads_total",
                "Times that a file with a key had changed, by whether the new one could be used.",
                &["result"],
            ),
            jwks_fetches: make.counters(
                "sse_jwks_fetches_total",
                "Times that an issuer's keys were asked for, by whether they came.",
                &["result"],
            ),
            trace_exports: make.counters(
                "sse_trace_exports_total",
                "Times that spans were sent to the collector, by whether it took them.",
                &["result"],
            ),
            messages: make
                .counter("sse_messages_total", "Events handed to clients' sockets: one event to 10 clients counts 10."),
            bytes_sent: make.counter("sse_bytes_sent_total", "Bytes handed to clients' sockets on event streams."),
            compressed_before: make.counters(
                "sse_compressed_before_bytes_total",
                "Bytes that compressed event streams stand for, by encoding.",
                &["encoding"],
            ),
            compressed_after: make.counters(
                "sse_compressed_after_bytes_total",
                "Bytes that those are compressed, by encoding.",
                &["encoding"],
            ),
            compressions: make.counters(
                "sse_compressions_total",
                "Blocks that were compressed, by encoding: one event for all clients in step is one.",
                &["encoding"],
            ),
            compressed_connections: make.gauges(
                "sse_compressed_connections_active",
                "Event streams open now that are compressed, by encoding.",
                &["encoding"],
            ),
            published_http: published.with_label_values(&["http"]),
            published,
            received: make.counter("sse_events_received_total", "Events that came to this replica from the broker."),
            invalid_messages: make.counter(
                "sse_invalid_messages_total",
                "Messages on subscribed channels that could not be read as events.",
            ),
            tasks: make.gauge("sse_tasks", "Asynchronous tasks of the process."),
            channels_active: make.gauge("sse_channels_active", "Channels that this replica is subscribed to."),
            publish_seconds: make.histogram(
                "sse_publish_seconds",
                "Seconds that the broker took to accept a publish request of this replica.",
            ),
            redis_up: make.gauge(
                "sse_redis_up",
                "1 while the links to all masters of Redis stand, else 0; 1 with the embedded broker.",
            ),
            redis_reachable: make.made(Gauge::new(
                "sse_redis_reachable_ratio",
                "Share of Redis, of a cluster by its slots, to which the links stand: 0 to 1.",
            )),
            redis_info: make.gauges(
                "sse_redis_info",
                "Always 1; the labels say what each master of Redis is.",
                &["master", "software", "version"],
            ),
            redis_reconnects: make
                .counter("sse_redis_reconnects_total", "Times that a standing link to Redis was lost."),
            redis_subscribes: make.counter(
                "sse_redis_subscribes_total",
                "Channels subscribed to in Redis, counting each again after a reconnect.",
            ),
            rule_conflicts: make.counter(
                "sse_rule_conflicts_total",
                "Times that a channel's limits in Redis were found to be those of other rules than this replica's.",
            ),
            redis_findings: make.gauges(
                "sse_redis_findings",
                "Masters of Redis at which something was found that would break a promise, by what it is.",
                &["finding"],
            ),
            intake: make.counters(
                "sse_intake_entries_total",
                "Entries of intake streams that this replica settled, by how.",
                &["result"],
            ),
            intake_held: make.gauges(
                "sse_intake_held",
                "1 while this replica is the one that takes a stream's entries in, else 0.",
                &["stream"],
            ),
            dropped_events: make.counters(
                "sse_dropped_events_total",
                "Events that clients were told they will not get, for they read too slowly, by policy.",
                &["policy"],
            ),
            slow_consumers: make.counters(
                "sse_slow_consumers_total",
                "Times that a client's outbox was full, by what was done about it.",
                &["policy"],
            ),
            outbox_bytes: make.gauge("sse_outbox_bytes", "Bytes that wait for clients whose sockets are full."),
            queue_overflows: make.counter(
                "sse_shard_queue_overflows_total",
                "Events that found a shard's queue full, to be repaired from history.",
            ),
            resumes: make.counters(
                "sse_resumes_total",
                "Channels resumed from a cursor, by where from and how it ended.",
                &["source", "result"],
            ),
            replayed_events: make.counter("sse_replayed_events_total", "Events sent again from history or memory."),
            gaps: make.counters("sse_gaps_total", "Gaps told to clients, by reason.", &["reason"]),
            repairs: make.counters(
                "sse_repairs_total",
                "Times that a replica read a channel's history to fill a hole of its own, by cause.",
                &["cause"],
            ),
            replays_in_flight: make.gauge("sse_replays_in_flight", "Reads of history under way."),
            replay_bytes: make.gauge("sse_replay_bytes", "Bytes of pages of history that are held for clients."),
            replay_waits: make.counter(
                "sse_replay_waits_total",
                "Pages of history that were not read before others had been let go of.",
            ),
            connections_pending: make.gauge(
                "sse_connections_pending",
                "Connections that have sent no whole request yet, or wait for their next.",
            ),
            ready: make.gauge("sse_ready", "1 while /readyz answers 200, else 0."),
            phase: make.gauges("sse_lifecycle_phase", "1 for the phase that the process is in, else 0.", &["phase"]),
            drain_progress: make.made(Gauge::new(
                "sse_drain_progress_ratio",
                "Share of the streams open when draining began that have been closed; 0 until then, 1 when none is left.",
            )),
            connections_limit: make.gauge("sse_connections_limit", "Event streams that are let in at most."),
            outbox_limit: make.gauge("sse_outbox_limit_bytes", "Bytes that may wait for all clients together."),
            history_read_seconds: make
                .histogram("sse_history_read_seconds", "Seconds that reading one page of history took."),
            delivery,
            registry: registry.clone(),
        };
        preset(&metrics);
        metrics
    }

    /// Counts what a compressed stream was sent: `bytes`, which stand for `plain` ones.
    pub fn count_compressed(&self, encoding: crate::sse::compress::Encoding, plain: u64, bytes: u64) {
        self.compressed_before.with_label_values(&[encoding.as_str()]).inc_by(plain);
        self.compressed_after.with_label_values(&[encoding.as_str()]).inc_by(bytes);
    }

    /// Says in which phase the process is.
    pub fn tell_phase(&self, now: Phase) {
        for phase in Phase::ALL {
            self.phase.with_label_values(&[phase.as_str()]).set(i64::from(phase == now));
        }
    }

    /// Says what a master of Redis is, in the place of what it was.
    pub fn tell_redis(&self, master: &str, software: &str, version: &str) {
        self.forget_redis(master);
        self.redis_info.with_label_values(&[master, software, version]).set(1);
    }

    /// Says no more of a master of Redis.
    pub fn forget_redis(&self, master: &str) {
        use prometheus::core::Collector;
        for family in self.redis_info.collect() {
            for metric in family.get_metric() {
                let value =
                    |name| metric.get_label().iter().find(|label| label.name() == name).map_or("", |l| l.value());
                if value("master") == master {
                    // It was there a moment ago; if another thread was faster, it is as it should be.
                    let _ = self.redis_info.remove_label_values(&[master, value("software"), value("version")]);
                }
            }
        }
    }

    /// The text of `/metrics`.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }

    /// The names of all metrics, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.registry.gather().iter().map(|family| family.name().to_owned()).collect()
    }
}

/// Makes and registers. A name given twice or misspelt is a mistake in this file, found by the first test that runs.
struct Make<'a>(&'a Registry);

impl Make<'_> {
    fn register(&self, collector: Box<dyn prometheus::core::Collector>) {
        let registered = self.0.register(collector);
        debug_assert!(registered.is_ok(), "{registered:?}");
    }

    fn made<C: prometheus::core::Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        #[expect(clippy::expect_used, reason = "the names are constants of this file")]
        let collector = made.expect("a valid metric");
        self.register(Box::new(collector.clone()));
        collector
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.made(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.made(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.made(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.made(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str) -> Histogram {
        let buckets = delivery::BOUNDS.iter().map(|&micros| micros as f64 / 1e6).collect();
        self.made(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_help_and_a_type_and_no_label_that_could_grow() {
        let text = String::from_utf8(Metrics::new().render()).expect("UTF-8");
        for name in
            ["sse_connections_active", "sse_delivery_seconds", "sse_redis_up", "process_open_fds", "sse_build_info"]
        {
            assert!(text.contains(&format!("# HELP {name} ")) && text.contains(&format!("# TYPE {name} ")), "{name}");
        }
        assert!(!text.contains("channel=") && !text.contains("client="));
    }
}
