//! A publisher that tries again publishes nothing twice.

use serde_json::{Value, json};
use sluice_tests::{
    cluster::Cluster,
    gateway::Gateway,
    numbered::{assert_saw, publish, wait_number},
    redis::Redis,
    wait::PATIENCE,
};

async fn once(gateway: &Gateway, key: &str, data: &str) -> Value {
    let headers = [("idempotency-key", key)];
    let answer = gateway.http.send("POST", "/channels/a/events", &headers, data.to_owned()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn a_retry_is_answered_as_the_first_was_on_any_replica_and_after_any_restart() {
    let mut cluster = Cluster::start(Redis::start_durable().await, 2, "").await;
    let client = cluster.gateways[0].subscribe(&["a"]).await;
    let first = once(&cluster.gateways[0], "key-1", "a 1").await;
    let second = once(&cluster.gateways[0], "key-2", "a 2").await;
    assert_ne!(first["position"], second["position"]);
    assert_eq!(once(&cluster.gateways[0], "key-1", "a 1").await, first);
    assert_eq!(once(&cluster.gateways[1], "key-1", "something else").await, first);
    cluster.redis.kill();
    cluster.redis.restart().await;
    cluster.gateways[1].process.kill();
    cluster.gateways[1].restart();
    cluster.gateways[1].wait_ready(PATIENCE).await;
    assert_eq!(once(&cluster.gateways[1], "key-2", "a 2").await, second);
    publish(&cluster.gateways[1].http, "a", 3..=3).await;
    wait_number(&client, "a", 3).await;
    assert_saw("live", &client, "a", 1..=3, &[]);
    let other = cluster.gateways[1].http.send("POST", "/channels/b/events", &[("idempotency-key", "key-1")], "b").await;
    assert_ne!(other.json()["position"], first["position"], "a key is a channel's own");
}

async fn batches(gateway: &Gateway) {
    let client = gateway.subscribe(&["a", "b"]).await;
    let event = |channel: &str, number: u64| {
        let key = format!("{channel}-{number}");
        json!({ "channel": channel, "data": format!("{channel} {number}"), "idempotency_key": key })
    };
    let batch: Vec<_> = (1..=200u64).map(|n| event(if n % 2 == 0 { "a" } else { "b" }, n.div_ceil(2))).collect();
    let send = async |events: &[Value]| {
        let answer = gateway.http.post("/events", Value::from(events).to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    // The connection broke in the middle: the publisher cannot know how far it got.
    let half = send(&batch[..120]).await;
    let whole = send(&batch).await;
    let again = send(&batch).await;
    let results = |answer: &Value| match answer {
        Value::Array(results) => results.clone(),
        other => other["results"].as_array().or(other["events"].as_array()).expect("results").clone(),
    };
    let position = |result: &Value| result["position"].clone();
    let positions = |answer: &Value| results(answer).iter().map(position).collect::<Vec<_>>();
    assert_eq!(positions(&half), positions(&whole)[..120]);
    assert_eq!(positions(&whole), positions(&again));
    assert!(positions(&whole).iter().all(Value::is_string), "{whole}");
    for channel in ["a", "b"] {
        gateway.publish(channel, format!("{channel} 101")).await;
        wait_number(&client, channel, 101).await;
        assert_saw("live", &client, channel, 1..=101, &[]);
    }
}

#[tokio::test]
async fn a_batch_that_is_repeated_publishes_nothing_twice_with_redis() {
    let cluster = Cluster::start(Redis::start().await, 1, "").await;
    batches(&cluster.gateways[0]).await;
}

#[tokio::test]
async fn a_batch_that_is_repeated_publishes_nothing_twice_with_the_embedded_broker() {
    batches(&Gateway::start("").await).await;
}
