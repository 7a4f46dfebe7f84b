//! What is seen to at every master now and then: what would break a promise is said, the function library is kept, and this
//! replica says that it is there, and by which rules.

use super::{
    Shared,
    calls::{Calls, Place},
    checks::{self, KINDS, Needs},
    function,
    node::Server,
};
use crate::auth::denied::now_ms;
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How often a replica says that it is there.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked whether the function library is still there.
const FUNCTION_EVERY: Duration = Duration::from_secs(15);
/// Replicas that were not heard of for this long are forgotten.
const FORGET_AFTER_MS: u64 = 120_000;

/// Runs until `stopping` says so. `rules` is a digest of the channel rules of this replica.
pub(super) async fn run(calls: Calls, rules: String, every: Duration, mut stopping: watch::Receiver<bool>) {
    let mut told: BTreeSet<(String, &'static str)> = BTreeSet::new();
    let mut looked = Instant::now();
    let mut bytes = 0;
    let mut tell = tokio::time::interval(TELL_EVERY.min(every));
    let mut last_look: Option<Instant> = None;
    loop {
        tokio::select! {
            _ = tell.tick() => {}
            _ = stopping.changed() => return,
        }
        tell_of_us(&calls, &rules).await;
        if last_look.is_some_and(|last| last.elapsed() < every) {
            continue;
        }
        let all = calls.shared.announced_bytes.load(Ordering::Relaxed);
        let seconds = looked.elapsed().as_secs_f64().max(1.0);
        let needs = Needs {
            bytes_per_second: (all - bytes) as f64 / seconds,
            max_event_bytes: calls.shared.max_event_bytes,
            waits: calls.shared.wait.is_some(),
        };
        (looked, bytes) = (Instant::now(), all);
        if look(&calls, needs, &mut told).await {
            last_look = Some(Instant::now());
        }
    }
}

/// Answers whether any master could be looked at.
async fn look(calls: &Calls, needs: Needs, told: &mut BTreeSet<(String, &'static str)>) -> bool {
    let shared = &calls.shared;
    let (mut found, mut any) = (BTreeSet::new(), false);
    for node in calls.routing().nodes() {
        let Ok(mut connection) = node.server.checkout().await else { continue };
        match checks::look(&mut *connection, shared.names.prefix(), needs).await {
            Ok(findings) => {
                any = true;
                for finding in findings {
                    let key = (node.server.name.clone(), finding.kind);
                    if !told.contains(&key) {
                        let (what, advice, master) = (&finding.what, finding.advice, &node.server.name);
                        tracing::warn!(finding = finding.kind, %master, %advice, "redis: {what}");
                    }
                    found.insert(key);
                }
            }
            Err(error) => tracing::debug!(%error, master = node.server.name, "redis cannot be looked at"),
        }
    }
    if any {
        for kind in KINDS {
            let count = found.iter().filter(|(_, one)| *one == kind).count();
            shared.metrics.redis_findings.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        *told = found;
    }
    any
}

async fn tell_of_us(calls: &Calls, rules: &str) {
    let (replicas, now) = (calls.shared.names.replicas(), now_ms());
    let us = format!("{rules}:{}", calls.shared.replica);
    let add = |_: &Place| {
        let mut add = redis::cmd("ZADD");
        add.arg(&replicas).arg(now).arg(&us);
        add
    };
    let forget = |_: &Place| {
        let mut forget = redis::cmd("ZREMRANGEBYSCORE");
        forget.arg(&replicas).arg("-inf").arg(now.saturating_sub(FORGET_AFTER_MS));
        forget
    };
    let told = async {
        calls.query(&replicas, add).await?;
        calls.query(&replicas, forget).await
    };
    if let Err(error) = told.await {
        tracing::debug!(%error, "other replicas cannot be told of this one");
    }
}

/// Gives publishers that go straight to Redis their function, and sees to it that it stays. The gateway itself needs none.
pub(super) async fn keep_function(shared: Arc<Shared>, server: Arc<Server>) {
    let facts = server.facts();
    if facts.as_ref().is_some_and(|facts| !facts.has_functions()) {
        return;
    }
    let cluster = facts.is_some_and(|facts| facts.cluster);
    let prefix = shared.names.prefix();
    loop {
        if let Ok(mut connection) = server.checkout().await {
            match function::install(&mut *connection, prefix, Some(shared.max_event_bytes), cluster).await {
                Ok(function::Installed::Unchanged) => {}
                Ok(installed) => tracing::debug!(?installed, "the function library in redis"),
                // It may go better the next time, or the link is being made anew, and this with it.
                Err(error @ (function::NotInstalled::Redis(_) | function::NotInstalled::Contended)) => {
                    tracing::debug!(%error, "the function library cannot be looked at");
                }
                // It would be refused again and again, and Redis writes each time down.
                Err(error) => {
                    if !shared.warned.swap(true, Ordering::Relaxed) {
                        let told = "FCALL sluice_publish is not available; publishing through gateways is not affected";
                        tracing::warn!(%error, "{told}");
                    }
                    return;
                }
            }
        }
        tokio::time::sleep(FUNCTION_EVERY).await;
    }
}
