//! Requests that come in one piece, in several, and several at once are answered alike, and in their order, on one
//! connection.

use sluice_tests::{gateway::Gateway, wait};
use std::{collections::BTreeSet, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

struct Connection {
    socket: TcpStream,
    read: Vec<u8>,
}

/// One answer, with a body of a known length.
struct Answer {
    status: String,
    headers: BTreeSet<String>,
    body: String,
}

impl Connection {
    async fn to(gateway: &Gateway) -> Self {
        let socket = TcpStream::connect(gateway.address).await.expect("it listens");
        socket.set_nodelay(true).expect("a socket");
        Self { socket, read: Vec::new() }
    }

    async fn send(&mut self, bytes: &str) {
        self.socket.write_all(bytes.as_bytes()).await.expect("sent");
    }

    /// Bytes up to the end of what `ends` finds, read on for as long as that is nothing.
    async fn until(&mut self, what: &str, ends: impl Fn(&[u8]) -> Option<usize>) -> String {
        let bytes = wait::soon(what, async {
            loop {
                if let Some(end) = ends(&self.read) {
                    return self.read.drain(..end).collect::<Vec<_>>();
                }
                assert_ne!(self.socket.read_buf(&mut self.read).await.expect("read"), 0, "{what}: it was closed");
            }
        });
        String::from_utf8(bytes.await).expect("UTF-8")
    }

    async fn answer(&mut self) -> Answer {
        let after = |bytes: &[u8]| bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        let head = self.until("an answer's head", after).await;
        let mut lines = head.lines();
        let status = lines.next().expect("a status line").to_owned();
        let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
        let length = headers.iter().find(|(name, _)| *name == "content-length").expect("a length");
        let length: usize = length.1.parse().expect("a number");
        let body = self.until("an answer's body", |bytes| (bytes.len() >= length).then_some(length)).await;
        Answer { status, headers: headers.into_iter().map(|(name, _)| name.to_owned()).collect(), body }
    }

    async fn has_ended(&mut self) -> bool {
        wait::soon("its end", self.socket.read_buf(&mut self.read)).await.is_ok_and(|count| count == 0)
    }
}

fn publish(number: usize, headers: &str) -> String {
    let body = format!("{number}");
    format!("POST /channels/pieces/events HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

const STREAM: &str =
    "GET /events?channel=pieces&since=earliest HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";

#[tokio::test]
async fn requests_are_answered_in_order_however_they_come_and_then_a_stream() {
    let gateway = Gateway::start("").await;
    // The stream's request last, by itself or with the one before it.
    for together in [false, true] {
        let mut connection = Connection::to(&gateway).await;
        let mut headers = BTreeSet::new();
        for number in 0..4 {
            connection.send(&publish(number, "")).await;
            let answer = connection.answer().await;
            assert_eq!(answer.status, "HTTP/1.1 200 OK", "{}", answer.body);
            headers = answer.headers;
        }
        assert!(headers.contains("date") && headers.contains("content-type") && !headers.contains("connection"));
        // In two pieces, with a pause between them that the gateway sees.
        let request = publish(4, "");
        let (first, rest) = request.split_at(request.len() / 2);
        connection.send(first).await;
        gateway.publish("other", "x").await;
        connection.send(rest).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status.as_str(), &answer.headers), ("HTTP/1.1 200 OK", &headers), "as those in one piece");
        let last = publish(7, "");
        let several = format!("{}{}{}", publish(5, ""), publish(6, ""), if together { "" } else { &last });
        connection.send(&several).await;
        for _ in 0..if together { 2 } else { 3 } {
            assert_eq!(connection.answer().await.status, "HTTP/1.1 200 OK");
        }
        connection.send(&if together { format!("{last}{STREAM}") } else { STREAM.to_owned() }).await;
        if together {
            assert_eq!(connection.answer().await.status, "HTTP/1.1 200 OK");
        }
        let begins = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            text.contains("data: 7\n").then_some(bytes.len())
        };
        let stream = connection.until("the stream", begins).await;
        let data: Vec<_> = stream.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let all: Vec<_> = (0..8).map(|number| number.to_string()).collect();
        assert_eq!(&data[data.len() - 8..], all, "{stream}");
        // Live as well.
        gateway.publish("pieces", "live").await;
        connection
            .until("an event", |bytes| String::from_utf8_lossy(bytes).contains("live").then_some(bytes.len()))
            .await;
    }
}

#[tokio::test]
async fn whoever_wants_a_connection_closed_has_it_closed_after_the_answer() {
    let gateway = Gateway::start("").await;
    let mut connection = Connection::to(&gateway).await;
    connection.send(&publish(1, "")).await;
    assert_eq!(connection.answer().await.status, "HTTP/1.1 200 OK");
    connection.send(&publish(2, "Connection: close\r\n")).await;
    let answer = connection.answer().await;
    assert!(answer.status == "HTTP/1.1 200 OK" && answer.headers.contains("connection"), "{}", answer.status);
    assert!(connection.has_ended().await);
}

#[tokio::test]
async fn what_is_no_request_is_refused_wherever_it_comes_and_a_refusal_does_not_end_a_connection() {
    let gateway = Gateway::start("").await;
    let mut connection = Connection::to(&gateway).await;
    connection.send("POST /channels/a%20b/events HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
    let answer = connection.answer().await;
    assert!(answer.status.starts_with("HTTP/1.1 400 ") && answer.body.contains("invalid-channel"), "{}", answer.body);
    connection.send("POST /channels/a/events HTTP/1.1\r\nContent-Length: 1\r\n\r\nx").await;
    let answer = connection.answer().await;
    assert!(answer.body.contains("has a Host header"), "{}", answer.body);
    connection.send(&publish(1, "")).await;
    assert_eq!(connection.answer().await.status, "HTTP/1.1 200 OK");
    connection.send("nonsense\r\n\r\n").await;
    assert!(connection.answer().await.status.starts_with("HTTP/1.1 400 "));
    assert!(connection.has_ended().await);
}

#[tokio::test]
async fn a_connection_that_sends_nothing_more_ends_in_time_whatever_it_sent_before() {
    let gateway = Gateway::start("[http]\nheader_timeout = \"1s\"\nidle_timeout = \"2s\"\n").await;
    let timed_out = async |reason: &str| {
        gateway.metric("sse_connections_timed_out_total", &[&format!("reason=\"{reason}\"")]).await
    };
    let (mut silent, mut idle, mut begun) =
        (Connection::to(&gateway).await, Connection::to(&gateway).await, Connection::to(&gateway).await);
    idle.send(&publish(1, "")).await;
    idle.answer().await;
    begun.send(&publish(2, "")).await;
    begun.answer().await;
    begun.send("POST /channels").await;
    assert!(silent.has_ended().await && begun.has_ended().await && idle.has_ended().await);
    assert_eq!((timed_out("head").await, timed_out("idle").await), (2.0, 1.0));
}

#[tokio::test]
async fn who_never_reads_the_answers_is_cut() {
    let gateway = Gateway::start("[stream]\nwrite_timeout = \"1s\"\n").await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut socket = socket.connect(gateway.address).await.expect("connects");
    let ended = wait::soon("its end", async {
        // One after the other, so that each comes in one piece.
        loop {
            if socket.write_all(publish(1, "").as_bytes()).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    ended.await;
}
