//! What a client that reads too slowly gets, by its channel's policy: never half a frame, never a silent loss.

use serde_json::Value;
use sluice_cli::sse::{Event, Parser};
use sluice_tests::{
    client::{Client, Request},
    cluster::connect,
    gateway::Gateway,
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

const CONFIG: &str = "
[stream]
write_timeout = \"60s\"
[outbox]
max_bytes = \"64KiB\"
[[channel]]
match = \"kept.oldest\"
slow = \"drop-oldest\"
[[channel]]
match = \"kept.latest\"
slow = \"latest\"
[[channel]]
match = \"live.latest\"
history = \"off\"
slow = \"latest\"
[[channel]]
match = \"live.*\"
history = \"off\"
";
const EVENTS: usize = 400;
const BYTES: usize = 16 * 1024;

/// A stream whose reader has stopped, with as small a buffer as the kernel gives.
struct Stalled {
    stream: TcpStream,
    parser: Parser,
    head: Vec<u8>,
}

impl Stalled {
    async fn start(request: Request) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let mut stream = socket.connect(request.address).await.expect("connects");
        stream.write_all(&request.bytes("")).await.expect("sent");
        Self { stream, parser: Parser::new(), head: Vec::new() }
    }

    /// Reads on until an event has this data.
    async fn read_until(&mut self, last: &str) -> Vec<Event> {
        let mut events = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        while !events.iter().any(|event: &Event| event.data == last) {
            let count = wait::soon("more bytes", self.stream.read(&mut buffer)).await.expect("no error");
            assert!(count > 0, "the stream goes on");
            let mut bytes = &buffer[..count];
            if !self.head.ends_with(b"\r\n\r\n") {
                let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("the head") + 4;
                self.head.extend_from_slice(&bytes[..end]);
                bytes = &bytes[end..];
            }
            self.parser.push(bytes, &mut events).expect("no half frames");
        }
        events
    }
}

fn data(number: usize) -> String {
    format!("{number:05} {}", "x".repeat(BYTES))
}

fn number(event: &Event) -> Option<usize> {
    event.data.get(..5)?.parse().ok()
}

/// Publishes while a hundred others read, and answers what the one that had stalled has read of it in the end.
async fn slow_reader(gateway: &Gateway, channel: &str, type_of: impl Fn(usize) -> &'static str) -> Vec<Event> {
    let others = connect(20, |_| async { gateway.subscribe(&[channel]).await }).await;
    let mut stalled = Stalled::start(gateway.events(&[channel])).await;
    gateway.wait_metric("sse_connections_active", &[], 21.0).await;
    for nth in 1..=EVENTS {
        let path = format!("/channels/{channel}/events?event={}", type_of(nth));
        assert_eq!(gateway.http.post(&path, data(nth)).await.status, 200);
        // At the pace of those that read.
        for other in &others {
            other.wait_events(nth).await;
        }
    }
    for other in &others {
        other.read(|log| assert!(log.events.iter().enumerate().all(|(nth, event)| number(event) == Some(nth + 1))));
    }
    gateway.http.post(&format!("/channels/{channel}/events"), "the end").await;
    stalled.read_until("the end").await
}

/// Gaps, and for each what follows it.
fn check_order(events: &[Event]) -> Vec<&Event> {
    let numbers: Vec<_> = events.iter().filter(|event| event.event != "gap").filter_map(number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "in order, and none twice: {numbers:?}");
    // Wherever a number is left out, there is a gap.
    let mut expected = 1;
    let mut told = false;
    for event in events {
        match number(event) {
            _ if event.event == "gap" => told = true,
            Some(number) => {
                assert!(number == expected || told, "{expected} is lost without a word");
                expected = number + 1;
            }
            None => {}
        }
    }
    events.iter().filter(|event| event.event == "gap").collect()
}

