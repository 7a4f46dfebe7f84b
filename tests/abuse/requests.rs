//! Requests that are too large, that two servers could read in two ways, or that carry what must not get out again.

use crate::siege::Siege;
use flate2::{Compression, write::GzEncoder};
use futures_util::future::join_all;
use serde_json::json;
use sluice_tests::{client::Client, wait};
use std::io::Write;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What the gateway says to these bytes before it ends the connection, or before it has nothing more to say.
async fn said(siege: &Siege, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(siege.gateway.address).await.expect("connects");
    let (mut reading, mut writing) = stream.split();
    let mut answer = Vec::new();
    // It may end the connection while bytes are on their way.
    let (_, _) = tokio::join!(
        async {
            let written = writing.write_all(bytes).await;
            let _ = writing.shutdown().await;
            written
        },
        wait::soon("the end of the connection", reading.read_to_end(&mut answer)),
    );
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn heads_that_are_far_too_large() {
    let siege = Siege::of("[http]\nheader_timeout = \"5s\"\n").await;
    let many = "A: b\r\n".repeat(100_000);
    let bombs = [
        format!("GET /events?channel={} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20)),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20)),
        format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(1 << 20)),
        format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
        format!("{} / HTTP/1.1\r\nHost: x\r\n\r\n", "A".repeat(1 << 20)),
        "a".repeat(1 << 20),
    ];
    let siege = &siege;
    let attack = join_all((0..120).map(|nth| {
        let bomb = &bombs[nth % bombs.len()];
        async move { said(siege, bomb.as_bytes()).await }
    }));
    for answer in siege.during(attack).await {
        // A reset can overtake the answer.
        let status = answer.get(9..12);
        assert!(status.is_none_or(|status| ["400", "414", "431"].contains(&status)), "{answer}");
    }
}

#[tokio::test]
async fn requests_that_could_be_read_in_two_ways() {
    let siege = Siege::of("[http]\nheader_timeout = \"2s\"\nbody_timeout = \"2s\"\n").await;
    let watcher = siege.gateway.subscribe(&["smuggled"]).await;
    let inner = "POST /channels/smuggled/events HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nevil";
    let (length, chunk) = (inner.len(), format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len()));
    let post = "POST /channels/outer/events HTTP/1.1\r\nHost: x\r\n";
    for (what, request) in [
        ("both lengths", format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}")),
        (
            "both lengths, the other way",
            format!("{post}Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n{chunk}"),
        ),
        ("two lengths", format!("{post}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{inner}")),
        ("a list of lengths", format!("{post}Content-Length: 0, {length}\r\n\r\n{inner}")),
        ("a signed length", format!("{post}Content-Length: +{length}\r\n\r\n{inner}")),
        ("a negative length", format!("{post}Content-Length: -1\r\n\r\n{inner}")),
        ("a space before the colon", format!("{post}Content-Length : {length}\r\n\r\n{inner}")),
        ("a folded line", format!("{post}X: y\r\n Content-Length: {length}\r\n\r\n{inner}")),
        ("another coding", format!("{post}Transfer-Encoding: xchunked\r\n\r\n{inner}")),
        ("chunked, not last", format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n{chunk}")),
        ("a bad size of a chunk", format!("{post}Transfer-Encoding: chunked\r\n\r\n0x5\r\n{inner}\r\n0\r\n\r\n")),
        (
            "a size that overflows",
            format!("{post}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{inner}\r\n0\r\n\r\n"),
        ),
        (
            "a chunk without its line's end",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n1\r\nxx{inner}\r\n0\r\n\r\n"),
        ),
        ("lines that end in LF", format!("{post}X: y\nContent-Length: {length}\n\n{inner}").replace("\r\n", "\n")),
        ("a lone CR", format!("{post}X: y\rContent-Length: {length}\r\n\r\n{inner}")),
        ("a NUL", format!("{post}X: y\0\r\nContent-Length: {length}\r\n\r\n{inner}")),
        (
            "a length with HTTP/1.0",
            format!("POST /channels/outer/events HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"),
        ),
        (
            "GET with a body",
            format!("GET /channels/outer HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{inner}"),
        ),
    ] {
        let answer = siege.during(said(&siege, request.as_bytes())).await;
        // One answer at the most: what is in the body, or in what is none, is never a request of its own.
        assert!(answer.matches("HTTP/1.").count() <= 1, "{what}: {answer}");
    }
    // What came of them came before this.
    siege.gateway.publish("smuggled", "honest").await;
    watcher.wait_data("honest").await;
    watcher.read(|log| assert_eq!(log.data().collect::<Vec<_>>(), ["honest"], "a request was smuggled in"));
    drop(watcher);
    siege.lift().await;
}

#[tokio::test]
async fn bodies_that_would_unpack_to_gigabytes() {
    let siege = Siege::of("").await;
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..64 {
        packer.write_all(&vec![0; 1 << 20]).expect("packed");
    }
    let bomb = packer.finish().expect("packed");
    let attack = async {
        for encoding in ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-gzip"] {
            let headers = [("content-encoding", encoding)];
            for path in ["/channels/a/events", "/events", "/broadcast"] {
                siege.gateway.http.send("POST", path, &headers, bomb.clone()).await.problem(415);
            }
        }
    };
    siege.during(attack).await;
    siege.lift().await;
}

