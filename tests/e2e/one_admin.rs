//! The admin port: health, settings in effect, and metrics that count what really happened.

use sluice_tests::{
    client::Client,
    cluster::connect,
    gateway::{Gateway, Options},
};

/// What dashboards rely on.
const NAMES: [(&str, &str); 17] = [
    ("sse_connections_active", "gauge"),
    ("sse_connections_total", "counter"),
    ("sse_disconnects_total", "counter"),
    ("sse_messages_total", "counter"),
    ("sse_bytes_sent_total", "counter"),
    ("sse_events_published_total", "counter"),
    ("sse_events_received_total", "counter"),
    ("sse_channels_active", "gauge"),
    ("sse_delivery_seconds", "histogram"),
    ("sse_publish_seconds", "histogram"),
    ("sse_redis_up", "gauge"),
    ("sse_redis_reconnects_total", "counter"),
    ("sse_slow_consumers_total", "counter"),
    ("sse_outbox_bytes", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("sse_build_info", "gauge"),
];

#[tokio::test]
async fn every_promised_metric_is_there_with_help_and_type() {
    let gateway = Gateway::start("").await;
    let answer = gateway.admin.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.header("content-type").starts_with("text/plain; version=0.0.4"),
        "{}",
        answer.header("content-type")
    );
    let text = answer.text();
    for (name, kind) in NAMES {
        assert!(text.contains(&format!("# HELP {name} ")), "help of {name}");
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "type of {name}");
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} has a value");
    }
}

#[tokio::test]
async fn metrics_count_what_really_happened() {
    const CLIENTS: usize = 10;
    let gateway = Gateway::start("[redis]\nlinger = \"0s\"\n").await;
    let clients = connect(CLIENTS, |_| gateway.subscribe(&["counted"])).await;
    for _ in 0..7 {
        gateway.publish("counted", "x").await;
    }
    let unheard = gateway.publish("unheard", "x").await;
    assert_eq!(unheard["channel"], "unheard");
    for client in &clients {
        client.wait_events(7).await;
    }
    for (name, labels, value) in [
        ("sse_connections_active", &[][..], 10.0),
        ("sse_connections_total", &[], 10.0),
        ("sse_messages_total", &[], 70.0),
        ("sse_events_published_total", &["source=\"http\""], 8.0),
        ("sse_events_received_total", &[], 7.0),
        ("sse_delivery_seconds_count", &[], 70.0),
        ("sse_publish_seconds_count", &[], 8.0),
        ("sse_disconnects_total", &[], 0.0),
        ("sse_redis_up", &[], 1.0),
        ("sse_outbox_bytes", &[], 0.0),
    ] {
        gateway.wait_metric(name, labels, value).await;
    }
    // "counted" and "$all", which every connection has.
    gateway.wait_metric("sse_channels_active", &[], 2.0).await;
    let sent = gateway.metric("sse_bytes_sent_total", &[]).await;
    assert!(sent >= 70.0 * "data: x\n\n".len() as f64, "{sent}");
    assert!(gateway.metric("sse_delivery_seconds_sum", &[]).await < 70.0 * 5.0, "seconds");
    let first = clients[0].read(|log| log.events[0].id.clone());
    let back = Client::once(gateway.events(&["counted"]).header("Last-Event-ID", &first)).await;
    back.wait_events(6).await;
    gateway.wait_metric("sse_replayed_events_total", &[], 6.0).await;
    gateway.publish("counted", "x").await;
    // Seven to each of ten clients, then one to eleven; what was sent again is not news.
    gateway.wait_metric("sse_delivery_seconds_count", &[], 81.0).await;
    drop(back);
    drop(clients);
    gateway.wait_metric("sse_connections_active", &[], 0.0).await;
    gateway.wait_metric("sse_disconnects_total", &["reason=\"client\""], 11.0).await;
    gateway.wait_metric("sse_channels_active", &[], 0.0).await;
    gateway.wait_metric("sse_connections_total", &[], 11.0).await;
}

#[tokio::test]
async fn health_is_answered_on_the_admin_port_alone() {
    let gateway = Gateway::start("").await;
    for path in ["/livez", "/readyz", "/metrics", "/config"] {
        assert_eq!(gateway.admin.get(path).await.status, 200, "{path}");
        gateway.http.get(path).await.problem(404);
    }
    gateway.admin.get("/events?channel=a").await.problem(404);
}

#[tokio::test]
async fn a_gateway_whose_redis_is_away_lives_but_is_not_ready_and_says_why() {
    let redis = Some(format!("redis://user:hunter2@{}", sluice_tests::ports::free()));
    let gateway = Gateway::spawn(Options { redis, ..Options::default() });
    sluice_tests::wait::until("it answers", async || gateway.ready().await).await;
    let answer = gateway.admin.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("broker cannot be reached"), "{}", answer.text());
    assert_eq!(gateway.admin.get("/livez").await.status, 200);
    let config = gateway.admin.get("/config").await.text();
    assert!(config.contains("redis") && !config.contains("hunter2"), "secrets are hidden: {config}");
    let said = gateway.process.stdout() + &gateway.process.stderr();
    assert!(!said.contains("hunter2"), "in the log too: {said}");
}

#[tokio::test]
async fn the_console_is_one_page_that_needs_nothing_from_elsewhere() {
    let gateway = Gateway::start("").await;
    let page = gateway.http.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"), "{}", page.header("content-type"));
    let text = page.text();
    let links = text.split(['"', '\'']).filter(|part| part.ends_with(".js") || part.ends_with(".css"));
    for link in links {
        assert!(!link.contains("//"), "{link}");
        let path = format!("/{}", link.trim_start_matches("./").trim_start_matches('/'));
        assert_eq!(gateway.http.get(&path).await.status, 200, "{path}");
    }
    assert!(!text.contains("src=\"http") && !text.contains("<link href=\"http"), "nothing from elsewhere");
}
