//! Clients of every kind that come and go for as long as is asked, on one gateway with Redis; and what it holds meanwhile
//! and afterwards. By hand:
//!
//!     cargo build --release --workspace && cargo run --release -p sluice-tests --example soak -- 60
//!
//! for 60 minutes. It prints a line a minute, and fails if something is left over.

#![expect(clippy::print_stdout, reason = "what it is for")]

use futures_util::StreamExt;
use sluice_tests::{
    check::payload,
    client::{Client, Request},
    figures::Figures,
    gateway::{Gateway, Options, events_target},
    redis::Redis,
    wait,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const WORKERS: usize = 300;
const CHANNELS: u64 = 50;
/// The longest that a client stays.
const STAY: Duration = Duration::from_secs(4);
/// Between two events.
const PACE: Duration = Duration::from_millis(10);
const CONFIG: &str = "[redis]\nlinger = \"1s\"\n[history]\nsize = 200\nage = \"1m\"\n[http]\nidle_timeout = \"5s\"\n";
/// How much larger the process may be at the end than at half time: each channel's compressors are made once.
const GROWTH: f64 = 0.1;
/// Connections that may be left: those of its own requests.
const KEPT: f64 = 3.0;

fn channel() -> String {
    format!("soak-{}", fastrand::u64(..CHANNELS))
}

/// The answer, which is a good one. A kept connection can end at the very moment that a request is sent on it, and then a
/// client asks again.
async fn answered(request: reqwest::RequestBuilder) -> reqwest::Response {
    let again = request.try_clone().expect("no body");
    let answer = match wait::soon("an answer", request.send()).await {
        Ok(answer) => answer,
        Err(_) => wait::soon("an answer", again.send()).await.expect("an answer"),
    };
    assert_eq!(answer.status(), 200);
    answer
}

/// One visit, of a kind by chance, ended in the middle of things.
async fn visit(gateway: &Gateway, clients: &[reqwest::Client; 2], cursor: &mut String) {
    let (mut names, stay) = (vec![channel(), channel()], STAY.mul_f32(fastrand::f32()));
    names.dedup();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let target = events_target(&names);
    let url = format!("http://{}{target}", gateway.address);
    match fastrand::u8(..6) {
        kind @ (0 | 1) => {
            let mut request = Request::new(gateway.address, &target).header("Last-Event-ID", cursor);
            if kind == 1 {
                request = request.encoded("gzip");
            }
            let client = Client::once(request).await;
            tokio::time::sleep(stay).await;
            *cursor = client.read(|log| log.last_event_id.clone());
        }
        kind @ (2..=4) => {
            let (client, accept) = match kind {
                2 => (&clients[0], "application/x-ndjson"),
                3 => (&clients[1], "text/event-stream"),
                _ => (&clients[1], "application/x-ndjson"),
            };
            let request = client.get(&url).header("accept", accept).header("accept-encoding", "zstd");
            let mut bytes = answered(request).await.bytes_stream();
            let _ = tokio::time::timeout(stay, async { while bytes.next().await.is_some() {} }).await;
        }
        _ => {
            let request = clients[0].get(format!("{url}&wait=1s")).header("accept", "application/json");
            let _ = answered(request).await.bytes().await;
        }
    }
}

async fn come_and_go(gateway: Arc<Gateway>, until: Instant, visits: Arc<AtomicU64>) {
    let plain = || reqwest::Client::builder().no_proxy().tls_certs_only([]);
    let clients = [plain().build().expect("a client"), plain().http2_prior_knowledge().build().expect("a client")];
    let mut cursor = String::new();
    while Instant::now() < until {
        visit(&gateway, &clients, &mut cursor).await;
        visits.fetch_add(1, Ordering::Relaxed);
    }
}

async fn publish(gateway: Arc<Gateway>, until: Instant) {
    let mut number = 0;
    let mut pace = tokio::time::interval(PACE);
    while Instant::now() < until {
        pace.tick().await;
        number += 1;
        gateway.publish(&channel(), payload("soak", number)).await;
    }
}

#[tokio::main]
async fn main() {
    let minutes: u64 = std::env::args().nth(1).map_or(60, |text| text.parse().expect("a number of minutes"));
    let redis = Redis::start().await;
    let options = Options { config: CONFIG.to_owned(), redis: Some(redis.url()), ..Options::default() };
    let gateway = Arc::new(Gateway::start_with(options).await);
    let before = Figures::of(&gateway).await;
    println!("| minute | visits | memory, MiB | descriptors | threads | tasks | streams | channels |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |\n| before | 0 | {before} |");
    let until = Instant::now() + Duration::from_secs(minutes * 60);
    let visits = Arc::new(AtomicU64::new(0));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(come_and_go(Arc::clone(&gateway), until, Arc::clone(&visits)));
    }
    workers.spawn(publish(Arc::clone(&gateway), until));
    let mut half = before;
    for minute in 1..=minutes {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let now = Figures::of(&gateway).await;
        if minute == minutes.div_ceil(2) {
            half = now;
        }
        println!("| {minute} | {} | {now} |", visits.load(Ordering::Relaxed));
    }
    while let Some(worker) = workers.join_next().await {
        worker.expect("no worker failed");
    }
    let is_empty = async || {
        let now = Figures::of(&gateway).await;
        now.is_as(&before, KEPT).then_some(now)
    };
    let after = wait::until("all is as before", is_empty).await;
    println!("| after | {} | {after} |", visits.load(Ordering::Relaxed));
    assert!(after.memory <= half.memory * (1.0 + GROWTH), "it grew from {half} to {after}");
}
