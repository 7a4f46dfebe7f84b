//! The PROXY protocol: whom a proxy announces is who counts, and nobody comes in past it.

use sluice_tests::{
    announce::{local, version_1, version_2},
    client::Client,
    cluster::connect,
    gateway::Gateway,
    tls::Authority,
    wait,
};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const CONFIG: &str = "[proxy]\nprotocol = true\ntrusted = [\"127.0.0.0/8\"]\n\
                      [limits]\nconnections_per_address = 3\n[log]\nlevel = \"sluice_gateway=debug\"\n";
const TURNED_AWAY: &str = "sse_connections_turned_away_total";
const ASKS: &[u8] = b"GET /events?channel=a HTTP/1.1\r\nHost: x\r\n\r\n";

fn status(client: &Client) -> u16 {
    client.read(|log| log.head().status)
}

/// Three streams, and not one more: of each client that is announced, in either version, whatever ports it has.
async fn each_counts_by_itself(gateway: &Gateway, open: impl AsyncFn(Vec<u8>) -> Client) {
    let mut streams = Vec::new();
    for address in ["203.0.113.7", "203.0.113.8", "[2001:db8:1::7]"] {
        for (port, announced) in [version_1, version_2, version_1].into_iter().enumerate() {
            let client = open(announced(&format!("{address}:{}", 50_000 + port))).await;
            assert_eq!(status(&client), 200, "{address}");
            streams.push(client);
        }
        for announced in [version_1, version_2] {
            assert_eq!(status(&open(announced(&format!("{address}:60000"))).await), 429, "{address}");
        }
    }
    gateway.wait_metric("sse_connections_active", &[], 9.0).await;
    gateway.wait_metric("sse_refused_total", &["reason=\"address\""], 6.0).await;
    // The proxy's own, such as a health check.
    streams.push(open(local()).await);
    assert_eq!(status(&streams[9]), 200);
    let log = gateway.process.stderr();
    for address in ["203.0.113.7", "203.0.113.8", "2001:db8:1::7", "127.0.0.1"] {
        assert!(log.contains(&format!("address={address}")), "{address} in {log}");
    }
    assert_eq!(gateway.metric(TURNED_AWAY, &[]).await, 0.0);
}

/// A stream's request with the `Accept` of no page, so that a refusal has its own status.
#[tokio::test]
async fn who_is_announced_is_who_counts_and_stands_in_the_log() {
    let gateway = Gateway::start(CONFIG).await;
    let request = gateway.events(&["a"]).header("Accept", "*/*");
    each_counts_by_itself(&gateway, async |header| Client::once(request.clone().announced(header)).await).await;
}

#[tokio::test]
async fn the_same_holds_with_tls_behind_the_header() {
    let authority = Authority::new();
    let gateway = Gateway::start_secure(CONFIG, &authority).await;
    let request = gateway.events(&["a"]).header("Accept", "*/*").over_tls(Arc::new(authority.trusted()));
    each_counts_by_itself(&gateway, async |header| Client::once(request.clone().announced(header)).await).await;
    let unannounced = gateway.events(&["a"]).over_tls(authority.trusted()).connect().await.map(drop);
    assert!(unannounced.is_err(), "a handshake is no header");
    gateway.wait_metric(TURNED_AWAY, &["reason=\"proxy_header\""], 1.0).await;
}

#[tokio::test]
async fn a_header_in_pieces_is_read_and_so_is_what_comes_in_one_piece_with_it() {
    let gateway = Gateway::start(CONFIG).await;
    for header in [version_1("203.0.113.7:50000"), version_2("203.0.113.7:50000")] {
        for at in [1, 5, 12, 13, 16, 17, header.len() - 1, header.len()] {
            let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
            stream.set_nodelay(true).expect("set");
            let whole = [&header, ASKS].concat();
            stream.write_all(&whole[..at]).await.expect("sent");
            // That much is read, or has at least arrived by itself, once another connection was answered.
            let other = Client::once(gateway.events(&["a"]).announced(version_1("203.0.113.8:1"))).await;
            assert_eq!(status(&other), 200);
            stream.write_all(&whole[at..]).await.expect("sent");
            let mut answer = [0; 15];
            wait::soon("an answer", stream.read_exact(&mut answer)).await.expect("an answer");
            assert_eq!(&answer, b"HTTP/1.1 200 OK", "split at {at}");
            drop((stream, other));
            gateway.wait_metric("sse_connections_active", &[], 0.0).await;
        }
    }
}

