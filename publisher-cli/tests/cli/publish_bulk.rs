//! Many events: batches, order, retries, and what is said of those that were refused.

use crate::{
    command::{PATIENCE, ended, sluice_with_input, spawn},
    server::{Answer, Asked, Server},
};
use serde_json::{Value, json};
use std::collections::HashSet;
use tokio::io::AsyncWriteExt;

/// Takes every event; the position is the data's first word.
fn take_all(asked: &Asked) -> Answer {
    let results: Vec<Value> = asked
        .lines()
        .iter()
        .map(|line| {
            let position = line["data"].as_str().expect("a string").split(' ').next();
            json!({ "channel": line["channel"], "position": position })
        })
        .collect();
    Answer::json(200, json!({ "results": results }))
}

fn keys(asked: &Asked) -> Vec<String> {
    asked.lines().iter().map(|line| line["idempotency_key"].as_str().expect("a key").to_owned()).collect()
}

#[tokio::test]
async fn lines_arrive_in_order_in_requests_that_a_gateway_takes() {
    let server = Server::start(|_, asked| take_all(asked)).await;
    // 1,500 short lines and 2,000 of a kibibyte: both limits are met.
    let lines: Vec<String> =
        (0..3500).map(|n| format!("{n} \"{}", "x".repeat(if n < 1500 { 10 } else { 1024 }))).collect();
    let ended = sluice_with_input(&["publish", "news", "--lines", "--url", &server.url], lines.join("\n")).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), (0..3500).map(|n| n.to_string()).collect::<Vec<_>>());

    let asked = server.asked();
    for request in &asked {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/events"));
        assert_eq!(request.header("content-type"), Some("application/x-ndjson"));
        assert!(request.body.len() <= 1 << 20 && request.body.lines().count() <= 1000);
    }
    let sent: Vec<Value> = asked.iter().flat_map(Asked::lines).collect();
    let data: Vec<&str> = sent.iter().map(|line| line["data"].as_str().expect("a string")).collect();
    assert_eq!(data, lines);
    assert!(asked.len() < 100, "{} requests are no batches", asked.len());
    assert_eq!(asked.iter().flat_map(keys).collect::<HashSet<_>>().len(), 3500, "a key for each event");
}

#[tokio::test]
async fn a_slow_input_is_published_as_it_comes() {
    let server = Server::start(|_, asked| take_all(asked)).await;
    let mut child = spawn(&["publish", "news", "--lines", "--url", &server.url]);
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"one\ntw").await.expect("writes");
    assert_eq!(server.asked_times(1).await[0].lines()[0]["data"], "one");
    stdin.write_all(b"o\r\n\n").await.expect("writes");
    drop(stdin);
    assert_eq!(ended(child).await.code, Some(0));
    let data: Vec<Value> = server.asked().iter().flat_map(Asked::lines).map(|line| line["data"].clone()).collect();
    assert_eq!(data, ["one", "two", ""], "an empty line is an event too");
}

#[tokio::test]
async fn a_batch_is_sent_again_under_the_same_keys() {
    let server = Server::start(|number, asked| match number {
        0 => Answer::problem(503, "Overloaded", "later").with_header("retry-after", "1"),
        1 => Answer::cut(),
        _ => take_all(asked),
    })
    .await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "a\nb\nc\n").expect("writes");
    let path = file.path().to_str().expect("UTF-8");
    let ended = sluice_with_input(&["publish", "news", "--lines", "--file", path, "--url", &server.url], "").await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "a\nb\nc\n"), "{}", ended.stderr);
    let asked = server.asked();
    assert_eq!(keys(&asked[0]), keys(&asked[1]));
    assert_eq!(keys(&asked[0]), keys(&asked[2]));
}

