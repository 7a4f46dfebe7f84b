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
