//! Rules of exact resume (`docs/testing.md`) that can be seen from outside, each by the run of events that breaks resume without it.

use sluice_tests::{
    client::Client,
    gateway::{Gateway, Options},
    numbered::{assert_saw, cursor, publish, resume, wait_number},
    proxy::Proxy,
    redis::Redis,
    wait,
};
use std::time::Duration;

const CONFIG: &str = "[stream]\nretry_min = \"50ms\"\nretry_max = \"200ms\"\n[redis]\nlinger = \"0s\"\n";
const LOG: &str = "sluice:log:{sluice:a}";

fn options(url: String, config: &str) -> Options {
    Options { config: format!("{CONFIG}{config}"), redis: Some(url), ..Options::default() }
}

async fn on(redis: &Redis) -> Gateway {
    Gateway::start_with(options(redis.url(), "")).await
}

fn position(text: &str) -> (u64, u64) {
    let (micros, seq) = text.split_once('-').expect("a position");
    (micros.parse().expect("a time"), seq.parse().expect("a number"))
}

#[tokio::test]
async fn rule_1_a_clock_that_went_back_gives_positions_that_go_on_and_nobody_else_would_give() {
    let redis = Redis::start().await;
    let (gateway, other) = (on(&redis).await, on(&redis).await);
    let client = gateway.subscribe(&["a"]).await;
    publish(&gateway.http, "a", 1..=1).await;
    wait_number(&client, "a", 1).await;
    let id = cursor(&client);
    let first = redis.run::<Vec<(String, Vec<String>)>>(&["XRANGE", LOG, "-", "+"]).await[0].0.clone();
    // As if it was published by a master whose clock was an hour ahead, and its announcement lost.
    let (micros, _) = position(&first);
    let (ahead, prev) = (micros + 3_600_000_000, micros.to_string());
    let _: String = redis.run(&["XADD", LOG, &format!("{ahead}-2"), "event", "", "data", "a 2", "prev", &prev]).await;
    let third = gateway.publish("a", "a 3").await;
    let (given, seq) = position(third["position"].as_str().expect("a position"));
    assert!(seq == 3 && (1..=1000).contains(&(given - ahead)), "{third} after {ahead}-2");
    publish(&other.http, "a", 4..=5).await;
    wait_number(&client, "a", 5).await;
    assert_saw("live, though the second was never announced", &client, "a", 1..=5, &[]);
    let resumed = resume(&other, &["a"], &id).await;
    wait_number(&resumed, "a", 5).await;
    assert_saw("resumed", &resumed, "a", 2..=5, &[]);
}

#[tokio::test]
async fn rule_3_the_last_position_outlives_the_last_entry() {
    let redis = Redis::start().await;
    let (gateway, other) = (on(&redis).await, on(&redis).await);
    let client = gateway.subscribe(&["a"]).await;
    publish(&gateway.http, "a", 1..=5).await;
    wait_number(&client, "a", 5).await;
    let id = cursor(&client);
    drop(client);
    assert_eq!(gateway.http.send("DELETE", "/channels/a/events", &[], "").await.status, 204);
    assert_eq!(redis.run::<i64>(&["XLEN", LOG]).await, 0);
    let before = resume(&other, &["a"], &id).await;
    publish(&gateway.http, "a", 6..=6).await;
    let after = resume(&other, &["a"], &id).await;
    for (who, client) in [("before", &before), ("after", &after)] {
        wait_number(client, "a", 6).await;
        assert_saw(who, client, "a", 6..=6, &[]);
    }
}

#[tokio::test]
async fn rule_4_a_channel_without_events_has_an_identity_so_that_a_wipe_is_seen() {
    let redis = Redis::start().await;
    let (gateway, other) = (on(&redis).await, on(&redis).await);
    let client = gateway.subscribe(&["a"]).await;
    let id = cursor(&client);
    assert!(!id.is_empty(), "it has a place before the first event");
    drop(client);
    let _: String = redis.run(&["FLUSHALL"]).await;
    publish(&gateway.http, "a", 1..=3).await;
    let resumed = resume(&other, &["a"], &id).await;
    resumed.wait("a gap", |log| log.events.iter().any(|event| event.event == "gap")).await;
    publish(&gateway.http, "a", 4..=4).await;
    wait_number(&resumed, "a", 4).await;
    assert_saw("one that had seen nothing", &resumed, "a", 1..=4, &["reset"]);
}

