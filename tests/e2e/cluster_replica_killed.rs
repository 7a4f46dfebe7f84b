//! One replica dies under traffic.

use sluice_tests::{check, cluster::Cluster, publisher::Publisher, redis::Redis, wait};
use std::time::Duration;

const CLIENTS: usize = 300;
const CONFIG: &str = "[stream]\nretry_min = \"100ms\"\nretry_max = \"500ms\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_a_replica_costs_its_clients_a_reconnect_and_the_others_nothing() {
    let mut cluster = Cluster::start(Redis::start().await, 3, CONFIG).await;
    let mut clients = cluster.event_sources(CLIENTS / 2, &["a"]).await;
    clients.extend(cluster.event_sources(CLIENTS / 2, &["a", "b"]).await);
    let publishers =
        ["a", "b"].map(|channel| Publisher::start(cluster.gateways[0].address, channel, Duration::from_millis(5)));
    publishers[0].wait_more(50).await;

    let share = cluster.gateways[2].connections().await as usize;
    assert!(share > 50, "it has clients: {share}");
    cluster.gateways[2].process.kill();

    let back = async || {
        let reconnected = clients.iter().filter(|client| client.read(|log| log.heads.len()) > 1).count();
        (reconnected >= share).then_some(reconnected)
    };
    let reconnected = wait::until("its clients come back through nginx", back).await;
    publishers[0].wait_more(50).await;
    let mut published = Vec::new();
    for publisher in publishers {
        let (count, refused) = publisher.stop().await;
        assert!(refused.is_empty(), "publishing through another replica went on: {refused:?}");
        published.push(count);
    }

    for (index, client) in clients.iter().enumerate() {
        let channels = if index < CLIENTS / 2 { &["a"][..] } else { &["a", "b"] };
        for (channel, &count) in channels.iter().zip(&published) {
            client.wait_data(&check::payload(channel, count)).await;
            client.read(|log| {
                let verdict = check::once_and_in_order(channel, log.data(), 1..=count);
                assert!(verdict.is_ok(), "client {index}, {} connections: {verdict:?}", log.heads.len());
            });
        }
        client.read(|log| {
            assert!(log.events.iter().all(|event| event.event != "gap"), "nothing was lost, and none says so");
        });
    }
    assert_eq!(reconnected, share, "nobody else was disturbed");
    let undisturbed = clients.iter().filter(|client| client.read(|log| log.heads.len() == 1 && log.ends.is_empty()));
    assert_eq!(undisturbed.count(), CLIENTS - share);
}
