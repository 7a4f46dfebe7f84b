//! Replicas whose clocks differ: positions are by the clock of Redis, so that nothing depends on theirs.

use sluice_tests::{
    client::{Client, Request},
    gateway::{Gateway, Options},
    numbered::{assert_saw, cursor, publish, resume, wait_number},
    redis::Redis,
};

/// A gateway whose clock is off by `offset`, as `faketime` writes it; its timers run as ever.
pub(crate) async fn with_clock(redis: &Redis, offset: &str) -> Gateway {
    let library = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
        .map(|place| format!("{place}/faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .expect("libfaketime is installed (tests/run installs it)");
    let env = [("LD_PRELOAD", library.as_str()), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Gateway::start_with(Options { redis: Some(redis.url()), env, ..Options::default() }).await
}

#[tokio::test]
async fn two_replicas_whose_clocks_differ_by_hours_count_one_line_of_positions() {
    let redis = Redis::start().await;
    let (ahead, behind) = (with_clock(&redis, "+2h").await, with_clock(&redis, "-2h").await);
    let clients = [ahead.subscribe(&["a"]).await, behind.subscribe(&["a"]).await];
    for round in 0..10 {
        let publisher = if round % 2 == 0 { &ahead } else { &behind };
        publish(&publisher.http, "a", round * 5 + 1..=round * 5 + 5).await;
    }
    for client in &clients {
        wait_number(client, "a", 50).await;
        assert_saw("live", client, "a", 1..=50, &[]);
    }

    // Each takes up what the other one sent, and both mean the same by ten minutes.
    let [one, other] = clients.each_ref().map(cursor);
    drop(clients);
    publish(&behind.http, "a", 51..=60).await;
    for (gateway, cursor) in [(&behind, &one), (&ahead, &other)] {
        let client = resume(gateway, &["a"], cursor).await;
        wait_number(&client, "a", 60).await;
        assert_saw("resumed", &client, "a", 51..=60, &[]);
        let client = Client::once(Request::new(gateway.address, "/events?channel=a&since=10m")).await;
        wait_number(&client, "a", 60).await;
        assert_saw("since", &client, "a", 1..=60, &[]);
    }
}
