//! Bodies of requests that are being received have so much memory together, whatever they come over.

use sluice_tests::{gateway::Gateway, http::Answer, wait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const CONFIG: &str = "[limits]\nbody_bytes = \"1MiB\"\nevent_bytes = \"64KiB\"\n[http]\nbody_timeout = \"5m\"\n";
const BODY: usize = 64 * 1024;

/// A request whose body lacks its last byte.
async fn begun(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
    let head = format!("POST /channels/a/events HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(&vec![b'x'; BODY - 1]).await.expect("sent");
    stream
}

async fn small(gateway: &Gateway) -> Answer {
    gateway.http.post("/channels/a/events", "hello").await
}

#[tokio::test]
async fn who_sends_more_than_there_is_memory_for_is_told_to_come_back_and_the_others_are_not_harmed() {
    let gateway = Gateway::start(CONFIG).await;
    let subscriber = gateway.subscribe(&["a"]).await;
    let mut streams = Vec::new();
    // Sixteen bodies of 64 KiB would be one too many, whose last byte is missing though; the small one is then.
    for _ in 0..16 {
        streams.push(begun(&gateway).await);
    }
    wait::until("the memory is used up", async || {
        let answer = gateway.http.post("/channels/a/events", "x".repeat(100)).await;
        (answer.status == 503).then(|| answer.problem(503))
    })
    .await;
    assert!(gateway.metric("sse_publish_refused_total", &["reason=\"memory\""]).await >= 1.0);
    // Those who are on their way go on.
    for stream in &mut streams {
        stream.write_all(b"x").await.expect("sent");
        let mut answer = [0; 512];
        let count = wait::soon("an answer", stream.read(&mut answer)).await.expect("an answer");
        assert!(answer[..count].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..count]));
    }
    // And there is room again, also after those who leave half way.
    for _ in 0..3 {
        let left: Vec<_> = futures_util::future::join_all((0..16).map(|_| begun(&gateway))).await;
        drop(left);
    }
    wait::until("there is room", async || (small(&gateway).await.status == 200).then_some(())).await;
    subscriber.wait_data("hello").await;
}
