//! What compression costs and saves: an event is compressed once, however many clients there are.

use serde_json::json;
use sluice_tests::{
    check,
    client::Client,
    cluster::connect,
    decoder::Decoder,
    gateway::Gateway,
    numbered::{assert_saw, cursor, publish, wait_number},
    wait,
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

const ENCODINGS: [&str; 2] = ["gzip", "zstd"];

/// An order as an exchange has them, 170 bytes with its id.
fn order(number: u64) -> String {
    let (x, y) = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20, number.wrapping_mul(0xd1b5_4a32_d192_ed03) >> 24);
    let symbol = ["ACME", "GLOB", "INIT", "UMBR"][(x % 4) as usize];
    json!({
        "order": 100_000 + number, "symbol": symbol, "quantity": y % 5000,
        "price": format!("{}.{:02}", 100 + x % 900, y % 100), "side": "buy", "venue": "XETR", "account": x & 0xff_ffff,
    })
    .to_string()
}

#[tokio::test]
async fn an_event_is_compressed_once_for_all_clients() {
    const CLIENTS: usize = 60;
    const EVENTS: u64 = 200;
    let gateway = Gateway::start("[hub]\nshards = 2\n").await;
    let plain = gateway.subscribe(&["a"]).await;
    gateway.publish("a", order(0)).await;
    plain.wait_events(1).await;
    for encoding in ENCODINGS {
        let label = format!("encoding=\"{encoding}\"");
        assert_eq!(gateway.metric("sse_compressions_total", &[&label]).await, 0.0, "nobody has asked for it");
        assert_eq!(gateway.metric("sse_compressed_connections_active", &[&label]).await, 0.0);
    }
    for encoding in ENCODINGS {
        let label = format!("encoding=\"{encoding}\"");
        let clients =
            connect(CLIENTS, |_| async { Client::once(gateway.events(&["a"]).encoded(encoding)).await }).await;
        gateway.wait_metric("sse_compressed_connections_active", &[&label], CLIENTS as f64).await;
        for number in 1..=EVENTS {
            gateway.publish("a", order(number)).await;
            for client in &clients {
                client.wait_events(number as usize).await;
            }
        }
        let compressions = gateway.metric("sse_compressions_total", &[&label]).await;
        // Who is new is served alone at first, and a heartbeat may have come.
        assert!((EVENTS as f64..EVENTS as f64 * 1.1).contains(&compressions), "{encoding}: {compressions}");
        let before = gateway.metric("sse_compressed_before_bytes_total", &[&label]).await;
        let after = gateway.metric("sse_compressed_after_bytes_total", &[&label]).await;
        assert!(after < before * 0.5, "{encoding}: {}", after / before);
        let came: u64 = clients.iter().map(|client| client.read(|log| log.encoded_bytes)).sum();
        assert_eq!(after as u64, came - CLIENTS as u64 * opening(encoding), "what was counted is what came");
        drop(clients);
        gateway.wait_metric("sse_compressed_connections_active", &[&label], 0.0).await;
    }
    let sent = gateway.metric("sse_bytes_sent_total", &[]).await;
    assert!(sent > plain.read(|log| log.encoded_bytes) as f64, "{sent}");
}

/// What a stream begins with, before anything that stands for something.
fn opening(encoding: &str) -> u64 {
    if encoding == "gzip" { 10 } else { 6 }
}

/// Of several channels with history, each client has ids of its own: all but those is compressed once.
#[tokio::test]
async fn an_event_is_compressed_once_for_clients_of_several_channels_too() {
    const EVENTS: u64 = 100;
    let gateway = Gateway::start("").await;
    for encoding in ENCODINGS {
        let label = format!("encoding=\"{encoding}\"");
        let clients =
            connect(30, |_| async { Client::once(gateway.events(&["a", "b"]).encoded(encoding)).await }).await;
        for number in 1..=EVENTS {
            let channel = if number % 2 == 0 { "a" } else { "b" };
            gateway.publish(channel, order(number)).await;
            for client in &clients {
                client.wait_events(number as usize).await;
            }
        }
        let compressions = gateway.metric("sse_compressions_total", &[&label]).await;
        assert!(compressions < EVENTS as f64 * 1.2, "{encoding}: {compressions}");
    }
}

