//! Publishing over HTTP: whatever is taken arrives as it is, and what cannot be an event is refused.

use serde_json::{Value, json};
use sluice_tests::{client::Client, gateway::Gateway, wait};

/// Data as a client gets it: the standard knows one line break.
fn normalised(data: &str) -> String {
    data.replace("\r\n", "\n").replace('\r', "\n")
}

/// The number of an event in its channel, from an answer's position.
fn seq(answer: &Value) -> u64 {
    let position = answer["position"].as_str().unwrap_or_else(|| panic!("a position: {answer}"));
    let (micros, seq) = position.split_once('-').expect("time and number");
    assert!(micros.parse::<u64>().is_ok_and(|micros| micros > 1_600_000_000_000_000), "{position}");
    seq.parse().expect("a number")
}

#[tokio::test]
async fn any_text_arrives_as_the_standard_says() {
    let gateway = Gateway::start("").await;
    let client = gateway.subscribe(&["text"]).await;
    let mut all: Vec<String> = [
        "",
        " ",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\r\r",
        "\n\r",
        "a\nb",
        "a\rb",
        "a\r\nb\n",
        "\nleading",
        "trailing\n\n",
        " leading blank",
        "\ttab",
        ": no comment",
        "data: no field",
        "id: 1\nevent: x\nretry: 1",
        "\u{feff}mark",
        "nul \0 byte",
        "grüße 🦀 \u{2028}\u{85}\u{b}",
        "{\"json\":\n true}",
        "data",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut random = fastrand::Rng::with_seed(7);
    let pieces = ["\r", "\n", "\r\n", "a", " ", ":", "data:", "é", "🦀", "\0", "\u{feff}"];
    for _ in 0..100 {
        let count = random.usize(0..12);
        all.push((0..count).map(|_| pieces[random.usize(0..pieces.len())]).collect());
    }
    for data in &all {
        gateway.publish("text", data.clone()).await;
    }
    client.wait_events(all.len()).await;
    let expected: Vec<_> = all.iter().map(|data| normalised(data)).collect();
    assert_eq!(client.data(), expected);
}

#[tokio::test]
async fn data_may_be_as_large_as_the_limit_and_no_larger() {
    let gateway = Gateway::start("").await;
    let client = gateway.subscribe(&["large"]).await;
    let largest = "é".repeat(32 * 1024);
    gateway.publish("large", largest.clone()).await;
    let too_large = gateway.http.post("/channels/large/events", format!("{largest}x")).await;
    too_large.problem(413);
    let stream = futures_util::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 1024])));
    let without_length = reqwest::Body::wrap_stream(stream);
    gateway.http.post("/channels/large/events", without_length).await.problem(413);
    gateway.publish("large", "last").await;
    client.wait_data("last").await;
    assert!(client.data() == [largest, "last".to_owned()], "arrived, and nothing else");
}

/// Every line break becomes a line of its own, and the event seven times as large.
#[tokio::test]
async fn an_event_that_encoding_makes_larger_than_the_outbox_cuts_nobody_who_reads() {
    const LINES: usize = 64 * 1024;
    let gateway = Gateway::start("").await;
    let client = gateway.subscribe(&["lines"]).await;
    for round in 1..=20 {
        gateway.publish("lines", "\n".repeat(LINES)).await;
        gateway.publish("lines", format!("after {round}")).await;
        client.wait_data(&format!("after {round}")).await;
    }
    client.read(|log| {
        assert_eq!((log.events.len(), log.ends.len()), (40, 0));
        assert!(log.events.iter().step_by(2).all(|event| event.data.len() == LINES));
    });
}