#[tokio::test]
async fn drop_oldest_goes_on_with_the_newest_and_tells_what_is_missing() {
    for channel in ["kept.oldest", "live.oldest"] {
        let gateway = Gateway::start(CONFIG).await;
        let events = slow_reader(&gateway, channel, |_| "message").await;
        let gaps = check_order(&events);
        assert!(!gaps.is_empty(), "400 events of 16 KiB do not fit");
        for gap in &gaps {
            let gap: Value = serde_json::from_str(&gap.data).expect("JSON");
            assert_eq!((&gap["channel"], &gap["reason"]), (&channel.into(), &"overflow".into()), "{gap}");
            assert_eq!(gap["from"].is_string(), channel.starts_with("kept"), "{gap}");
        }
        assert_eq!(events.iter().filter_map(number).next_back(), Some(EVENTS), "the newest is there");
        let lost = EVENTS - events.iter().filter_map(number).count();
        assert_eq!(gateway.metric("sse_dropped_events_total", &["policy=\"drop-oldest\""]).await, lost as f64);
        assert_eq!(gateway.metric("sse_disconnects_total", &["reason=\"slow\""]).await, 0.0);
    }
}

#[tokio::test]
async fn latest_keeps_the_newest_event_of_each_type() {
    for channel in ["kept.latest", "live.latest"] {
        let gateway = Gateway::start(CONFIG).await;
        // Two types that come often, and one that came once, long ago.
        let type_of = |nth: usize| match nth {
            30 => "rare",
            nth if nth.is_multiple_of(2) => "even",
            _ => "odd",
        };
        let events = slow_reader(&gateway, channel, type_of).await;
        assert!(!check_order(&events).is_empty());
        let newest = |kind: &str| events.iter().rev().find(|event| event.event == kind).and_then(number);
        assert_eq!((newest("even"), newest("odd"), newest("rare")), (Some(EVENTS), Some(EVENTS - 1), Some(30)));
        let lost = EVENTS - events.iter().filter_map(number).count();
        assert!(lost > EVENTS / 2, "{lost}");
        assert_eq!(gateway.metric("sse_dropped_events_total", &["policy=\"latest\""]).await, lost as f64);
    }
}

#[tokio::test]
async fn who_was_told_of_a_gap_resumes_behind_it_and_who_was_not_gets_everything() {
    let gateway = Gateway::start(CONFIG).await;
    let events = slow_reader(&gateway, "kept.oldest", |_| "message").await;
    let at = events.iter().position(|event| event.event == "gap").expect("a gap");
    let (before, gap, after) = (&events[at - 1], &events[at], &events[at + 1]);
    let resumed = async |id: &str| {
        let client = Client::once(gateway.events(&["kept.oldest"]).header("Last-Event-ID", id)).await;
        client.wait_events(1).await;
        client.read(|log| number(&log.events[0]))
    };
    assert_eq!(resumed(&gap.id).await, number(after), "on behind the gap");
    assert_eq!(resumed(&before.id).await, number(before).map(|number| number + 1), "history still has it");
}

#[tokio::test]
async fn each_channel_of_a_connection_goes_by_its_own_policy() {
    let gateway = Gateway::start(CONFIG).await;
    let mut stalled = Stalled::start(gateway.events(&["kept.oldest", "kept"])).await;
    gateway.wait_metric("sse_connections_active", &[], 1.0).await;
    for nth in 1..=300 {
        gateway.publish("kept.oldest", data(nth)).await;
    }
    gateway.wait_metric("sse_disconnects_total", &[], 0.0).await;
    gateway.publish("kept", "small").await;
    gateway.publish("kept.oldest", "the end").await;
    let events = stalled.read_until("the end").await;
    let own: Vec<_> = events.iter().filter(|event| event.data != "small").cloned().collect();
    assert!(!check_order(&own).is_empty());
    assert_eq!(events.iter().filter(|event| event.data == "small").count(), 1, "nothing of the other is lost");
    // More than fits of the channel that disconnects: it comes back for it.
    for nth in 1..=300 {
        gateway.publish("kept", data(nth)).await;
    }
    gateway.wait_metric("sse_disconnects_total", &["reason=\"slow\""], 1.0).await;
}
