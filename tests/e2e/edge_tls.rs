//! TLS on the public port: everything as without it, for whoever speaks it.

use serde_json::Value;
use sluice_tests::{
    check,
    client::{Client, End},
    cluster::connect,
    curl::Curl,
    gateway::Gateway,
    numbered::{assert_saw, cursor, publish, saw, wait_number},
    tls::Authority,
    wait,
};
use std::{io, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const TURNED_AWAY: &str = "sse_connections_turned_away_total";

#[tokio::test]
async fn curl_subscribes_and_publishes_over_http1_and_http2() {
    let authority = Authority::new();
    let gateway = Gateway::start_secure("", &authority).await;
    let said = gateway.process.stdout();
    assert!(said.contains(&format!("events   https://{}/events", gateway.address)), "{said}");
    let trusted = gateway.directory().join("ca.crt");
    std::fs::write(&trusted, &authority.pem).expect("written");
    let trusted = trusted.to_str().expect("UTF-8");
    let url = |path: &str| format!("https://localhost:{}{path}", gateway.address.port());
    // What ALPN comes to, and not what was asked for.
    let version = "%{stderr}%{http_version} %{response_code}\n";
    for (asked, spoken) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let with = |more: &[&str]| {
            let args: Vec<_> = ["--cacert", trusted, asked].iter().chain(more).map(|arg| (*arg).to_owned()).collect();
            async move { Curl::run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await }
        };
        let stream = Curl::start(&["--cacert", trusted, asked, &url("/events?channel=news")]);
        stream.wait("the first bytes", |text| text.starts_with("retry: ")).await;
        let published =
            with(&["-w", version, "-d", &format!("by {spoken}"), &url("/channels/news/events?event=told")]).await;
        assert_eq!(published.stderr(), format!("{spoken} 200\n"), "{}", published.stdout());
        stream.wait("the event", |text| text.ends_with(&format!("event: told\ndata: by {spoken}\n\n"))).await;
        let problem = with(&["-w", version, &url("/nothing")]).await;
        assert_eq!(problem.stderr(), format!("{spoken} 404\n"));
        let problem: Value = serde_json::from_str(&problem.stdout()).expect("JSON");
        assert_eq!(problem["type"], "urn:sluice:problem:not-found");
        let stranger = Curl::run(&["--cacert", "/dev/null", asked, &url("/nothing")]).await;
        assert!(stranger.stdout().is_empty() && stranger.stderr().contains("curl: ("), "{}", stranger.stderr());
    }
    gateway.wait_metric("sse_connections_active", &[], 0.0).await;
}

#[tokio::test]
async fn a_stream_over_tls_begins_resumes_and_has_gaps_as_any_other() {
    let authority = Authority::new();
    let config =
        "[stream]\nretry_min = \"20ms\"\nretry_max = \"60ms\"\n[hub]\ntail_bytes = \"1KiB\"\n[history]\nsize = 50\n";
    let gateway = Gateway::start_secure(config, &authority).await;
    let trusted = Arc::new(authority.trusted());
    let request = || gateway.events(&["a"]).over_tls(Arc::clone(&trusted));
    let client = Client::once(request().keeping_body()).await;
    client.read(|log| {
        assert_eq!(log.head().header("content-type").as_deref(), Some("text/event-stream"));
        assert_eq!(log.head().header("connection").as_deref(), Some("close"), "no other request can follow");
        assert!(log.text().starts_with("retry: "), "{}", log.text());
    });
    publish(&gateway.http, "a", 1..=10).await;
    wait_number(&client, "a", 10).await;
    let tenth = cursor(&client);
    drop(client);
    gateway.wait_metric("sse_disconnects_total", &["reason=\"client\""], 1.0).await;

    publish(&gateway.http, "a", 11..=40).await;
    let back = Client::once(request().header("Last-Event-ID", &tenth)).await;
    wait_number(&back, "a", 40).await;
    publish(&gateway.http, "a", 41..=41).await;
    wait_number(&back, "a", 41).await;
    assert_saw("who came back", &back, "a", 11..=41, &[]);

    publish(&gateway.http, "a", 42..=100).await;
    let late = Client::once(request().header("Last-Event-ID", &tenth)).await;
    wait_number(&late, "a", 100).await;
    let (came, gaps) = late.read(|log| saw(log, "a"));
    assert!(came.ends_with(&(51..=100).collect::<Vec<_>>()) && gaps == ["trimmed"], "{came:?} {gaps:?}");

    // Streams end as they should, so that clients know that it was no cut; and zstd as gzip.
    let compressed = Client::once(request().encoded("zstd").header("Last-Event-ID", &tenth)).await;
    wait_number(&compressed, "a", 100).await;
    compressed.read(|log| assert_eq!(log.head().header("content-encoding").as_deref(), Some("zstd")));
    assert_eq!(gateway.admin.post("/drain", "").await.status, 202);
    for client in [&late, &compressed] {
        assert_eq!(client.wait_end().await, End::Clean);
    }
}

