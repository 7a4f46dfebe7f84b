//! A stream on HTTP/1.1: its head, its first bytes, and where events go.

use sluice_tests::{client::Client, gateway::Gateway, wait};
use std::collections::HashSet;

/// What every answer with a stream must carry, so that nothing on the way keeps or changes it.
#[tokio::test]
async fn the_head_keeps_caches_and_proxies_from_holding_the_stream_back() {
    let gateway = Gateway::start("").await;
    let client = gateway.subscribe(&["news"]).await;
    client.read(|log| {
        let head = log.head();
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-type").as_deref(), Some("text/event-stream"));
        assert_eq!(head.header("cache-control").as_deref(), Some("no-store, no-transform"));
        assert_eq!(head.header("x-accel-buffering").as_deref(), Some("no"));
        assert_eq!(head.header("access-control-allow-origin").as_deref(), Some("*"));
        assert_eq!((head.header("content-length"), head.header("transfer-encoding")), (None, None));
    });
}

#[tokio::test]
async fn the_first_bytes_come_at_once_and_say_when_to_come_back_and_where_the_client_stands() {
    let gateway = Gateway::start("").await;
    let mut retries = HashSet::new();
    for _ in 0..20 {
        let client = Client::once(gateway.events(&["news"]).keeping_body()).await;
        let body = client.read(|log| log.text());
        let lines: Vec<_> = body.split('\n').collect();
        let [retry, id, "", ""] = lines[..] else { panic!("{body:?}") };
        let retry: u64 = retry.strip_prefix("retry: ").and_then(|ms| ms.parse().ok()).expect("a retry line");
        assert!((1000..=3000).contains(&retry), "{retry}");
        assert!(id.strip_prefix("id: ").is_some_and(|id| !id.is_empty()), "{id}");
        retries.insert(retry);
        assert_eq!(client.read(|log| log.events.len()), 0, "an id without data is no event");
    }
    assert!(retries.len() > 5, "jittered: {retries:?}");
}

#[tokio::test]
async fn each_client_gets_the_events_of_its_channels_and_no_others() {
    let gateway = Gateway::start("").await;
    let a = gateway.subscribe(&["a"]).await;
    let both = gateway.subscribe(&["a", "b"]).await;
    let b = gateway.subscribe(&["b"]).await;
    for (channel, data) in [("a", "1"), ("b", "2"), ("other", "3"), ("a", "4"), ("b", "end"), ("a", "end of a")] {
        gateway.publish(channel, data).await;
    }
    a.wait_data("end of a").await;
    both.wait_events(5).await;
    b.wait_data("end").await;
    assert_eq!(a.data(), ["1", "4", "end of a"]);
    // In order per channel, and in any order between channels.
    let of = |wanted: &[&str]| both.data().into_iter().filter(|one| wanted.contains(&one.as_str())).collect::<Vec<_>>();
    assert_eq!((of(&["1", "4", "end of a"]), of(&["2", "end"])), (a.data(), b.data()));
    assert_eq!(both.data().len(), 5);
    assert_eq!(b.data(), ["2", "end"]);
}

#[tokio::test]
async fn a_channel_asked_for_twice_is_sent_once() {
    let gateway = Gateway::start("").await;
    let client = gateway.subscribe(&["a", "a"]).await;
    gateway.publish("a", "1").await;
    gateway.publish("a", "2").await;
    client.wait_data("2").await;
    assert_eq!(client.data(), ["1", "2"]);
}

/// The names that need escaping in a URL, or that look like something else.
#[tokio::test]
async fn every_allowed_name_can_be_subscribed_and_published_to() {
    let gateway = Gateway::start("").await;
    let longest = "x".repeat(200);
    for (name, escaped) in [
        ("https://example.com/books/1?a=b&c=d#e", "https%3A%2F%2Fexample.com%2Fbooks%2F1%3Fa%3Db%26c%3Dd%23e"),
        ("user:42", "user:42"),
        ("50%", "50%25"),
        ("a+b", "a%2Bb"),
        ("a/b", "a%2Fb"),
        (longest.as_str(), longest.as_str()),
    ] {
        let client = gateway.subscribe(&[escaped]).await;
        assert_eq!(client.read(|log| log.head().status), 200, "{name}");
        let answer = gateway.publish(escaped, "here").await;
        assert_eq!(answer["channel"], name);
        client.wait_data("here").await;
    }
}

#[tokio::test]
async fn a_kept_connection_can_become_a_stream() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let gateway = Gateway::start("").await;
    let mut socket = tokio::net::TcpStream::connect(gateway.address).await.expect("connects");
    let host = gateway.address;
    let requests = format!(
        "POST /channels/news/events HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nfirst\
         GET /channels/news HTTP/1.1\r\nHost: {host}\r\n\r\n"
    );
    let mut read = String::new();
    let mut buffer = [0; 4096];
    let mut read_until = async |socket: &mut tokio::net::TcpStream, end: &str| {
        while !read.contains(end) {
            let count = wait::soon(end, socket.read(&mut buffer)).await.expect("an answer");
            assert!(count > 0, "closed before {end:?}: {read}");
            read.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        read.clear();
    };
    socket.write_all(requests.as_bytes()).await.expect("sent");
    read_until(&mut socket, "\"subscribers\"").await;
    let request = gateway.events(&["news"]);
    socket.write_all(&request.bytes("")).await.expect("sent");
    read_until(&mut socket, "retry: ").await;
    gateway.publish("news", "second").await;
    read_until(&mut socket, "data: second\n\n").await;
}

#[tokio::test]
async fn what_follows_the_request_does_not_disturb_the_stream() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let gateway = Gateway::start("").await;
    let mut socket = tokio::net::TcpStream::connect(gateway.address).await.expect("connects");
    socket.write_all(&gateway.events(&["news"]).bytes("")).await.expect("sent");
    let (mut read, mut buffer) = (String::new(), [0; 4096]);
    let mut published = false;
    while !read.contains("data: here\n\n") {
        let count = wait::soon("the event", socket.read(&mut buffer)).await.expect("a stream");
        assert!(count > 0, "closed: {read}");
        read.push_str(&String::from_utf8_lossy(&buffer[..count]));
        if read.contains("retry: ") && !published {
            published = true;
            socket.write_all(b"\r\nstray").await.expect("sent");
            gateway.publish("news", "here").await;
        }
    }
}
