//! Distinct channels of a replica: so many and no more, however many are asked for at the same moment.

use sluice_tests::{client::Request, gateway::Gateway, wait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const MOST: f64 = 100.0;
const REQUESTS: usize = 40;
const CHANNELS: usize = 30;

async fn asked(request: &Request) -> TcpStream {
    let mut stream = TcpStream::connect(request.address).await.expect("connects");
    // Not its end yet: that comes from all at once.
    let bytes = request.bytes("");
    stream.write_all(&bytes[..bytes.len() - 2]).await.expect("sent");
    stream
}

#[tokio::test]
async fn many_requests_at_once_do_not_get_past_the_limit() {
    let gateway = Gateway::start("[limits]\nchannels = 100\n[redis]\nlinger = \"1s\"\n").await;
    let here = gateway.subscribe(&["here"]).await;
    let mut streams = Vec::new();
    for nth in 0..REQUESTS {
        let names: Vec<_> = (0..CHANNELS).map(|channel| format!("c{nth}-{channel}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        streams.push(asked(&gateway.events(&names).header("Accept", "text/event-stream")).await);
    }
    for stream in &mut streams {
        stream.write_all(b"\r\n").await.expect("sent");
    }
    let (mut open, mut refused) = (Vec::new(), 0);
    for mut stream in streams {
        let mut text = String::new();
        while !text.contains("retry: ") {
            let mut buffer = [0; 4096];
            let count = wait::soon("an answer", stream.read(&mut buffer)).await.expect("an answer");
            assert!(count > 0, "{text:?}");
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        assert!(text.starts_with("HTTP/1.1 200 "), "an EventSource would give up for ever: {text:?}");
        if text.contains("limits.channels") {
            refused += 1;
        } else {
            open.push(stream);
        }
    }
    // `here` and `$all` are two, so three times 30 fit.
    assert_eq!((open.len(), refused), (3, REQUESTS - 3));
    assert!(gateway.metric("sse_channels_active", &[]).await <= MOST);
    gateway.wait_metric("sse_refused_total", &["reason=\"channels\""], refused as f64).await;
    // Who asks for what is here is let in, the others are not, and those who were here notice nothing.
    let joined = gateway.subscribe(&["here"]).await;
    let many: Vec<_> = (0..9).map(|nth| format!("channel=d{nth}")).collect();
    gateway.http.get(&format!("/events?{}", many.join("&"))).await.problem(503);
    gateway.publish("here", "x").await;
    joined.wait_data("x").await;
    here.wait_data("x").await;
    // And there is room again.
    drop(open);
    gateway.wait_metric("sse_channels_active", &[], 2.0).await;
    gateway.subscribe(&["new"]).await.read(|log| assert_eq!(log.head().status, 200));
}

#[tokio::test]
async fn a_connections_own_channel_counts_like_any_other() {
    let gateway = Gateway::start("[limits]\nchannels = 3\n").await;
    let stream = gateway.subscribe(&["a"]).await;
    let hello = |name: &str| Request::new(gateway.address, &format!("/events?channel={name}&hello=1"));
    let first = sluice_tests::client::Client::once(hello("a")).await;
    first.wait_events(1).await;
    let second = sluice_tests::client::Client::once(hello("a").keeping_body()).await;
    second.wait_end().await;
    second.read(|log| assert!(log.text().contains("limits.channels"), "{}", log.text()));
    drop(stream);
}