#[tokio::test]
async fn rule_9_an_idempotency_key_holds_on_a_channel_without_history_too() {
    let redis = Redis::start().await;
    let off = "[[channel]]\nmatch = \"*\"\nhistory = \"off\"\n";
    let gateway = Gateway::start_with(options(redis.url(), off)).await;
    let client = gateway.subscribe(&["a"]).await;
    for _ in 0..3 {
        let key = [("idempotency-key", "once")];
        let answer = gateway.http.send("POST", "/channels/a/events", &key, "a 1").await;
        assert_eq!((answer.status, &answer.json()["position"]), (200, &serde_json::Value::Null));
    }
    publish(&gateway.http, "a", 2..=2).await;
    wait_number(&client, "a", 2).await;
    assert_saw("live", &client, "a", 1..=2, &[]);
}

#[tokio::test]
async fn rule_10_history_that_was_off_for_a_while_is_a_gap() {
    let redis = Redis::start().await;
    let gateway = on(&redis).await;
    let client = gateway.subscribe(&["a"]).await;
    publish(&gateway.http, "a", 1..=3).await;
    wait_number(&client, "a", 3).await;
    let id = cursor(&client);
    drop((client, gateway));
    let off = Gateway::start_with(options(redis.url(), "[[channel]]\nmatch = \"*\"\nhistory = \"off\"\n")).await;
    let listener = off.subscribe(&["a"]).await;
    publish(&off.http, "a", 4..=5).await;
    wait_number(&listener, "a", 5).await;
    assert_eq!(redis.run::<i64>(&["EXISTS", LOG]).await, 0, "the log is gone");
    drop((listener, off));
    let gateway = on(&redis).await;
    publish(&gateway.http, "a", 6..=7).await;
    let resumed = resume(&gateway, &["a"], &id).await;
    resumed.wait("a gap", |log| log.events.iter().any(|event| event.event == "gap")).await;
    wait_number(&resumed, "a", 7).await;
    assert_saw("resumed", &resumed, "a", 6..=7, &["reset"]);
}

#[tokio::test]
async fn rule_13_a_cursor_ahead_of_a_replica_whose_link_lags_is_neither_a_fork_nor_a_doubling() {
    let redis = Redis::start().await;
    let link = Proxy::start(redis.address()).await;
    let (gateway, lagging) =
        (on(&redis).await, Gateway::start_with(options(format!("redis://{}", link.address), "")).await);
    let (here, there) = (gateway.subscribe(&["a"]).await, lagging.subscribe(&["a"]).await);
    publish(&gateway.http, "a", 1..=3).await;
    wait_number(&here, "a", 3).await;
    wait_number(&there, "a", 3).await;
    for round in 0..3 {
        let last = 10 * (round + 1);
        let from = last - if round == 0 { 6 } else { 9 };
        let moved = async {
            publish(&gateway.http, "a", from..=last).await;
            wait_number(&here, "a", last).await;
            resume(&lagging, &["a"], &cursor(&here)).await
        };
        // Less than what the gateway takes for a cut.
        let (_, moved) = tokio::join!(link.stall(Duration::from_millis(1200)), moved);
        publish(&gateway.http, "a", last + 1..=last + 1).await;
        wait_number(&moved, "a", last + 1).await;
        assert_saw("from a replica that was ahead", &moved, "a", last + 1..=last + 1, &[]);
        wait_number(&there, "a", last + 1).await;
        // The next round's numbers begin after it.
        let _ = round;
        if round < 2 {
            continue;
        }
        assert_saw("who stayed", &there, "a", 1..=last + 1, &[]);
    }
}

