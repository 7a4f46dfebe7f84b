//! The nginx configuration that operators are given.

use sluice_tests::{
    browser::Browser,
    client::Client,
    cluster::Cluster,
    curl::Curl,
    gateway::{Gateway, Options},
    nginx::Nginx,
    process::directory,
    redis::Redis,
    tls::Authority,
    wait,
};
use std::time::Duration;

const CONFIG: &str = "[stream]\nretry_min = \"100ms\"\nretry_max = \"300ms\"\nheartbeat = \"1s\"\n";

#[tokio::test]
async fn a_cursor_of_64_channels_passes_with_default_header_buffers() {
    let cluster = Cluster::start(Redis::start().await, 2, CONFIG).await;
    let names: Vec<_> = (0..64).map(|n| format!("{n:02}.{}", "x".repeat(20))).collect();
    let channels: Vec<_> = names.iter().map(String::as_str).collect();
    for channel in &channels {
        cluster.gateways[0].publish(channel, "before").await;
    }
    let client = Client::once(cluster.events(&channels)).await;
    let cursor = client.read(|log| log.last_event_id.clone());
    drop(client);
    assert!(cursor.len() > 1000, "64 channels: {cursor}");
    for channel in &channels {
        cluster.gateways[1].publish(channel, format!("{channel} 1")).await;
    }
    let resumed = Client::once(cluster.events(&channels).header("Last-Event-ID", &cursor)).await;
    resumed.read(|log| assert_eq!(log.head().status, 200));
    resumed.wait_events(64).await;
    resumed.read(|log| {
        for channel in &channels {
            let verdict = sluice_tests::check::once_and_in_order(channel, log.data(), 1..=1);
            assert!(verdict.is_ok(), "{verdict:?}");
        }
    });
}

#[tokio::test]
async fn first_bytes_heartbeats_and_events_pass_at_once() {
    let cluster = Cluster::start(Redis::start().await, 2, CONFIG).await;
    let client = Client::once(cluster.events(&["a"]).keeping_body().encoded("br")).await;
    client.read(|log| {
        assert_eq!(log.head().header("content-encoding"), None, "nginx compresses no stream");
        assert_eq!(log.head().header("cache-control").as_deref(), Some("no-store, no-transform"));
    });
    client.wait("two heartbeats", |log| log.text().matches(": hb\n").count() >= 2).await;
    for number in 0..20 {
        let data = number.to_string();
        cluster.nginx.http.post("/channels/a/events", data.clone()).await;
        client.wait_within("at once", Duration::from_secs(5), |log| log.data().any(|one| one == data)).await;
    }
}

#[tokio::test]
async fn refusals_and_limits_are_the_gateways_own() {
    let cluster = Cluster::start(Redis::start().await, 2, CONFIG).await;
    let http = &cluster.nginx.http;
    http.get("/events").await.problem(400);
    http.get("/nothing").await.problem(404);
    http.post("/channels/a/events", "x".repeat(64 * 1024 + 1)).await.problem(413);
    http.post("/events", " ".repeat(1024 * 1024 + 1)).await.problem(413);
    assert_eq!(http.post("/channels/a/events", "x".repeat(64 * 1024)).await.status, 200);
}

