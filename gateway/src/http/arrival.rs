//! From an accepted socket to one that speaks HTTP: the PROXY header if there must be one, then TLS if it is configured.
//! Each has `http.header_timeout`, and whoever fails is closed and counted.

use super::App;
use crate::edge::{
    proxy_header,
    tls::{Handshake, Tls},
};
use std::{fmt::Display, future::Future, net::SocketAddr, pin::Pin, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::server::TlsStream;

/// A socket beneath TLS: an error once it takes nothing for `stream.write_timeout`.
type Timed = Pin<Box<TimeoutStream<TcpStream>>>;

/// Who is at the other end, as a PROXY header says or, where none is expected, the kernel.
pub(super) async fn announced(app: &App, stream: &mut TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
    let proxy = &app.config.proxy;
    if !proxy.protocol {
        return Some(peer);
    }
    if !proxy.trusted.is_empty() && !proxy.trusted.contain(peer.ip()) {
        return turn_away(app, "untrusted", peer, "it is not in proxy.trusted");
    }
    match within(app.config.http.header_timeout, proxy_header::take(stream)).await {
        // Without an address in it, the proxy speaks for itself.
        Ok(address) => Some(address.unwrap_or(peer)),
        Err(why) => turn_away(app, "proxy_header", peer, &why),
    }
}

/// The connection made secure, and what its handshake found.
pub(super) async fn secured(
    app: &App,
    tls: &Tls,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(Box<TlsStream<Timed>>, Handshake)> {
    let write_timeout = app.config.stream.write_timeout;
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(write_timeout));
    match within(app.config.http.header_timeout, tls.accept(Box::pin(stream))).await {
        Ok(secure) => Some(secure),
        Err(why) => turn_away(app, "tls", peer, &why),
    }
}

async fn within<T, E: Display>(limit: Duration, step: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match timeout(limit, step).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("not within {limit:?}")),
    }
}

/// Counts it and says why: one line for each only where somebody looks for it.
fn turn_away<T>(app: &App, reason: &str, peer: SocketAddr, why: &str) -> Option<T> {
    app.metrics.turned_away.with_label_values(&[reason]).inc();
    tracing::debug!(%peer, reason, why, "a connection is closed before its first request");
    None
}
