//! Requests that are no subscription and no event: right answers, as problem JSON, that pages of other origins can read.

use sluice_tests::{gateway::Gateway, http::Answer, wait};

const ORIGIN: (&str, &str) = ("origin", "https://app.example.com");

#[tokio::test]
async fn what_cannot_be_subscribed_to_is_a_problem_that_says_why() {
    let gateway = Gateway::start("").await;
    let many = (0..65).map(|n| format!("channel=c{n}")).collect::<Vec<_>>().join("&");
    let long = "x".repeat(201);
    for query in [
        "",
        "?",
        "?channel",
        "?channel=",
        "?channel=a&channel=",
        "?channel=a%2Cb",
        "?channel=a*",
        "?channel=a%20b",
        "?channel=%C3%A9",
        "?channel=a%0Ab",
        "?channel=%3Ca%3E",
        "?channel=%7Ba%7D",
        "?channel=a%5Cb",
        "?channel=%ff",
        "?channel=a&heartbeat=never",
        "?channel=a&since=yesterday",
        &format!("?channel={long}"),
        &format!("?{many}"),
    ] {
        let answer = gateway.http.send("GET", &format!("/events{query}"), &[ORIGIN], "").await;
        let problem = answer.problem(400);
        assert!(problem["type"].as_str().is_some_and(|kind| kind != "about:blank"), "{problem}");
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{query}: a page can read why");
    }
}

#[tokio::test]
async fn bad_names_cannot_be_published_to() {
    let gateway = Gateway::start("").await;
    for name in ["a,b", "a*", "a%20b", "%C3%A9", "%00", "$mine", "$control", &"x".repeat(201)] {
        let answer = gateway.http.post(&format!("/channels/{name}/events"), "x").await;
        assert!(matches!(answer.status, 400 | 403), "{name}: {} {}", answer.status, answer.text());
        answer.problem(answer.status);
    }
}

#[tokio::test]
async fn wrong_paths_and_methods_are_told_apart() {
    let gateway = Gateway::start("").await;
    for path in ["/nothing", "/event", "/events/x", "/channels", "/chan", "/metrics", "/readyz", "/config"] {
        gateway.http.get(path).await.problem(404);
    }
    for (method, path, allowed) in [
        ("PUT", "/events", &["GET", "POST"][..]),
        ("GET", "/broadcast", &["POST"]),
        ("PATCH", "/channels/a/events", &["GET", "POST", "DELETE"]),
        ("POST", "/channels/a", &["GET"]),
        ("POST", "/connections", &["GET"]),
    ] {
        let answer = gateway.http.send(method, path, &[], "").await;
        answer.problem(405);
        let allow = answer.header("allow");
        for method in allowed {
            assert!(allow.split(", ").any(|one| one == *method), "{path}: {allow}");
        }
    }
}

#[tokio::test]
async fn head_of_a_stream_is_its_head_and_ends() {
    let gateway = Gateway::start("").await;
    let answer = wait::soon("the answer", gateway.http.send("HEAD", "/events?channel=a", &[], "")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/event-stream"));
    assert_eq!(answer.header("cache-control"), "no-store, no-transform");
    assert_eq!(gateway.http.send("HEAD", "/events", &[], "").await.status, 400);
    assert_eq!(gateway.connections().await, 0, "it opened no stream");
}

fn allows(answer: &Answer, header: &str, wanted: &str) -> bool {
    // A header may stand several times, which means the same as one with all values (RFC 9110, 5.3).
    let lines = answer.headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|one| one.trim().eq_ignore_ascii_case(wanted))
}

#[tokio::test]
async fn a_page_of_any_origin_may_subscribe_and_publish_until_origins_are_listed() {
    let gateway = Gateway::start("").await;
    for (path, method) in [("/events?channel=a", "GET"), ("/channels/a/events", "POST"), ("/events", "POST")] {
        let asked = [
            ORIGIN,
            ("access-control-request-method", method),
            ("access-control-request-headers", "content-type,idempotency-key,last-event-id,authorization,x-api-key"),
        ];
        let answer = gateway.http.send("OPTIONS", path, &asked, "").await;
        assert_eq!(answer.status, 204, "{path}: {}", answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(allows(&answer, "access-control-allow-methods", method), "{:?}", answer.headers);
        for header in ["content-type", "idempotency-key", "last-event-id", "authorization", "x-api-key"] {
            assert!(allows(&answer, "access-control-allow-headers", header), "{header}: {:?}", answer.headers);
        }
    }
}

#[tokio::test]
async fn once_origins_are_listed_others_are_not_allowed() {
    let gateway = Gateway::start("[cors]\norigins = [\"https://app.example.com\"]\n").await;
    let stranger = ("origin", "https://evil.example.com");
    for (method, path) in
        [("HEAD", "/events?channel=a"), ("GET", "/connections"), ("GET", "/nothing"), ("POST", "/broadcast")]
    {
        let answer = gateway.http.send(method, path, &[ORIGIN], "x").await;
        assert_eq!(answer.header("access-control-allow-origin"), ORIGIN.1, "{method} {path}");
        assert!(allows(&answer, "vary", "origin"), "{method} {path}: {:?}", answer.headers);
        let answer = gateway.http.send(method, path, &[stranger], "x").await;
        assert_eq!(answer.header("access-control-allow-origin"), "", "{method} {path}");
        assert!(allows(&answer, "vary", "origin"), "{method} {path}: {:?}", answer.headers);
    }
}

#[tokio::test]
async fn requests_that_are_no_http_end_without_harm() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let gateway = Gateway::start("[http]\nheader_timeout = \"1s\"\n").await;
    for bytes in [
        &b"\0\x01\x02\x03\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET /events?chan",
        b"",
    ] {
        let mut socket = tokio::net::TcpStream::connect(gateway.address).await.expect("connects");
        socket.write_all(bytes).await.expect("sent");
        let mut answer = Vec::new();
        // A reset ends it as well as a close.
        let what = format!("the connection's end after {:?}", String::from_utf8_lossy(bytes));
        let _ = wait::soon(&what, socket.read_to_end(&mut answer)).await;
        let status = answer.get(9..10);
        assert!(status.is_none_or(|first| first == b"4"), "{:?}", String::from_utf8_lossy(&answer));
    }
    gateway.publish("news", "still here").await;
}
