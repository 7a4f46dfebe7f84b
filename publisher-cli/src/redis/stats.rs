//! `sluice redis stats`: how much history there is, and of which channels most. Redis is walked through with SCAN, some
//! keys at a time, so that it serves everybody else meanwhile.

use super::{connect, masters};
use crate::{args::RedisStatsArgs, exit::Failure, output::Output, stats::aligned};
use redis::{Pipeline, RedisResult, Value, aio::MultiplexedConnection, cmd};
use serde::Serialize;
use std::collections::HashMap;

/// Keys that are asked for at a time.
const BATCH: usize = 500;

/// All of it.
#[derive(Default, Serialize)]
struct Stats {
    channels: u64,
    events: u64,
    bytes: u64,
    largest: Vec<Channel>,
    busiest: Vec<Channel>,
}

/// One channel's log.
#[derive(Clone, Default, Serialize)]
struct Channel {
    channel: String,
    events: u64,
    bytes: u64,
    /// Since its oldest event that is kept.
    events_per_second: f64,
}

/// Runs the command.
///
/// # Errors
/// When a server does not answer.
pub async fn stats(args: RedisStatsArgs) -> Result<(), Failure> {
    let masters = masters(&args.redis).await.map_err(Failure::Failed)?;
    let mut stats = Stats::default();
    let mut silent = Vec::new();
    for nth in 0..masters.count() {
        let walked = async {
            let mut connection = connect(&masters, nth).await?;
            let walked = walk(&mut connection, &args.redis.prefix, args.top, &mut stats).await;
            walked.map_err(|error| format!("{}: {error}", masters.name(nth)))
        };
        // Of the others it is told all the same.
        silent.extend(walked.await.err());
    }
    let text = if args.json {
        format!("{}\n", serde_json::to_string(&stats).map_err(|error| Failure::Failed(error.to_string()))?)
    } else {
        table(&stats)
    };
    Output::new().write(text.as_bytes()).await?;
    if silent.is_empty() { Ok(()) } else { Err(Failure::Failed(format!("not counted: {}", silent.join("; ")))) }
}

async fn walk(connection: &mut MultiplexedConnection, prefix: &str, top: usize, stats: &mut Stats) -> RedisResult<()> {
    let before = format!("{prefix}log:{{{prefix}");
    let (seconds, _): (u64, u64) = cmd("TIME").query_async(connection).await?;
    // A pattern's own characters stand for themselves after a backslash.
    let escaped: String =
        before.chars().flat_map(|c| ["\\", ""][usize::from(!"*?[]\\".contains(c))].chars().chain([c])).collect();
    let mut cursor = 0_u64;
    loop {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{escaped}*")).arg("COUNT").arg(BATCH).arg("TYPE").arg("stream");
        let (next, keys): (u64, Vec<String>) = scan.query_async(connection).await?;
        let mut pipeline = Pipeline::new();
        for key in &keys {
            pipeline.cmd("XLEN").arg(key);
            pipeline.cmd("MEMORY").arg("USAGE").arg(key);
            pipeline.cmd("XRANGE").arg(key).arg("-").arg("+").arg("COUNT").arg(1);
        }
        let answers: Vec<Value> = if keys.is_empty() { Vec::new() } else { pipeline.query_async(connection).await? };
        for (key, answers) in keys.iter().zip(answers.chunks(3)) {
            let Some(name) = key.strip_prefix(&before).and_then(|rest| rest.strip_suffix('}')) else { continue };
            let number = |at: usize| redis::from_redis_value::<u64>(answers[at].clone()).unwrap_or(0);
            let oldest: Vec<(String, HashMap<String, Value>)> =
                redis::from_redis_value(answers[2].clone()).unwrap_or_default();
            let since = oldest.first().and_then(|(id, _)| id.split('-').next()?.parse::<u64>().ok());
            let age = since.map_or(1, |micros| seconds.saturating_sub(micros / 1_000_000).max(1));
            let (events, bytes) = (number(0), number(1));
            let channel =
                Channel { channel: name.to_owned(), events, bytes, events_per_second: events as f64 / age as f64 };
            stats.channels += 1;
            stats.events += events;
            stats.bytes += bytes;
            keep(&mut stats.largest, channel.clone(), top, |channel| channel.bytes as f64);
            keep(&mut stats.busiest, channel, top, |channel| channel.events_per_second);
        }
        cursor = next;
        if cursor == 0 {
            return Ok(());
        }
    }
}

/// Of all that came, the first by this measure.
fn keep(kept: &mut Vec<Channel>, channel: Channel, top: usize, by: impl Fn(&Channel) -> f64) {
    // SCAN may name a key twice.
    if kept.iter().any(|one| one.channel == channel.channel) {
        return;
    }
    let at = kept.iter().position(|one| by(one) < by(&channel)).unwrap_or(kept.len());
    kept.insert(at, channel);
    kept.truncate(top);
}

fn table(stats: &Stats) -> String {
    let Stats { channels, events, bytes, largest, busiest } = stats;
    let mut text = aligned(&[
        vec!["channels with history".to_owned(), channels.to_string()],
        vec!["events".to_owned(), events.to_string()],
        vec!["bytes".to_owned(), bytes.to_string()],
    ]);
    for (title, rows) in [("largest", largest), ("busiest", busiest)] {
        let mut table = vec![[title, "events", "bytes", "events/s"].map(str::to_owned).to_vec()];
        for row in rows {
            let rate = format!("{:.2}", row.events_per_second);
            table.push(vec![row.channel.clone(), row.events.to_string(), row.bytes.to_string(), rate]);
        }
        text.push('\n');
        text.push_str(&aligned(&table));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_kept_in_order_and_none_twice() {
        let mut kept = Vec::new();
        for (name, bytes) in [("a", 1), ("b", 5), ("c", 3), ("b", 5), ("d", 4)] {
            let channel = Channel { channel: name.to_owned(), bytes, ..Channel::default() };
            keep(&mut kept, channel, 3, |channel| channel.bytes as f64);
        }
        assert_eq!(kept.iter().map(|one| one.channel.as_str()).collect::<Vec<_>>(), ["b", "d", "c"]);
    }
}
