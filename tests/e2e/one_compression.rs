//! Compressed streams: what a plain client gets, byte for byte, and as soon.

use http_body_util::BodyExt;
use sluice_tests::{
    client::{Client, End, Request},
    decoder::Decoder,
    gateway::Gateway,
    http2::Http2,
    process::{Process, directory},
    wait,
};
use std::process::Command;

const ENCODINGS: [&str; 2] = ["gzip", "zstd"];
const EVERY_SECOND: &str = "[stream]\nheartbeat = \"1s\"\n";

/// Events of all sizes and kinds, in JSON and not.
fn data(number: u64) -> String {
    match number % 12 {
        3 => String::new(),
        5 => format!("{number}\nlines\r\nof a text, ä 語 🦀\r"),
        7 => format!("{{\"order\":{number},\"filling\":\"{}\"}}", "abcdefghij".repeat(1500)),
        // Nothing that could become shorter.
        9 => (0..3000u64)
            .map(|n| char::from(33 + (((number + n) * (number + n) * 2_654_435_761) >> 13) as u8 % 90))
            .collect(),
        _ => format!("{{\"order\":{number},\"symbol\":\"ACME\",\"price\":{}.25,\"side\":\"buy\"}}", 100 + number % 7),
    }
}

/// The body without the time to wait, which is left to chance.
fn text(client: &Client) -> String {
    client.read(|log| {
        let text = log.text();
        let lines = text.split_inclusive('\n').filter(|line| !line.starts_with("retry: ") && *line != ": hb\n");
        lines.collect()
    })
}

async fn alike(target: &str, accept: &str) {
    let gateway = Gateway::start("").await;
    let request = |encoding: Option<&str>| {
        let request = Request::new(gateway.address, target).header("Accept", accept).keeping_body();
        encoding.map_or(request.clone(), |encoding| request.encoded(encoding))
    };
    let plain = Client::once(request(None)).await;
    let mut clients = Vec::new();
    for encoding in ENCODINGS {
        let client = Client::once(request(Some(encoding))).await;
        client.read(|log| {
            assert_eq!(log.head().header("content-encoding").as_deref(), Some(encoding));
            assert_eq!(log.head().header("vary").as_deref(), Some("Accept-Encoding"));
        });
        clients.push(client);
    }
    plain.read(|log| assert_eq!(log.head().header("content-encoding"), None));
    for number in 1..=100 {
        gateway.publish("a", data(number)).await;
        if number % 5 == 0 {
            gateway.http.post("/channels/b/events?event=update", data(number)).await;
        }
        if number % 10 == 0 {
            // A burst, part of which may be written at once.
            let events: Vec<_> =
                (0..30).map(|n| serde_json::json!({ "channel": "a", "data": data(number * 100 + n) })).collect();
            assert_eq!(gateway.http.post("/events", serde_json::Value::from(events).to_string()).await.status, 200);
        }
    }
    gateway.publish("a", "the last one").await;
    plain.wait("the last event", |log| log.text().contains("the last one")).await;
    let wanted = text(&plain);
    for (client, encoding) in clients.iter().zip(ENCODINGS) {
        client.wait("the last event", |log| log.text().contains("the last one")).await;
        let text = text(client);
        assert!(text == wanted, "{encoding}: {} bytes, where {} are right", text.len(), wanted.len());
        let (before, after) = client.read(|log| (log.body.len() as u64, log.encoded_bytes));
        assert!(after < before / 2, "{encoding}: {after} of {before}");
    }
}

#[tokio::test]
async fn a_compressed_stream_has_the_same_events() {
    alike("/events?channel=a", "text/event-stream").await;
}

#[tokio::test]
async fn a_compressed_stream_of_several_channels_has_the_same_events() {
    alike("/events?channel=a&channel=b", "text/event-stream").await;
}

#[tokio::test]
async fn a_compressed_stream_of_envelopes_has_the_same_events() {
    alike("/events?channel=a&envelope=1", "text/event-stream").await;
}

#[tokio::test]
async fn a_compressed_stream_of_lines_has_the_same_events() {
    alike("/events?channel=a&channel=b", "application/x-ndjson").await;
}

