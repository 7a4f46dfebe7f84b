//! Redis Cluster: everything at the owner of its slot, and nothing lost while slots and masters change.

use serde_json::{Value, json};
use sluice_tests::{
    client::{Client, Log},
    gateway::{Gateway, Options},
    numbered::saw,
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

/// An event by each replica for each of these, with a key or without; each is taken at once.
async fn publish_by_all(gateways: &[Gateway], channel: &str, published: &mut usize, with_keys: &[bool]) {
    let path = format!("/channels/{channel}/events");
    for gateway in gateways {
        for &keyed in with_keys {
            *published += 1;
            let key = format!("key-{published}");
            let headers = [("idempotency-key", key.as_str())];
            let headers = if keyed { &headers[..] } else { &[] };
            let answer = gateway.http.send("POST", &path, headers, format!("event {published}")).await;
            assert_eq!(answer.status, 200, "{published}: {}", answer.text());
            let position = answer.json()["position"].as_str().map(str::to_owned);
            assert!(position.is_some_and(|position| position.ends_with(&format!("-{published}"))), "{published}");
        }
    }
}

#[tokio::test]
async fn publishing_and_reading_follow_a_slot_at_every_stage_of_its_way() {
    let cluster = RedisCluster::start(Kind::default(), 3, false).await;
    let gateways = gateways(&cluster, 2, "").await;
    let client = gateways[0].subscribe(&["moving"]).await;
    let slot: u16 = cluster.servers[0].run(&["CLUSTER", "KEYSLOT", "sluice:moving"]).await;
    let home = cluster.master_of("moving").await;
    let mut published = 0;
    let readable = async |published: usize| {
        for gateway in &gateways {
            let history = gateway.http.json("/channels/moving/events?since=earliest").await;
            assert_eq!(history["events"].as_array().map(Vec::len), Some(published), "{history}");
        }
    };
    publish_by_all(&gateways, "moving", &mut published, &[false]).await;
    for round in 0..4 {
        let (from, to) = ((home + round) % 3, (home + round + 1) % 3);
        // All that there are are here, and others that a script is told of might be there: TRYAGAIN.
        cluster.begin_to_move(slot, from, to).await;
        let with_keys = if round == 0 { &[false][..] } else { &[false, true] };
        publish_by_all(&gateways, "moving", &mut published, with_keys).await;
        readable(published).await;
        // All are there: ASK. What the first key needs is made there.
        cluster.move_keys(slot, from, to).await;
        publish_by_all(&gateways, "moving", &mut published, &[false, true]).await;
        readable(published).await;
        // Which is announced there, while everybody is still subscribed here.
        client.wait_data(&format!("event {published}")).await;
        // The slot is there, which replicas do not know yet: MOVED.
        cluster.end_move(slot, from, to).await;
        publish_by_all(&gateways, "moving", &mut published, &[false, true]).await;
        readable(published).await;
        client.wait_data(&format!("event {published}")).await;
    }
    let expected: Vec<_> = (1..=published).map(|number| format!("event {number}")).collect();
    assert_eq!(client.data(), expected);
    assert!(client.read(|log| log.events.iter().all(|event| event.event != "gap")));
}

#[tokio::test]
async fn what_is_refused_while_its_keys_are_apart_is_published_once_when_it_is_repeated() {
    let cluster = RedisCluster::start(Kind::default(), 3, false).await;
    let gateways = gateways(&cluster, 2, "[redis]\ntimeout = \"500ms\"\n").await;
    let client = gateways[0].subscribe(&["moving"]).await;
    let slot: u16 = cluster.servers[0].run(&["CLUSTER", "KEYSLOT", "sluice:moving"]).await;
    let from = cluster.master_of("moving").await;
    let to = (from + 1) % 3;
    let publish = async |gateway: &Gateway, number: usize| {
        let key = format!("key-{number}");
        let key = [("idempotency-key", key.as_str())];
        gateway.http.send("POST", "/channels/moving/events", &key, format!("event {number}")).await
    };
    assert_eq!(publish(&gateways[0], 1).await.status, 200);
    cluster.begin_to_move(slot, from, to).await;
    cluster.move_key("sluice:log:{sluice:moving}", from, to).await;
    let refused = publish(&gateways[1], 2).await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("slot is on its way"), "{}", refused.text());
    cluster.move_keys(slot, from, to).await;
    assert_eq!(publish(&gateways[1], 2).await.status, 200);
    cluster.end_move(slot, from, to).await;
    for gateway in &gateways {
        assert_eq!(publish(gateway, 2).await.status, 200);
    }
    assert_eq!(publish(&gateways[0], 3).await.status, 200);
    client.wait_data("event 3").await;
    assert_eq!(client.data(), ["event 1", "event 2", "event 3"]);
}

#[tokio::test]
async fn a_channel_without_history_is_told_of_a_cut_when_its_slot_has_moved() {
    let cluster = RedisCluster::start(Kind::default(), 3, false).await;
    let gateways = gateways(&cluster, 1, "[[channel]]\nmatch = \"plain\"\nhistory = \"off\"\n").await;
    let client = gateways[0].subscribe(&["plain"]).await;
    gateways[0].publish("plain", "before").await;
    client.wait_data("before").await;
    let slot: u16 = cluster.servers[0].run(&["CLUSTER", "KEYSLOT", "sluice:plain"]).await;
    let from = cluster.master_of("plain").await;
    cluster.move_slot(slot, from, (from + 1) % 3).await;
    let told = |log: &Log| saw(log, "plain").1.contains(&"cut".to_owned());
    client.wait("a gap", told).await;
    let in_force = async || (cluster.subscriptions().await.get("sluice:plain") == Some(&1)).then_some(());
    wait::until("it is subscribed to", in_force).await;
    gateways[0].publish("plain", "after").await;
    client.wait_data("after").await;
}

#[tokio::test]
async fn a_slot_that_is_back_before_anybody_has_looked_leaves_its_subscriptions_in_force() {
    let cluster = RedisCluster::start(Kind::default(), 3, false).await;
    let gateways = gateways(&cluster, 1, "").await;
    let client = gateways[0].subscribe(&["moving"]).await;
    let slot: u16 = cluster.servers[0].run(&["CLUSTER", "KEYSLOT", "sluice:moving"]).await;
    let home = cluster.master_of("moving").await;
    for round in 1..=5 {
        cluster.move_slot(slot, home, (home + 1) % 3).await;
        cluster.move_slot(slot, (home + 1) % 3, home).await;
        gateways[0].publish("moving", format!("event {round}")).await;
        client.wait_data(&format!("event {round}")).await;
        let in_force = async || (cluster.subscriptions().await.get("sluice:moving") == Some(&1)).then_some(());
        wait::until("it is subscribed to", in_force).await;
    }
    assert_eq!(client.data().len(), 5);
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
