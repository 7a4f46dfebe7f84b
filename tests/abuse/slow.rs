//! Clients that are slow, or do nothing at all.

use crate::siege::Siege;
use futures_util::{StreamExt, future::join_all, stream};
use sluice_tests::wait;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// Between two bytes of those who send slowly.
const DRIP: Duration = Duration::from_millis(100);
/// Of those who try to connect at the same time.
const CONNECTING: usize = 256;

async fn connected(address: SocketAddr) -> TcpStream {
    wait::soon("a connection", TcpStream::connect(address)).await.expect("connects")
}

/// Sends byte after byte, for ever, until the gateway ends it; answers what it said.
async fn drip(address: SocketAddr, beginning: &str) -> Vec<u8> {
    let mut stream = connected(address).await;
    let (mut reading, mut writing) = stream.split();
    let dripping = async {
        if writing.write_all(beginning.as_bytes()).await.is_ok() {
            while writing.write_all(b"x").await.is_ok() {
                tokio::time::sleep(DRIP).await;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    tokio::select! {
        // A reset ends it too.
        _ = reading.read_to_end(&mut answer) => {}
        () = dripping => {}
    }
    answer
}

async fn drips(siege: &Siege, count: usize, beginning: &str) -> Vec<Vec<u8>> {
    let all = join_all((0..count).map(|_| drip(siege.gateway.address, beginning)));
    wait::soon("the gateway ends them", siege.during(all)).await
}

#[tokio::test]
async fn heads_that_never_end() {
    let siege = Siege::of("[http]\nheader_timeout = \"2s\"\n").await;
    drips(&siege, 300, "GET /events?channel=a HTTP/1.1\r\nHost: x\r\nX: ").await;
    drips(&siege, 300, "").await;
    siege.gateway.wait_metric("sse_connections_timed_out_total", &["reason=\"head\""], 600.0).await;
    siege.lift().await;
}

#[tokio::test]
async fn bodies_that_never_end() {
    let siege = Siege::of("[http]\nbody_timeout = \"2s\"\n").await;
    let head = "POST /channels/a/events HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n";
    for answer in drips(&siege, 300, head).await {
        assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    }
    siege.gateway.wait_metric("sse_problems_total", &["type=\"request-timeout\""], 300.0).await;
    siege.lift().await;
}

#[tokio::test]
async fn ten_thousand_connections_that_say_nothing() {
    let siege = Siege::of("").await;
    let attack = stream::iter((0..10_000).map(|_| connected(siege.gateway.address))).buffer_unordered(CONNECTING);
    let silent: Vec<_> = siege.during(attack.collect()).await;
    assert_eq!(silent.len(), 10_000);
    let pending = siege.gateway.metric("sse_connections_pending", &[]).await;
    assert!(pending <= 1001.0, "{pending}");
    // Whoever comes while they are here is let in.
    siege.during(async { siege.gateway.subscribe(&["late"]).await.wait_events(0).await }).await;
    drop(silent);
    siege.lift().await;
}

#[tokio::test]
async fn readers_that_stop() {
    let config = "[outbox]\nmax_bytes = \"128KiB\"\ntotal_bytes = \"2MiB\"\n[stream]\nwrite_timeout = \"5s\"\n";
    let siege = Siege::of(config).await;
    let address = siege.gateway.address;
    let stopped = async || {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let mut stream = socket.connect(address).await.expect("connects");
        stream.write_all(b"GET /events?channel=noise HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        wait::soon("its first bytes", stream.readable()).await.expect("a stream");
        stream
    };
    let attack = async {
        let streams = join_all((0..200).map(|_| stopped())).await;
        let noise = "x".repeat(60_000);
        for _ in 0..200 {
            siege.gateway.publish("noise", noise.clone()).await;
        }
        // They are ended, whether for what waits for them or for not reading.
        siege.gateway.wait_metric("sse_connections_active", &[], 100.0).await;
        streams
    };
    let stopped = siege.during(attack).await;
    drop(stopped);
    siege.lift().await;
}
