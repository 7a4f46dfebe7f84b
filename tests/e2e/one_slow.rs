//! A client that is slow or gone costs the others nothing, and is cut with a reason.

use sluice_cli::sse::{Event, Parser};
use sluice_tests::{
    check,
    client::{Client, Request},
    cluster::connect,
    gateway::Gateway,
    wait,
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

const CONFIG: &str = "
[stream]
write_timeout = \"2s\"
[outbox]
max_bytes = \"64KiB\"
[[channel]]
match = \"live.*\"
history = \"off\"
";
const READERS: usize = 100;
const EVENTS: u64 = 300;
const EVENT_BYTES: usize = 16 * 1024;

/// A connection that asks for a stream and never reads a byte of it, with as small a buffer as the kernel gives.
async fn never_reads(gateway: &Gateway, channel: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(gateway.address).await.expect("connects");
    stream.write_all(&gateway.events(&[channel]).bytes("")).await.expect("sent");
    stream
}

async fn a_reader_that_never_reads_among_a_hundred(channel: &str) {
    let gateway = Gateway::start(CONFIG).await;
    let readers = connect(READERS, |_| async { gateway.subscribe(&[channel]).await }).await;
    let stalled = never_reads(&gateway, channel).await;
    gateway.wait_metric("sse_connections_active", &[], (READERS + 1) as f64).await;
    for number in 1..=EVENTS {
        gateway.publish(channel, check::payload_of_size(channel, number, EVENT_BYTES)).await;
        // At the pace of those that read: their outboxes hold no more than four such events.
        for reader in &readers {
            reader.wait_events(number as usize).await;
        }
    }
    for reader in &readers {
        reader.read(|log| {
            let verdict = check::once_and_in_order(channel, log.data(), 1..=EVENTS);
            assert!(verdict.is_ok(), "{verdict:?}");
            assert_eq!((log.heads.len(), log.ends.len()), (1, 0), "not disturbed");
        });
    }
    gateway.wait_metric("sse_connections_active", &[], READERS as f64).await;
    let cut = gateway.metric("sse_disconnects_total", &["reason=\"slow\""]).await
        + gateway.metric("sse_disconnects_total", &["reason=\"write_timeout\""]).await;
    assert_eq!(cut, 1.0, "with its reason");
    let waiting = async || (gateway.metric("sse_outbox_bytes", &[]).await == 0.0).then_some(());
    wait::until("nothing waits for it any more", waiting).await;
    drop(stalled);
}

#[tokio::test]
async fn a_reader_that_never_reads_is_cut_and_a_hundred_others_get_everything() {
    a_reader_that_never_reads_among_a_hundred("bulk").await;
}

#[tokio::test]
async fn the_same_holds_on_a_channel_without_history() {
    a_reader_that_never_reads_among_a_hundred("live.bulk").await;
}

/// With so few events that the outbox never fills: only the clock can tell.
#[tokio::test]
async fn a_reader_that_stops_is_cut_by_the_write_timeout_with_little_traffic() {
    let gateway = Gateway::start("[stream]\nwrite_timeout = \"2s\"\n[outbox]\nmax_bytes = \"64MiB\"\n").await;
    let stalled = never_reads(&gateway, "bulk").await;
    gateway.wait_metric("sse_connections_active", &[], 1.0).await;
    for number in 1..=60 {
        gateway.publish("bulk", check::payload_of_size("bulk", number, 60_000)).await;
    }
    gateway.wait_metric("sse_disconnects_total", &["reason=\"write_timeout\""], 1.0).await;
    gateway.wait_metric("sse_connections_active", &[], 0.0).await;
    drop(stalled);
}

/// As slow as 256 KiB per connection attempt while megabytes wait for it.
#[tokio::test]
async fn a_slow_reader_of_a_channel_with_history_may_be_cut_and_misses_nothing() {
    const COUNT: u64 = 200;
    let config = "[stream]\nretry_min = \"10ms\"\nretry_max = \"20ms\"\n[hub]\ntail_bytes = \"64KiB\"\n";
    let gateway = Gateway::start(config).await;
    let first = never_reads(&gateway, "bulk").await;
    gateway.wait_metric("sse_connections_active", &[], 1.0).await;
    let publishing = async {
        for number in 1..=COUNT {
            gateway.publish("bulk", check::payload_of_size("bulk", number, EVENT_BYTES)).await;
        }
    };
    let reading = async {
        let (mut reader, mut connections) = (SlowReader::new(first), 1);
        while reader.events.len() < COUNT as usize {
            if !reader.read_some().await {
                connections += 1;
                assert!(connections < 100, "cut again and again, after {} events", reader.events.len());
                reader.reconnect(&gateway.events(&["bulk"])).await;
            }
        }
        reader.events
    };
    let ((), events) = tokio::join!(publishing, reading);
    let verdict = check::once_and_in_order("bulk", events.iter().map(|event| event.data.as_str()), 1..=COUNT);
    assert!(verdict.is_ok(), "{verdict:?}");
    assert!(events.iter().all(|event| event.event == "message"), "and is told of no gap");
}

/// Reads a little, then sleeps; what a cut left unfinished is dropped, as the standard wants.
struct SlowReader {
    stream: TcpStream,
    head: Option<Vec<u8>>,
    parser: Parser,
    events: Vec<Event>,
}

impl SlowReader {
    fn new(stream: TcpStream) -> Self {
        Self { stream, head: Some(Vec::new()), parser: Parser::new(), events: Vec::new() }
    }

    /// Answers whether the connection stands still.
    async fn read_some(&mut self) -> bool {
        let mut buffer = [0; 4 * 1024];
        let count = match wait::soon("more", self.stream.read(&mut buffer)).await {
            Ok(0) | Err(_) => return false,
            Ok(count) => count,
        };
        let mut bytes = buffer[..count].to_vec();
        if let Some(head) = &mut self.head {
            head.extend_from_slice(&bytes);
            let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else { return true };
            bytes = head.split_off(end + 4);
            self.head = None;
        }
        self.parser.push(&bytes, &mut self.events).expect("not too large");
        tokio::time::sleep(Duration::from_millis(5)).await;
        true
    }

    async fn reconnect(&mut self, request: &Request) {
        let last_event_id = self.parser.last_event_id().to_owned();
        self.stream = TcpStream::connect(request.address).await.expect("connects");
        self.stream.write_all(&request.bytes(&last_event_id)).await.expect("sent");
        self.head = Some(Vec::new());
        self.parser = Parser::resuming(&last_event_id);
    }
}

#[tokio::test]
async fn a_client_that_closes_or_resets_is_noticed_at_once() {
    let gateway = Gateway::start("").await;
    let open = async || {
        let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
        stream.write_all(&gateway.events(&["quiet"]).bytes("")).await.expect("sent");
        gateway.wait_metric("sse_connections_active", &[], 1.0).await;
        stream
    };
    drop(open().await);
    gateway.wait_metric("sse_connections_active", &[], 0.0).await;
    let resets = open().await;
    resets.set_zero_linger().expect("a reset instead of a close");
    drop(resets);
    gateway.wait_metric("sse_connections_active", &[], 0.0).await;
    gateway.wait_metric("sse_disconnects_total", &["reason=\"client\""], 2.0).await;
}

/// It has sent a byte more than its request, which hides its end from the kernel's readiness.
#[tokio::test]
async fn a_client_that_vanishes_behind_a_stray_byte_is_noticed_by_a_heartbeat() {
    let gateway = Gateway::start("[stream]\nheartbeat = \"1s\"\n").await;
    let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
    stream.write_all(&gateway.events(&["quiet"]).bytes("")).await.expect("sent");
    gateway.wait_metric("sse_connections_active", &[], 1.0).await;
    stream.write_all(b"x").await.expect("sent");
    drop(stream);
    gateway.wait_metric("sse_connections_active", &[], 0.0).await;
}

#[tokio::test]
async fn clients_that_come_and_go_leave_nothing_behind() {
    let gateway = Gateway::start("[redis]\nlinger = \"0s\"\n").await;
    for round in 0..10 {
        let channels: Vec<_> = (0..50).map(|n| format!("round.{round}.{n}")).collect();
        let clients: Vec<Client> = connect(50, |n| {
            let (gateway, channel) = (&gateway, channels[n].clone());
            async move { gateway.subscribe(&[&channel, "all"]).await }
        })
        .await;
        gateway.wait_metric("sse_connections_active", &[], 50.0).await;
        drop(clients);
        gateway.wait_metric("sse_connections_active", &[], 0.0).await;
    }
    gateway.wait_metric("sse_channels_active", &[], 0.0).await;
    gateway.wait_metric("sse_connections_total", &[], 500.0).await;
    gateway.wait_metric("sse_disconnects_total", &["reason=\"client\""], 500.0).await;
}
