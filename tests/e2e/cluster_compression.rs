//! Compressed streams through nginx as operators are shown to configure it, and over replicas that die.

use sluice_tests::{
    check,
    client::{Client, End},
    cluster::{Cluster, connect},
    publisher::Publisher,
    redis::Redis,
    wait,
};
use std::time::Duration;

const CONFIG: &str = "[stream]\nretry_min = \"100ms\"\nretry_max = \"300ms\"\nheartbeat = \"1s\"\n";
const ENCODINGS: [&str; 3] = ["gzip", "zstd", "identity"];

#[tokio::test]
async fn nginx_passes_compressed_streams_on_as_they_are_and_at_once() {
    let cluster = Cluster::start(Redis::start().await, 2, CONFIG).await;
    for encoding in ["gzip", "zstd"] {
        let client = Client::once(cluster.events(&["a"]).encoded(encoding).keeping_body()).await;
        client.read(|log| {
            assert_eq!(log.head().header("content-encoding").as_deref(), Some(encoding));
            assert_eq!(log.head().header("cache-control").as_deref(), Some("no-store, no-transform"));
        });
        client.wait("two heartbeats", |log| log.text().matches(": hb\n").count() >= 2).await;
        for number in 0..50 {
            let data = format!("{encoding} {number}");
            cluster.nginx.http.post("/channels/a/events", data.clone()).await;
            client.wait_within("at once", Duration::from_secs(5), |log| log.data().any(|one| one == data)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_every_encoding_resume_over_a_killed_and_a_drained_replica() {
    let config = format!("{CONFIG}[drain]\ndelay = \"0s\"\nwindow = \"500ms\"\n");
    let mut cluster = Cluster::start(Redis::start().await, 3, &config).await;
    let encoding = |nth: usize| ENCODINGS[nth % ENCODINGS.len()];
    let channels = |nth: usize| if nth.is_multiple_of(2) { &["a"][..] } else { &["a", "b"] };
    let clients = connect(90, |nth| Client::event_source(cluster.events(channels(nth)).encoded(encoding(nth)))).await;
    let publishers =
        ["a", "b"].map(|channel| Publisher::start(cluster.gateways[0].address, channel, Duration::from_millis(5)));
    publishers[0].wait_more(50).await;
    cluster.gateways[2].process.kill();
    publishers[0].wait_more(50).await;
    cluster.gateways[1].process.signal(rustix::process::Signal::TERM);
    cluster.gateways[1].process.end(wait::PATIENCE).await;
    publishers[0].wait_more(50).await;
    let mut published = Vec::new();
    for publisher in publishers {
        let (count, refused) = publisher.stop().await;
        assert!(refused.is_empty(), "{refused:?}");
        published.push(count);
    }
    let mut ends = Vec::new();
    for (nth, client) in clients.iter().enumerate() {
        for (channel, &count) in channels(nth).iter().zip(&published) {
            client.wait_data(&check::payload(channel, count)).await;
            client.read(|log| {
                let verdict = check::once_and_in_order(channel, log.data(), 1..=count);
                let connections = log.heads.len();
                assert!(verdict.is_ok(), "client {nth} with {}, {connections} connections: {verdict:?}", encoding(nth));
            });
        }
        client.read(|log| {
            assert!(log.events.iter().all(|event| event.event != "gap"), "nothing was lost, and none says so");
            ends.extend(log.ends.iter().filter(|_| encoding(nth) != "identity").copied());
        });
    }
    assert!(
        ends.contains(&End::Clean) && ends.contains(&End::Broken),
        "the one ends well, the other does not: {ends:?}"
    );
}
