//! Clients that want too much.

use crate::siege::Siege;
use futures_util::{StreamExt, stream};
use sluice_tests::wait;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test]
async fn a_publisher_at_ten_times_its_rate() {
    let siege = Siege::of("[limits]\npublish_rate_per_channel = \"50/s\"\n").await;
    let stream = siege.gateway.subscribe(&["mine"]).await;
    let (begun, mut accepted, mut refused) = (Instant::now(), 0, 0);
    siege
        .during(async {
            let mut pace = tokio::time::interval(Duration::from_millis(2));
            for number in 0..1500 {
                pace.tick().await;
                let answer = siege.gateway.http.post("/channels/mine/events", number.to_string()).await;
                match answer.status {
                    200 => accepted += 1,
                    429 => {
                        assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1));
                        refused += 1;
                    }
                    status => panic!("{status}: {}", answer.text()),
                }
            }
        })
        .await;
    // Its burst, and its rate.
    let most = 50.0 + begun.elapsed().as_secs_f64() * 50.0;
    assert!(f64::from(accepted) <= most + 1.0 && refused > 0, "{accepted} of {most}, {refused} refused");
    stream.wait_events(usize::try_from(accepted).expect("a count")).await;
    drop(stream);
    siege.lift().await;
}

/// Asks for so many channels that nobody else has; answers whether they were given.
async fn asks(siege: &Siege, nth: usize) -> Option<TcpStream> {
    let names: Vec<_> = (0..64).map(|channel| format!("channel=flood-{nth}-{channel}")).collect();
    let mut stream = TcpStream::connect(siege.gateway.address).await.expect("connects");
    let head = format!("GET /events?{} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n", names.join("&"));
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut text = String::new();
    while !text.contains("\r\n\r\n") || !text.ends_with("\n\n") {
        let mut buffer = [0; 4096];
        let count = wait::soon("an answer", stream.read(&mut buffer)).await.expect("an answer");
        assert!(count > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    (!text.contains("limits.channels")).then_some(stream)
}

#[tokio::test]
async fn a_hundred_thousand_channels_of_one_client() {
    let siege = Siege::of("[limits]\nchannels = 20000\n[redis]\nlinger = \"1s\"\n").await;
    let attack = stream::iter((0..1600).map(|nth| asks(&siege, nth))).buffer_unordered(16);
    let streams: Vec<_> = siege.during(attack.collect()).await;
    let given = streams.iter().flatten().count();
    // With `news`, `$all` and each connection's own there is room for so many.
    assert!((300..=312).contains(&given), "{given} of {}", streams.len());
    assert!(siege.gateway.metric("sse_channels_active", &[]).await <= 20_000.0);
    drop(streams);
    siege.lift().await;
}
