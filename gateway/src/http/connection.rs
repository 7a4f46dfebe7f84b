//! HTTP on one connection: 1.1, or 2 by prior knowledge, told apart by the first bytes.
//!
//! An HTTP/1.1 request for a stream ends hyper's part: the service leaves a [`Handoff`], the socket is taken out of
//! hyper, and a shard owns it from then on.

use super::{
    App,
    body::Body,
    caller::Peer,
    head_clock::{Clocked, HeadClock},
    route, subscribe,
};
use crate::hub::{Permit, connection::Outlet};
use bytes::Bytes;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Notify, time::timeout};

/// The first bytes of an HTTP/2 connection (RFC 9113, 3.4); no HTTP/1.1 method is `PRI`.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Streams of one HTTP/2 connection at a time.
const MAX_STREAMS: u32 = 256;
/// How long a connection that was closed may go on sending what nobody reads.
const LINGER: Duration = Duration::from_secs(1);
/// Unsent bytes in the kernel at which a socket says that it is full: what waits, waits where a policy can act on it.
const NOTSENT_LOWAT: u32 = 16 * 1024;

/// A stream that is to leave hyper.
pub(super) struct Handoff {
    pub(super) wanted: Box<subscribe::Wanted>,
    pub(super) permit: Permit,
    pub(super) head: Bytes,
}

/// Where a service leaves its [`Handoff`].
#[derive(Default)]
pub(super) struct HandoffSlot {
    handoff: Mutex<Option<Handoff>>,
    given: Notify,
}

impl HandoffSlot {
    pub(super) fn give(&self, handoff: Handoff) {
        *self.handoff.lock().unwrap_or_else(PoisonError::into_inner) = Some(handoff);
        self.given.notify_one();
    }

    async fn taken(&self) -> Handoff {
        loop {
            self.given.notified().await;
            if let Some(handoff) = self.handoff.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return handoff;
            }
        }
    }
}

/// What a request came over.
#[derive(Clone)]
pub(super) enum Transport {
    Http1(Arc<HandoffSlot>),
    Http2,
}

/// Serves a connection until it ends or leaves for a shard.
pub(super) async fn serve(app: Arc<App>, stream: TcpStream, peer: Peer) {
    let header_timeout = app.config.http.header_timeout;
    let outcome = match timeout(header_timeout, is_http2(&stream)).await {
        // In boxes of their own, so that a connection needs the room of one of them, and only once it has begun.
        Ok(Ok(true)) => Box::pin(http2(app, stream, peer)).await,
        Ok(Ok(false)) => Box::pin(http1(app, stream, peer)).await,
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Ok(()),
    };
    if let Err(error) = outcome {
        tracing::trace!(error = &*error, "connection ended");
    }
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;
type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Looks at the first bytes without taking them.
async fn is_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0u8; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        if seen == 0 || !PREFACE.starts_with(&first[..seen]) {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
        // Peeking leaves the bytes there, so readiness says nothing about more of them.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn http1(app: Arc<App>, stream: TcpStream, peer: Peer) -> Outcome {
    let slot = Arc::new(HandoffSlot::default());
    let clock = HeadClock::new();
    let service = {
        let (app, slot, clock) = (Arc::clone(&app), Arc::clone(&slot), Arc::clone(&clock));
        service_fn(move |request: Request<Incoming>| -> Answering {
            let (app, clock) = (Arc::clone(&app), Arc::clone(&clock));
            let transport = Transport::Http1(Arc::clone(&slot));
            clock.request_began();
            Box::pin(async move {
                let response = route::answer(app, transport, peer, request).await;
                clock.request_ended();
                Ok(response)
            })
        })
    };
    let mut connection = hyper::server::conn::http1::Builder::new()
        // The clock sees to both.
        .header_read_timeout(None)
        // Answers are small: one buffer is cheaper to write than several.
        .writev(false)
        .max_buf_size(app.config.http.max_header_bytes.get().max(8192))
        .serve_connection(TokioIo::new(Clocked { stream, clock: Arc::clone(&clock) }), service);
    tokio::select! {
        biased;
        handoff = slot.taken() => {
            let stream = connection.into_parts().io.into_inner().stream;
            hand_over(&app, stream, handoff)?;
        }
        ended = poll_fn(|context| connection.poll_without_shutdown(context)) => {
            linger(connection.into_parts().io.into_inner().stream).await;
            ended?;
        }
        () = clock.expired(app.config.http.header_timeout, app.config.http.idle_timeout) => {}
    }
    Ok(())
}

/// Closes so that the last answer arrives: a socket that is closed with bytes unread is reset, and the reset can
/// overtake what was written.
async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_ok() {
        let mut unread = [0u8; 4096];
        let _ = timeout(LINGER, async {
            while let Ok(count) = tokio::io::AsyncReadExt::read(&mut stream, &mut unread).await
                && count > 0
            {}
        })
        .await;
    }
}

fn hand_over(app: &App, stream: TcpStream, handoff: Handoff) -> io::Result<()> {
    let stream = stream.into_std()?;
    let socket = socket2::SockRef::from(&stream);
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
        socket.set_tcp_user_timeout(Some(app.config.stream.write_timeout))?;
    }
    let Handoff { wanted, permit, head } = handoff;
    let shard = app.hub.least_loaded();
    app.hub.open(shard, subscribe::open(app, *wanted, permit, Outlet::Socket(stream), head, None));
    Ok(())
}

async fn http2(app: Arc<App>, stream: TcpStream, peer: Peer) -> Outcome {
    let heartbeat = app.config.stream.heartbeat;
    let service = {
        let app = Arc::clone(&app);
        service_fn(move |request: Request<Incoming>| -> Answering {
            let app = Arc::clone(&app);
            Box::pin(async move { Ok(route::answer(app, Transport::Http2, peer, request).await) })
        })
    };
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        // Per stream: what waits beyond this waits in the outbox.
        .max_send_buf_size(NOTSENT_LOWAT as usize)
        .max_header_list_size(u32::try_from(app.config.http.max_header_bytes.get()).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(heartbeat))
        .keep_alive_timeout(heartbeat)
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}
