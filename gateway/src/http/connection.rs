//! HTTP on one connection: 1.1 or 2, told apart by ALPN over TLS, else by the first bytes.
//!
//! Without TLS, an HTTP/1.1 request for a stream ends hyper's part: the service leaves a [`Handoff`], the socket is taken out of
//! hyper, and a shard owns it from then on.

use super::{
    App,
    accept::NOTSENT_LOWAT,
    arrival,
    bare_refusal::Explained,
    begun::Begun,
    body::Body,
    brief::{self, Left, Other},
    caller::Peer,
    head_clock::{Clocked, HEAD, HeadClock, IDLE_FOR_LONG as IDLE},
    head_size,
    incoming_body::Sent,
    pending::{Seat, Seated},
    route, subscribe,
};
use crate::{
    edge::tls::Tls,
    hub::{Permit, connection::Outlet},
    lifecycle::Phase,
    traces::Span,
};
use bytes::{Bytes, BytesMut};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};

/// The first bytes of an HTTP/2 connection (RFC 9113, 3.4); no HTTP/1.1 method is `PRI`.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Streams of one HTTP/2 connection at a time.
const MAX_STREAMS: u32 = 256;
/// How long a connection that was closed may go on sending what nobody reads.
const LINGER: Duration = Duration::from_secs(1);

/// A stream whose socket is to be a shard's.
pub(super) struct Handoff {
    pub(super) wanted: subscribe::Wanted,
    pub(super) permit: Permit,
    pub(super) head: Bytes,
    /// Until the stream has begun.
    pub(super) span: Span,
}

/// Where a service leaves its [`Handoff`].
#[derive(Default)]
struct HandoffSlot {
    handoff: Mutex<Option<Box<Handoff>>>,
    given: Notify,
}

impl HandoffSlot {
    fn give(&self, handoff: Box<Handoff>) {
        *self.handoff.lock().unwrap_or_else(PoisonError::into_inner) = Some(handoff);
        self.given.notify_one();
    }

    async fn taken(&self) -> Box<Handoff> {
        loop {
            self.given.notified().await;
            if let Some(handoff) = self.handoff.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return handoff;
            }
        }
    }
}

/// What a request came over.
#[derive(Clone, Copy)]
pub(super) enum Transport {
    /// A socket that a stream can have to itself.
    Socket,
    /// HTTP/2, or TLS: hyper writes the stream.
    Hyper,
}

/// Serves a connection until it ends or leaves for a shard, or its seat is wanted while it has no request.
pub(super) async fn serve(app: Arc<App>, stream: TcpStream, address: SocketAddr, seat: Arc<Seat>) {
    tokio::select! {
        // A stream that leaves does so in one poll, so that it is never taken for a connection without request.
        biased;
        () = speak(app, stream, address, Arc::clone(&seat)) => {}
        () = seat.wanted() => tracing::trace!("connection closed for another"),
    }
}

async fn speak(app: Arc<App>, mut stream: TcpStream, address: SocketAddr, seat: Arc<Seat>) {
    let Some(address) = arrival::announced(&app, &mut stream, address).await else { return };
    let peer = Peer::at(address, seat);
    let outcome = match app.tls.clone() {
        // In a box of its own, so that a connection needs the room only once it has begun.
        Some(tls) => Box::pin(secure(app, tls, stream, peer)).await,
        None => plain(app, stream, peer).await,
    };
    if let Err(error) = outcome {
        tracing::trace!(error = &*error, "connection ended");
    }
}

async fn plain(app: Arc<App>, stream: TcpStream, peer: Peer) -> Outcome {
    let Other { stream, read, head_began, is_first } = match brief::serve(&app, stream, &peer).await? {
        Left::Ended => return Ok(()),
        Left::Stream(stream, handoff) => return Ok(hand_over(&app, stream, *handoff)?),
        Left::Other(other) => other,
    };
    let mut stream = Begun { read, stream };
    let left = app.config.http.header_timeout.saturating_sub(head_began.elapsed());
    match timeout(left, async { Ok::<_, Failure>(is_first && is_http2(&mut stream).await?) }).await {
        // Boxed as above.
        Ok(Ok(true)) => Box::pin(http2(app, stream, peer)).await,
        Ok(Ok(false)) => {
            let slot = Some(Arc::default());
            if let Some((stream, handoff)) = Box::pin(http1(&app, stream, peer, head_began, slot)).await? {
                hand_over(&app, stream.stream, *handoff)?;
            }
            Ok(())
        }
        Ok(Err(error)) => Err(error),
        Err(_) => {
            app.metrics.timed_out.with_label_values(&[HEAD]).inc();
            Ok(())
        }
    }
}

