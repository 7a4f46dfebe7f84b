//! Whose request it is, when proxies stand between: the client's address out of `X-Forwarded-For`.
//!
//! Each proxy appends the address that it was connected to from, so the list is true from its right end as far as the
//! proxies are ours, and whatever the client wrote stands left of that. What is not known to be true is not looked at.

use super::networks::Networks;
use hyper::HeaderMap;
use std::net::{IpAddr, SocketAddr};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Which proxies are believed.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'a> {
    /// Addresses of proxies.
    pub networks: &'a Networks,
    /// How many proxies there are, whatever their addresses, the peer being the first.
    pub hops: usize,
}

impl Trust<'_> {
    /// With networks given, one of them must hold the peer; without, a number of hops is enough.
    fn holds(&self, peer: IpAddr) -> bool {
        if self.networks.is_empty() { self.hops > 0 } else { self.networks.contain(peer) }
    }
}

/// The client's address: from the peer on, then from the right of the header, the first that is no proxy's. Where the
/// list ends or cannot be read, it is the last address that could be.
#[must_use]
pub fn client(peer: IpAddr, headers: &HeaderMap, trust: &Trust<'_>) -> IpAddr {
    let mut client = peer.to_canonical();
    if !trust.holds(client) {
        return client;
    }
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let entries = lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','));
    // Empty entries of a list mean nothing (RFC 9110, 5.6.1).
    for (index, entry) in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()).enumerate() {
        if index >= trust.hops && !trust.networks.contain(client) {
            break;
        }
        match address(entry) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let plain = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = plain.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    Some(address.ok()?.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_of(peer: &str, lines: &[&str], networks: &[&str], hops: usize) -> String {
        let networks = Networks::parse(networks).expect("networks");
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().expect("a value"));
        }
        let trust = Trust { networks: &networks, hops };
        client(peer.parse().expect("an address"), &headers, &trust).to_string()
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_client_whatever_it_says() {
        assert_eq!(client_of("192.0.2.9", &["203.0.113.1"], &[], 0), "192.0.2.9");
        assert_eq!(client_of("192.0.2.9", &["203.0.113.1"], &["10.0.0.0/8"], 0), "192.0.2.9");
        assert_eq!(client_of("192.0.2.9", &["203.0.113.1"], &["10.0.0.0/8"], 3), "192.0.2.9");
        assert_eq!(client_of("::ffff:192.0.2.9", &[], &[], 0), "192.0.2.9");
    }

    #[test]
    fn trusted_addresses_are_skipped_from_the_right() {
        let trusted = &["10.0.0.0/8", "2001:db8::/32"];
        for (lines, client) in [
            (&["203.0.113.1"][..], "203.0.113.1"),
            (&["6.6.6.6, 203.0.113.1, 10.0.0.2"], "203.0.113.1"),
            (&["6.6.6.6", "203.0.113.1", "10.0.0.2,10.0.0.3"], "203.0.113.1"),
            (&["203.0.113.1:5555, [2001:db8::7]:443"], "203.0.113.1"),
            (&["[2001:db9::1], 2001:db8::7"], "2001:db9::1"),
            (&["[2001:db9::1]:80"], "2001:db9::1"),
            (&["::ffff:203.0.113.1"], "203.0.113.1"),
            (&[" , 203.0.113.1 ,, ,10.0.0.2, "], "203.0.113.1"),
            // Where it ends or breaks off, the last good one.
            (&[], "10.0.0.1"),
            (&["10.0.0.9"], "10.0.0.9"),
            (&["6.6.6.6, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["6.6.6.6, _hidden"], "10.0.0.1"),
            (&["6.6.6.6, 203.0.113.1:99999"], "10.0.0.1"),
            (&["6.6.6.6, \"203.0.113.1\""], "10.0.0.1"),
        ] {
            assert_eq!(client_of("10.0.0.1", lines, trusted, 0), client, "{lines:?}");
        }
    }

    #[test]
    fn hops_are_skipped_whatever_their_addresses() {
        let lines = &["6.6.6.6, 203.0.113.1, 198.51.100.7"];
        assert_eq!(client_of("192.0.2.9", lines, &[], 1), "198.51.100.7");
        assert_eq!(client_of("192.0.2.9", lines, &[], 2), "203.0.113.1");
        assert_eq!(client_of("192.0.2.9", lines, &[], 9), "6.6.6.6");
        assert_eq!(client_of("10.0.0.1", lines, &["10.0.0.0/8"], 2), "203.0.113.1");
        assert_eq!(client_of("10.0.0.1", &["6.6.6.6, 10.0.0.2"], &["10.0.0.0/8"], 1), "6.6.6.6");
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_and_a_stranger_left_of_the_client_changes_nothing(
            left in "[ -~]{0,60}", right in "(10\\.0\\.0\\.[1-9], ?){0,3}",
        ) {
            let line = format!("{left}, 203.0.113.1, {right}");
            proptest::prop_assert_eq!(client_of("10.0.0.1", &[&line], &["10.0.0.0/8"], 0), "203.0.113.1");
        }
    }
}