/// What the gateway says to these bytes, until it closes.
async fn answer_to(gateway: &Gateway, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
    stream.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    // A reset is an end too: bytes were left unread.
    let _ = wait::soon("its end", stream.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn who_sends_no_header_is_turned_away_and_counted() {
    let gateway = Gateway::start(&format!("{CONFIG}[http]\nheader_timeout = \"1s\"\n")).await;
    let stream = Client::once(gateway.events(&["a"]).announced(version_2("203.0.113.7:50000"))).await;
    let wrong: [&[u8]; 6] = [
        ASKS,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 203.0.113.7 nonsense\r\nGET /events?channel=a HTTP/1.1\r\nHost: x\r\n\r\n",
        &[b'P'; 5000],
        // Within `http.header_timeout`.
        b"PROXY TCP4 203.0",
        b"",
    ];
    for (nth, bytes) in wrong.into_iter().enumerate() {
        assert_eq!(answer_to(&gateway, bytes).await, b"", "{:?}", String::from_utf8_lossy(bytes));
        gateway.wait_metric(TURNED_AWAY, &["reason=\"proxy_header\""], (nth + 1) as f64).await;
    }
    assert_eq!(gateway.metric("sse_connections_active", &[]).await, 1.0);
    stream.read(|log| assert_eq!(log.ends.len(), 0));
}

#[tokio::test]
async fn a_header_of_a_peer_that_is_not_trusted_is_not_even_read() {
    let gateway = Gateway::start("[proxy]\nprotocol = true\ntrusted = [\"192.0.2.0/24\", \"::1\"]\n").await;
    for (nth, header) in [version_1("203.0.113.7:50000"), version_2("192.0.2.7:50000"), local()].iter().enumerate() {
        assert_eq!(answer_to(&gateway, &[header, ASKS].concat()).await, b"");
        gateway.wait_metric(TURNED_AWAY, &["reason=\"untrusted\""], (nth + 1) as f64).await;
    }
    assert_eq!(gateway.metric("sse_connections_total", &[]).await, 0.0);
}

#[tokio::test]
async fn a_crowd_behind_one_proxy_is_a_crowd_of_clients() {
    let gateway = Gateway::start(CONFIG).await;
    let clients = connect(200, |nth| {
        let header =
            if nth % 2 == 0 { version_1 } else { version_2 }(&format!("198.51.100.{}:{}", nth % 100, 1000 + nth));
        Client::once(gateway.events(&["a"]).header("Accept", "*/*").announced(header))
    })
    .await;
    assert!(clients.iter().all(|client| status(client) == 200));
    // A header says nothing to HTTP: events are published by the same way.
    let mut publisher = TcpStream::connect(gateway.address).await.expect("connects");
    let request = b"POST /channels/a/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx";
    publisher.write_all(&[&version_2("203.0.113.7:1"), &request[..]].concat()).await.expect("sent");
    for client in &clients {
        client.wait_events(1).await;
    }
}

#[tokio::test]
async fn believing_everyone_is_warned_of() {
    let warned = "proxy.trusted";
    let gateway = Gateway::start("[proxy]\nprotocol = true\n").await;
    assert!(gateway.process.stderr().contains(warned), "{}", gateway.process.stderr());
    let gateway = Gateway::start(CONFIG).await;
    assert!(!gateway.process.stderr().contains(warned), "{}", gateway.process.stderr());
}