async fn secure(app: Arc<App>, tls: Arc<Tls>, stream: TcpStream, peer: Peer) -> Outcome {
    let Some((stream, found)) = arrival::secured(&app, &tls, stream, peer.address).await else { return Ok(()) };
    let peer = Peer { certificate: found.certificate.map(Arc::new), ..peer };
    if let Some(certificate) = &peer.certificate {
        tracing::debug!(peer = %peer.address, certificate = certificate.name, "a client certificate was presented");
    }
    if found.is_http2 {
        http2(app, stream, peer).await
    } else {
        http1(&app, stream, peer, Instant::now(), None).await.map(drop)
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Outcome = Result<(), Failure>;
type Answering = Pin<Box<dyn Future<Output = Result<Response<Seated<Body>>, Infallible>> + Send>>;

/// Looks at the first bytes and leaves them to be read.
async fn is_http2(stream: &mut Begun<TcpStream>) -> io::Result<bool> {
    loop {
        if stream.read.starts_with(PREFACE) {
            return Ok(true);
        }
        if !PREFACE.starts_with(&stream.read) {
            return Ok(false);
        }
        let mut read = BytesMut::from(&stream.read[..]);
        if stream.stream.read_buf(&mut read).await? == 0 {
            return Ok(false);
        }
        stream.read = read.freeze();
    }
}

/// Answers with the stream if a request has left for it in `slot`; without a slot hyper writes everything itself.
/// The first head began at `head_began`.
async fn http1<S>(
    app: &Arc<App>,
    stream: S,
    peer: Peer,
    head_began: Instant,
    slot: Option<Arc<HandoffSlot>>,
) -> Result<Option<(S, Box<Handoff>)>, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let clock = HeadClock::new(head_began);
    let transport = if slot.is_some() { Transport::Socket } else { Transport::Hyper };
    let service = {
        let (app, clock, slot) = (Arc::clone(app), Arc::clone(&clock), slot.clone());
        service_fn(move |request: Request<Incoming>| -> Answering {
            let busy = peer.seat.busy();
            let (app, clock, slot, peer) = (Arc::clone(&app), Arc::clone(&clock), slot.clone(), peer.clone());
            clock.request_began();
            Box::pin(async move {
                let (head, body) = route::answer(app, transport, peer, request.map(Sent::Coming)).await.into_parts();
                let body = match (body, slot) {
                    (Body::Leaves(handoff), Some(slot)) => {
                        slot.give(handoff);
                        // The socket is about to be taken from under this future.
                        std::future::pending().await
                    }
                    (body, _) => body,
                };
                let mut response = Response::from_parts(head, body);
                if response.body().is_stream() {
                    // It ends with its connection, as where a shard writes it, and no other head comes.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                } else {
                    clock.request_ended();
                }
                Ok(response.map(|body| busy.until_written(body)))
            })
        })
    };
    let mut connection = hyper::server::conn::http1::Builder::new()
        // The clock sees to both.
        .header_read_timeout(None)
        // Answers are small: one buffer is cheaper to write than several.
        .writev(false)
        .max_buf_size(app.config.http.max_header_bytes.get() + head_size::ROOM)
        .serve_connection(
            TokioIo::new(Clocked { stream: Explained::new(stream, Arc::clone(app)), clock: Arc::clone(&clock) }),
            service,
        );
    let mut left = pin!(async {
        match &slot {
            Some(slot) => slot.taken().await,
            None => std::future::pending().await,
        }
    });
    let mut expired = pin!(clock.expired(app.config.http.header_timeout, app.config.http.idle_timeout));
    let mut closing = pin!(app.lifecycle.reached(Phase::Closing));
    let mut is_last = false;
    loop {
        tokio::select! {
            biased;
            handoff = &mut left => {
                return Ok(Some((connection.into_parts().io.into_inner().stream.stream, handoff)));
            }
            ended = poll_fn(|context| connection.poll_without_shutdown(context)) => {
                linger(connection.into_parts().io.into_inner().stream).await;
                ended?;
                return Ok(None);
            }
            reason = &mut expired => {
                app.metrics.timed_out.with_label_values(&[reason]).inc();
                return Ok(None);
            }
            () = &mut closing, if !is_last => {
                is_last = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    }
}

/// Closes so that the last answer arrives: a socket that is closed with bytes unread is reset, and the reset can
/// overtake what was written.
pub(super) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    if stream.shutdown().await.is_ok() {
        let mut unread = [0u8; 4096];
        let _ = timeout(LINGER, async {
            while let Ok(count) = stream.read(&mut unread).await
                && count > 0
            {}
        })
        .await;
    }
}

fn hand_over(app: &App, stream: TcpStream, handoff: Handoff) -> io::Result<()> {
    let stream = stream.into_std()?;
    let Handoff { wanted, permit, head, span } = handoff;
    let shard = app.hub.least_loaded();
    let started = span.is_kept().then(|| {
        let (started, has_started) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let _ = has_started.await;
            drop(span);
        });
        started
    });
    app.hub.open(shard, subscribe::open(app, wanted, permit, Outlet::Socket(stream), head, started));
    Ok(())
}

async fn http2<S>(app: Arc<App>, stream: S, peer: Peer) -> Outcome
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (heartbeat, http) = (app.config.stream.heartbeat, &app.config.http);
    let (head, idle) = (http.header_timeout, http.idle_timeout.max(http.body_timeout));
    let seat = Arc::clone(&peer.seat);
    let service = {
        let app = Arc::clone(&app);
        service_fn(move |request: Request<Incoming>| -> Answering {
            let (app, peer, busy) = (Arc::clone(&app), peer.clone(), peer.seat.busy());
            Box::pin(async move {
                let response = route::answer(app, Transport::Hyper, peer, request.map(Sent::Coming)).await;
                Ok(response.map(|body| busy.until_written(body)))
            })
        })
    };
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        // Per stream: what waits beyond this waits in the outbox.
        .max_send_buf_size(NOTSENT_LOWAT as usize)
        .max_header_list_size(
            u32::try_from(app.config.http.max_header_bytes.get() + head_size::ROOM).unwrap_or(u32::MAX),
        )
        .keep_alive_interval(Some(heartbeat))
        .keep_alive_timeout(heartbeat)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut waited = pin!(seat.waited((head, HEAD), (idle, IDLE)));
    let mut draining = pin!(app.lifecycle.reached(Phase::Draining));
    let mut is_told = false;
    loop {
        tokio::select! {
            ended = &mut connection => return ended.map_err(Into::into),
            reason = &mut waited => {
                app.metrics.timed_out.with_label_values(&[reason]).inc();
                return Ok(());
            }
            // GOAWAY: whoever comes back opens another connection, which reaches another replica. What is open goes on.
            () = &mut draining, if !is_told => {
                is_told = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
