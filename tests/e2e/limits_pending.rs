//! Connections without a whole request: so many and no more, whatever they have begun, and streams are not among them.

use sluice_tests::{client::Client, cluster::connect, gateway::Gateway, wait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const MOST: usize = 100;
const HOSTILE: usize = 600;
const GOOD: usize = 50;
/// No timeout frees anything while the test runs.
const CONFIG: &str = "
[limits]
pending = 100
[http]
header_timeout = \"5m\"
body_timeout = \"5m\"
idle_timeout = \"1h\"
";
/// Descriptors beside those of connections: listeners, pollers, and the tests' own requests.
const OTHERS: usize = 100;

async fn sent(gateway: &Gateway, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
    stream.write_all(bytes).await.expect("sent");
    stream
}

/// Good clients before, during and after `HOSTILE` connections, each of which `open` makes.
async fn good_clients_among<F: Future<Output = TcpStream>>(gateway: &Gateway, open: impl Fn(usize) -> F) {
    let streams = connect(GOOD, |_| gateway.subscribe(&["news"])).await;
    let mut hostile = Vec::new();
    for nth in 0..HOSTILE {
        hostile.push(open(nth).await);
    }
    // All of them are in by then, or closed for the next.
    gateway.wait_metric("sse_connections_pending", &[], MOST as f64).await;
    let closed = |refused: f64| refused >= (HOSTILE - MOST) as f64;
    wait::until("the oldest were closed", async || {
        closed(gateway.metric("sse_refused_total", &["reason=\"pending\""]).await).then_some(())
    })
    .await;
    let files = gateway.metric("process_open_fds", &[]).await;
    assert!(files <= (GOOD + MOST + OTHERS) as f64, "{files} descriptors are open");
    // Whoever comes meanwhile is served, and those who are here have noticed nothing.
    let late = gateway.subscribe(&["news"]).await;
    gateway.publish("news", "x").await;
    for client in streams.iter().chain([&late]) {
        client.wait_data("x").await;
        client.read(|log| assert_eq!((log.heads.len(), log.ends.len()), (1, 0)));
    }
    drop(hostile);
    // One or two are left, of the requests made here.
    wait::until("they are gone", async || {
        (gateway.metric("sse_connections_pending", &[]).await <= OTHERS as f64 / 10.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("sse_connections_active", &[]).await, (GOOD + 1) as f64);
}

#[tokio::test]
async fn half_open_connections_do_not_take_all_descriptors() {
    let gateway = Gateway::start(CONFIG).await;
    let begun =
        [&b""[..], b"GET /events?cha", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"POST /events HTTP/1.1\r\nHost: x\r\n"];
    good_clients_among(&gateway, |nth| sent(&gateway, begun[nth % begun.len()])).await;
}

#[tokio::test]
async fn bodies_that_do_not_come_do_not_take_all_descriptors() {
    let gateway = Gateway::start(CONFIG).await;
    let request = b"POST /channels/a/events HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello";
    good_clients_among(&gateway, |_| sent(&gateway, request)).await;
}

#[tokio::test]
async fn kept_connections_without_a_request_do_not_take_all_descriptors() {
    let gateway = Gateway::start(CONFIG).await;
    let answered = async |_| {
        let mut stream = sent(&gateway, b"OPTIONS /events HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut answer = [0; 64];
        let count = wait::soon("an answer", stream.read(&mut answer)).await.expect("an answer");
        assert!(answer[..count].starts_with(b"HTTP/1.1 204 "), "{:?}", String::from_utf8_lossy(&answer));
        stream
    };
    good_clients_among(&gateway, answered).await;
}

#[tokio::test]
async fn a_crowd_that_comes_at_once_is_let_in_as_a_whole() {
    let gateway = Gateway::start("[limits]\npending = 10\n").await;
    let all = (0..500).map(|_| Client::once(gateway.events(&["a"])));
    let clients = wait::soon("all are in", futures_util::future::join_all(all)).await;
    for client in &clients {
        client.read(|log| assert_eq!((log.head().status, log.ends.len()), (200, 0)));
    }
    assert_eq!(gateway.metric("sse_refused_total", &["reason=\"pending\""]).await, 0.0);
}
