//! Heads, framings, and what is neither.

use super::*;

/// The heads, bodies and number of ends in these bytes, read in pieces of this length.
fn read(bytes: &[u8], piece: usize) -> Result<(Vec<Head>, Vec<u8>, usize), Malformed> {
    let (mut response, mut held) = (Response::START, Vec::new());
    let (mut heads, mut body, mut ends) = (Vec::new(), Vec::new(), 0);
    for mut bytes in bytes.chunks(piece) {
        while let Some(piece) = response.next(&mut held, &mut bytes)? {
            match piece {
                Piece::Head(head) => heads.push(head),
                Piece::Body(bytes) => body.extend_from_slice(bytes),
                Piece::End => ends += 1,
            }
        }
    }
    Ok((heads, body, ends))
}

#[test]
fn an_answer_is_read_however_it_is_cut_and_framed() {
    for (framing, end) in [
        ("content-length: 11\r\n\r\nhello world", 1),
        ("transfer-encoding: chunked\r\n\r\n6\r\nhello \r\n5;x=\"1\"\r\nworld\r\n0\r\ntrailer: x\r\n\r\n", 1),
        ("Transfer-Encoding: gzip, chunked\r\ncontent-length: 3\r\n\r\n00B\nhello world\n0\n\n", 1),
        ("\r\nhello world", 0),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n{framing}");
        for piece in 1..answer.len() + 1 {
            let (heads, body, ends) = read(answer.as_bytes(), piece).expect("an answer");
            assert_eq!((body.as_slice(), ends), (&b"hello world"[..], end), "{framing} in {piece}");
            assert_eq!((heads.len(), heads[0].status, heads[0].is_event_stream), (1, 200, true));
        }
    }
}

#[test]
fn what_a_head_says_is_seen() {
    let head = |headers: &str| read(format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes(), 1000).expect("a head").0[0];
    assert_eq!(head("content-encoding: GZIP\r\n").encoding, Encoding::Gzip);
    assert_eq!(head("content-encoding: br\r\n").encoding, Encoding::Other);
    assert!(head("content-length: 0\r\nconnection: Keep-Alive, Close\r\n").closes);
    assert!(!head("content-length: 0\r\nconnection: keep-alive\r\n").closes);
    assert!(head("").closes, "only the end of the connection ends such a body");
    assert!(!head("content-type: text/html\r\n").is_event_stream);
}

#[test]
fn interim_answers_are_passed_over_and_some_have_no_body() {
    let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    for piece in 1..interim.len() + 1 {
        let (heads, body, ends) = read(interim, piece).expect("an answer");
        assert_eq!((heads.len(), heads[0].status, body.len(), ends), (1, 204, 0, 1), "{piece}");
    }
}

#[test]
fn what_is_no_answer_is_refused() {
    for bytes in [
        "GET / HTTP/1.1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n",
    ] {
        assert_eq!(read(bytes.as_bytes(), 1000), Err(Malformed), "{bytes}");
        assert_eq!(read(bytes.as_bytes(), 1), Err(Malformed), "{bytes}");
    }
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(2 * MAX_HEAD_BYTES));
    assert_eq!(read(endless.as_bytes(), 1000), Err(Malformed));
}
