//! Pages of history that clients are reading have so much memory together: at the limit others wait, and lose nothing.

use serde_json::{Value, json};
use sluice_cli::sse::Parser;
use sluice_tests::{
    check::{once_and_in_order, payload_of_size},
    client::{Client, Request},
    gateway::{Gateway, events_target},
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

const CHANNELS: usize = 12;
const EVENTS: u64 = 64;
const EVENT_BYTES: usize = 32 * 1024;
/// Two pages of these events fill it.
const REPLAY_BYTES: f64 = (8 << 20) as f64;
/// The write timeout frees nothing while the test runs.
const CONFIG: &str = "
[limits]
replay_bytes = \"8MiB\"
batch_bytes = \"4MiB\"
[stream]
write_timeout = \"1h\"
";

fn channel(nth: usize) -> String {
    format!("bulk-{nth}")
}

fn all_of(gateway: &Gateway, nth: usize) -> Request {
    Request::new(gateway.address, &format!("{}&since=earliest", events_target(&[&channel(nth)])))
}

/// Asks for all of a channel, with as small a buffer as the kernel gives, and waits for the first bytes.
async fn stops_reading(gateway: &Gateway, nth: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(gateway.address).await.expect("connects");
    stream.write_all(&all_of(gateway, nth).bytes("")).await.expect("sent");
    wait::soon("the first bytes", stream.readable()).await.expect("an answer");
    stream
}

/// Reads until the last event has come.
async fn reads_on(mut stream: TcpStream, channel: &str) -> Vec<String> {
    let last = payload_of_size(channel, EVENTS, EVENT_BYTES);
    let (mut parser, mut events, mut buffer) = (Parser::resuming(""), Vec::new(), vec![0; 64 * 1024]);
    loop {
        let count = wait::soon("more", stream.read(&mut buffer)).await.expect("the stream goes on");
        assert!(count > 0, "the stream of {channel} ended after {} events", events.len());
        parser.push(&buffer[..count], &mut events).expect("an event stream");
        if events.last().is_some_and(|event| event.data == last) {
            return events.into_iter().map(|event| event.data).collect();
        }
    }
}

async fn is_within(gateway: &Gateway) {
    let held = gateway.metric("sse_replay_bytes", &[]).await;
    assert!(held <= REPLAY_BYTES, "{held} bytes are held");
}

#[tokio::test]
async fn readers_that_stop_hold_no_memory_that_others_need_and_nobody_loses_anything() {
    let gateway = Gateway::start(CONFIG).await;
    for nth in 0..CHANNELS {
        let channel = channel(nth);
        let event = |n| json!({ "channel": channel, "data": payload_of_size(&channel, n, EVENT_BYTES) });
        let events: Value = (1..=EVENTS).map(event).collect();
        assert_eq!(gateway.http.post("/events", events.to_string()).await.status, 200);
    }
    let mut stopped = Vec::new();
    for nth in 0..CHANNELS {
        stopped.push(stops_reading(&gateway, nth).await);
        is_within(&gateway).await;
    }
    for nth in 0..CHANNELS {
        let client = Client::once(all_of(&gateway, nth)).await;
        client.wait_events(EVENTS as usize).await;
        client.read(|log| {
            let verdict = once_and_in_order(&channel(nth), log.data(), 1..=EVENTS);
            assert!(verdict.is_ok(), "{verdict:?}");
        });
        is_within(&gateway).await;
    }
    assert!(gateway.metric("sse_replay_waits_total", &[]).await > 0.0, "the limit was met");
    let names: Vec<_> = (0..CHANNELS).map(channel).collect();
    for (stream, channel) in stopped.into_iter().zip(&names) {
        let data = reads_on(stream, channel).await;
        let verdict = once_and_in_order(channel, data.iter().map(String::as_str), 1..=EVENTS);
        assert!(verdict.is_ok(), "{verdict:?}");
        is_within(&gateway).await;
    }
    gateway.wait_metric("sse_connections_active", &[], 0.0).await;
    gateway.wait_metric("sse_replay_bytes", &[], 0.0).await;
}

#[tokio::test]
async fn history_as_json_comes_in_pieces_and_whoever_does_not_read_it_is_bounded_too() {
    let gateway = Gateway::start(CONFIG).await;
    let name = channel(0);
    // Many times what the kernel takes for a client that does not read.
    for first in [1, 65, 129, 193] {
        let event = |n| json!({ "channel": name, "data": payload_of_size(&name, n, EVENT_BYTES) });
        let events: Value = (first..first + EVENTS).map(event).collect();
        assert_eq!(gateway.http.post("/events", events.to_string()).await.status, 200);
    }
    let target = format!("/channels/{name}/events?limit=1000");
    let mut stopped = Vec::new();
    for _ in 0..4 {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let mut stream = socket.connect(gateway.address).await.expect("connects");
        // Each answer is made once the one before is in the kernel, which takes some of them and then no more.
        let requests = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(20);
        stream.write_all(requests.as_bytes()).await.expect("sent");
        stopped.push(stream);
    }
    wait::until("two answers that nobody reads fill it", async || {
        is_within(&gateway).await;
        let answer = gateway.http.send("GET", &target, &[("accept", "text/event-stream")], "").await;
        (answer.status == 503).then(|| answer.problem(503))
    })
    .await;
    assert!(gateway.metric("sse_refused_total", &["reason=\"replays\""]).await >= 1.0);
    drop(stopped);
    gateway.wait_metric("sse_replay_bytes", &[], 0.0).await;

    // Read in pieces, all of it is there once.
    let (mut data, mut next, mut answers) = (Vec::new(), String::new(), 0);
    loop {
        let answer = gateway.http.json(&format!("{target}{next}")).await;
        let events = answer["events"].as_array().expect("events");
        data.extend(events.iter().map(|event| event["data"].as_str().expect("text").to_owned()));
        answers += 1;
        match answer["next"].as_str() {
            Some(position) => next = format!("&after={position}"),
            None => break,
        }
    }
    let verdict = once_and_in_order(&name, data.iter().map(String::as_str), 1..=4 * EVENTS);
    assert!(verdict.is_ok() && answers > 2, "{verdict:?} in {answers} answers");
    gateway.wait_metric("sse_replay_bytes", &[], 0.0).await;
}
