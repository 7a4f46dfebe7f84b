//! The PROXY protocol's header (versions 1 and 2), with which a proxy that only passes bytes on says who connected to it:
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.
//!
//! What always holds: not a byte after the header is taken off the socket, so that whatever follows, TLS or HTTP, reads it
//! as if there had been no header.

use proxy_header::{ParseConfig, ProxyHeader};
use std::{io, net::SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// How version 1 begins. The shortest of its headers, `PROXY UNKNOWN` and a line's end, is longer than [`SIGNATURE`].
const TEXT: &[u8] = b"PROXY ";
/// The longest header of version 1, its line's end included (section 2.1).
const MAX_TEXT_BYTES: usize = 107;
/// Signature, command, family and length.
const FIXED_BYTES: usize = 16;
/// The longest header of version 2: as much as nginx takes. Addresses need 216 bytes at most, and what else proxies add,
/// ids and names of a few hundred bytes.
const MAX_BYTES: usize = 4096;
/// Version 2, the proxy's own connection: a health check.
const LOCAL: u8 = 0x20;

/// Why a connection does not begin as it should.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    #[error("the connection does not begin with a PROXY header")]
    Absent,
    #[error("the PROXY header is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("the PROXY header cannot be read")]
    Unreadable,
    #[error("the connection ended within the PROXY header: {0}")]
    CutOff(#[from] io::Error),
}

/// Takes the header off a connection. Answers with the client's address, and `None` where the header names none: the
/// proxy's own connections, those of Unix sockets, and those it does not know.
///
/// # Errors
/// When the connection begins with anything else.
pub async fn take<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Option<SocketAddr>, Malformed> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        header.resize(FIXED_BYTES, 0);
        stream.read_exact(&mut header[SIGNATURE.len()..]).await?;
        let length = usize::from(u16::from_be_bytes([header[FIXED_BYTES - 2], header[FIXED_BYTES - 1]]));
        if length > MAX_BYTES - FIXED_BYTES {
            return Err(Malformed::TooLong);
        }
        header.resize(FIXED_BYTES + length, 0);
        stream.read_exact(&mut header[FIXED_BYTES..]).await?;
        if header[SIGNATURE.len()] == LOCAL {
            // Whatever else it says is to be ignored (section 2.2).
            return Ok(None);
        }
    } else if header.starts_with(TEXT) {
        // Nothing says how long it is, so it is read byte by byte.
        while !header.ends_with(b"\r\n") {
            if header.len() == MAX_TEXT_BYTES {
                return Err(Malformed::Unreadable);
            }
            header.push(stream.read_u8().await?);
        }
    } else {
        return Err(Malformed::Absent);
    }
    match ProxyHeader::parse(&header, ParseConfig::default()) {
        Ok((read, length)) if length == header.len() => Ok(read.proxied_address().map(|address| address.source)),
        _ => Err(Malformed::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pieces::Pieces;
    use proxy_header::{ProxiedAddress, Tlv};

    /// Bytes that come in pieces.
    mod pieces {
        use std::{
            io,
            pin::Pin,
            task::{Context, Poll},
        };
        use tokio::io::{AsyncRead, ReadBuf};

        pub(super) struct Pieces(pub(super) Vec<Vec<u8>>);

        impl AsyncRead for Pieces {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                into: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let Some(piece) = self.0.first_mut() else { return Poll::Ready(Ok(())) };
                if piece.is_empty() {
                    // The next piece has not come yet.
                    self.0.remove(0);
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let count = piece.len().min(into.remaining());
                into.put_slice(&piece[..count]);
                piece.drain(..count);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// What is taken from `bytes` split at `at`, and what is left.
    fn take_split(bytes: &[u8], at: usize) -> (Result<Option<SocketAddr>, Malformed>, Vec<u8>) {
        let (first, second) = bytes.split_at(at.min(bytes.len()));
        let mut stream = Pieces(vec![first.to_vec(), second.to_vec()]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let taken = take(&mut stream).await;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.expect("no error");
            (taken, rest)
        })
    }

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("a length").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    /// Headers that are good, with the address that each names.
    fn good() -> Vec<(Vec<u8>, Option<SocketAddr>)> {
        let mut all = Vec::new();
        for (source, destination) in
            [("203.0.113.7:50000", "192.0.2.1:443"), ("[2001:db8::7]:50000", "[2001:db8::1]:443")]
        {
            let source: SocketAddr = source.parse().expect("an address");
            let addresses = ProxiedAddress::stream(source, destination.parse().expect("an address"));
            let mut header = ProxyHeader::with_address(addresses);
            let mut text = Vec::new();
            header.encode_v1(&mut text).expect("encoded");
            all.push((text, Some(source)));
            header.append_tlv(Tlv::UniqueId(vec![7; 300].into()));
            header.append_tlv(Tlv::Custom(0xEA, b"vpce-1".as_slice().into()));
            let mut binary = Vec::new();
            header.encode_v2(&mut binary).expect("encoded");
            all.push((binary, Some(source)));
        }
        for unnamed in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ::1 ::1 1 2\r\n".to_vec(),
            version_2(0x20, 0x00, b""),
            // A health check may say what it likes.
            version_2(0x20, 0x11, b"xyz"),
            version_2(0x21, 0x00, b"tlvs that are none"),
            version_2(0x21, 0x31, &[b'u'; 216]),
        ] {
            all.push((unnamed, None));
        }
        all
    }

    #[test]
    fn a_header_split_anywhere_is_read_and_nothing_after_it_is_lost() {
        for (header, address) in good() {
            let bytes = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            for at in 0..=header.len() + 1 {
                let (taken, rest) = take_split(&bytes, at);
                assert_eq!(taken.expect("a good header"), address, "{:?}", String::from_utf8_lossy(&header));
                assert_eq!(rest, b"GET / HTTP/1.1\r\n\r\n", "split at {at}");
            }
        }
    }

    #[test]
    fn what_is_cut_off_malformed_or_too_long_is_refused() {
        for (header, _) in good() {
            for length in 0..header.len() {
                assert!(take_split(&header[..length], 5).0.is_err(), "{:?}", &header[..length]);
            }
        }
        for wrong in [
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 192.0.2.1 50000\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 192.0.2.1 50000 443\r\n".to_vec(),
            b"PROXY TCP5 203.0.113.7 192.0.2.1 50000 443\r\n".to_vec(),
            [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat(),
            // Another version, another command, another family, and addresses that are missing.
            version_2(0x11, 0x11, &[0; 12]),
            version_2(0x22, 0x11, &[0; 12]),
            version_2(0x21, 0x41, &[0; 12]),
            version_2(0x21, 0x11, &[0; 11]),
            version_2(0x21, 0x21, &[0; 12]),
            version_2(0x21, 0x31, &[0; 215]),
            version_2(0x21, 0x11, &[0; MAX_BYTES - FIXED_BYTES + 1]),
        ] {
            assert!(take_split(&wrong, 3).0.is_err(), "{:?}", String::from_utf8_lossy(&wrong));
        }
        assert!(take_split(&version_2(0x21, 0x11, &[0; MAX_BYTES - FIXED_BYTES]), 3).0.is_ok());
    }
}