#[tokio::test]
async fn a_page_of_history_is_compressed_once_for_all_who_come_back() {
    const MISSED: u64 = 400;
    let gateway = Gateway::start("[hub]\nshards = 1\n").await;
    let left = gateway.subscribe(&["a"]).await;
    let cursor = cursor(&left);
    drop(left);
    publish(&gateway.http, "a", 1..=MISSED).await;
    for encoding in ENCODINGS {
        let label = format!("encoding=\"{encoding}\"");
        let back = || gateway.events(&["a"]).encoded(encoding).header("Last-Event-ID", &cursor);
        let clients = connect(50, |_| async { Client::once(back()).await }).await;
        for client in &clients {
            wait_number(client, "a", MISSED).await;
            assert_saw(encoding, client, "a", 1..=MISSED, &[]);
        }
        let compressions = gateway.metric("sse_compressions_total", &[&label]).await;
        assert!(compressions <= 20.0, "{encoding}: {compressions}");
        let after = gateway.metric("sse_compressed_after_bytes_total", &[&label]).await;
        let before = gateway.metric("sse_compressed_before_bytes_total", &[&label]).await;
        assert!(after < before * 0.25, "{encoding}: {after} of {before}");
    }
}

/// A connection that asks for a compressed stream, with as small a buffer as the kernel gives.
async fn narrow(gateway: &Gateway, channel: &str, encoding: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(gateway.address).await.expect("connects");
    stream.write_all(&gateway.events(&[channel]).encoded(encoding).bytes("")).await.expect("sent");
    // What is published from the first bytes on must arrive.
    wait::soon("the first bytes", stream.readable()).await.expect("an answer");
    stream
}

/// Data that becomes no shorter.
fn noise(number: u64, bytes: usize) -> String {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        char::from(33 + (*state >> 32) as u8 % 90)
    };
    format!("{} {}", check::payload("bulk", number), (0..bytes).map(|_| next(&mut state)).collect::<String>())
}

#[tokio::test]
async fn a_reader_of_a_compressed_stream_that_never_reads_is_cut() {
    let gateway = Gateway::start("[stream]\nwrite_timeout = \"2s\"\n[outbox]\nmax_bytes = \"64KiB\"\n").await;
    for (nth, encoding) in ENCODINGS.into_iter().enumerate() {
        let stalled = narrow(&gateway, "bulk", encoding).await;
        let cut = async || {
            gateway.metric("sse_disconnects_total", &["reason=\"slow\""]).await
                + gateway.metric("sse_disconnects_total", &["reason=\"write_timeout\""]).await
        };
        for number in 1..=300 {
            gateway.publish("bulk", noise(number, 16 * 1024)).await;
        }
        wait::until("it is cut, with its reason", async || (cut().await == (nth + 1) as f64).then_some(())).await;
        gateway.wait_metric("sse_connections_active", &[], 0.0).await;
        gateway.wait_metric("sse_outbox_bytes", &[], 0.0).await;
        drop(stalled);
    }
}

/// Its socket is full again and again, and takes part of what it is given.
#[tokio::test]
async fn a_slow_reader_of_a_compressed_stream_gets_everything() {
    const EVENTS: u64 = 300;
    let gateway = Gateway::start("[outbox]\nmax_bytes = \"64MiB\"\n").await;
    for encoding in ENCODINGS {
        let mut stream = narrow(&gateway, "bulk", encoding).await;
        let publishing = async {
            for number in 1..=EVENTS {
                let size = if number % 3 == 0 { 9000 } else { 300 };
                gateway.publish("bulk", noise(number, size)).await;
            }
        };
        let reading = async {
            let mut buffer = vec![0; 3000];
            let (mut head, mut decoder, mut text) =
                (Some(Vec::new()), Decoder::named(encoding).expect("known"), Vec::new());
            let last = format!("data: {}\n\n", noise(EVENTS, 9000));
            while !text.ends_with(last.as_bytes()) {
                let count = wait::soon("more", stream.read(&mut buffer)).await.expect("no error");
                assert!(count > 0, "it is not cut");
                let mut bytes = buffer[..count].to_vec();
                if let Some(begun) = &mut head {
                    begun.extend_from_slice(&bytes);
                    let Some(end) = begun.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
                    bytes = begun.split_off(end + 4);
                    head = None;
                }
                text.extend(decoder.push(&bytes).expect(encoding));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            String::from_utf8(text).expect("UTF-8")
        };
        let ((), text) = tokio::join!(publishing, reading);
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let verdict = check::once_and_in_order("bulk", data, 1..=EVENTS);
        assert!(verdict.is_ok(), "{encoding}: {verdict:?}");
        drop(stream);
        gateway.wait_metric("sse_connections_active", &[], 0.0).await;
    }
}
