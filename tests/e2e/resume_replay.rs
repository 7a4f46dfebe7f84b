//! Replays: how far back, into a stream that goes on, into history that is being trimmed, and for a crowd at once.

use sluice_tests::{
    check::payload,
    client::{Client, Request},
    cluster::connect,
    follower::{Follower, Habit},
    gateway::{Gateway, Options},
    numbered::{assert_saw, cursor, publish, resume, saw, wait_number},
    proxy::{Cut, Proxy},
    publisher::Publisher,
    redis::Redis,
    wait::{self, PATIENCE},
};
use std::time::Duration;

const CONFIG: &str = "[stream]\nretry_min = \"20ms\"\nretry_max = \"60ms\"\n[hub]\ntail_bytes = \"1KiB\"\n";
const LONG: &str = "[[channel]]\nmatch = \"*\"\nhistory = { size = 20000 }\n";

async fn on(redis: &Redis, config: &str) -> Gateway {
    let options = Options { config: config.to_owned(), redis: Some(redis.url()), ..Options::default() };
    Gateway::start_with(options).await
}

async fn far_back(gateway: &Gateway, other: &Gateway) {
    let client = gateway.subscribe(&["a"]).await;
    let nothing = cursor(&client);
    publish(&gateway.http, "a", 1..=1).await;
    wait_number(&client, "a", 1).await;
    let first = cursor(&client);
    drop(client);
    publish(&gateway.http, "a", 2..=1500).await;
    let thousand = resume(other, &["a"], &first).await;
    wait_number(&thousand, "a", 1500).await;
    assert_saw("after more than 1,000", &thousand, "a", 2..=1500, &[]);
    publish(&gateway.http, "a", 1501..=12_000).await;
    for (who, id, from) in [("after more than 10,000", &first, 2), ("one that had seen nothing", &nothing, 1)] {
        let client = resume(other, &["a"], id).await;
        wait_number(&client, "a", 12_000).await;
        publish(&gateway.http, "a", 12_001..=12_001).await;
        wait_number(&client, "a", 12_001).await;
        assert_saw(who, &client, "a", from..=12_001, &[]);
    }
    assert_saw("live meanwhile", &thousand, "a", 2..=12_001, &[]);
}

#[tokio::test]
async fn more_than_1000_and_more_than_10000_events_with_redis_on_another_replica() {
    let redis = Redis::start().await;
    let config = format!("{CONFIG}{LONG}");
    far_back(&on(&redis, &config).await, &on(&redis, &config).await).await;
}

#[tokio::test]
async fn more_than_1000_and_more_than_10000_events_with_the_embedded_broker() {
    let gateway = Gateway::start(&format!("{CONFIG}{LONG}")).await;
    far_back(&gateway, &gateway).await;
}

/// Clients that are cut again and again while events come as fast as they are taken: each of their replays ends beside
/// an event that is just being published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_published_between_the_end_of_a_replay_and_the_joining_is_seen_once() {
    let redis = Redis::start().await;
    let gateway = on(&redis, &format!("{CONFIG}{LONG}")).await;
    let proxy = Proxy::start(gateway.address).await;
    let request = Request::new(proxy.address, "/events?channel=a&channel=b");
    let mut followers = Vec::new();
    for _ in 0..40 {
        followers.push(Follower::start(request.clone(), &["a", "b"], Habit::Faithful).await);
    }
    let publishers = ["a", "b"].map(|channel| Publisher::start(gateway.address, channel, Duration::ZERO));
    for round in 0..60 {
        publishers[round % 2].wait_more(5).await;
        let mut nth = round;
        proxy.cut(if round % 3 == 0 { Cut::Reset } else { Cut::Close }, || {
            nth += 1;
            nth % 3 == 0
        });
    }
    let mut counts = Vec::new();
    for publisher in publishers {
        counts.push(publisher.stop().await.0);
    }
    for follower in &followers {
        for (channel, &count) in ["a", "b"].iter().zip(&counts) {
            follower.wait_number(channel, count).await;
            follower.assert_saw(channel, &[1..=count], 0);
        }
    }
    let connections: usize = followers.iter().map(|follower| follower.read(|seen| seen.connections)).sum();
    assert!(connections > 400, "they came back often: {connections}");
    assert!(gateway.metric("sse_resumes_total", &["source=\"broker\""]).await > 0.0, "and read history");
}

