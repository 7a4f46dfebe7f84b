//! Floods of frames that HTTP/2 allows, or nearly.

use crate::siege::Siege;
use futures_util::future::join_all;
use sluice_tests::wait;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
// Types and flags of frames (RFC 9113, 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];
/// The setting that says how much may be sent of each stream.
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Attackers at a time, and frames of each.
const ATTACKERS: usize = 20;
const FRAMES: u32 = 20_000;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a length").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET` of a path, in HPACK without compression (RFC 7541, 6.2.2 and the static table).
fn get(path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).expect("short");
    assert!(length < 127, "longer lengths are written in another way");
    // :method GET, :scheme http, :authority x, :path.
    [&[0x82, 0x86, 0x01, 1, b'x', 0x04, length][..], path.as_bytes()].concat()
}

/// Sends the preface, then whatever `frames` makes, for as long as it is taken. What comes back is read or not.
async fn flood(address: SocketAddr, settings: &[u8], reads: bool, frames: impl Fn(u32) -> Option<Vec<u8>>) {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let (mut reading, mut writing) = stream.split();
    let sending = async {
        let mut waiting = [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat();
        for nth in 0..FRAMES {
            let Some(more) = frames(nth) else { break };
            waiting.extend(more);
            if waiting.len() > 16 * 1024 {
                writing.write_all(&waiting).await?;
                waiting.clear();
            }
        }
        writing.write_all(&waiting).await?;
        writing.shutdown().await
    };
    let receiving = async {
        let mut buffer = vec![0; 16 * 1024];
        while reads && matches!(reading.read(&mut buffer).await, Ok(1..)) {}
    };
    // Who does not read may find that nothing more is taken; the gateway ends it or not.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), async { tokio::join!(sending, receiving) }).await;
}

/// Each attacker in turn reads or does not.
async fn besiege(settings: &[u8], frames: impl Fn(u32) -> Option<Vec<u8>>) {
    let siege = Siege::of("[http]\nidle_timeout = \"5s\"\n[stream]\nheartbeat = \"2s\"\n").await;
    let address = siege.gateway.address;
    let floods = (0..ATTACKERS).map(|nth| flood(address, settings, nth % 2 == 0, &frames));
    siege.during(join_all(floods)).await;
    wait::soon("it is over", siege.lift()).await;
}

#[tokio::test]
async fn streams_that_are_reset_as_soon_as_they_are_open() {
    besiege(&[], |nth| {
        let stream = nth * 2 + 1;
        let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &get("/events?channel=flood"));
        Some([open, frame(RST_STREAM, 0, stream, &CANCEL)].concat())
    })
    .await;
}

#[tokio::test]
async fn heads_that_go_on_in_frame_after_frame() {
    besiege(&[], |nth| {
        Some(match nth {
            0 => frame(HEADERS, 0, 1, &get("/events?channel=flood")),
            // A header that is new each time: not indexed, `x: y`.
            _ => frame(CONTINUATION, 0, 1, &[0x00, 1, b'x', 1, b'y'].repeat(100)),
        })
    })
    .await;
}

#[tokio::test]
async fn empty_continuations() {
    besiege(&[], |nth| Some(if nth == 0 { frame(HEADERS, 0, 1, &get("/")) } else { frame(CONTINUATION, 0, 1, &[]) }))
        .await;
}

#[tokio::test]
async fn pings_settings_and_empty_frames() {
    besiege(&[], |nth| {
        Some(match nth % 4 {
            0 => frame(PING, 0, 0, &[7; 8]),
            1 => frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
            2 => frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
            _ => frame(DATA, 0, 1, &[]),
        })
    })
    .await;
    besiege(&[], |_| Some(frame(PING, 0, 0, &[7; 8]))).await;
    besiege(&[], |_| Some(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]))).await;
}

#[tokio::test]
async fn streams_that_may_be_sent_nothing() {
    let closed = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &[0, 0, 0, 0]].concat();
    // More than one connection may have, of the good clients' own channel.
    besiege(&closed, |nth| {
        let open = || frame(HEADERS, END_HEADERS | END_STREAM, nth * 2 + 1, &get("/events?channel=news"));
        (nth < 400).then(open)
    })
    .await;
}

#[tokio::test]
async fn connections_without_a_request_end_in_time() {
    let siege = Siege::of("[http]\nheader_timeout = \"1s\"\nidle_timeout = \"2s\"\nbody_timeout = \"2s\"\n").await;
    let settings = frame(SETTINGS, 0, 0, &[]);
    let answered = frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/connections"));
    for (what, beginning) in [
        ("nothing more", vec![]),
        ("half a head", frame(HEADERS, 0, 1, &get("/events?channel=a"))),
        ("an answer, and no further request", answered.clone()),
        ("an answer, and half a head", [answered, frame(HEADERS, 0, 3, &get("/"))].concat()),
    ] {
        let mut stream = TcpStream::connect(siege.gateway.address).await.expect("connects");
        stream.write_all(&[PREFACE, &settings, &beginning].concat()).await.expect("sent");
        let mut said = Vec::new();
        // A reset ends it too.
        let _ = wait::soon(what, siege.during(stream.read_to_end(&mut said))).await;
    }
    for (reason, count) in [("head", 2.0), ("idle", 2.0)] {
        let label = format!("reason=\"{reason}\"");
        siege.gateway.wait_metric("sse_connections_timed_out_total", &[&label], count).await;
    }
    siege.lift().await;
}
