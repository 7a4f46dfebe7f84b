//! HTTP/2 by prior knowledge: the same frames, many streams on one connection.

use http_body_util::BodyExt;
use sluice_cli::sse::Parser;
use sluice_tests::{
    check,
    gateway::Gateway,
    http2::{Http2, events},
};

#[tokio::test]
async fn a_stream_has_the_same_head_first_bytes_and_events() {
    let gateway = Gateway::start("").await;
    let mut connection = Http2::connect(gateway.address).await;
    let mut stream = connection.send("GET", "/events?channel=a&channel=b", "").await;
    assert_eq!(stream.status(), 200);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store, no-transform"),
        ("x-accel-buffering", "no"),
        ("access-control-allow-origin", "*"),
    ] {
        assert_eq!(stream.headers().get(name).and_then(|value| value.to_str().ok()), Some(value), "{name}");
    }
    let first =
        sluice_tests::wait::soon("the first bytes", stream.body_mut().frame()).await.expect("bytes").expect("no error");
    let first = first.into_data().expect("data");
    assert!(first.starts_with(b"retry: ") && first.ends_with(b"\n\n"), "{first:?}");
    let mut parser = Parser::new();
    parser.push(&first, &mut Vec::new()).expect("not too large");

    let large = "x".repeat(64 * 1024);
    for data in ["one\ntwo", &large, "last"] {
        let answer = connection.send("POST", "/channels/a/events?event=e", data).await;
        assert_eq!(answer.status(), 200);
    }
    let events = events(&mut stream, &mut parser, 3).await;
    let data: Vec<_> = events.iter().map(|event| event.data.as_str()).collect();
    assert!(data == ["one\ntwo", &large, "last"], "all of them, in order");
    assert!(events.iter().all(|event| event.event == "e" && !event.id.is_empty()), "types and ids");
}

#[tokio::test]
async fn a_hundred_streams_share_one_connection() {
    let gateway = Gateway::start("").await;
    let mut connection = Http2::connect(gateway.address).await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(connection.send("GET", "/events?channel=a", "").await);
    }
    gateway.wait_metric("sse_connections_active", &[], 100.0).await;
    for number in 1..=20 {
        gateway.publish("a", check::payload("a", number)).await;
    }
    for stream in &mut streams {
        let events = events(stream, &mut Parser::new(), 20).await;
        let verdict = check::once_and_in_order("a", events.iter().map(|event| event.data.as_str()), 1..=20);
        assert!(verdict.is_ok(), "{verdict:?}");
    }
    streams.truncate(50);
    gateway.wait_metric("sse_connections_active", &[], 50.0).await;
    drop((streams, connection));
    gateway.wait_metric("sse_connections_active", &[], 0.0).await;
}

#[tokio::test]
async fn one_stream_that_is_not_read_stops_no_other_on_its_connection() {
    let gateway = Gateway::start("[stream]\nwrite_timeout = \"2s\"\n[outbox]\nmax_bytes = \"64KiB\"\n").await;
    let mut connection = Http2::connect(gateway.address).await;
    let idle = connection.send("GET", "/events?channel=a", "").await;
    let mut reader = Http2::connect(gateway.address).await.send("GET", "/events?channel=a", "").await;
    // In step, so that only the one that is not read is ever behind.
    let mut parser = Parser::new();
    for number in 1..=200 {
        gateway.publish("a", check::payload_of_size("a", number, 16 * 1024)).await;
        let events = events(&mut reader, &mut parser, 1).await;
        let verdict = check::once_and_in_order("a", events.iter().map(|event| event.data.as_str()), number..=number);
        assert!(verdict.is_ok(), "{verdict:?}");
    }
    gateway.wait_metric("sse_connections_active", &[], 1.0).await;
    let answer = connection.send("GET", "/channels/a", "").await;
    assert_eq!(answer.status(), 200, "the connection itself is of use still");
    drop(idle);
}

#[tokio::test]
async fn refusals_are_the_same_as_on_http1() {
    let gateway = Gateway::start("").await;
    let mut connection = Http2::connect(gateway.address).await;
    for (method, path, status) in [("GET", "/events", 400), ("GET", "/nothing", 404), ("PUT", "/events", 405)] {
        let answer = connection.send(method, path, "").await;
        assert_eq!(answer.status(), status, "{method} {path}");
        let kind = answer.headers().get("content-type").cloned();
        assert_eq!(kind.as_ref().and_then(|kind| kind.to_str().ok()), Some("application/problem+json"));
    }
}
