//! What proxies before us say: not a byte is taken beyond it, and whoever is no proxy is believed nothing.

use crate::edge::{
    hops::{self, Trust},
    networks::Networks,
    proxy_header::take,
};
use hyper::{HeaderMap, header::HeaderValue};
use std::{
    io::Cursor,
    net::{IpAddr, SocketAddr},
    pin::pin,
    task::{Context, Poll, Waker},
};
use tokio::io::AsyncReadExt;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest headers of both versions.
const MAX_BYTES: usize = 4096;
const MAX_TEXT_BYTES: usize = 107;

/// The first bytes of a connection, of which the first part came by itself.
pub fn proxy_header(bytes: &[u8], cut: usize) {
    let (first, second) = bytes.split_at(cut.min(bytes.len()));
    let mut whole = Cursor::new(bytes);
    let mut split = Cursor::new(first).chain(Cursor::new(second));
    let taken = now(take(&mut whole));
    let same = now(take(&mut split));
    let taken_bytes = usize::try_from(whole.position()).expect("no more than there are");
    let (one, other) = split.into_inner();
    assert_eq!(taken_bytes as u64, one.position() + other.position(), "a cut changes nothing");
    assert_eq!(taken.as_ref().ok(), same.as_ref().ok(), "a cut changes nothing");
    assert!(taken_bytes <= MAX_BYTES);
    let Ok(address) = taken else { return };
    if bytes.starts_with(SIGNATURE) {
        let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        assert_eq!(taken_bytes, 16 + length, "the header says how long it is");
        assert_eq!(address.map(Address::of), address_in_binary(bytes).map(Address::of));
    } else {
        let end = bytes.windows(2).position(|two| two == b"\r\n").expect("a line") + 2;
        assert_eq!(taken_bytes, end, "the header is one line");
        assert!(end <= MAX_TEXT_BYTES);
        let line = String::from_utf8_lossy(&bytes[..end - 2]);
        assert_eq!(address.map(Address::of), address_in_text(&line).map(Address::of), "{line:?}");
    }
}

/// Addresses that differ in what only IPv6 has besides (its scope) are the same.
#[derive(Debug, PartialEq, Eq)]
struct Address(IpAddr, u16);

impl Address {
    fn of(address: SocketAddr) -> Self {
        Self(address.ip(), address.port())
    }
}

/// Section 2.2 of the protocol, for headers that are known to be good.
fn address_in_binary(bytes: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    match (bytes[12], bytes[13] >> 4) {
        (0x21, 1) => Some(SocketAddr::from((<[u8; 4]>::try_from(&bytes[16..20]).ok()?, port(24)))),
        (0x21, 2) => Some(SocketAddr::from((<[u8; 16]>::try_from(&bytes[16..32]).ok()?, port(48)))),
        _ => None,
    }
}

/// Section 2.1, for lines that are known to be good: `PROXY TCP4 <source> <destination> <port> <port>`.
fn address_in_text(line: &str) -> Option<SocketAddr> {
    let words: Vec<_> = line.split(' ').collect();
    match words[..] {
        ["PROXY", "TCP4", source, destination, port, other_port] => {
            let _: (std::net::Ipv4Addr, u16) =
                (destination.parse().expect("IPv4"), other_port.parse().expect("a port"));
            Some(SocketAddr::new(IpAddr::V4(source.parse().expect("IPv4")), port.parse().expect("a port")))
        }
        ["PROXY", "TCP6", source, destination, port, other_port] => {
            let _: (std::net::Ipv6Addr, u16) =
                (destination.parse().expect("IPv6"), other_port.parse().expect("a port"));
            Some(SocketAddr::new(IpAddr::V6(source.parse().expect("IPv6")), port.parse().expect("a port")))
        }
        // The rest of such a line is to be ignored, whatever it is.
        _ if line.starts_with("PROXY UNKNOWN") => None,
        _ => panic!("{line:?} is no header"),
    }
}

/// What a future answers that waits for nothing.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("memory keeps nobody waiting"),
    }
}

/// The lines of `X-Forwarded-For` that came from a proxy in 10.0.0.0/8, or the `hops`th proxy before it, or a stranger.
pub fn forwarded_for(lines: &[&[u8]], hops: usize) {
    let trusted = Networks::parse(&["10.0.0.0/8"]).expect("networks");
    let proxy: IpAddr = [10, 0, 0, 1].into();
    let stranger: IpAddr = [192, 0, 2, 9].into();
    let headers = |lines: &[&[u8]]| {
        let mut headers = HeaderMap::new();
        for value in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
            headers.append("x-forwarded-for", value);
        }
        headers
    };
    let given = headers(lines);
    assert_eq!(hops::client(stranger, &given, &Trust { networks: &trusted, hops }), stranger, "nobody asked it");
    assert_eq!(hops::client(stranger, &given, &Trust { networks: &Networks::default(), hops: 0 }), stranger);

    let trust = Trust { networks: &trusted, hops: 0 };
    let client = hops::client(proxy, &given, &trust);
    assert_eq!(client, client.to_canonical());
    if !trusted.contain(client) {
        let forged = [&[b"203.0.113.66, 10.0.0.66".as_slice()], lines].concat();
        assert_eq!(
            hops::client(proxy, &headers(&forged), &trust),
            client,
            "what is left of the client is the client's"
        );
    }
    // Lines of one name are one list (RFC 9110, 5.3).
    let valid: Vec<_> = lines.iter().copied().filter(|line| HeaderValue::from_bytes(line).is_ok()).collect();
    for trust in [trust, Trust { networks: &Networks::default(), hops }] {
        let apart: Vec<_> = valid.iter().flat_map(|line| line.split(|&byte| byte == b',')).collect();
        let joined = valid.join(&b',');
        let client = hops::client(proxy, &given, &trust);
        assert_eq!(hops::client(proxy, &headers(&apart), &trust), client);
        assert_eq!(hops::client(proxy, &headers(&[&joined]), &trust), client);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn not_a_byte_is_taken_beyond_a_proxy_header(
            beginning in prop::sample::select(vec![
                &b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443"[..], b"PROXY TCP6 2001:db8::7 ::1 1 2", b"PROXY UNKNOWN", b"PROXY ",
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\xc3\x50\x01\xbb",
                b"\r\n\r\n\0\r\nQUIT\n\x21\x21", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", b"\r\n\r\n\0\r\nQUIT\n", b"",
            ]),
            change in prop::option::of((0..40_usize, any::<u8>())),
            rest in prop_oneof![Just(b"\r\nGET / HTTP/1.1\r\n\r\n".to_vec()), any::<Vec<u8>>()],
            cut in 0..60_usize,
        ) {
            let mut bytes = [beginning, &rest].concat();
            if let Some((at, byte)) = change && let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            super::proxy_header(&bytes, cut);
        }

        #[test]
        fn who_is_no_proxy_is_believed_nothing(
            lines in prop::collection::vec("(203\\.0\\.113\\.[1-9]|10\\.0\\.0\\.[1-9](:80)?|\\[?::ffff:10\\.0\\.0\\.1\\]?|[ -~]{0,6}|[, ]{0,3},)*", 0..4),
            hops in 0..5_usize,
        ) {
            super::forwarded_for(&lines.iter().map(String::as_bytes).collect::<Vec<_>>(), hops);
        }

        #[test]
        fn any_bytes_for_whom_a_request_came_are_read(lines: Vec<Vec<u8>>, hops in 0..5_usize) {
            super::forwarded_for(&lines.iter().map(Vec::as_slice).collect::<Vec<_>>(), hops);
        }
    }
}
