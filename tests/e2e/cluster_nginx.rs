//! The nginx configuration that operators are given.

use sluice_tests::{client::Client, cluster::Cluster, redis::Redis, wait};
use std::time::Duration;

const CONFIG: &str = "[stream]\nretry_min = \"100ms\"\nretry_max = \"300ms\"\nheartbeat = \"1s\"\n";

#[tokio::test]
async fn a_cursor_of_64_channels_passes_with_default_header_buffers() {
    let cluster = Cluster::start(Redis::start().await, 2, CONFIG).await;
    let names: Vec<_> = (0..64).map(|n| format!("{n:02}.{}", "x".repeat(20))).collect();
    let channels: Vec<_> = names.iter().map(String::as_str).collect();
    for channel in &channels {
        cluster.gateways[0].publish(channel, "before").await;
    }
    let client = Client::once(cluster.events(&channels)).await;
    let cursor = client.read(|log| log.last_event_id.clone());
    drop(client);
    assert!(cursor.len() > 1000, "64 channels: {cursor}");
    for channel in &channels {
        cluster.gateways[1].publish(channel, format!("{channel} 1")).await;
    }
    let resumed = Client::once(cluster.events(&channels).header("Last-Event-ID", &cursor)).await;
    resumed.read(|log| assert_eq!(log.head().status, 200));
    resumed.wait_events(64).await;
    resumed.read(|log| {
        for channel in &channels {
            let verdict = sluice_tests::check::once_and_in_order(channel, log.data(), 1..=1);
            assert!(verdict.is_ok(), "{verdict:?}");
        }
    });
}

#[tokio::test]
async fn first_bytes_heartbeats_and_events_pass_at_once() {
    let cluster = Cluster::start(Redis::start().await, 2, CONFIG).await;
    let client = Client::once(cluster.events(&["a"]).keeping_body().encoded("br")).await;
    client.read(|log| {
        assert_eq!(log.head().header("content-encoding"), None, "nginx compresses no stream");
        assert_eq!(log.head().header("cache-control").as_deref(), Some("no-store, no-transform"));
    });
    client.wait("two heartbeats", |log| log.text().matches(": hb\n").count() >= 2).await;
    for number in 0..20 {
        let data = number.to_string();
        cluster.nginx.http.post("/channels/a/events", data.clone()).await;
        client.wait_within("at once", Duration::from_secs(5), |log| log.data().any(|one| one == data)).await;
    }
}

#[tokio::test]
async fn refusals_and_limits_are_the_gateways_own() {
    let cluster = Cluster::start(Redis::start().await, 2, CONFIG).await;
    let http = &cluster.nginx.http;
    http.get("/events").await.problem(400);
    http.get("/nothing").await.problem(404);
    http.post("/channels/a/events", "x".repeat(64 * 1024 + 1)).await.problem(413);
    http.post("/events", " ".repeat(1024 * 1024 + 1)).await.problem(413);
    assert_eq!(http.post("/channels/a/events", "x".repeat(64 * 1024)).await.status, 200);
}

#[tokio::test]
async fn clients_survive_that_no_replica_is_there_at_all() {
    let mut cluster = Cluster::start(Redis::start().await, 2, CONFIG).await;
    let client = Client::event_source(cluster.events(&["a"])).await;
    for gateway in &mut cluster.gateways {
        gateway.process.kill();
    }
    client.wait("it tries again", |log| log.heads.len() >= 2).await;
    client.read(|log| {
        assert!(!log.gave_up, "EventSource gives up for ever on any status but 200: {:?}", log.heads);
        assert_eq!(log.head().header("content-type").as_deref(), Some("text/event-stream"));
    });
    let post = cluster.nginx.http.post("/channels/a/events", "x").await;
    assert!(matches!(post.status, 502..=504), "publishers are told the truth: {}", post.status);
}

#[tokio::test]
async fn a_stream_that_its_client_leaves_ends_at_the_replica_too() {
    let cluster = Cluster::start(Redis::start().await, 1, CONFIG).await;
    let client = Client::once(cluster.events(&["a"])).await;
    assert_eq!(cluster.gateways[0].connections().await, 1);
    drop(client);
    wait::until("closed", async || (cluster.gateways[0].connections().await == 0).then_some(())).await;
}
