//! What a kept event costs in memory, and that recent events of many channels have a bound together.

use sluice_tests::{
    client::{Client, Log, Request},
    gateway::Gateway,
};

const EVENTS: usize = 10_000;
const CHANNELS: usize = 100;
/// What an event of a hundred bytes may cost: its content and positions, in the history and for those who come back
/// soon, but not the buffer that its request was read into, which is 8 KiB at the least.
const MOST_BYTES: u64 = 2_500;

/// Memory of its own that a process has, in bytes.
fn anonymous_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().strip_suffix("kB").and_then(|kib| kib.trim().parse::<u64>().ok()).expect("a size") * 1024
}

/// Clients of so many channels, which have them all.
async fn subscribe_to_all(gateway: &Gateway, names: &[String]) -> Vec<Client> {
    let mut clients = Vec::new();
    for some in names.chunks(50) {
        let some: Vec<_> = some.iter().map(String::as_str).collect();
        clients.push(gateway.subscribe(&some).await);
    }
    clients
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|nth| format!("{prefix}-{nth}")).collect()
}

/// Publishes to each channel, in as few requests as may be.
async fn publish_to_each(gateway: &Gateway, names: &[String], data: &str) {
    for some in names.chunks(500) {
        let lines: String =
            some.iter().map(|name| format!("{{\"channel\":\"{name}\",\"data\":\"{data}\"}}\n")).collect();
        let answer = gateway.http.post("/events", lines).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_kept_event_costs_near_its_size_and_not_that_of_the_request_it_came_in() {
    let gateway = Gateway::start("").await;
    // Subscribed to, so that each is kept in both places.
    let names = names("memory", CHANNELS);
    let _clients = subscribe_to_all(&gateway, &names).await;
    gateway.publish("memory-0", "x".repeat(100)).await;
    let before = anonymous_bytes(gateway.process.id());
    for nth in 0..EVENTS {
        gateway.publish(&names[nth % CHANNELS], "x".repeat(100)).await;
    }
    let grown = anonymous_bytes(gateway.process.id()).saturating_sub(before);
    assert!(grown < MOST_BYTES * EVENTS as u64, "{} bytes an event", grown / EVENTS as u64);
}

/// Recent events of all channels may take 1 MiB, and so may history.
const SMALL: &str =
    "[hub]\ntail_bytes = \"64KiB\"\ntail_total_bytes = \"1MiB\"\nshards = 2\n[memory]\nmax_bytes = \"1MiB\"\n";

#[tokio::test]
async fn recent_events_of_many_channels_together_stay_within_their_bound() {
    const CHANNELS: usize = 800;
    const EACH: usize = 64;
    // What the channels have by themselves, their clients' streams, and what the allocator keeps.
    const BESIDE: u64 = 16 << 20;
    let gateway = Gateway::start(SMALL).await;
    let names = names("many", CHANNELS);
    let _clients = subscribe_to_all(&gateway, &names).await;
    publish_to_each(&gateway, &names, "first").await;
    let before = anonymous_bytes(gateway.process.id());
    for _ in 0..EACH {
        publish_to_each(&gateway, &names, &"x".repeat(400)).await;
    }
    let grown = anonymous_bytes(gateway.process.id()).saturating_sub(before);
    assert!(grown < BESIDE + (2 << 20), "{grown} bytes, where {} were published", CHANNELS * EACH * 400);
}

#[tokio::test]
async fn a_quiet_channel_gives_way_to_those_that_come() {
    let gateway = Gateway::start(&format!("{SMALL}[stream]\nheartbeat = \"1s\"\n")).await;
    let quiet = Client::once(Request::new(gateway.address, "/events?channel=quiet&heartbeat=event")).await;
    quiet.wait("where it stands", |log| !log.last_event_id.is_empty()).await;
    let first = quiet.read(|log| log.last_event_id.clone());
    for _ in 0..40 {
        gateway.publish("quiet", "x".repeat(400)).await;
    }
    let from_memory = async || gateway.metric("sse_resumes_total", &["source=\"memory\""]).await;
    // Two that stay: each shard has one of them.
    let resume = async || {
        let request = gateway.events(&["quiet"]).header("Last-Event-ID", &first);
        let clients = [Client::once(request.clone()).await, Client::once(request).await];
        for client in &clients {
            client.wait_events(40).await;
        }
        clients
    };
    drop(resume().await);
    assert_eq!(from_memory().await, 2.0);
    gateway.wait_metric("sse_connections_active", &[], 1.0).await;
    let names = names("other", 400);
    let _clients = subscribe_to_all(&gateway, &names).await;
    publish_to_each(&gateway, &names, &"x".repeat(400)).await;
    // Both the channels' own turn and the shards' come once a second.
    let beats = |log: &Log| log.events.iter().filter(|event| event.event == "heartbeat").count();
    let before = quiet.read(beats);
    quiet.wait("three heartbeats", |log| beats(log) >= before + 3).await;
    drop(resume().await);
    assert_eq!(from_memory().await, 2.0, "these were read from history");
}
