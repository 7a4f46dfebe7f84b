//! Heartbeats keep a silent stream alive and, as comments, fire no event.

use sluice_tests::{client::Client, gateway::Gateway};
use std::time::{Duration, Instant};

const EVERY_SECOND: &str = "[stream]\nheartbeat = \"1s\"\n";

#[tokio::test]
async fn a_silent_stream_gets_comments() {
    let gateway = Gateway::start(EVERY_SECOND).await;
    let client = Client::once(gateway.events(&["quiet"]).keeping_body()).await;
    let begun = Instant::now();
    client.wait("three heartbeats", |log| log.text().matches("\n: hb\n").count() >= 3).await;
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1900), "{took:?}: as often as configured and not more");
    assert_eq!(client.read(|log| log.events.len()), 0, "a comment is no event");
}

#[tokio::test]
async fn a_client_that_asks_for_it_gets_events() {
    let gateway = Gateway::start(EVERY_SECOND).await;
    let mut request = gateway.events(&["quiet"]);
    request.target.push_str("&heartbeat=event");
    let client = Client::once(request).await;
    client.wait_events(2).await;
    client.read(|log| {
        assert!(log.events.iter().all(|event| event.event == "heartbeat"), "{:?}", log.events);
        let id = &log.last_event_id;
        assert!(!id.is_empty() && log.events.iter().all(|event| *event.id == **id), "a heartbeat moves no cursor");
    });
}

#[tokio::test]
async fn a_stream_that_is_not_silent_gets_none() {
    let gateway = Gateway::start("[stream]\nheartbeat = \"3s\"\n").await;
    let client = Client::once(gateway.events(&["busy"]).keeping_body()).await;
    // For more than two heartbeats' time.
    let mut every = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..70 {
        every.tick().await;
        gateway.publish("busy", "x").await;
    }
    client.wait_events(70).await;
    assert_eq!(client.read(|log| log.text().matches(": hb\n").count()), 0);
    client.wait("a heartbeat once it is silent", |log| log.text().contains("\n: hb\n")).await;
}