/// With heartbeats in between and clients that come in the middle.
#[tokio::test]
async fn every_event_arrives_before_the_next_is_published() {
    let gateway = Gateway::start(EVERY_SECOND).await;
    let mut clients = Vec::new();
    let begun = std::time::Instant::now();
    let mut number = 0;
    while number < 120 || begun.elapsed().as_millis() < 2500 {
        number += 1;
        if number % 40 == 1 {
            for encoding in ENCODINGS {
                clients.push((number, Client::once(gateway.events(&["a"]).encoded(encoding)).await));
                clients.push((number, Client::once(gateway.events(&["a", "b"]).encoded(encoding)).await));
            }
        }
        let data = data(number).replace(['\r', '\n'], " ");
        gateway.publish("a", data.clone()).await;
        for (since, client) in &clients {
            let count = (number - since + 1) as usize;
            client.wait("it at once", |log| log.events.len() == count && log.events[count - 1].data == data).await;
        }
    }
    assert!(gateway.metric("sse_connections_active", &[]).await >= 12.0, "nobody was cut");
}

#[tokio::test]
async fn heartbeats_and_greetings_are_readable_at_once() {
    let gateway = Gateway::start(EVERY_SECOND).await;
    for encoding in ENCODINGS {
        let mut request = gateway.events(&["quiet"]).encoded(encoding).keeping_body();
        request.target.push_str("&hello=1");
        let client = Client::once(request).await;
        client.wait("the greeting", |log| log.events.iter().any(|event| event.event == "connected")).await;
        client.wait("two heartbeats", |log| log.text().matches("\n: hb\n").count() >= 2).await;
        gateway.publish("quiet", "between heartbeats").await;
        client.wait_data("between heartbeats").await;
        client.wait("more heartbeats", |log| log.text().matches("\n: hb\n").count() >= 4).await;
    }
}

#[tokio::test]
async fn over_http2_it_is_the_same() {
    for encoding in ENCODINGS {
        let mut gateway =
            Gateway::start("[stream]\nheartbeat = \"1s\"\n[drain]\ndelay = \"0s\"\nwindow = \"0s\"\n").await;
        let mut connection = Http2::connect(gateway.address).await;
        let plain = Client::once(gateway.events(&["a"]).keeping_body()).await;
        let answer = connection.get("/events?channel=a", &[("accept-encoding", encoding)]).await;
        assert_eq!(answer.headers()["content-encoding"], encoding);
        assert_eq!(answer.headers()["vary"], "Accept-Encoding");
        let (mut body, mut decoder, mut text) =
            (answer.into_body(), Decoder::named(encoding).expect("known"), Vec::new());
        for number in 1..=60 {
            let end = format!("the end of {number}\n\n");
            gateway.publish("a", format!("{} the end of {number}", data(number))).await;
            while !String::from_utf8_lossy(&text).ends_with(&end) {
                let frame =
                    wait::soon("the event at once", body.frame()).await.expect("not the end").expect("no error");
                text.extend(decoder.push(frame.data_ref().expect("data")).expect(encoding));
            }
        }
        plain.wait_events(60).await;
        let text = String::from_utf8(text).expect("UTF-8").replace(": hb\n\n", "");
        let without = |text: &str| text.split_once("\n\n").expect("first bytes").1.to_owned();
        assert_eq!(without(&text), without(&plain.read(|log| log.text().replace(": hb\n\n", ""))), "{encoding}");

        gateway.process.signal(rustix::process::Signal::TERM);
        while let Some(frame) = wait::soon("the end", body.frame()).await {
            let bytes = frame.expect("no error").into_data().expect("data");
            decoder.push(&bytes).expect(encoding);
        }
        assert!(decoder.is_whole(), "{encoding} ends as it should");
    }
}

#[tokio::test]
async fn a_stream_that_the_gateway_ends_ends_as_its_encoding_should() {
    let mut gateway = Gateway::start("[drain]\ndelay = \"0s\"\nwindow = \"200ms\"\n").await;
    // Others were there before, whose places these take.
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Client::once(gateway.events(&["a"]).encoded("gzip")).await);
    }
    gateway.publish("a", data(0)).await;
    for client in std::mem::take(&mut clients) {
        client.wait_events(1).await;
    }
    gateway.wait_metric("sse_connections_active", &[], 0.0).await;
    for encoding in ENCODINGS {
        for target in ["/events?channel=a", "/events?channel=a&channel=b", "/events?channel=a&envelope=1"] {
            clients.push(Client::once(Request::new(gateway.address, target).encoded(encoding).keeping_body()).await);
        }
        let lines = gateway.events(&["a"]).header("Accept", "application/x-ndjson");
        clients.push(Client::once(lines.encoded(encoding).keeping_body()).await);
    }
    for number in 1..=80 {
        gateway.publish("a", data(number)).await;
    }
    gateway.publish("a", "the last one").await;
    for client in &clients {
        client.wait("the last event", |log| log.text().contains("the last one")).await;
    }
    gateway.process.signal(rustix::process::Signal::TERM);
    for client in &clients {
        assert_eq!(client.wait_end().await, End::Clean, "with the right checksum, where there is one");
        client.read(|log| {
            let is_lines = log.head().header("content-type").as_deref() == Some("application/x-ndjson");
            let last = log.text().trim_end().rsplit('\n').next().map(str::to_owned).unwrap_or_default();
            assert!(is_lines || last.starts_with("retry: "), "{last:?}");
        });
    }
}