/// The names of all fields that were sent, one after the other.
fn fields(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty()).map(|line| line.split(':').next().unwrap_or_default())
}

#[tokio::test]
async fn line_ends_and_nul_in_every_field_make_no_field_of_their_own() {
    let siege = Siege::of("").await;
    let watcher = Client::once(siege.gateway.events(&["inject"]).keeping_body()).await;
    let evils = ["\r", "\n", "\r\n", "\n\n", "\0", "\u{2028}", "\u{85}", "\n\nid: forged\ndata: forged\n\n"];
    let attack = async {
        for evil in evils {
            let (text, encoded) = (format!("a{evil}event: evil"), urlencoded(&format!("a{evil}event: evil")));
            for event in [
                json!({ "channel": "inject", "data": text }),
                json!({ "channel": "inject", "event": text, "data": "x" }),
                json!({ "channel": text, "data": "x" }),
                json!({ "channel": "inject", "data": "x", "idempotency_key": text }),
                json!({ "channel": "inject", "data": { "nested": text } }),
            ] {
                let answer = siege.gateway.http.post("/events", event.to_string()).await;
                assert!(matches!(answer.status, 200 | 400), "{event}: {} {}", answer.status, answer.text());
            }
            for target in [
                format!("/channels/inject/events?event={encoded}"),
                format!("/channels/{encoded}/events"),
                format!("/channels/inject/events?{encoded}=1"),
            ] {
                let answer = siege.gateway.http.post(&target, text.clone()).await;
                assert!(matches!(answer.status, 200 | 400), "{target}: {} {}", answer.status, answer.text());
            }
            let target = format!("/events?channel=a&last-event-id={encoded}");
            let answer = siege.gateway.http.send("HEAD", &target, &[], "").await;
            assert!(answer.headers.keys().all(|name| name != "event"), "{:?}", answer.headers);
        }
    };
    siege.during(attack).await;
    siege.gateway.publish("inject", "last").await;
    watcher.wait_data("last").await;
    watcher.read(|log| {
        let text = log.text();
        for field in fields(&text) {
            assert!(["", "retry", "id", "event", "data"].contains(&field), "{field:?} in {text}");
        }
        assert!(!text.contains('\r'), "a CR ends a line too: {text:?}");
        // Where one of them is allowed, as no line ends with it, the type is whole.
        for line in text.lines().filter(|line| line.starts_with("event:") || line.starts_with("id:")) {
            assert!(!line.contains("forged"), "{text}");
            assert!(line.starts_with("id: ") || line.starts_with("event: a"), "{text}");
        }
    });
    drop(watcher);
    siege.lift().await;
}

fn urlencoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
