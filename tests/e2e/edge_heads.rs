//! Requests' heads that are too large: refused with what to do, and nobody else is harmed.

use http_body_util::BodyExt;
use serde_json::Value;
use sluice_tests::{curl::Curl, gateway::Gateway, http::Http, http2::Http2, tls, tls::Authority, wait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const CONFIG: &str = "[http]\nmax_header_bytes = \"8KiB\"\n";
const ALLOWED: usize = 8 * 1024;

fn long_target(bytes: usize) -> String {
    format!("/events?channel={}", "a".repeat(bytes))
}

/// What says what was too large, and how much there may be.
fn assert_refused(problem: &Value, status: u16) {
    let kind = if status == 414 { "uri-too-long" } else { "headers-too-large" };
    assert_eq!((&problem["type"], &problem["status"]), (&format!("urn:sluice:problem:{kind}").into(), &status.into()));
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("http.max_header_bytes") && detail.contains(&ALLOWED.to_string()), "{detail}");
}

async fn are_refused_and_the_next_is_not(http: &Http) {
    let long = "x".repeat(ALLOWED);
    for _ in 0..2 {
        let answer = http.get(&long_target(ALLOWED)).await;
        assert_refused(&answer.problem(414), 414);
        assert_eq!(answer.header("access-control-allow-origin"), "*", "a page may know why");
        let many: Vec<_> = (0..60).map(|nth| (format!("x-{nth}"), "x".repeat(200))).collect();
        let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        for headers in [&[("last-event-id", long.as_str())][..], &many] {
            for (method, path) in [("GET", "/events?channel=a"), ("POST", "/channels/a/events"), ("GET", "/channels/a")]
            {
                assert_refused(&http.send(method, path, headers, "x").await.problem(431), 431);
            }
        }
        // Nearly as much is not too much.
        let much = "x".repeat(ALLOWED - 1024);
        assert_eq!(http.send("POST", "/channels/a/events", &[("x-much", &much)], "x").await.status, 200);
        assert_eq!(http.get(&format!("/channels/a?{much}")).await.status, 200);
    }
}

#[tokio::test]
async fn a_request_says_once_whom_it_is_for() {
    let gateway = Gateway::start("").await;
    for (hosts, status) in [("", "400"), ("Host: a\r\nHost: b\r\n", "400"), ("Host: a\r\n", "200")] {
        let mut socket = TcpStream::connect(gateway.address).await.expect("it listens");
        let request = format!("GET /connections HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{hosts:?}: {answer}");
    }
}

#[tokio::test]
async fn on_http1_and_http2_with_tls_and_without() {
    let gateway = Gateway::start(CONFIG).await;
    let neighbour = gateway.subscribe(&["a"]).await;
    are_refused_and_the_next_is_not(&gateway.http).await;
    let http2 =
        Http::with(Http::builder().tls_certs_only([]).http2_prior_knowledge(), &format!("http://{}", gateway.address));
    are_refused_and_the_next_is_not(&http2).await;
    neighbour.wait_events(4).await;
    neighbour.read(|log| assert_eq!(log.ends.len(), 0));

    let authority = Authority::new();
    let gateway = Gateway::start_secure(CONFIG, &authority).await;
    are_refused_and_the_next_is_not(&tls::http(gateway.address, &authority, None)).await;
}

/// By default more is allowed than HTTP/1.1 reads of a URL, and than curl sends over HTTP/2.
#[tokio::test]
async fn curl_shows_what_to_do() {
    let gateway = Gateway::start("").await;
    let header = format!("X-Long: {}", "x".repeat(66_000));
    let url = format!("http://{}/events?channel=a", gateway.address);
    let answer = Curl::run(&["--http1.1", "-H", &header, &url]).await.stdout();
    assert!(answer.contains("urn:sluice:problem:headers-too-large") && answer.contains("65536"), "{answer}");
}

/// Where hyper refuses before there is a request.
#[tokio::test]
async fn what_is_far_too_large_is_refused_alike_and_ends_its_own_connection_alone() {
    for config in [CONFIG, ""] {
        let gateway = Gateway::start(config).await;
        let neighbour = gateway.subscribe(&["a"]).await;
        let long = "x".repeat(100_000);
        // Of a URL that is longer than all of a head may be, nobody knows that it is one.
        let of_a_url = if config.is_empty() { "414" } else { "431" };
        for (request, status) in [
            (format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", long_target(70_000)), of_a_url),
            (format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: {long}\r\n\r\n"), "431"),
            (format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "x-more: x\r\n".repeat(100)), "431"),
            // Without an end.
            (format!("GET / HTTP/1.1\r\nHost: x\r\n{}", "x-more: x\r\n".repeat(10_000)), "431"),
        ] {
            let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
            // It may be answered and closed before all was sent.
            let _ = stream.write_all(request.as_bytes()).await;
            let mut answer = Vec::new();
            let _ = wait::soon("its end", stream.read_to_end(&mut answer)).await;
            let answer = String::from_utf8_lossy(&answer);
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no whole head: {answer:?}"));
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}");
            for header in
                ["connection: close", "content-type: application/problem+json", "access-control-allow-origin: *"]
            {
                assert!(head.contains(header), "{header} in {head:?}");
            }
            let problem: Value = serde_json::from_str(body).expect("JSON");
            assert_eq!(problem["status"].to_string(), status);
        }
        gateway.publish("a", "x").await;
        neighbour.wait_data("x").await;
        neighbour.read(|log| assert_eq!(log.ends.len(), 0));
    }
}

#[tokio::test]
async fn streams_on_the_same_http2_connection_go_on() {
    let gateway = Gateway::start(CONFIG).await;
    let mut connection = Http2::connect(gateway.address).await;
    let mut stream = connection.get("/events?channel=a", &[]).await;
    let long = "x".repeat(ALLOWED);
    assert_eq!(connection.get(&long_target(ALLOWED), &[]).await.status(), 414);
    assert_eq!(connection.get("/events?channel=a", &[("x-long", &long)]).await.status(), 431);
    // Beyond what is read at all.
    assert_eq!(connection.get("/events?channel=a", &[("x-long", &long.repeat(5))]).await.status(), 431);
    let another = connection.get("/channels/a", &[]).await;
    assert_eq!(another.status(), 200);
    gateway.publish("a", "to all").await;
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("data: to all\n\n") {
        let frame = wait::soon("more", stream.body_mut().frame()).await.expect("not the end").expect("no error");
        read.extend(frame.into_data().unwrap_or_default());
    }
}
