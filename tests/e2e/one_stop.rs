//! How a replica leaves.

use rustix::process::Signal;
use sluice_tests::{
    client::{Client, End},
    gateway::Gateway,
    wait,
};
use std::time::{Duration, Instant};

async fn stops_on(signal: Signal) {
    let mut gateway = Gateway::start("[drain]\ndelay = \"0s\"\nwindow = \"1s\"\n").await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::once(gateway.events(&["news"]).keeping_body()).await);
    }
    gateway.publish("news", "before").await;
    for client in &clients {
        client.wait_data("before").await;
    }
    gateway.process.signal(signal);
    let mut retries = std::collections::HashSet::new();
    for client in &clients {
        assert_eq!(client.wait_end().await, End::Clean, "an end, not a reset");
        let body = client.read(|log| log.text());
        let last = body.trim_end().rsplit('\n').next().unwrap_or_default();
        let retry = last.strip_prefix("retry: ").and_then(|ms| ms.parse::<u64>().ok());
        retries.insert(retry.unwrap_or_else(|| panic!("the stream ends with when to come back: {body:?}")));
        assert!(body.ends_with("\n\n"), "{body:?}");
    }
    assert!(retries.len() > 5, "jittered: {retries:?}");
    let status = gateway.process.end(wait::PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{status}");
}

#[tokio::test]
async fn sigterm_ends_every_stream_with_when_to_come_back_and_exits_0() {
    stops_on(Signal::TERM).await;
}

#[tokio::test]
async fn sigint_does_the_same() {
    stops_on(Signal::INT).await;
}

#[tokio::test]
async fn a_leaving_replica_is_not_ready_at_once_and_serves_until_its_delay_is_over() {
    let mut gateway = Gateway::start("[drain]\ndelay = \"3s\"\nwindow = \"0s\"\n").await;
    let client = gateway.subscribe(&["news"]).await;
    let begun = Instant::now();
    gateway.process.signal(Signal::TERM);
    wait::until_within("not ready", Duration::from_secs(2), async || {
        (gateway.ready().await == Some(503)).then_some(())
    })
    .await;
    assert_eq!(gateway.admin.get("/livez").await.status, 200, "it lives");
    gateway.publish("news", "meanwhile").await;
    client.wait_data("meanwhile").await;
    assert_eq!(client.wait_end().await, End::Clean);
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(gateway.process.end(wait::PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn it_exits_as_soon_as_no_stream_is_left() {
    let mut gateway = Gateway::start("[drain]\ndelay = \"0s\"\nwindow = \"10m\"\n").await;
    let client = gateway.subscribe(&["news"]).await;
    drop(client);
    gateway.wait_metric("sse_connections_active", &[], 0.0).await;
    gateway.process.signal(Signal::TERM);
    assert_eq!(gateway.process.end(Duration::from_secs(10)).await.code(), Some(0));
}

#[tokio::test]
async fn closings_are_spread_over_the_window() {
    let mut gateway = Gateway::start("[drain]\ndelay = \"0s\"\nwindow = \"4s\"\n").await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(gateway.subscribe(&["news"]).await);
    }
    gateway.process.signal(Signal::TERM);
    let open = || clients.iter().filter(|client| client.read(|log| log.ends.is_empty())).count();
    let half = async || (open() <= 20).then(Instant::now);
    let begun = Instant::now();
    let half = wait::until("half of them are closed", half).await;
    assert!(half - begun > Duration::from_secs(1), "half were closed after {:?} of 4 s", half - begun);
    assert!(open() > 0, "and the other half later");
    assert_eq!(gateway.process.end(wait::PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_exits_at_once() {
    let mut gateway = Gateway::start("[drain]\ndelay = \"5m\"\nwindow = \"5m\"\n").await;
    let client = gateway.subscribe(&["news"]).await;
    gateway.process.signal(Signal::TERM);
    wait::until("not ready", async || (gateway.ready().await == Some(503)).then_some(())).await;
    assert_eq!(client.read(|log| log.ends.len()), 0);
    gateway.process.signal(Signal::TERM);
    gateway.process.end(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn browsers_that_come_to_a_leaving_replica_are_told_to_come_again() {
    let mut gateway = Gateway::start("[drain]\ndelay = \"0s\"\nwindow = \"5m\"\n").await;
    let clients = [gateway.subscribe(&["news"]).await, gateway.subscribe(&["news"]).await];
    gateway.process.signal(Signal::TERM);
    let program = async || {
        let client = Client::once(gateway.events(&["news"]).header("Accept", "application/x-ndjson")).await;
        client.read(|log| (log.head().status == 503).then(|| log.head().header("retry-after")))
    };
    let retry_after = wait::until("a program is refused", program).await;
    assert!(retry_after.is_some_and(|seconds| seconds.parse::<u64>().is_ok()), "and told when to come again");
    let browser = Client::once(gateway.events(&["news"])).await;
    browser.wait_end().await;
    browser.read(|log| {
        assert_eq!((log.head().status, log.head().header("content-type").as_deref()), (200, Some("text/event-stream")));
        assert!(log.retry_ms.is_some(), "EventSource gives up for ever on any other status");
    });
    gateway.publish("news", "published until the end").await;
    drop(clients);
}
