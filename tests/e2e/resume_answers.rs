//! History and long polls as JSON: the same guarantee for those who hold no stream.

use serde_json::Value;
use sluice_tests::{
    check,
    cluster::Cluster,
    gateway::Gateway,
    http::Http,
    numbered::publish,
    publisher::Publisher,
    redis::Redis,
    wait::{self, PATIENCE},
};
use std::time::{Duration, Instant};

const JSON: [(&str, &str); 1] = [("accept", "application/json")];

fn data(answer: &Value) -> Vec<String> {
    let events = answer["events"].as_array().expect("events");
    events.iter().map(|event| event["data"].as_str().expect("data").to_owned()).collect()
}

fn payloads(numbers: std::ops::RangeInclusive<u64>) -> Vec<String> {
    numbers.map(|number| check::payload("a", number)).collect()
}

async fn pages(gateway: &Gateway) {
    let none = gateway.http.json("/channels/a/events").await;
    assert_eq!((data(&none).len(), &none["next"]), (0, &Value::Null), "{none}");
    let none = gateway.http.json("/channels/a").await;
    assert_eq!((&none["first"], &none["last"]), (&Value::Null, &Value::Null), "{none}");

    publish(&gateway.http, "a", 1..=250).await;
    let (mut seen, mut positions) = (Vec::new(), Vec::new());
    let mut path = "/channels/a/events?since=earliest&limit=60".to_owned();
    for page in 1.. {
        let answer = gateway.http.json(&path).await;
        assert_eq!(answer["channel"], "a");
        seen.extend(data(&answer));
        positions.extend(answer["events"].as_array().expect("events").iter().map(|event| event["position"].clone()));
        let Some(next) = answer["next"].as_str() else {
            assert_eq!(page, 5, "pages of 60");
            break;
        };
        assert_eq!(positions.last().and_then(Value::as_str), Some(next));
        path = format!("/channels/a/events?after={next}&limit=60");
    }
    assert_eq!(seen, payloads(1..=250));
    let channel = gateway.http.json("/channels/a").await;
    assert_eq!((&channel["first"], &channel["last"]), (&positions[0], &positions[249]), "{channel}");

    assert_eq!(data(&gateway.http.json("/channels/a/events?since=last:3").await), payloads(248..=250));
    assert_eq!(data(&gateway.http.json("/channels/a/events?since=10m&limit=2").await), payloads(1..=2));
    assert_eq!(data(&gateway.http.json("/channels/a/events").await), payloads(1..=100), "100 unless asked otherwise");
    let top = positions[249].as_str().expect("a position");
    let end = gateway.http.json(&format!("/channels/a/events?after={top}")).await;
    assert_eq!((data(&end).len(), &end["next"]), (0, &Value::Null), "{end}");
    for wrong in ["limit=0", "limit=1001", "limit=x", "after=x", "since=x", "after=1-1&since=10m"] {
        gateway.http.get(&format!("/channels/a/events?{wrong}")).await.problem(400);
    }
}

#[tokio::test]
async fn history_in_pages_with_the_embedded_broker() {
    pages(&Gateway::start("").await).await;
}

#[tokio::test]
async fn history_in_pages_with_redis() {
    let cluster = Cluster::start(Redis::start().await, 1, "").await;
    pages(&cluster.gateways[0]).await;
}

/// One poll through any replica, repeated until it is answered.
async fn poll(http: &Http, path: &str) -> Value {
    let polled = async || {
        let answer = http.try_send("GET", path, &JSON, "").await.ok()?;
        if answer.status != 200 {
            assert!(answer.status >= 500, "{}", answer.text());
            return None;
        }
        assert_eq!(answer.header("content-type"), "application/json");
        Some(answer.json())
    };
    wait::until("the poll is answered", polled).await
}