#[tokio::test]
async fn rule_14_what_is_announced_again_is_dropped() {
    let redis = Redis::start().await;
    let gateway = on(&redis).await;
    let client = gateway.subscribe(&["a"]).await;
    let mut connection = redis.connection().await;
    publish(&gateway.http, "a", 1..=5).await;
    wait_number(&client, "a", 5).await;
    let entries: Vec<(String, Vec<String>)> = redis.run(&["XRANGE", LOG, "-", "+"]).await;
    for (id, fields) in entries.iter().chain(&entries) {
        let prev = &fields[fields.iter().position(|field| field == "prev").expect("a prev") + 1];
        let mut again = b"\xff\x01".to_vec();
        again.extend_from_slice(format!("{id} {prev} \na 999").as_bytes());
        let receivers: i64 =
            ::redis::cmd("PUBLISH").arg("sluice:a").arg(again).query_async(&mut connection).await.expect("published");
        assert_eq!(receivers, 1);
    }
    publish(&gateway.http, "a", 6..=6).await;
    wait_number(&client, "a", 6).await;
    assert_saw("live", &client, "a", 1..=6, &[]);
}

/// A gateway whose server was demoted under its open connections after events 1 to 5, as `FAILOVER` does it.
struct Demoted {
    gateway: Gateway,
    client: Client,
    new: Redis,
    _old: Redis,
    _link: Proxy,
    busy: tokio::task::JoinHandle<()>,
}

async fn demoted() -> Demoted {
    let (old, new) = (Redis::start_durable().await, Redis::start_durable().await);
    let link = Proxy::start(old.address()).await;
    let (ip, port) = (old.address().ip().to_string(), old.address().port().to_string());
    let _: String = new.run(&["REPLICAOF", &ip, &port]).await;
    let gateway = Gateway::start_with(options(format!("redis://{}", link.address), "")).await;
    let client = gateway.subscribe(&["a"]).await;
    publish(&gateway.http, "a", 1..=5).await;
    wait_number(&client, "a", 5).await;
    let copied = async || (new.run::<i64>(&["XLEN", LOG]).await == 5).then_some(());
    wait::until("everything is on the replica", copied).await;
    let online = async || old.run::<String>(&["INFO", "replication"]).await.contains("state=online").then_some(());
    wait::until("the replica is in step", online).await;
    // Never idle, so that its connections are not looked at between two uses.
    let http = gateway.http.clone();
    let busy = tokio::spawn(async move {
        loop {
            let _ = http.try_send("POST", "/channels/b/events", &[], "busy").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });

    link.lead(new.address());
    let (ip, port) = (new.address().ip().to_string(), new.address().port().to_string());
    let _: String = old.run(&["FAILOVER", "TO", &ip, &port]).await;
    let promoted = async || new.run::<String>(&["INFO", "replication"]).await.contains("role:master").then_some(());
    wait::until("the roles have changed", promoted).await;
    Demoted { gateway, client, new, _old: old, _link: link, busy }
}

#[tokio::test]
async fn rule_16_a_server_that_was_demoted_under_an_open_connection_is_a_cut() {
    let Demoted { client, new, busy, gateway: _gateway, .. } = &demoted().await;
    // By someone else, so that only the subscription can bring it.
    let elsewhere = Gateway::start_with(options(new.url(), "")).await;
    publish(&elsewhere.http, "a", 6..=10).await;
    wait_number(client, "a", 10).await;
    busy.abort();
    assert_saw("live", client, "a", 1..=10, &[]);
    client.read(|log| assert!(log.ends.is_empty(), "its stream stayed open"));
}

#[tokio::test]
async fn rule_16_a_replica_whose_server_was_demoted_publishes_to_the_new_master() {
    let Demoted { gateway, client, busy, .. } = &demoted().await;
    publish(&gateway.http, "a", 6..=10).await;
    wait_number(client, "a", 10).await;
    busy.abort();
    assert_saw("live", client, "a", 1..=10, &[]);
}