#[tokio::test]
async fn only_what_may_pass_is_tried_again_and_the_rest_is_told() {
    let problem = |status| json!({ "type": "t", "title": "No", "status": status, "detail": "because" });
    let server = Server::start(move |number, asked| match number {
        0 => Answer::json(
            207,
            json!({ "results": [
                { "channel": "a", "position": "p1" },
                { "channel": "b", "problem": problem(403) },
                { "channel": "c", "problem": problem(403) },
                { "channel": "d", "problem": problem(503) },
                { "channel": "e", "position": "p5" },
            ] }),
        ),
        _ => take_all(asked),
    })
    .await;
    let input = ["a", "b", "c", "d", "e"].map(|c| format!("{}\n", json!({ "channel": c, "data": format!("{c}!") })));
    let ended = sluice_with_input(&["publish", "--ndjson", "--url", &server.url], input.concat()).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), "p1\nd!\np5\n"), "{}", ended.stderr);
    assert!(ended.stderr.contains("lines 2 to 3 not published: No: because (HTTP 403)"), "{}", ended.stderr);
    assert!(ended.stderr.contains("published 3 events, 2 were refused"), "{}", ended.stderr);
    let asked = server.asked();
    assert_eq!(asked[1].lines().len(), 1);
    assert_eq!(keys(&asked[1])[0], keys(&asked[0])[3]);
}

#[tokio::test]
async fn a_limit_on_the_way_makes_smaller_requests() {
    let server = Server::start(|_, asked| match asked.body.len() {
        0..2000 => take_all(asked),
        _ => Answer::problem(413, "Too large", "2000 bytes"),
    })
    .await;
    let mut lines: Vec<String> = (0..100).map(|n| format!("{n} {}", "x".repeat(100))).collect();
    lines[50] = "x".repeat(3000);
    let ended = sluice_with_input(&["publish", "news", "--lines", "--url", &server.url], lines.join("\n")).await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.stdout.lines().count(), 99, "all but the one that is too large by itself");
    assert!(ended.stderr.contains("line 51 not published: Too large: 2000 bytes (HTTP 413)"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_whole_refusal_ends_it() {
    let server = Server::start(|_, _| Answer::problem(403, "Forbidden", "not yours")).await;
    let lines = "x\n".repeat(5000);
    let ended = sluice_with_input(&["publish", "news", "--lines", "--url", &server.url], lines).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains("not yours (HTTP 403)") && ended.stderr.contains("rest"), "{}", ended.stderr);
    assert!(ended.stderr.lines().count() <= 3, "{}", ended.stderr);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn ndjson_lines_have_defaults_and_a_bad_one_does_not_stop_the_others() {
    let server = Server::start(|_, asked| take_all(asked)).await;
    let input = concat!(
        r#"{"data":"one"}"#,
        "\n\n",
        r#"{"channel":"other","event":"add","data":{"n": 1},"idempotency_key":"mine"}"#,
        "\n{oops\n",
        r#"{"data":"two","id":"c.1-1"}"#,
    );
    let args = ["publish", "news", "--ndjson", "--event", "tick", "--idempotency-key", "run", "--url", &server.url];
    let ended = sluice_with_input(&args, input).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("line 4 not published"), "{}", ended.stderr);
    let sent: Vec<Value> = server.asked().iter().flat_map(Asked::lines).collect();
    assert_eq!(
        sent,
        [
            json!({ "channel": "news", "event": "tick", "data": "one", "idempotency_key": "run-1" }),
            json!({ "channel": "other", "event": "add", "data": "{\"n\":1}", "idempotency_key": "mine" }),
            json!({ "channel": "news", "event": "tick", "data": "two", "idempotency_key": "run-5" }),
        ]
    );
}

#[tokio::test]
async fn whoever_stops_reading_the_positions_is_not_complained_to() {
    let server = Server::start(|_, asked| take_all(asked)).await;
    let mut child = spawn(&["publish", "news", "--lines", "--url", &server.url]);
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().expect("piped");
    let feeding = tokio::spawn(async move { while stdin.write_all(b"x\n").await.is_ok() {} });
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.expect("ends").expect("is awaited");
    assert_eq!(status.code(), Some(141), "not 0: not all was published");
    feeding.await.expect("fed");
    assert_eq!(ended(child).await.stderr, "");
}
