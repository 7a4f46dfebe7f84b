//! Three replicas, one Redis, nginx in front: however an event is published, it reaches all clients once and in order.

use serde_json::json;
use sluice_tests::{
    check::{self, payload},
    cli::{sluice_ok, sluice_with_input},
    client::Client,
    cluster::Cluster,
    gateway::{Gateway, Options},
    redis::Redis,
    wait,
};
use std::collections::HashMap;

const CLIENTS: usize = 300;
const PER_WAY: u64 = 20;
/// What is published to `$all`.
const TO_ALL: &str = "to-all";

/// Numbers the events of each channel.
#[derive(Default)]
struct Numbers(HashMap<&'static str, u64>);

impl Numbers {
    fn next(&mut self, channel: &'static str) -> String {
        let number = self.0.entry(channel).or_default();
        *number += 1;
        payload(channel, *number)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_publishing_reaches_all_clients_once_and_in_order() {
    let cluster = Cluster::start(Redis::start().await, 3, "").await;
    // Two thirds have one channel, whose frames they share; the others have several, and cursors of their own.
    let mut groups: Vec<(&[&str], Vec<Client>)> = Vec::new();
    for channels in [&["a"][..], &["b"], &["a", "b"]] {
        groups.push((channels, cluster.event_sources(CLIENTS / 3, channels).await));
    }
    for gateway in &cluster.gateways {
        assert!(gateway.connections().await > 50, "nginx spreads them");
    }

    let mut numbers = Numbers::default();
    publish_over_http(&cluster, &mut numbers).await;
    publish_with_the_command(&cluster, &mut numbers).await;
    publish_to_redis(&cluster, &mut numbers).await;
    // Once more through a gateway: what has a position and what has none stand in one line.
    publish_over_http(&cluster, &mut numbers).await;

    for (channels, clients) in &groups {
        let expected: Vec<_> =
            channels.iter().copied().chain([TO_ALL]).map(|channel| (channel, numbers.0[channel])).collect();
        let count: u64 = expected.iter().map(|(_, count)| count).sum();
        for client in clients {
            client.wait_events(count as usize).await;
            client.read(|log| {
                for (channel, count) in &expected {
                    let verdict = check::once_and_in_order(channel, log.data(), 1..=*count);
                    assert!(verdict.is_ok(), "{verdict:?}");
                }
                assert_eq!(log.events.len() as u64, count, "and nothing else");
                assert_eq!(log.heads.len(), 1, "over one connection");
            });
        }
    }
}

async fn publish_over_http(cluster: &Cluster, numbers: &mut Numbers) {
    let nginx = &cluster.nginx.http;
    let replicas = cluster.gateways.iter().map(|gateway| &gateway.http);
    for http in replicas.chain([nginx]) {
        for _ in 0..PER_WAY {
            for channel in ["a", "b"] {
                let answer = http.post(&format!("/channels/{channel}/events"), numbers.next(channel)).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        }
        let answer = http.post("/broadcast", numbers.next(TO_ALL)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());

        let events = |numbers: &mut Numbers| -> Vec<_> {
            let mut event = |channel| json!({"channel": channel, "data": numbers.next(channel)});
            (0..PER_WAY).flat_map(|_| [event("a"), event("b")]).collect()
        };
        let array = json!(events(numbers)).to_string();
        let answer = http.send("POST", "/events", &[("content-type", "application/json")], array).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let lines: String = events(numbers).iter().map(|event| format!("{event}\n")).collect();
        let answer = http.send("POST", "/events", &[("content-type", "application/x-ndjson")], lines).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

async fn publish_with_the_command(cluster: &Cluster, numbers: &mut Numbers) {
    let (url, redis) = (format!("http://{}", cluster.nginx.address), cluster.redis.url());
    for target in [["--url", url.as_str()], ["--redis", redis.as_str()]] {
        for channel in ["a", "b"] {
            sluice_ok(&["publish", channel, &numbers.next(channel), target[0], target[1]]).await;
            let lines: Vec<_> = (0..PER_WAY).map(|_| numbers.next(channel)).collect();
            let args = ["publish", channel, "--lines", target[0], target[1]];
            let ended = sluice_with_input(&args, &lines.join("\n")).await;
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        }
    }
}

/// As any program with a Redis client would: the data alone, or a JSON event.
async fn publish_to_redis(cluster: &Cluster, numbers: &mut Numbers) {
    let redis = &cluster.redis;
    for _ in 0..PER_WAY {
        for channel in ["a", "b"] {
            let name = format!("sluice:{channel}");
            assert_eq!(redis.publish(&name, &numbers.next(channel)).await, 3, "one subscription for each replica");
            let event = json!({"event": "raw", "data": numbers.next(channel)});
            redis.publish(&name, &event.to_string()).await;
        }
    }
    redis.publish("sluice:$all", &numbers.next(TO_ALL)).await;
}

#[tokio::test]
async fn a_raw_publish_is_data_or_a_json_event_and_nothing_stops_the_link() {
    let cluster = Cluster::start(Redis::start().await, 1, "").await;
    let client = cluster.gateways[0].subscribe(&["raw"]).await;
    let mut connection = cluster.redis.connection().await;
    for payload in [
        &b"plain"[..],
        b"two\r\nlines",
        b"",
        br#"{"data":"x","event":"typed"}"#,
        br#"{"data":{"n":1.50}, "retry": 2500}"#,
        br#"{"data":"x","unknown":1}"#,
        br#"{"event":"no data"}"#,
        b"not utf-8 \xff",
        b"\xff\x02 from a later version",
        br#"{"data":"x","event":"two\nlines"}"#,
        &[b'x'; 200_000],
        b"last",
    ] {
        let _: i64 =
            redis::cmd("PUBLISH").arg("sluice:raw").arg(payload).query_async(&mut connection).await.expect("sent");
    }
    client.wait_data("last").await;
    let seen: Vec<_> = client.read(|log| {
        log.events.iter().filter(|event| event.event != "gap").map(|e| (e.event.clone(), e.data.clone())).collect()
    });
    let seen: Vec<_> = seen.iter().map(|(event, data)| (event.as_str(), data.as_str())).collect();
    assert_eq!(
        seen,
        [
            ("message", "plain"),
            ("message", "two\nlines"),
            ("message", ""),
            ("typed", "x"),
            ("message", "{\"n\":1.50}"),
            ("message", "{\"data\":\"x\",\"unknown\":1}"),
            ("message", "{\"event\":\"no data\"}"),
            ("message", "last"),
        ]
    );
    assert_eq!(client.read(|log| log.retry_ms), Some(2500));
    let gateway = &cluster.gateways[0];
    gateway.wait_metric("sse_events_published_total", &["source=\"raw\""], 8.0).await;
}

#[tokio::test]
async fn gateways_of_another_prefix_share_nothing() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(redis, 1, "[redis]\nprefix = \"one:\"\n").await;
    let options = sluice_tests::gateway::Options {
        config: "[redis]\nprefix = \"two:\"\n".to_owned(),
        redis: Some(cluster.redis.url()),
        ..Default::default()
    };
    let other = sluice_tests::gateway::Gateway::start_with(options).await;
    let (one, two) = (cluster.gateways[0].subscribe(&["a"]).await, other.subscribe(&["a"]).await);
    cluster.gateways[0].publish("a", "of one").await;
    other.publish("a", "of two").await;
    one.wait_events(1).await;
    two.wait_events(1).await;
    cluster.redis.publish("one:a", "raw one").await;
    cluster.redis.publish("two:a", "raw two").await;
    one.wait_data("raw one").await;
    two.wait_data("raw two").await;
    assert_eq!(
        (one.data(), two.data()),
        (vec!["of one".to_owned(), "raw one".into()], vec!["of two".to_owned(), "raw two".into()])
    );
    assert_eq!(other.http.json("/connections").await["connections"]["cluster"], 1);
}

#[tokio::test]
async fn an_announcement_of_what_is_in_no_history_costs_two_looks_and_nobody_an_event() {
    let redis = Redis::start().await;
    let gateway = Gateway::start_with(Options { redis: Some(redis.url()), ..Options::default() }).await;
    let client = gateway.subscribe(&["a"]).await;
    gateway.publish("a", "one").await;
    client.wait_data("one").await;
    let repairs = async || gateway.metric("sse_repairs_total", &["cause=\"hole\""]).await;
    let mut forge = redis::cmd("PUBLISH");
    // A number that no event here comes to.
    forge.arg("sluice:a").arg(&b"\xff\x011795954109889037-900 1795954109889030 \nforged"[..]);
    let _: i64 = forge.query_async(&mut redis.connection().await).await.expect("published");
    let let_go = async || gateway.process.stderr().contains("is not in the history").then_some(());
    wait::until("it was let go of", let_go).await;
    assert_eq!(repairs().await, 2.0);
    for number in 2..=50 {
        gateway.publish("a", format!("event {number}")).await;
    }
    client.wait_data("event 50").await;
    assert_eq!(repairs().await, 2.0);
    assert_eq!(client.data().len(), 50, "{:?}", client.data());
}
