//! What a draining replica says to connections, proxies and operators, and that its end costs nobody a request.

use rustix::process::Signal;
use sluice_cli::sse::Parser;
use sluice_tests::{
    client::{Client, End},
    gateway::Gateway,
    http2::{self, Http2},
    wait,
};
use std::{io, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Drains at once, over a time in which a test is done.
const SLOWLY: &str = "[drain]\ndelay = \"0s\"\nwindow = \"2m\"\n";
const WITHIN_A_SECOND: &str = "[drain]\ndelay = \"0s\"\nwindow = \"1s\"\n";

async fn wait_phase(gateway: &Gateway, phase: &str) {
    gateway.wait_metric("sse_lifecycle_phase", &[&format!("phase=\"{phase}\"")], 1.0).await;
}

async fn progress(gateway: &Gateway) -> f64 {
    gateway.metric("sse_drain_progress_ratio", &[]).await
}

#[tokio::test]
async fn an_http2_connection_takes_no_new_request_and_its_streams_go_on() {
    let gateway = Gateway::start(SLOWLY).await;
    let mut connection = Http2::connect(gateway.address).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(connection.send("GET", "/events?channel=a", "").await);
    }
    gateway.wait_metric("sse_connections_active", &[], 8.0).await;
    assert_eq!(gateway.admin.post("/drain", "").await.status, 202);
    wait_phase(&gateway, "draining").await;
    wait::until("the connection takes no request", async || {
        connection.try_send("GET", "/channels/a", &[], "").await.err()
    })
    .await;
    gateway.publish("a", "meanwhile").await;
    // The last of those that are left is closed last.
    let left = gateway.metric("sse_connections_active", &[]).await;
    assert!(left > 0.0, "some are open still");
    let mut last = streams.pop().expect("eight");
    let events = http2::events(&mut last, &mut Parser::new(), 1).await;
    assert_eq!(events[0].data, "meanwhile");
}

