//! Clients come back through the nginx configuration that operators are given.

use sluice_tests::{
    cluster::Cluster,
    numbered::{assert_saw, publish, wait_number},
    redis::Redis,
    wait::{self, PATIENCE},
};
use std::time::{Duration, Instant};

const CONFIG: &str = "[stream]\nretry_min = \"50ms\"\nretry_max = \"200ms\"\n";
const CLIENTS: usize = 60;

/// nginx takes a replica that failed out for a while, and believes that it lives only once a request of it has ended: a
/// stream does not end. So a replica that was away for a moment must not be taken out at all (`max_fails=0`).
#[tokio::test]
async fn when_every_replica_was_away_for_a_moment_all_clients_are_back_within_seconds() {
    let mut cluster = Cluster::start(Redis::start().await, 3, CONFIG).await;
    let clients = cluster.event_sources(CLIENTS, &["a"]).await;
    publish(&cluster.gateways[0].http, "a", 1..=10).await;
    for gateway in &mut cluster.gateways {
        gateway.process.kill();
    }
    for client in &clients {
        client.wait("it was turned away", |log| log.heads.len() >= 2).await;
    }
    for gateway in &mut cluster.gateways {
        gateway.restart();
        gateway.wait_ready(PATIENCE).await;
    }
    let there = Instant::now();
    let back = async || {
        let mut open = 0;
        for gateway in &cluster.gateways {
            open += gateway.connections().await as usize;
        }
        (open == CLIENTS).then_some(())
    };
    wait::until("all clients are back", back).await;
    // nginx tells those that it turns away to come back after 3 seconds.
    assert!(there.elapsed() < Duration::from_secs(10), "they are back after {:?}", there.elapsed());
    publish(&cluster.gateways[1].http, "a", 11..=20).await;
    for client in &clients {
        wait_number(client, "a", 20).await;
        assert_saw("a client", client, "a", 1..=20, &[]);
    }
}