#[tokio::test]
async fn curl_shows_events_as_they_come_and_ends_well() {
    let mut gateway = Gateway::start("[drain]\ndelay = \"0s\"\nwindow = \"0s\"\n").await;
    let url = format!("http://{}/events?channel=news", gateway.address);
    let directories = [directory(), directory(), directory()];
    // As it asks by itself, and for either.
    let asked = [None, Some("Accept-Encoding: gzip"), Some("Accept-Encoding: zstd")];
    let curls: Vec<_> = directories
        .iter()
        .zip(asked)
        .map(|(directory, asked)| {
            let mut command = Command::new("curl");
            command.args(["--compressed", "-sS", "-N", "-D", "/dev/stderr", &url]);
            command.args(asked.into_iter().flat_map(|header| ["-H", header]));
            Process::start("curl", &mut command, directory.path())
        })
        .collect();
    for curl in &curls {
        wait::until("the first bytes", async || curl.stdout().starts_with("retry: ").then_some(())).await;
        let head = curl.stderr().to_lowercase();
        assert!(ENCODINGS.iter().any(|encoding| head.contains(&format!("content-encoding: {encoding}"))), "{head}");
    }
    for number in 1..=50 {
        gateway.publish("news", format!("{{\"number\":{number}}}")).await;
        let end = format!("data: {{\"number\":{number}}}\n\n");
        for curl in &curls {
            wait::until("the event at once", async || curl.stdout().ends_with(&end).then_some(())).await;
        }
    }
    gateway.process.signal(rustix::process::Signal::TERM);
    for mut curl in curls {
        let status = curl.end(wait::PATIENCE).await;
        assert_eq!(status.code(), Some(0), "{}", curl.stderr());
    }
}

#[tokio::test]
async fn who_does_not_ask_gets_everything_as_it_is() {
    let gateway = Gateway::start("").await;
    for accepted in [None, Some("identity"), Some("br, deflate"), Some("gzip;q=0"), Some("")] {
        let request = gateway.events(&["a"]).keeping_body();
        let client = Client::once(accepted.map_or(request.clone(), |accepted| request.encoded(accepted))).await;
        gateway.publish("a", "as it is").await;
        client.wait_data("as it is").await;
        client.read(|log| assert_eq!(log.head().header("content-encoding"), None, "{accepted:?}"));
    }
    let head = |encoding: &'static str| {
        let http = gateway.http.clone();
        async move { http.send("HEAD", "/events?channel=a", &[("accept-encoding", encoding)], "").await }
    };
    assert_eq!(head("gzip").await.header("content-encoding"), "gzip", "HEAD says what GET would");
    assert_eq!(head("gzip, zstd").await.header("content-encoding"), "zstd");
    assert_eq!(head("gzip, zstd;q=0.9").await.header("content-encoding"), "gzip");
    let poll = [("accept", "application/json"), ("accept-encoding", "gzip")];
    let poll = gateway.http.send("GET", "/events?channel=a&since=earliest", &poll, "").await;
    assert_eq!((poll.header("content-encoding"), poll.json()["events"].as_array().map(Vec::len)), ("", Some(5)));
}

#[tokio::test]
async fn compression_can_be_turned_off() {
    let gateway = Gateway::start("[stream]\ncompression = false\n").await;
    let client = Client::once(gateway.events(&["a"]).encoded("gzip, zstd")).await;
    gateway.publish("a", "as it is").await;
    client.wait_data("as it is").await;
    client.read(|log| {
        assert_eq!((log.head().header("content-encoding"), log.head().header("vary")), (None, None));
    });
}