#[tokio::test]
async fn an_http2_connection_ends_with_its_last_stream() {
    let mut gateway = Gateway::start(WITHIN_A_SECOND).await;
    let mut connection = Http2::connect(gateway.address).await;
    let streams =
        [connection.send("GET", "/events?channel=a", "").await, connection.send("GET", "/events?channel=b", "").await];
    let mut idle = Http2::connect(gateway.address).await;
    assert_eq!(idle.send("GET", "/channels/a", "").await.status(), 200);
    gateway.process.signal(Signal::TERM);
    for stream in streams {
        let rest = http2::rest(stream).await;
        assert!(rest.trim_end().rsplit('\n').next().is_some_and(|last| last.starts_with("retry: ")), "{rest:?}");
    }
    connection.wait_end().await;
    idle.wait_end().await;
    assert_eq!(gateway.process.end(wait::PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn a_kept_connection_is_told_to_close_with_its_next_answer() {
    let gateway = Gateway::start(SLOWLY).await;
    let _streams = [gateway.subscribe(&["a"]).await, gateway.subscribe(&["a"]).await, gateway.subscribe(&["a"]).await];
    let mut kept = TcpStream::connect(gateway.address).await.expect("connects");
    let before = ask(&mut kept, gateway.address).await.expect("an answer");
    assert!(before.starts_with("HTTP/1.1 200") && !before.contains("connection: close"), "{before}");
    assert_eq!(gateway.admin.post("/drain", "").await.status, 202);
    wait_phase(&gateway, "draining").await;
    let after = ask(&mut kept, gateway.address).await.expect("an answer");
    assert!(after.starts_with("HTTP/1.1 200") && after.contains("connection: close"), "{after}");
    assert_eq!(wait::soon("the end", kept.read(&mut [0])).await.expect("an end, not a reset"), 0);
}

#[tokio::test]
async fn how_far_it_is_stands_in_metrics_and_in_the_log() {
    let mut gateway = Gateway::start("[drain]\ndelay = \"2s\"\nwindow = \"8s\"\n").await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(gateway.subscribe(&["news"]).await);
    }
    assert_eq!((progress(&gateway).await, gateway.metric("sse_ready", &[]).await), (0.0, 1.0));
    wait_phase(&gateway, "serving").await;
    gateway.process.signal(Signal::TERM);
    wait_phase(&gateway, "leaving").await;
    assert_eq!((progress(&gateway).await, gateway.metric("sse_ready", &[]).await), (0.0, 0.0));
    wait_phase(&gateway, "draining").await;
    for share in [0.25, 0.5, 0.75] {
        wait::until("it goes on", async || (progress(&gateway).await >= share).then_some(())).await;
        let (open, said) = (gateway.metric("sse_connections_active", &[]).await, progress(&gateway).await);
        // More may have been closed between the two questions, and no fewer.
        assert!(1.0 - open / 40.0 <= said + 0.001, "{open} open, {said} closed");
        assert!(said < 1.0, "not done yet");
    }
    assert_eq!(gateway.process.end(wait::PATIENCE).await.code(), Some(0));
    let log = gateway.process.stderr();
    for part in ["closing streams", "connections=40", "of=40", "left=0", "streams closed"] {
        assert!(log.contains(part), "{part} in {log}");
    }
    assert!(log.lines().filter(|line| line.contains("closing streams")).count() >= 2, "now and then: {log}");
}

#[tokio::test]
async fn a_drain_asked_for_over_http_waits_for_the_signal_and_publishes_until_then() {
    let mut gateway = Gateway::start(WITHIN_A_SECOND).await;
    let client = gateway.subscribe(&["news"]).await;
    let answer = gateway.admin.post("/drain", "").await;
    assert_eq!((answer.status, answer.json()["connections"].as_u64()), (202, Some(1)), "{}", answer.text());
    assert_eq!(client.wait_end().await, End::Clean);
    gateway.wait_metric("sse_drain_progress_ratio", &[], 1.0).await;
    gateway.publish("news", "all the same").await;
    assert!(gateway.process.ended().is_none());
    assert_eq!(gateway.admin.post("/drain", "").await.status, 202, "once more does no harm");
    gateway.process.signal(Signal::TERM);
    assert_eq!(gateway.process.end(wait::PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn a_proxy_that_goes_on_to_another_replica_is_told_by_the_status() {
    let gateway = Gateway::start("[limits]\nconnections = 1\n").await;
    let _full = gateway.subscribe(&["a"]).await;
    let asked = |status: &'static str| Client::once(gateway.events(&["a"]).header("Sluice-Refuse-With", status));
    for (asked_for, answered) in [("502", 502), ("503", 503), ("504", 504), ("200", 200), ("404", 200), ("x", 200)] {
        let client = asked(asked_for).await;
        client.wait_end().await;
        assert_eq!(client.read(|log| log.head().status), answered, "{asked_for}");
    }
    // Only that which another replica could do better.
    let own = Gateway::start("[limits]\nconnections_per_address = 1\n").await;
    let _first = own.subscribe(&["a"]).await;
    let client = Client::once(own.events(&["a"]).header("Sluice-Refuse-With", "502")).await;
    client.wait_end().await;
    assert_eq!(client.read(|log| log.head().status), 200, "it is the client that has too many");
}

/// Publishes until the replica takes no connection any more; answers how often, and every other failure.
async fn publish_until_it_is_gone(address: SocketAddr, keep: bool) -> (usize, Vec<String>) {
    let (mut answered, mut failures) = (0, Vec::new());
    let mut kept = None;
    loop {
        let mut socket = match kept.take() {
            Some(socket) => socket,
            None => match TcpStream::connect(address).await {
                Ok(socket) => socket,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return (answered, failures),
                Err(error) => {
                    failures.push(format!("connecting: {error}"));
                    continue;
                }
            },
        };
        match ask(&mut socket, address).await {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") => {
                answered += 1;
                kept = (keep && !answer.contains("connection: close")).then_some(socket);
            }
            Ok(answer) => failures.push(answer),
            Err(error) => failures.push(error.to_string()),
        }
    }
}

/// One request and its answer, the end of which its length says.
async fn ask(socket: &mut TcpStream, address: SocketAddr) -> io::Result<String> {
    let request = format!("POST /channels/a/events HTTP/1.1\r\nHost: {address}\r\nContent-Length: 5\r\n\r\nhello");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
                return Ok(text.into_owned());
            }
        }
        if socket.read_buf(&mut answer).await? == 0 {
            return Err(io::Error::other("an end without an answer"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_publishes_while_it_stops_is_answered_or_finds_nobody_there() {
    for keep in [false, true] {
        for round in 0..5 {
            let mut gateway = Gateway::start(WITHIN_A_SECOND).await;
            // They hold the drain up for as long as connections in use need to be told.
            let _streams = [gateway.subscribe(&["b"]).await, gateway.subscribe(&["b"]).await];
            let publishers: Vec<_> =
                (0..8).map(|_| tokio::spawn(publish_until_it_is_gone(gateway.address, keep))).collect();
            gateway.wait_metric("sse_lifecycle_phase", &["phase=\"serving\""], 1.0).await;
            gateway.process.signal(Signal::TERM);
            assert_eq!(gateway.process.end(wait::PATIENCE).await.code(), Some(0));
            for publisher in publishers {
                let (answered, failures) = wait::soon("a publisher's end", publisher).await.expect("no panic");
                assert!(failures.is_empty() && answered > 0, "round {round}, kept {keep}: {answered}, {failures:?}");
            }
        }
    }
}
