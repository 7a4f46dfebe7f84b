//! TLS on the public port: 1.2 and 1.3, HTTP/2 by ALPN, client certificates that may be presented.
//!
//! What is in force is read from files and read again when they change ([`reload`]). A connection keeps what was in force
//! when it began.

mod certificate;
mod identity;
pub mod reload;

pub use certificate::Certificate;
pub use identity::{File, Files, InvalidFile};

use identity::{Contents, Identity};
use std::{
    io,
    sync::{Arc, PoisonError, RwLock},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// HTTP/2's name in ALPN (RFC 7301, RFC 9113).
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What connections are accepted with.
pub struct Tls {
    files: Files,
    in_force: RwLock<InForce>,
}

struct InForce {
    identity: Identity,
    contents: Contents,
}

/// What a handshake found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Whether the client speaks HTTP/2.
    pub is_http2: bool,
    /// The client's certificate, if it presented one, now or before the ticket that it came back with: it was verified
    /// then, and has not expired since.
    pub certificate: Option<Certificate>,
}

impl Tls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn load(files: Files) -> Result<Self, InvalidFile> {
        let contents = Contents::read(&files)?;
        let identity = Identity::of(&contents)?;
        Ok(Self { files, in_force: RwLock::new(InForce { identity, contents }) })
    }

    /// Until when the certificate in force is valid, in seconds since 1970.
    #[must_use]
    pub fn expires(&self) -> i64 {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).identity.expires
    }

    /// Makes a connection secure.
    ///
    /// # Errors
    /// When the handshake fails, as with a client certificate that cannot be verified.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<(Box<TlsStream<S>>, Handshake)> {
        let config = {
            let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&in_force.identity.config)
        };
        let stream = Box::new(TlsAcceptor::from(config).accept(stream).await?);
        let session = stream.get_ref().1;
        // Who comes back with a ticket is not verified again, and one ticket leads to the next.
        let is_valid = |certificate: &&_| !certificate::has_expired(certificate);
        let presented = session.peer_certificates().and_then(<[_]>::first).filter(is_valid);
        let handshake =
            Handshake { is_http2: session.alpn_protocol() == Some(HTTP2), certificate: presented.map(Certificate::of) };
        Ok((stream, handshake))
    }
}
