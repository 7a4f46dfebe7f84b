//! How many there are: on one replica, in the cluster, and without those that died.

use serde_json::Value;
use sluice_tests::{
    cli::sluice_ok,
    client::Client,
    cluster::{Cluster, connect},
    redis::Redis,
    wait,
};
use std::time::Duration;

async fn connections(cluster: &Cluster, replica: usize) -> Value {
    cluster.gateways[replica].http.json("/connections").await
}

#[tokio::test]
async fn counts_are_of_the_replica_and_of_the_cluster_and_a_dead_ones_share_goes() {
    let mut cluster = Cluster::start(Redis::start().await, 3, "").await;
    let mut clients: Vec<Vec<Client>> = Vec::new();
    for (gateway, count) in cluster.gateways.iter().zip([10, 20, 30]) {
        let channels = |n: usize| if n.is_multiple_of(2) { &["even"][..] } else { &["odd", "both"] };
        clients.push(connect(count, |n| gateway.subscribe(channels(n))).await);
    }
    let mut ids = std::collections::HashSet::new();
    for (replica, own) in [10, 20, 30].into_iter().enumerate() {
        let counts = connections(&cluster, replica).await;
        assert_eq!((&counts["connections"]["replica"], &counts["connections"]["cluster"]), (&own.into(), &60.into()));
        assert_eq!(counts["replicas"], 3, "{counts}");
        ids.insert(counts["replica"].as_str().expect("an id").to_owned());
        let channel = cluster.gateways[replica].http.json("/channels/even").await;
        assert_eq!((&channel["channel"], &channel["subscribers"]["replica"]), (&"even".into(), &(own / 2).into()));
        assert_eq!(channel["subscribers"]["cluster"], 30, "{channel}");
    }
    assert_eq!(ids.len(), 3, "each replica has a name of its own: {ids:?}");

    let nobody = cluster.gateways[0].http.json("/channels/nobody").await;
    assert_eq!(
        (&nobody["subscribers"]["cluster"], &nobody["first"], &nobody["last"]),
        (&0.into(), &Value::Null, &Value::Null)
    );
    let first = cluster.gateways[1].publish("even", "1").await["position"].clone();
    let last = cluster.gateways[2].publish("even", "2").await["position"].clone();
    let even = cluster.gateways[0].http.json("/channels/even").await;
    assert_eq!((&even["first"], &even["last"]), (&first, &last));

    let url = format!("http://{}", cluster.gateways[0].address);
    let stats: Value = serde_json::from_str(&sluice_ok(&["stats", "--json", "--url", &url]).await).expect("JSON");
    assert_eq!(stats["connections"]["cluster"], 60, "{stats}");
    let table = sluice_ok(&["stats", "even", "odd", "--url", &url]).await;
    assert!(table.lines().any(|line| line.starts_with("even") && line.contains(" 30")), "{table}");

    clients[0].truncate(4);
    let fewer = async || (connections(&cluster, 1).await["connections"]["cluster"] == 54).then_some(());
    wait::until_within("those who left are not counted", Duration::from_secs(10), fewer).await;

    cluster.gateways[2].process.kill();
    let without = async || {
        let counts = connections(&cluster, 0).await;
        (counts["connections"]["cluster"] == 24 && counts["replicas"] == 2).then_some(())
    };
    wait::until_within("the dead replica's share is gone", Duration::from_secs(15), without).await;
    assert_eq!(cluster.gateways[1].http.json("/channels/even").await["subscribers"]["cluster"], 12);
}
