//! Answers as HTTP/1.1 has them (RFC 9112), where hyper does not write them.

use super::body::Body;
use hyper::{Response, StatusCode, header::DATE};
use std::time::SystemTime;

/// Appends the status line, what of the framing is ours, and the headers, with the empty line behind them.
pub(super) fn head(response: &Response<Body>, framing: &[(&str, &str)], out: &mut Vec<u8>) {
    let status = response.status();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let headers = response.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let framing = framing.iter().map(|&(name, value)| (name, value.as_bytes()));
    for (name, value) in framing.chain(headers) {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// The whole of an answer whose body is `body`, with its length and the time.
pub(super) fn whole(response: &Response<Body>, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 512);
    let mut length = itoa::Buffer::new();
    let date = httpdate::fmt_http_date(SystemTime::now());
    let framing = [("content-length", length.format(body.len())), (DATE.as_str(), &date)];
    // RFC 9110, 8.6: what has no content has no length either.
    let has_length = response.status() != StatusCode::NO_CONTENT;
    head(response, if has_length { &framing } else { &framing[1..] }, &mut out);
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{CONTENT_TYPE, HeaderValue};

    #[test]
    fn an_answer_is_what_it_was_made_of() {
        for (status, body) in [(200, "{}"), (413, ""), (204, "")] {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let bytes = whole(&response, body.as_bytes());
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut read = httparse::Response::new(&mut headers);
            let length = read.parse(&bytes).expect("HTTP").unwrap();
            assert_eq!((read.code, read.reason), (Some(status), response.status().canonical_reason()));
            assert_eq!(&bytes[length..], body.as_bytes());
            let value = |name: &str| {
                let mut found = read.headers.iter().filter(|header| header.name == name);
                let value = found.next().map(|header| String::from_utf8_lossy(header.value).into_owned());
                assert!(found.next().is_none(), "{name} stands there twice");
                value
            };
            assert_eq!(value("content-type").as_deref(), Some("application/json"));
            assert_eq!(value("content-length"), (status != 204).then(|| body.len().to_string()));
            let date = httpdate::parse_http_date(&value("date").expect("the time")).expect("a date");
            assert!(date.elapsed().is_ok_and(|age| age.as_secs() < 60));
        }
    }
}
