//! Redis sees one subscription for each channel in use and replica, and none for channels that nobody uses.

use sluice_tests::{
    client::Client,
    cluster::{Cluster, connect},
    redis::Redis,
    wait,
};

/// Channels that replicas are subscribed to, without the reserved ones and those that replicas talk on.
async fn subscribed(cluster: &Cluster) -> Vec<String> {
    let names = cluster.redis.subscribed("sluice:*").await;
    names.into_iter().filter(|name| !name.starts_with("sluice:$")).collect()
}

#[tokio::test]
async fn redis_has_the_channels_in_use_and_drops_them_after_the_linger() {
    let cluster = Cluster::start(Redis::start().await, 2, "[redis]\nlinger = \"1s\"\n").await;
    let [one, two] = &cluster.gateways[..] else { panic!("two replicas") };
    assert_eq!(subscribed(&cluster).await, Vec::<String>::new());

    let names: Vec<_> = (0..100).map(|n| format!("user.{n:03}")).collect();
    let own: Vec<Client> = connect(100, |n| {
        let name = names[n].clone();
        async move { one.subscribe(&[&name, "shared"]).await }
    })
    .await;
    let others = connect(10, |_| two.subscribe(&["shared"])).await;
    let mut expected: Vec<_> = names.iter().map(|name| format!("sluice:{name}")).collect();
    expected.insert(0, "sluice:shared".to_owned());
    assert_eq!(subscribed(&cluster).await, expected);
    assert_eq!(cluster.redis.subscribers("sluice:shared").await, 2, "one for each replica, not for each client");
    assert_eq!(cluster.redis.subscribers("sluice:user.000").await, 1, "and only where it is in use");

    drop(own);
    let shared = async || (subscribed(&cluster).await == ["sluice:shared"]).then_some(());
    wait::until("those in use remain", shared).await;
    let left = async || (cluster.redis.subscribers("sluice:shared").await == 1).then_some(());
    wait::until("one replica has no client of it left", left).await;
    one.publish("shared", "still flows").await;
    for client in &others {
        client.wait_data("still flows").await;
    }
    drop(others);
    wait::until("none is left", async || subscribed(&cluster).await.is_empty().then_some(())).await;
    for gateway in &cluster.gateways {
        gateway.wait_metric("sse_channels_active", &[], 0.0).await;
    }
}

#[tokio::test]
async fn a_client_that_comes_back_within_the_linger_finds_the_subscription_in_force() {
    let cluster = Cluster::start(Redis::start().await, 1, "[redis]\nlinger = \"30s\"\n").await;
    let gateway = &cluster.gateways[0];
    drop(gateway.subscribe(&["kept"]).await);
    gateway.wait_metric("sse_connections_active", &[], 0.0).await;
    let before = gateway.metric("sse_redis_subscribes_total", &[]).await;
    for round in 1..=20 {
        let client = gateway.subscribe(&["kept"]).await;
        let data = format!("round {round}");
        gateway.publish("kept", data.clone()).await;
        client.wait_data(&data).await;
    }
    assert_eq!(subscribed(&cluster).await, ["sluice:kept"]);
    assert_eq!(gateway.metric("sse_redis_subscribes_total", &[]).await, before);
}

/// Channels come and go while events flow: none that was published after a subscription was confirmed may be missed.
#[tokio::test]
async fn subscribing_and_leaving_in_haste_loses_nothing() {
    let cluster = Cluster::start(Redis::start().await, 2, "[redis]\nlinger = \"0s\"\n").await;
    for round in 0..60 {
        let client = cluster.gateways[round % 2].subscribe(&["hasty"]).await;
        let data = format!("round {round}");
        cluster.gateways[(round + 1) % 2].publish("hasty", data.clone()).await;
        client.wait_data(&data).await;
        // "Live" is as its replica has it, which may be a moment behind: older events may come first, but none twice.
        let seen = client.data();
        let distinct: std::collections::HashSet<_> = seen.iter().collect();
        assert!(seen.last() == Some(&data) && distinct.len() == seen.len(), "{seen:?}");
    }
}
