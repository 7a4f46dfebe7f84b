//! Redis Cluster: everything at the owner of its slot, and nothing lost while slots and masters change.

use serde_json::{Value, json};
use sluice_tests::{
    client::Client,
    gateway::{Gateway, Options},
    redis::{Kind, cluster::RedisCluster},
    wait::{self, PATIENCE},
};

const CONFIG: &str = "[stream]\nretry_min = \"50ms\"\nretry_max = \"200ms\"\n";

async fn gateways(cluster: &RedisCluster, count: usize, config: &str) -> Vec<Gateway> {
    let options = Options { config: format!("{CONFIG}{config}"), redis: Some(cluster.url()), ..Options::default() };
    let gateways: Vec<_> = (0..count).map(|_| Gateway::spawn(options.clone())).collect();
    for gateway in &gateways {
        gateway.wait_ready(PATIENCE).await;
    }
    gateways
}

/// Channels that are spread over all masters.
fn channels() -> Vec<String> {
    (0..30).map(|nth| format!("c{nth}")).collect()
}

#[tokio::test]
async fn an_event_reaches_everyone_whichever_master_has_its_channel() {
    let cluster = RedisCluster::start(Kind::default(), 3, false).await;
    let gateways = gateways(&cluster, 2, "").await;
    let names = channels();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let clients = [gateways[0].subscribe(&names).await, Client::event_source(gateways[1].events(&names)).await];
    for round in 1..=3 {
        for (nth, name) in names.iter().enumerate() {
            gateways[nth % 2].publish(name, format!("{name} {round}")).await;
        }
    }
    for client in &clients {
        for name in &names {
            client.wait_data(&format!("{name} 3")).await;
        }
        let mut data = client.data();
        assert_eq!(data.len(), 90);
        data.sort();
        data.dedup();
        assert_eq!(data.len(), 90, "none twice");
    }
    for server in &cluster.servers {
        let master = format!("master=\"{}\"", server.address());
        gateways[0].wait_metric("sse_redis_info", &[&master, "software=\"redis\""], 1.0).await;
    }
    // One subscription for each channel and replica, at the owner of its slot.
    let subscriptions = cluster.subscriptions().await;
    for name in &names {
        assert_eq!(subscriptions.get(&format!("sluice:{name}")), Some(&2), "{name}");
    }
}

#[tokio::test]
async fn the_events_of_one_request_go_to_the_masters_of_their_channels_and_are_answered_in_order() {
    let cluster = RedisCluster::start(Kind::default(), 3, false).await;
    let gateways = gateways(&cluster, 1, "").await;
    let names = channels();
    let event = |nth: usize| {
        let channel = &names[nth % names.len()];
        json!({ "channel": channel, "data": format!("{channel} {}", nth / names.len() + 1) })
    };
    let batch: Vec<_> = (0..300).map(event).collect();
    let answer = gateways[0].http.post("/events", Value::from(batch).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let answers = answer["results"].as_array().expect("one for each");
    for (nth, one) in answers.iter().enumerate() {
        let number = format!("-{}", nth / names.len() + 1);
        assert_eq!(one["channel"], names[nth % names.len()]);
        assert!(one["position"].as_str().is_some_and(|position| position.ends_with(&number)), "{nth}: {one}");
    }
    assert_eq!(answers.len(), 300);
    for name in &names {
        let owner = &cluster.servers[cluster.master_of(name).await];
        assert_eq!(owner.run::<i64>(&["XLEN", &format!("sluice:log:{{sluice:{name}}}")]).await, 10, "{name}");
    }
}

#[tokio::test]
async fn a_cluster_that_is_taken_for_one_server_is_not_ready_and_says_why() {
    let cluster = RedisCluster::start(Kind::default(), 3, false).await;
    let options = Options { redis: Some(cluster.servers[0].url()), ..Options::default() };
    let gateway = Gateway::spawn(options);
    let told = async || {
        let answer = gateway.admin.try_send("GET", "/readyz", &[], "").await.ok()?;
        (answer.status == 503 && answer.text().contains("set redis.cluster")).then_some(())
    };
    wait::until("it says why", told).await;
}

#[tokio::test]
async fn slots_move_away_and_back_and_no_event_is_missed() {
    let cluster = RedisCluster::start(Kind::default(), 3, false).await;
    let gateways = gateways(&cluster, 2, "").await;
    let client = gateways[0].subscribe(&["moving", "staying"]).await;
    let slot: u16 = cluster.servers[0].run(&["CLUSTER", "KEYSLOT", "sluice:moving"]).await;
    let mut published = 0;
    let from = cluster.master_of("moving").await;
    let to = (from + 1) % 3;
    for (from, to) in [(from, to), (to, from)] {
        let moving = async {
            cluster.move_slot(slot, from, to).await;
        };
        let publishing = async {
            for _ in 0..40 {
                published += 1;
                gateways[published % 2].publish("moving", format!("event {published}")).await;
            }
        };
        tokio::join!(moving, publishing);
        client.wait_data(&format!("event {published}")).await;
    }
    let expected: Vec<_> = (1..=80).map(|number| format!("event {number}")).collect();
    assert_eq!(client.data(), expected);
    assert!(client.read(|log| log.events.iter().all(|event| event.event != "gap")));
    let settled = async || {
        let subscriptions = cluster.subscriptions().await;
        (subscriptions.get("sluice:moving") == Some(&1)).then_some(())
    };
    wait::until("one subscription is left", settled).await;
}
