//! What is read in one piece is read as hyper reads it.

use super::{super::incoming_body::Sent, whole};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, sync::Mutex};
use tokio::io::AsyncWriteExt;

/// Bytes that came in one piece.
pub fn whole_request(read: &[u8]) {
    let Some(request) = whole(&Bytes::copy_from_slice(read)) else { return };
    let (head, Sent::Whole(body)) = request.into_parts() else { panic!("it came with its head") };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let seen = runtime.block_on(hyper_reads(read));
    let [(other, other_body)] = seen.as_slice() else { panic!("{} requests, where there is one", seen.len()) };
    assert_eq!((&head.method, &head.uri, head.version), (&other.method, &other.uri, other.version));
    assert_eq!(head.headers, other.headers);
    assert_eq!(body, *other_body);
}

/// The requests that hyper finds in `read`.
async fn hyper_reads(read: &[u8]) -> Vec<(hyper::http::request::Parts, Bytes)> {
    let seen = Mutex::new(Vec::new());
    let (mut client, server) = tokio::io::duplex(read.len() + 4096);
    client.write_all(read).await.expect("there is room");
    client.shutdown().await.expect("it is open");
    let service = service_fn(async |request: Request<Incoming>| {
        let (head, body) = request.into_parts();
        if let Ok(body) = body.collect().await {
            seen.lock().expect("one thread").push((head, body.to_bytes()));
        }
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let mut hyper = http1::Builder::new();
    let connection = hyper.header_read_timeout(None).half_close(true).serve_connection(TokioIo::new(server), service);
    let _ = connection.await;
    seen.into_inner().expect("one thread")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_comes_in_one_piece_is_read_as_hyper_reads_it(
            begins in prop_oneof![9 => "", 1 => "\r\n|\n| "],
            line in prop_oneof![
                6 => "POST (/events|/channels/[a-z]{1,3}/events(\\?event=x)?) HTTP/1\\.1",
                3 => "GET /events(\\?channel=[a-z%&=]{0,4})? HTTP/1\\.1",
                2 => "(GET|POST|PUT|get|GET ) (/events|\\*|http://a/events|/[!-~]{0,6}|/[ -~é]{0,3}) HTTP/(1\\.1|1\\.0|2\\.0|1\\.1 )",
            ],
            has_length: bool,
            // `#` is the body's length.
            headers in prop::collection::vec(
                "Host: a|[Cc]ontent-[Ll]ength: #|Content-Length:( {0,2}[0-6]| \\+#|#,#|)|Transfer-Encoding: (chunked|identity)|Connection: (close|keep-alive|Upgrade|x, close)|Upgrade: h2c|Expect: 100-continue|Accept: (\\*/\\*|application/json|text/event-stream)|[a-zA-Z_ -]{1,4}:[ -~é\t]{0,5}| folded|Content-Length : #",
                0..3,
            ),
            ends in prop_oneof![8 => "\r\n", 1 => "\n|\r"],
            body in "|[ab\r\n0]{1,6}|0\r\n\r\n|GET / HTTP/1.1\r\n\r\n",
        ) {
            let length = has_length.then(|| "Content-Length: #".to_owned());
            let lines: String = length.iter().chain(&headers).map(|line| format!("{line}{ends}")).collect();
            let lines = lines.replace('#', &body.len().to_string());
            super::whole_request(format!("{begins}{line}{ends}{lines}{ends}{body}").as_bytes());
        }

        #[test]
        fn a_body_of_the_length_that_is_announced_is_read(
            path in "/channels/[a-z]{1,3}/events|/events|/broadcast",
            body in "[ -~é\r\n]{0,40}",
            more in prop::collection::vec("[Xx]-[a-z]{1,5}: [ -~]{0,9}", 0..6),
        ) {
            let lines: String = more.iter().map(|line| format!("{line}\r\n")).collect();
            let length = body.len();
            let request = format!("POST {path} HTTP/1.1\r\nhost: a\r\n{lines}Content-Length: {length}\r\n\r\n{body}");
            prop_assert!(super::whole(&request.clone().into()).is_some());
            super::whole_request(request.as_bytes());
            for cut in [1, length, length + 2].into_iter().filter(|&cut| cut > 0) {
                let part = request.as_bytes()[..request.len() - cut].to_vec();
                prop_assert!(super::whole(&part.into()).is_none());
            }
            let another = format!("{request}P");
            prop_assert!(super::whole(&another.into()).is_none());
        }
    }

    #[test]
    fn what_changes_how_a_message_is_framed_or_answered_is_left_to_hyper() {
        let is_read = |request: &str| super::whole(&request.to_owned().into()).is_some();
        let post = |headers: &str| format!("POST /events HTTP/1.1\r\nHost: a\r\n{headers}\r\n{{}}");
        assert!(is_read(&post("Content-Length: 2\r\n")));
        assert!(is_read(&post("Content-Length: 2\r\nConnection: close\r\n")));
        for headers in [
            "",
            "Content-Length: 1\r\n",
            "Content-Length: +2\r\n",
            "Content-Length: 2\r\nContent-Length: 2\r\n",
            "Content-Length: 2, 2\r\n",
            "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 2\r\nExpect: 100-continue\r\n",
            "Content-Length: 2\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n",
            "Content-Length: 2\r\nConnection: keep-alive\r\nConnection: close\r\n",
            "Content-Length : 2\r\n",
        ] {
            assert!(!is_read(&post(headers)), "{headers}");
        }
        let get = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        assert!(is_read(&get("/events?channel=a", "Accept: text/event-stream\r\n")));
        assert!(is_read(&get("/events", "Accept: text/html\r\n")), "refused all the same");
        for (target, headers) in [
            ("/events?channel=a", "Accept: application/json\r\n"),
            ("/", ""),
            ("/channels/a/events", ""),
            ("http://a/events", ""),
        ] {
            assert!(!is_read(&get(target, headers)), "{target} {headers}");
        }
        assert!(!is_read("GET /events HTTP/1.0\r\nHost: a\r\n\r\n"));
        assert!(!is_read("HEAD /events HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(!is_read(&format!("{}{}", get("/events", ""), get("/events", ""))));
    }
}