/// A client that keeps connections would send its next request over one that is about to be closed, and fail.
#[tokio::test]
async fn a_refusal_that_ends_its_connection_says_so() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let gateway = Gateway::start("").await;
    let mut socket = tokio::net::TcpStream::connect(gateway.address).await.expect("connects");
    let post = |length: usize| {
        let body = "x".repeat(length);
        format!("POST /channels/a/events HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    socket.write_all(post(64 * 1024 + 1).as_bytes()).await.expect("sent");
    let read = async |socket: &mut tokio::net::TcpStream| {
        let mut buffer = vec![0; 64 * 1024];
        let count = wait::soon("an answer", socket.read(&mut buffer)).await.unwrap_or(0);
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    let refusal = read(&mut socket).await;
    assert!(refusal.starts_with("HTTP/1.1 413 "), "{refusal}");
    if !refusal.to_ascii_lowercase().contains("\r\nconnection: close\r\n") {
        let _ = socket.write_all(post(1).as_bytes()).await;
        let next = read(&mut socket).await;
        assert!(next.starts_with("HTTP/1.1 200 "), "not said to close, and closed: {refusal:?}, then {next:?}");
    }
}

#[tokio::test]
async fn what_is_not_utf8_is_refused() {
    let gateway = Gateway::start("").await;
    let client = gateway.subscribe(&["text"]).await;
    for bytes in [&b"\xff"[..], b"ok then \xc3", b"\xed\xa0\x80", b"\xc0\x80"] {
        gateway.http.post("/channels/text/events", bytes).await.problem(400);
    }
    gateway.publish("text", "last").await;
    client.wait_data("last").await;
    assert_eq!(client.data(), ["last"]);
}

#[tokio::test]
async fn the_type_is_the_events_name_and_is_one_line() {
    let gateway = Gateway::start("").await;
    let client = gateway.subscribe(&["typed"]).await;
    for event in ["update", "a%20b", "gr%C3%BC%C3%9Fe", "message", ""] {
        let answer = gateway.http.post(&format!("/channels/typed/events?event={event}"), "x").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for event in ["a%0Ab", "a%0Db", "a%00b"] {
        gateway.http.post(&format!("/channels/typed/events?event={event}"), "x").await.problem(400);
    }
    gateway.http.post(&format!("/channels/typed/events?event={}", "x".repeat(201)), "x").await.problem(400);
    gateway.publish("typed", "last").await;
    client.wait_data("last").await;
    let types: Vec<_> = client.read(|log| log.events.iter().map(|event| event.event.clone()).collect());
    assert_eq!(types, ["update", "a b", "grüße", "message", "message", "message"]);
}

#[tokio::test]
async fn positions_count_a_channels_events_without_holes() {
    let gateway = Gateway::start("[[channel]]\nmatch = \"live.*\"\nhistory = \"off\"\n").await;
    for expected in 1..=5 {
        let answer = gateway.publish("counted", "x").await;
        assert_eq!((answer["channel"].as_str(), seq(&answer)), (Some("counted"), expected));
    }
    assert_eq!(seq(&gateway.publish("other", "x").await), 1, "each channel counts for itself");
    let answer = gateway.publish("live.now", "x").await;
    assert_eq!(answer, json!({"channel": "live.now", "position": null}), "without history there is no position");
}

#[tokio::test]
async fn repeating_an_idempotency_key_publishes_nothing_and_answers_the_same() {
    let gateway = Gateway::start("").await;
    let client = gateway.subscribe(&["once"]).await;
    let key = [("idempotency-key", "order-7")];
    let first = gateway.http.send("POST", "/channels/once/events", &key, "one").await;
    let again = gateway.http.send("POST", "/channels/once/events", &key, "one").await;
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(first.json()["position"], again.json()["position"]);
    let other = gateway.http.send("POST", "/channels/twice/events", &key, "one").await.json();
    assert_eq!(seq(&other), 1, "a key counts in its channel");
    let too_long = "k".repeat(129);
    gateway.http.send("POST", "/channels/once/events", &[("idempotency-key", &too_long)], "x").await.problem(400);
    gateway.publish("once", "two").await;
    client.wait_data("two").await;
    assert_eq!(client.data(), ["one", "two"]);
}

#[tokio::test]
async fn many_events_in_one_request_are_each_answered_in_order() {
    let gateway = Gateway::start("").await;
    let (a, b) = (gateway.subscribe(&["a"]).await, gateway.subscribe(&["b"]).await);
    let json_header = [("content-type", "application/json")];
    let lines_header = [("content-type", "application/x-ndjson")];

    let one = json!({"channel": "a", "event": "add", "data": "1"}).to_string();
    let answer = gateway.http.send("POST", "/events", &json_header, one).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let results = answer.json()["results"].clone();
    assert_eq!((results.as_array().map(Vec::len), &results[0]["channel"], seq(&results[0])), (Some(1), &json!("a"), 1));

    // Written out, as the order of keys must arrive as it was sent.
    let array = r#"[
        {"channel": "b", "data": {"n": 2, "list": [1, null, true]}},
        {"channel": "a", "data": 3.50},
        {"data": null, "channel": "a"},
        {"channel": "b", "data": "line\nbreak", "idempotency_key": "k"},
        {"channel": "b", "data": "again", "idempotency_key": "k"}
    ]"#;
    let answer = gateway.http.send("POST", "/events", &json_header, array).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let results = answer.json()["results"].as_array().expect("results").clone();
    let placed: Vec<_> = results.iter().map(|one| (one["channel"].as_str().expect("a name"), seq(one))).collect();
    assert_eq!(placed, [("b", 1), ("a", 2), ("a", 3), ("b", 2), ("b", 2)]);

    let lines = "{\"channel\":\"a\",\"data\":\"5\"}\r\n\n{\"channel\":\"b\",\"data\":\"6\"}";
    let answer = gateway.http.send("POST", "/events", &lines_header, lines).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["results"].as_array().map(Vec::len), Some(2));

    a.wait_data("5").await;
    b.wait_data("6").await;
    assert_eq!(a.data(), ["1", "3.50", "null", "5"]);
    assert_eq!(b.data(), ["{\"n\":2,\"list\":[1,null,true]}", "line\nbreak", "6"]);
    assert_eq!(a.read(|log| log.events[0].event.clone()), "add");
}

#[tokio::test]
async fn one_bad_event_among_good_ones_is_refused_alone() {
    let gateway = Gateway::start("").await;
    let client = gateway.subscribe(&["a"]).await;
    let events = json!([
        {"channel": "a", "data": "1"},
        {"channel": "no,name", "data": "2"},
        {"channel": "a", "event": "two\nlines", "data": "3"},
        {"channel": "a", "data": "x".repeat(64 * 1024 + 1)},
        {"channel": "a"},
        {"channel": "a", "data": "6"},
    ]);
    let answer = gateway.http.post("/events", events.to_string()).await;
    assert_eq!(answer.status, 207, "{}", answer.text());
    let results = answer.json()["results"].as_array().expect("results").clone();
    assert_eq!(results.len(), 6);
    assert_eq!((seq(&results[0]), seq(&results[5])), (1, 2));
    for (refused, status) in [(1, 400), (2, 400), (3, 413), (4, 400)] {
        let problem = &results[refused]["problem"];
        assert_eq!(problem["status"], status, "{}", results[refused]);
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
    }
    client.wait_data("6").await;
    assert_eq!(client.data(), ["1", "6"]);
}

#[tokio::test]
async fn a_request_of_a_thousand_events_is_taken_and_a_larger_one_refused_whole() {
    let gateway = Gateway::start("").await;
    let client = gateway.subscribe(&["bulk"]).await;
    let lines =
        |count: usize| -> String { (1..=count).map(|n| format!("{{\"channel\":\"bulk\",\"data\":{n}}}\n")).collect() };
    let answer = gateway.http.send("POST", "/events", &[("content-type", "application/x-ndjson")], lines(1000)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["results"].as_array().map(Vec::len), Some(1000));
    let answer = gateway.http.send("POST", "/events", &[("content-type", "application/x-ndjson")], lines(1001)).await;
    answer.problem(413);
    let heavy = format!("[{}]", vec![json!({"channel": "bulk", "data": "x".repeat(60_000)}).to_string(); 18].join(","));
    gateway.http.post("/events", heavy).await.problem(413);
    gateway.http.post("/events", "[{\"channel\":").await.problem(400);
    gateway.publish("bulk", "last").await;
    client.wait_data("last").await;
    let expected: Vec<_> = (1..=1000).map(|n| n.to_string()).chain(["last".to_owned()]).collect();
    assert_eq!(client.data(), expected);
}

#[tokio::test]
async fn a_broadcast_reaches_every_connection_whatever_its_channels() {
    let gateway = Gateway::start("").await;
    let mut clients = Vec::new();
    for n in 0..10 {
        clients.push(gateway.subscribe(&[&format!("room.{n}")]).await);
    }
    clients.push(Client::once(gateway.events(&["room.0"]).header("accept", "text/event-stream")).await);
    let answer = gateway.http.post("/broadcast?event=notice", "to all").await;
    assert_eq!((answer.status, answer.json()), (200, json!({"channel": "$all", "position": null})));
    assert_eq!(gateway.http.post("/channels/$all/events", "again").await.status, 200);
    assert_eq!(gateway.http.post("/channels/%24all/events", "and again").await.status, 200);
    for client in &clients {
        client.wait_data("and again").await;
        assert_eq!(client.data(), ["to all", "again", "and again"]);
        assert_eq!(client.read(|log| log.events[0].event.clone()), "notice");
    }
}

#[tokio::test]
async fn a_request_that_is_repeated_with_its_key_publishes_nothing_twice() {
    let gateway = Gateway::start("").await;
    let client = gateway.subscribe(&["keyed"]).await;
    let headers = [("idempotency-key", "request-1")];
    let single = json!({"channel": "keyed", "data": "alone"}).to_string();
    let many = json!([{"channel": "keyed", "data": "one"}, {"channel": "keyed", "data": "two"}]).to_string();
    for body in [single, many] {
        let first = gateway.http.send("POST", "/events", &headers, body.clone()).await;
        assert_eq!(first.status, 200, "{}", first.text());
        let second = gateway.http.send("POST", "/events", &headers, body).await;
        assert_eq!(first.json(), second.json());
    }
    let half = gateway.http.post("/events", r#"{"channel":"keyed","data":"a\ud800b"}"#).await;
    half.problem(400);
    gateway.publish("keyed", "last").await;
    client.wait_data("last").await;
    assert_eq!(client.data(), ["alone", "one", "two", "last"]);
}