/// What the first id says is where the stream begins, also when events are published at that very moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_event_at_subscribe_time_is_either_in_the_stream_or_before_its_first_id() {
    let redis = Redis::start().await;
    let config = format!("{CONFIG}{LONG}");
    let (gateway, other) = (on(&redis, &config).await, on(&redis, &config).await);
    let publisher = Publisher::start(gateway.address, "a", Duration::ZERO);
    publisher.wait_more(3).await;
    for round in 0..60 {
        // One that others listen to, and one that this stream is the first on.
        let at = if round % 2 == 0 { &gateway } else { &other };
        let client = Client::once(at.events(&["a"]).keeping_body()).await;
        let first_id = |text: &str| text.lines().find_map(|line| line.strip_prefix("id: ").map(str::to_owned));
        client.wait("events", |log| log.events.len() >= 3).await;
        let id = client.read(|log| first_id(&log.text())).expect("the stream begins with an id");
        let again = resume(&other, &["a"], &id).await;
        again.wait("the same events", |log| log.events.len() >= 3).await;
        let begin = |client: &Client| client.read(|log| saw(log, "a").0[..3].to_vec());
        assert_eq!(begin(&client), begin(&again), "round {round}: after {id}");
    }
    publisher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_trimmed_while_it_is_read_is_a_gap_at_the_most_and_never_a_silent_loss() {
    let redis = Redis::start().await;
    let rule = "[[channel]]\nmatch = \"*\"\nhistory = { size = 3000 }\n";
    let gateway = on(&redis, &format!("{CONFIG}{rule}")).await;
    let client = gateway.subscribe(&["a"]).await;
    publish(&gateway.http, "a", 1..=1).await;
    wait_number(&client, "a", 1).await;
    let id = cursor(&client);
    drop(client);
    publish(&gateway.http, "a", 2..=3000).await;

    let slow = Proxy::start(gateway.address).await;
    let mut readers = Vec::new();
    for _ in 0..10 {
        let request = Request::new(slow.address, &format!("/events?channel=a&lastEventId={id}"));
        readers.push(Follower::start(request, &["a"], Habit::Faithful).await);
    }
    for batch in 0..12 {
        publish(&gateway.http, "a", 3001 + batch * 1000..=4000 + batch * 1000).await;
        slow.stall(Duration::from_millis(60)).await;
    }
    let last = 15_000;
    for reader in &readers {
        reader.wait_number("a", last).await;
        reader.read(|seen| {
            let runs = &seen.runs["a"];
            assert!(seen.breaks.is_empty(), "{:?}", seen.breaks);
            // Their cursor stands after the first event, so that one that begins later begins with a gap.
            let holes = runs.len() - usize::from(*runs[0].start() == 2);
            assert_eq!(holes, seen.gaps.len(), "a gap for each hole: {runs:?} {:?}", seen.gaps);
            assert!(seen.gaps.iter().all(|gap| gap.reason == "trimmed"), "{:?}", seen.gaps);
            assert!(runs.windows(2).all(|pair| *pair[1].start() > pair[0].end() + 1), "each gap is one: {runs:?}");
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_on_one_channel_reads_its_history_a_few_times_and_not_once_for_each() {
    const STORM: usize = 2000;
    let redis = Redis::start().await;
    let first = on(&redis, CONFIG).await;
    let client = first.subscribe(&["a"]).await;
    let mut cursors = Vec::new();
    for number in 1..=20 {
        publish(&first.http, "a", number..=number).await;
        wait_number(&client, "a", number).await;
        cursors.push((number, cursor(&client)));
    }
    publish(&first.http, "a", 21..=100).await;
    let fresh = on(&redis, CONFIG).await;
    let stood = |nth: usize| &cursors[nth % cursors.len()];
    let clients = connect(STORM, |nth| resume(&fresh, &["a"], &stood(nth).1)).await;
    publish(&first.http, "a", 101..=101).await;
    for (nth, client) in clients.iter().enumerate() {
        wait_number(client, "a", 101).await;
        assert_saw("one of the storm", client, "a", stood(nth).0 + 1..=101, &[]);
    }
    let reads = fresh.metric("sse_history_read_seconds_count", &[]).await;
    assert!((1.0..=20.0).contains(&reads), "{STORM} clients made {reads} reads");
    assert_eq!(fresh.metric("sse_replays_in_flight", &[]).await, 0.0);
}

#[tokio::test]
async fn a_thousand_that_replay_do_not_delay_those_who_are_live() {
    let redis = Redis::start().await;
    let gateway = on(&redis, &format!("{CONFIG}{LONG}")).await;
    let client = gateway.subscribe(&["long"]).await;
    let id = cursor(&client);
    drop(client);
    publish(&gateway.http, "long", 1..=1000).await;
    let live = gateway.subscribe(&["live"]).await;
    let storm = tokio::spawn({
        let (request, id) = (gateway.events(&["long"]), id.clone());
        connect(500, move |_| Client::once(request.clone().header("Last-Event-ID", &id)))
    });
    let mut slowest = Duration::ZERO;
    for number in 1..=40 {
        let sent = std::time::Instant::now();
        publish(&gateway.http, "live", number..=number).await;
        wait_number(&live, "live", number).await;
        slowest = slowest.max(sent.elapsed());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let replayed = wait::soon("the storm", storm).await.expect("no panic");
    for client in &replayed {
        let last = payload("long", 1000);
        client
            .wait_within("all of it", PATIENCE, |log| log.events.last().is_some_and(|event| event.data == last))
            .await;
    }
    assert!(slowest < Duration::from_secs(2), "a live event took {slowest:?}");
}
