//! PROXY protocol headers, written by hand: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.

use std::net::SocketAddr;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Where a proxy says that it was connected to.
const TO: &str = "192.0.2.1:443";

/// Version 1: a line.
///
/// # Panics
/// When it is no address.
#[must_use]
pub fn version_1(client: &str) -> Vec<u8> {
    let (client, to): (SocketAddr, SocketAddr) = (client.parse().expect("an address"), TO.parse().expect("one"));
    let kind = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let to_ip = if client.is_ipv4() { to.ip().to_string() } else { "2001:db8::1".to_owned() };
    format!("PROXY {kind} {} {to_ip} {} {}\r\n", client.ip(), client.port(), to.port()).into_bytes()
}

/// Version 2, with an extension as AWS adds it (the id of an endpoint).
///
/// # Panics
/// When it is no address.
#[must_use]
pub fn version_2(client: &str) -> Vec<u8> {
    const AWS: &[u8] = &[0xEA, 0, 5, 1, b'v', b'p', b'c', b'e'];
    let client: SocketAddr = client.parse().expect("an address");
    let (family, mut addresses) = match client {
        SocketAddr::V4(client) => (0x11, [client.ip().octets(), [192, 0, 2, 1]].concat()),
        SocketAddr::V6(client) => (0x21, [client.ip().octets(), [0; 16]].concat()),
    };
    addresses.extend(client.port().to_be_bytes());
    addresses.extend(443_u16.to_be_bytes());
    addresses.extend(AWS);
    header(0x21, family, &addresses)
}

/// Version 2 of a proxy's own connection.
#[must_use]
pub fn local() -> Vec<u8> {
    header(0x20, 0, &[])
}

fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}