#[tokio::test]
async fn clients_survive_that_no_replica_is_there_at_all() {
    let mut cluster = Cluster::start(Redis::start().await, 2, CONFIG).await;
    let client = Client::event_source(cluster.events(&["a"])).await;
    for gateway in &mut cluster.gateways {
        gateway.process.kill();
    }
    client.wait("it tries again", |log| log.heads.len() >= 2).await;
    client.read(|log| {
        assert!(!log.gave_up, "EventSource gives up for ever on any status but 200: {:?}", log.heads);
        assert_eq!(log.head().header("content-type").as_deref(), Some("text/event-stream"));
    });
    // Whoever is no EventSource is told the truth.
    let http = &cluster.nginx.http;
    let key = [("idempotency-key", "mine")];
    for path in ["/channels/a/events", "/events"] {
        for headers in [&[][..], &key] {
            let post = http.send("POST", path, headers, r#"{"channel":"a","data":"x"}"#).await;
            assert!(matches!(post.status, 502..=504), "{path}: {} {}", post.status, post.text());
        }
    }
    for accept in ["application/json", "application/x-ndjson", "*/*"] {
        let answer = http.send("GET", "/events?channel=a", &[("accept", accept)], "").await;
        assert_eq!((answer.status, answer.header("retry-after")), (502, "2"), "{accept}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_replica_without_redis_is_passed_over_by_streams_and_by_publishers_with_keys() {
    let redis = Redis::start().await;
    let lost = Gateway::spawn(Options {
        redis: Some(format!("redis://{}", sluice_tests::ports::free())),
        ..Options::default()
    });
    let well = Gateway::start_with(Options { redis: Some(redis.url()), ..Options::default() }).await;
    wait::until("it serves", async || lost.admin.try_send("GET", "/livez", &[], "").await.ok()).await;
    let nginx = Nginx::start(&[lost.address, well.address]).await;
    // Both take what has no key, in turn; one cannot.
    let mut keyed = Vec::new();
    for number in 0..10 {
        let key = format!("k{number}");
        let headers = [("idempotency-key", key.as_str())];
        keyed.push(nginx.http.send("POST", "/channels/a/events", &headers, "x").await.status);
        keyed.push(nginx.http.send("POST", "/events", &headers, r#"{"channel":"a","data":"x"}"#).await.status);
    }
    assert_eq!(keyed, [200; 20]);
    for accept in ["text/event-stream", "application/x-ndjson"] {
        for _ in 0..10 {
            let request = sluice_tests::client::Request::new(nginx.address, "/events?channel=a&since=earliest");
            let client = Client::once(request.header("Accept", accept).keeping_body()).await;
            client.wait("events", |log| log.text().contains('x')).await;
        }
    }
    assert!(lost.metric("sse_refused_total", &["broker"]).await > 0.0, "it was asked");
    // Asked without a proxy that can go on, it lets clients in to wait.
    let waiting = lost.subscribe(&["a"]).await;
    waiting.read(|log| assert_eq!((log.head().status, log.ends.len()), (200, 0)));
}

#[tokio::test]
async fn a_stream_that_its_client_leaves_ends_at_the_replica_too() {
    let cluster = Cluster::start(Redis::start().await, 1, CONFIG).await;
    let client = Client::once(cluster.events(&["a"])).await;
    assert_eq!(cluster.gateways[0].connections().await, 1);
    drop(client);
    wait::until("closed", async || (cluster.gateways[0].connections().await == 0).then_some(())).await;
}

/// More than a browser opens connections to one host.
const MANY: usize = 12;

#[tokio::test]
async fn over_tls_browsers_have_many_streams_on_one_http2_connection() {
    let gateway = Gateway::start(CONFIG).await;
    let (authority, files, address) = (Authority::new(), directory(), sluice_tests::ports::free());
    authority.server().write(files.path());
    let file = |name: &str| files.path().join(name).display().to_string();
    let lines = [
        ("#listen 443 ssl http2;", format!("listen {address} ssl http2;")),
        ("#ssl_certificate     /etc/nginx/sluice.crt;", format!("ssl_certificate {};", file("tls.crt"))),
        ("#ssl_certificate_key /etc/nginx/sluice.key;", format!("ssl_certificate_key {};", file("tls.key"))),
    ];
    let lines: Vec<_> = lines.iter().map(|(line, by)| (*line, by.as_str())).collect();
    let _nginx = Nginx::start_with(&[gateway.address], &lines).await;

    let url = format!("https://{address}/channels/a/events");
    let version = Curl::run(&["-k", "-o", "/dev/null", "-w", "%{http_version}", &url]).await;
    assert_eq!(version.stdout(), "2", "{}", version.stderr());
    let browser = Browser::start_with(&["--ignore-certificate-errors"]).await;
    browser.open(&format!("https://{address}/")).await;
    let script = format!(
        "window.seen = 0; window.sources = []; for (let i = 0; i < {MANY}; i++) {{ \
         const source = new EventSource('/events?channel=a'); source.onmessage = () => window.seen++; \
         window.sources.push(source); }}"
    );
    browser.run(&script).await;
    // The console has one of its own perhaps.
    let open = async || (gateway.metric("sse_connections_active", &[]).await >= MANY as f64).then_some(());
    wait::until("all of them are open", open).await;
    gateway.publish("a", "to all").await;
    let all = async || (browser.run("return window.seen").await == MANY).then_some(());
    wait::until("each has the event", all).await;
}

#[tokio::test]
async fn its_limits_send_an_event_source_away_to_come_back() {
    let gateway = Gateway::start(CONFIG).await;
    let lines = [
        (
            "#limit_conn_zone $binary_remote_addr zone=streams:10m;",
            "limit_conn_zone $binary_remote_addr zone=streams:10m;",
        ),
        ("#limit_conn streams 100;", "limit_conn streams 2;"),
        ("#limit_conn_status 502;", "limit_conn_status 502;"),
        (
            "#limit_req_zone $publisher zone=publishing:10m rate=100r/s;",
            "limit_req_zone $publisher zone=publishing:10m rate=1r/m;",
        ),
        ("#limit_req zone=publishing burst=100 nodelay;", "limit_req zone=publishing burst=2 nodelay;"),
        ("#limit_req_status 429;", "limit_req_status 429;"),
    ];
    let nginx = Nginx::start_with(&[gateway.address], &lines).await;
    let events = || sluice_tests::client::Request::new(nginx.address, "/events?channel=a");
    let _two = [Client::once(events()).await, Client::once(events()).await];
    let third = Client::once(events()).await;
    third.wait_end().await;
    third.read(|log| {
        assert_eq!((log.head().status, log.retry_ms.is_some()), (200, true), "{:?}", log.heads);
    });
    let mut statuses = Vec::new();
    let keyed = [("idempotency-key", "mine")];
    for (path, headers) in
        [("/channels/a/events", &keyed[..]), ("/events", &[]), ("/channels/a/events", &[]), ("/events", &keyed)]
    {
        let body = if path == "/events" { r#"{"channel":"a","data":"x"}"# } else { "x" };
        statuses.push(nginx.http.send("POST", path, headers, body).await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429], "whichever way it is published");
    assert_eq!(nginx.http.get("/channels/a").await.status, 200, "and nothing else is counted");
}

#[tokio::test]
async fn a_replica_that_drains_is_passed_over_at_once() {
    let cluster = Cluster::start(Redis::start().await, 2, "[drain]\ndelay = \"0s\"\nwindow = \"5m\"\n").await;
    // It has the fewest, so that whoever comes is sent to it first.
    let _hold = [cluster.gateways[0].subscribe(&["a"]).await, cluster.gateways[0].subscribe(&["a"]).await];
    assert_eq!(cluster.gateways[0].admin.post("/drain", "").await.status, 202);
    cluster.gateways[0].wait_metric("sse_lifecycle_phase", &["phase=\"draining\""], 1.0).await;
    for accept in ["text/event-stream", "application/x-ndjson"] {
        for _ in 0..20 {
            let client = Client::once(cluster.events(&["a"]).header("Accept", accept)).await;
            client.read(|log| assert_eq!((log.head().status, log.ends.len()), (200, 0), "{accept}: {:?}", log.ends));
        }
    }
    assert!(cluster.gateways[0].metric("sse_refused_total", &["draining"]).await > 0.0, "it was asked");
}

#[tokio::test]
async fn where_no_replica_lets_it_in_an_event_source_comes_back_and_others_are_told() {
    let cluster = Cluster::start(Redis::start().await, 2, "[limits]\nconnections = 1\n").await;
    let _full = [cluster.gateways[0].subscribe(&["a"]).await, cluster.gateways[1].subscribe(&["a"]).await];
    let source = Client::once(cluster.events(&["a"])).await;
    source.wait_end().await;
    source.read(|log| {
        assert_eq!(log.head().status, 200);
        assert!(log.retry_ms.is_some_and(|retry| (1000..=3000).contains(&retry)), "{:?}", log.retry_ms);
    });
    let program = Client::once(cluster.events(&["a"]).header("Accept", "application/x-ndjson").keeping_body()).await;
    program.wait_end().await;
    program
        .read(|log| assert!(log.head().status == 503 && log.text().contains("limits.connections"), "{}", log.text()));
}
