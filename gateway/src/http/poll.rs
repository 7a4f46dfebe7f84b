//! One long poll: the same stream, answered as one JSON document once something is there.
//!
//! It is a stream like any other that ends after its first events, so that it has the same guarantee; the cursor in the
//! answer is the `lastEventId` of the next poll.

use super::{App, body::Body, problem::Problem, query, query::Query, route::json, subscribe};
use crate::hub::Permit;
use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::Response;
use serde_json::{Value, json};
use std::time::Duration;

/// How long a poll waits for an event unless asked otherwise, and at the most.
const WAIT: Duration = Duration::from_secs(25);
const MAX_WAIT: Duration = Duration::from_secs(300);
/// How long even a poll that is not to wait takes, if nothing is there.
const AT_LEAST: Duration = Duration::from_millis(150);
/// After the first event, how long others may take to come along.
const GATHER: Duration = Duration::from_millis(20);
/// How the line begins that says where the stream begins.
const CURSOR_LINE: &[u8] = b"{\"cursor\"";
/// An answer ends here even if more is there: the next poll gets it.
const MAX_BYTES: usize = 1 << 20;

pub(super) async fn answer(
    app: &App,
    wanted: subscribe::Wanted,
    mut permit: Permit,
    query: &Query,
    given: Option<&str>,
) -> Result<Response<Body>, Problem> {
    let wait = match query.one("wait")? {
        None => WAIT,
        Some(text) => query::duration(text).filter(|wait| *wait <= MAX_WAIT).ok_or_else(|| {
            Problem::invalid_request(format!("`wait` is a duration of at most 5m, such as 25s, not {text:?}"))
        })?,
    };
    let deadline = tokio::time::Instant::now() + wait;
    // The next poll may come before the shard has noticed that this one has ended.
    let _returned = permit.returned_by();
    let mut body = subscribe::body_stream(app, wanted, permit).await;
    let mut text = BytesMut::new();
    // Where it begins must be said however short the wait is, and what is there already must get a chance.
    let mut until = deadline.max(tokio::time::Instant::now() + AT_LEAST);
    let last = until;
    while text.len() < MAX_BYTES {
        let Ok(Some(Ok(frame))) = tokio::time::timeout_at(until, body.frame()).await else { break };
        if let Ok(bytes) = frame.into_data() {
            text.extend_from_slice(&bytes);
        }
        if until == last && lines(&text).any(|line| !line.starts_with(CURSOR_LINE)) {
            until = last.min(tokio::time::Instant::now() + GATHER);
        }
    }
    drop(body);
    let mut cursor = Value::from(given);
    let mut events = Vec::new();
    for line in lines(&text) {
        let Ok(mut event) = serde_json::from_slice::<Value>(line) else { continue };
        if line.starts_with(CURSOR_LINE) {
            cursor = event["cursor"].take();
            continue;
        }
        if !event["id"].is_null() {
            cursor = event["id"].clone();
        }
        events.push(event);
    }
    Ok(json(&json!({ "events": events, "cursor": cursor })))
}

/// Whole lines only, without the blanks that heartbeats are.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n")).map(<[u8]>::trim_ascii)
}