#[tokio::test]
async fn two_hundred_clients_get_every_event_once_and_in_order() {
    const CLIENTS: usize = 200;
    const EVENTS: u64 = 100;
    let authority = Authority::new();
    let gateway = Gateway::start_secure("", &authority).await;
    let trusted = Arc::new(authority.trusted());
    let clients = connect(CLIENTS, |_| Client::once(gateway.events(&["a"]).over_tls(Arc::clone(&trusted)))).await;
    for number in 1..=EVENTS {
        gateway.publish("a", check::payload("a", number)).await;
    }
    for client in &clients {
        wait_number(client, "a", EVENTS).await;
        client.read(|log| {
            let verdict = check::once_and_in_order("a", log.data(), 1..=EVENTS);
            assert!(verdict.is_ok(), "{verdict:?}");
            assert_eq!((log.heads.len(), log.ends.len()), (1, 0), "not disturbed");
        });
    }
    drop(clients);
    gateway.wait_metric("sse_connections_active", &[], 0.0).await;
}

#[tokio::test]
async fn a_reader_that_never_reads_is_bounded_and_cut_and_disturbs_nobody() {
    const EVENTS: u64 = 2000;
    const EVENT_BYTES: usize = 16 * 1024;
    const MIB: f64 = 1024.0 * 1024.0;
    let authority = Authority::new();
    // Only the clock cuts: until then everything is kept that may be.
    let config = "[stream]\nwrite_timeout = \"10s\"\n[outbox]\nmax_bytes = \"64KiB\"\n\
                  [hub]\ntail_bytes = \"32KiB\"\n\
                  [[channel]]\nmatch = \"bulk\"\nhistory = { size = 10 }\nslow = \"drop-oldest\"\n";
    let gateway = Gateway::start_secure(config, &authority).await;
    let request = gateway.events(&["bulk"]).over_tls(authority.trusted());
    let reader = Client::once(request.clone()).await;
    let mut stalled = Vec::new();
    for _ in 0..5 {
        let mut stream = request.connect().await.expect("a handshake");
        stream.write_all(&request.bytes("")).await.expect("sent");
        stalled.push(stream);
    }
    gateway.wait_metric("sse_connections_active", &[], 6.0).await;
    let before = gateway.metric("process_resident_memory_bytes", &[]).await;
    let mut most = 0.0_f64;
    for number in 1..=EVENTS {
        gateway.publish("bulk", check::payload_of_size("bulk", number, EVENT_BYTES)).await;
        reader.wait_events(number as usize).await;
        if number % 100 == 0 {
            most = most.max(gateway.metric("process_resident_memory_bytes", &[]).await - before);
        }
    }
    assert!(most < 24.0 * MIB, "{} MiB for five who do not read {EVENTS} events of 16 KiB", most / MIB);
    gateway.wait_metric("sse_connections_active", &[], 1.0).await;
    reader.read(|log| {
        let verdict = check::once_and_in_order("bulk", log.data(), 1..=EVENTS);
        assert!(verdict.is_ok(), "{verdict:?}");
        assert_eq!((log.heads.len(), log.ends.len()), (1, 0), "not disturbed");
    });
    let waiting = async || (gateway.metric("sse_outbox_bytes", &[]).await == 0.0).then_some(());
    wait::until("nothing waits for them any more", waiting).await;
    drop(stalled);
}

#[tokio::test]
async fn who_speaks_no_tls_is_closed_and_counted_and_disturbs_nobody() {
    let authority = Authority::new();
    let gateway = Gateway::start_secure("[http]\nheader_timeout = \"1s\"\n", &authority).await;
    let client = Client::once(gateway.events(&["a"]).over_tls(authority.trusted())).await;
    let begun = [
        &b"GET /events?channel=a HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"",
    ];
    for (nth, bytes) in begun.iter().enumerate() {
        let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
        stream.write_all(bytes).await.expect("sent");
        let mut answer = Vec::new();
        let ended: io::Result<usize> = wait::soon("its end", stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok() && !answer.starts_with(b"HTTP"), "{ended:?} {answer:?}");
        gateway.wait_metric(TURNED_AWAY, &["reason=\"tls\""], (nth + 1) as f64).await;
    }
    gateway.publish("a", "x").await;
    client.wait_data("x").await;
    client.read(|log| assert_eq!((log.heads.len(), log.ends.len()), (1, 0)));
}
