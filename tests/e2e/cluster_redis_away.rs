//! Redis dies under traffic and comes back.

use sluice_tests::{check, cluster::Cluster, publisher::Publisher, redis::Redis, wait};
use std::time::{Duration, Instant};

const CLIENTS: usize = 300;
const CONFIG: &str = "[stream]\nheartbeat = \"1s\"\n[redis]\ngrace = \"1s\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_streams_stay_open_and_afterwards_everything_flows_again() {
    let mut cluster = Cluster::start(Redis::start_durable().await, 3, CONFIG).await;
    let clients = cluster.event_sources(CLIENTS, &["a"]).await;
    let publisher = Publisher::start(cluster.nginx.address, "a", Duration::from_millis(5));
    publisher.wait_more(50).await;

    cluster.redis.kill();
    let killed = Instant::now();
    for gateway in &cluster.gateways {
        let begun = Instant::now();
        let answer = gateway.http.post("/channels/b/events", "x").await;
        answer.problem(503);
        assert!(begun.elapsed() < Duration::from_secs(5), "refused after {:?}", begun.elapsed());
        assert!(answer.header("retry-after").parse::<u64>().is_ok(), "{:?}", answer.headers);
        assert!(gateway.metric("sse_publish_failed_total", &[]).await > 0.0, "and counted");
    }
    for gateway in &cluster.gateways {
        let not_ready = async || (gateway.ready().await == Some(503)).then_some(());
        wait::until_within("not ready after the grace", Duration::from_secs(10), not_ready).await;
        let reasons = gateway.admin.get("/readyz").await.text();
        assert!(reasons.contains("broker cannot be reached"), "{reasons}");
        gateway.wait_metric("sse_redis_up", &[], 0.0).await;
        assert_eq!(gateway.admin.get("/livez").await.status, 200);
        let counts = gateway.http.json("/connections").await;
        assert!(counts["connections"]["replica"].as_u64().is_some_and(|count| count > 0), "{counts}");
        assert!(counts["connections"]["cluster"].is_null(), "what is unknown is not made up: {counts}");
    }
    // Long enough that several heartbeats are due, and that every backoff has grown.
    let since = Instant::now();
    for client in &clients {
        client.wait("a heartbeat while Redis is away", |log| log.last_byte.is_some_and(|at| at > since)).await;
    }
    wait::until("some seconds without Redis", async || (killed.elapsed() > Duration::from_secs(6)).then_some(())).await;

    let before = publisher.taken();
    cluster.redis.restart().await;
    let back = Instant::now();
    let flows = async || (publisher.taken() > before + 5).then_some(());
    wait::until_within("publishing again", Duration::from_secs(10), flows).await;
    let newest = check::payload("a", before + 5);
    for client in &clients {
        let left = Duration::from_secs(10).saturating_sub(back.elapsed());
        client.wait_within("events again", left, |log| log.data().any(|data| data == newest)).await;
    }
    for gateway in &cluster.gateways {
        gateway.wait_ready(Duration::from_secs(10)).await;
        gateway.wait_metric("sse_redis_up", &[], 1.0).await;
        gateway.wait_metric("sse_redis_reconnects_total", &[], 1.0).await;
    }
    publisher.wait_more(50).await;
    let (count, refused) = publisher.stop().await;
    assert!(!refused.is_empty(), "it published while Redis was away");
    for refusal in &refused {
        assert_eq!(refusal.status, Some(503), "{refusal:?}");
        assert!(refusal.retry_after.is_some() && refusal.took < Duration::from_secs(5), "{refusal:?}");
    }
    for client in &clients {
        client.wait_data(&check::payload("a", count)).await;
        client.read(|log| {
            let verdict = check::once_and_in_order("a", log.data(), 1..=count);
            assert!(verdict.is_ok(), "{verdict:?}");
            assert_eq!((log.heads.len(), log.ends.len()), (1, 0), "the stream stayed open");
            assert_eq!(log.events.len() as u64, count, "clients notice nothing more than the pause");
        });
    }
}

#[tokio::test]
async fn clients_that_come_while_redis_is_away_get_events_when_it_is_back() {
    let mut cluster = Cluster::start(Redis::start_durable().await, 1, CONFIG).await;
    let gateway = &cluster.gateways[0];
    let early = gateway.subscribe(&["a"]).await;
    cluster.redis.kill();
    gateway.wait_metric("sse_redis_up", &[], 0.0).await;
    let late = gateway.subscribe(&["a", "late"]).await;
    late.read(|log| assert_eq!(log.head().status, 200, "not refused: EventSource would give up for ever"));
    cluster.redis.restart().await;
    let gateway = &cluster.gateways[0];
    gateway.wait_ready(Duration::from_secs(10)).await;
    let subscribed = async || (cluster.redis.subscribers("sluice:late").await == 1).then_some(());
    wait::until("subscribed again", subscribed).await;
    gateway.publish("a", "again").await;
    gateway.publish("late", "too").await;
    early.wait_data("again").await;
    late.wait_data("again").await;
    late.wait_data("too").await;
}

#[tokio::test]
async fn a_gateway_that_starts_before_redis_is_ready_once_it_comes() {
    let mut redis = Redis::start_durable().await;
    let url = redis.url();
    redis.kill();
    let options = sluice_tests::gateway::Options { redis: Some(url), ..Default::default() };
    let gateway = sluice_tests::gateway::Gateway::spawn(options);
    wait::until("it answers", async || (gateway.ready().await == Some(503)).then_some(())).await;
    redis.restart().await;
    gateway.wait_ready(Duration::from_secs(10)).await;
    let client = gateway.subscribe(&["a"]).await;
    gateway.publish("a", "here").await;
    client.wait_data("here").await;
}