#[tokio::test]
async fn a_poll_waits_as_long_as_asked_and_ends_with_the_first_events() {
    let gateway = Gateway::start("").await;
    let begun = Instant::now();
    let empty = poll(&gateway.http, "/events?channel=a&wait=1s").await;
    assert!(data(&empty).is_empty() && begun.elapsed() >= Duration::from_millis(900), "{empty}");
    let cursor = empty["cursor"].as_str().expect("a cursor to go on from").to_owned();
    publish(&gateway.http, "a", 1..=3).await;
    let begun = Instant::now();
    let three = poll(&gateway.http, &format!("/events?channel=a&wait=25s&lastEventId={cursor}")).await;
    assert_eq!(data(&three), payloads(1..=3));
    assert!(begun.elapsed() < Duration::from_secs(5), "what is there is not waited for: {:?}", begun.elapsed());
    let cursor = three["cursor"].as_str().expect("a cursor");
    let path = format!("/events?channel=a&wait=25s&lastEventId={cursor}");
    let later = async {
        wait::until("the poll waits", async || (gateway.connections().await > 0).then_some(())).await;
        publish(&gateway.http, "a", 4..=4).await;
    };
    let (four, ()) = tokio::join!(poll(&gateway.http, &path), later);
    assert_eq!(data(&four), payloads(4..=4));
}

#[tokio::test]
async fn a_poll_that_does_not_wait_still_says_where_it_stands_and_gets_what_is_there() {
    let cluster = Cluster::start(Redis::start().await, 2, "[hub]\ntail_bytes = \"1KiB\"\n").await;
    let [one, other] = &cluster.gateways[..] else { panic!("two") };
    publish(&one.http, "a", 1..=20).await;
    for round in 0..100 {
        let gateway = if round % 2 == 0 { one } else { other };
        let begin = poll(&gateway.http, &format!("/events?channel=c{round}&wait=0s")).await;
        assert!(begin["cursor"].is_string(), "round {round}: whoever polls again must not begin anew: {begin}");
        let since = poll(&gateway.http, "/events?channel=a&since=last:5&wait=0s").await;
        assert_eq!(data(&since), payloads(16..=20), "round {round}: {since}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_in_a_loop_see_every_event_once_and_in_order_across_kill_9() {
    let mut cluster = Cluster::start(Redis::start().await, 3, "[hub]\ntail_bytes = \"1KiB\"\n").await;
    let begin = poll(&cluster.nginx.http, "/events?channel=a&channel=b&wait=100ms").await;
    let begin = begin["cursor"].as_str().expect("a cursor").to_owned();
    let http = cluster.nginx.http.clone();
    let (stop, stopped) = tokio::sync::watch::channel(None::<(u64, u64)>);
    let pollers: Vec<_> = (0..5)
        .map(|_| {
            let (http, mut cursor, stopped) = (http.clone(), begin.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut seen = Vec::new();
                let has = |seen: &[String], (a, b): (u64, u64)| {
                    seen.contains(&check::payload("a", a)) && seen.contains(&check::payload("b", b))
                };
                let mut polls = 0;
                while !stopped.borrow().is_some_and(|last| has(&seen, last)) {
                    let path = format!("/events?channel=a&channel=b&wait=300ms&lastEventId={cursor}");
                    let Ok(answer) = http.try_send("GET", &path, &JSON, "").await else { continue };
                    if answer.status != 200 {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                    let answer: Value = answer.json();
                    polls += 1;
                    seen.extend(data(&answer));
                    answer["cursor"].as_str().expect("a cursor").clone_into(&mut cursor);
                }
                (seen, polls)
            })
        })
        .collect();
    let publishers =
        ["a", "b"].map(|channel| Publisher::start(cluster.gateways[1].address, channel, Duration::from_millis(5)));
    for victim in [0, 2, 0] {
        publishers[0].wait_more(60).await;
        cluster.gateways[victim].process.kill();
        publishers[0].wait_more(60).await;
        cluster.gateways[victim].restart();
        cluster.gateways[victim].wait_ready(PATIENCE).await;
    }
    let [a, b] = publishers.map(Publisher::stop);
    let last = (a.await.0, b.await.0);
    stop.send_replace(Some(last));
    for poller in pollers {
        let (seen, polls) = wait::soon("the poller has everything", poller).await.expect("no panic");
        assert!(polls > 5, "{polls}");
        for (channel, last) in [("a", last.0), ("b", last.1)] {
            let verdict = check::once_and_in_order(channel, seen.iter().map(String::as_str), 1..=last);
            assert!(verdict.is_ok(), "{verdict:?}");
        }
        assert_eq!(seen.len() as u64, last.0 + last.1, "and nothing else, no gap");
    }
}
