//! Every series that is known beforehand, there from the start: a counter that appears with its first event is never seen to
//! rise from 0.

use super::{Metrics, Reason};
use crate::lifecycle::Phase;

pub(super) fn preset(metrics: &Metrics) {
    for reason in Reason::ALL {
        metrics.disconnects.with_label_values(&[reason.as_str()]);
    }
    metrics.tell_phase(Phase::Serving);
    for reason in crate::sse::frame::GapReason::ALL {
        metrics.gaps.with_label_values(&[reason.as_str()]);
    }
    for reason in ["address", "subject", "channel", "memory"] {
        metrics.publish_refused.with_label_values(&[reason]);
    }
    for reason in
        ["connections", "channels", "draining", "broker", "accept", "pending", "replays", "address", "subject", "rate"]
    {
        metrics.refused.with_label_values(&[reason]);
    }
    for reason in ["missing", "invalid", "expired", "denied", "forbidden", "origin", "keys", "certificate"] {
        metrics.auth_failures.with_label_values(&[reason]);
    }
    for reason in ["head", "idle"] {
        metrics.timed_out.with_label_values(&[reason]);
    }
    for reason in ["untrusted", "proxy_header", "tls"] {
        metrics.turned_away.with_label_values(&[reason]);
    }
    for result in ["changed", "failed"] {
        metrics.tls_reloads.with_label_values(&[result]);
        metrics.key_reloads.with_label_values(&[result]);
    }
    for result in ["ok", "failed"] {
        metrics.jwks_fetches.with_label_values(&[result]);
        metrics.trace_exports.with_label_values(&[result]);
    }
    // So that the first of them is seen as a rise from 0.
    for kind in ["broker-unavailable", "overloaded", "too-many-requests"] {
        metrics.problems.with_label_values(&[kind]);
    }
    for source in ["http", "raw"] {
        metrics.published.with_label_values(&[source]);
    }
    for finding in crate::broker::redis::checks::KINDS {
        metrics.redis_findings.with_label_values(&[finding]);
    }
    for result in ["published", "repeated", "rejected"] {
        metrics.intake.with_label_values(&[result]);
    }
    for encoding in crate::sse::compress::Encoding::COMPRESSED.map(|encoding| encoding.as_str()) {
        for counters in [&metrics.compressed_before, &metrics.compressed_after, &metrics.compressions] {
            counters.with_label_values(&[encoding]);
        }
        metrics.compressed_connections.with_label_values(&[encoding]);
    }
    for policy in crate::config::SlowPolicy::ALL {
        metrics.slow_consumers.with_label_values(&[policy.as_str()]);
    }
    for policy in ["drop-oldest", "latest"] {
        metrics.dropped_events.with_label_values(&[policy]);
    }
    for cause in ["hole", "cut", "order", "unreadable", "audit"] {
        metrics.repairs.with_label_values(&[cause]);
    }
    for (source, result) in [("memory", "complete"), ("broker", "complete"), ("broker", "gap"), ("cursor", "gap")] {
        metrics.resumes.with_label_values(&[source, result]);
    }
}
