//! Five thousand clients at once on one replica.

use sluice_tests::{check, cluster::connect, gateway::Gateway};

const CLIENTS: usize = 5_000;
const EVENTS: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_clients_at_once_each_get_every_event() {
    let gateway = Gateway::start("").await;
    let clients = connect(CLIENTS, |n| {
        let gateway = &gateway;
        // Half share a cursor, half have one of their own.
        async move { gateway.subscribe(if n.is_multiple_of(2) { &["crowd"] } else { &["crowd", "other"] }).await }
    })
    .await;
    assert_eq!(gateway.connections().await, CLIENTS as u64);
    for number in 1..=EVENTS {
        gateway.publish("crowd", check::payload("crowd", number)).await;
    }
    for client in &clients {
        client.wait_events(EVENTS as usize).await;
        let verdict = client.read(|log| check::once_and_in_order("crowd", log.data(), 1..=EVENTS));
        assert!(verdict.is_ok(), "{verdict:?}");
    }
    gateway.wait_metric("sse_messages_total", &[], (CLIENTS as u64 * EVENTS) as f64).await;
    drop(clients);
    gateway.wait_metric("sse_connections_active", &[], 0.0).await;
}
