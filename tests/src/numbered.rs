//! Events with numbers, for tests that take a stream up in the middle: publishing runs of them, leaving with a cursor,
//! coming back with one, and what was seen.

use crate::{
    check::{number, payload},
    client::{Client, Log},
    gateway::Gateway,
    http::Http,
    wait::PATIENCE,
};
use serde_json::{Value, json};
use std::{
    ops::RangeInclusive,
    time::{Duration, Instant},
};

/// Events in one request.
const BATCH: usize = 1000;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// Publishes a channel's events of these numbers in batches, each until all of it is taken: connections of a pool may
/// have died with the Redis before.
pub async fn publish(http: &Http, channel: &str, numbers: RangeInclusive<u64>) {
    let event = |number| {
        let key = format!("{channel}-{number}");
        json!({ "channel": channel, "data": payload(channel, number), "idempotency_key": key })
    };
    let events: Vec<Value> = numbers.map(event).collect();
    for batch in events.chunks(BATCH) {
        let body = Value::from(batch).to_string();
        let begun = Instant::now();
        loop {
            let answer = http.post("/events", body.clone()).await;
            if answer.status == 200 {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "not taken in time: {} {}", answer.status, answer.text());
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A stream that is taken up with a cursor, on one connection.
pub async fn resume(gateway: &Gateway, channels: &[&str], cursor: &str) -> Client {
    Client::once(gateway.events(channels).header("Last-Event-ID", cursor)).await
}

/// The numbers that came of a channel in their order, and the reasons of the gaps that it was said to have.
#[must_use]
pub fn saw(log: &Log, channel: &str) -> (Vec<u64>, Vec<String>) {
    let gap = |data: &str| serde_json::from_str::<Value>(data).unwrap_or_default();
    let gaps = log.events.iter().filter(|event| event.event == "gap").map(|event| gap(&event.data));
    let reasons = gaps.filter(|gap| gap["channel"] == channel).map(|gap| gap["reason"].as_str().unwrap_or("").into());
    (log.data().filter_map(|data| number(channel, data)).collect(), reasons.collect())
}

/// Waits for a channel's event of this number.
pub async fn wait_number(client: &Client, channel: &str, number: u64) {
    client.wait_data(&payload(channel, number)).await;
}

/// Asserts that exactly these events came, and these gaps.
///
/// # Panics
/// When others came.
pub fn assert_saw(who: &str, client: &Client, channel: &str, numbers: RangeInclusive<u64>, gaps: &[&str]) {
    client.read(|log| {
        let (came, reasons) = saw(log, channel);
        let all = came.iter().copied().eq(numbers.clone()) && reasons == gaps;
        let breaks: Vec<_> = came.windows(2).filter(|pair| pair[1] != pair[0] + 1).take(5).collect();
        let ends = (came.first(), came.last(), came.len());
        assert!(
            all,
            "{who} on {channel}: {ends:?} with breaks {breaks:?}, gaps {reasons:?}, not {numbers:?} with {gaps:?}"
        );
    });
}

/// Where a client stands.
#[must_use]
pub fn cursor(client: &Client) -> String {
    client.read(|log| log.last_event_id.clone())
}
