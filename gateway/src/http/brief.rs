//! Requests that come in one piece, as nearly every stream's and every small publish does: read, and answered, without
//! hyper. A connection needs no buffer of its own for them, and a stream's goes on to its shard at once.
//!
//! What is read here is only what can be read in one way: a head and a body that came together, are whole, and are
//! all that came, with no header that changes how a message is framed. With anything else the connection is hyper's
//! from its first unread byte on; nothing is answered here that hyper would refuse, as both have the same parser.
//!
//! While a request is answered nobody looks whether its client is still there, which takes hyper: a long poll is left to
//! it, and a publish goes on to the broker whatever becomes of its client.

#[cfg(any(test, fuzzing))]
pub(super) mod promises;

use super::{
    App,
    body::Body,
    caller::Peer,
    connection::{Handoff, Transport, linger},
    head_clock::{HEAD, IDLE_FOR_LONG},
    incoming_body::Sent,
    negotiate::{self, Form},
    raw, route,
};
use crate::lifecycle::Phase;
use bytes::Bytes;
use futures_util::FutureExt;
use hyper::{
    HeaderMap, Method, Request, Uri,
    header::{CONNECTION, HeaderName, HeaderValue},
};
use std::{
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep, timeout},
};

/// The largest request that is read here. Most have a few hundred bytes.
const MAX_BYTES: usize = 4096;
/// The most headers of such a request.
const MAX_HEADERS: usize = 32;

/// What became of a connection.
pub(super) enum Left {
    /// It has ended.
    Ended,
    /// Its socket is to be a stream's.
    Stream(TcpStream, Box<Handoff>),
    /// There is something to be read that is not for this module.
    Other(Other),
}

/// A connection that is hyper's from now on.
pub(super) struct Other {
    pub(super) stream: TcpStream,
    /// What has been read of the next request, and when its head began.
    pub(super) read: Bytes,
    pub(super) head_began: Instant,
    /// Nothing was answered yet.
    pub(super) is_first: bool,
}

/// Answers requests for as long as they come in one piece.
///
/// # Errors
/// When the socket fails.
pub(super) async fn serve(app: &Arc<App>, mut stream: TcpStream, peer: &Peer) -> io::Result<Left> {
    let http = &app.config.http;
    let began = Instant::now();
    let mut waiting = Waiting { is_first: true, until: began + http.header_timeout };
    let mut alarm = pin!(sleep(http.header_timeout));
    let mut closing = pin!(app.lifecycle.reached(Phase::Closing));
    loop {
        let next = poll_fn(|context| {
            if let Poll::Ready(read) = poll_next(&mut stream, context) {
                return Poll::Ready(read);
            }
            // Who has just come has a request on its way.
            if !waiting.is_first && closing.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(Next::Closing));
            }
            waiting.poll(alarm.as_mut(), context).map(|()| Ok(Next::Nothing))
        });
        let request = match next.await? {
            Next::Whole(request) => request,
            Next::Other(read) => {
                let head_began = if waiting.is_first { began } else { Instant::now() };
                return Ok(Left::Other(Other { stream, read, head_began, is_first: waiting.is_first }));
            }
            Next::End => return Ok(Left::Ended),
            Next::Closing => {
                linger(stream).await;
                return Ok(Left::Ended);
            }
            Next::Nothing => {
                let reason = if waiting.is_first { HEAD } else { IDLE_FOR_LONG };
                app.metrics.timed_out.with_label_values(&[reason]).inc();
                return Ok(Left::Ended);
            }
        };
        let busy = peer.seat.busy();
        let closes =
            request.headers().get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        // Boxed, so that a connection that waits needs no room for it.
        let mut response = Box::pin(route::answer(Arc::clone(app), Transport::Socket, peer.clone(), *request)).await;
        if closes {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let body = match std::mem::replace(response.body_mut(), Body::empty()) {
            Body::Leaves(handoff) => return Ok(Left::Stream(stream, handoff)),
            body => body.whole().await,
        };
        // From here on it is the client's turn.
        drop(busy);
        write(&mut stream, &raw::whole(&response, &body), app.config.stream.write_timeout).await?;
        if response.headers().contains_key(CONNECTION) {
            linger(stream).await;
            return Ok(Left::Ended);
        }
        waiting = Waiting { is_first: false, until: Instant::now() + http.idle_timeout };
    }
}

/// Writes an answer, all of which must be taken in time. Nearly every one is at once, and needs no timer.
async fn write(stream: &mut TcpStream, answer: &[u8], limit: Duration) -> io::Result<()> {
    let mut writing = pin!(stream.write_all(answer));
    match writing.as_mut().now_or_never() {
        Some(written) => written,
        None => timeout(limit, writing).await?,
    }
}

/// How long the next request may take to come.
struct Waiting {
    is_first: bool,
    until: Instant,
}

impl Waiting {
    /// Ready when it has taken too long. The alarm is set anew only when it goes off, not for every request.
    fn poll(&self, mut alarm: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<()> {
        while alarm.as_mut().poll(context).is_ready() {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Poll::Ready(());
            }
            // Its clock has milliseconds.
            alarm.as_mut().reset(tokio::time::Instant::now() + left.max(Duration::from_millis(1)));
        }
        Poll::Pending
    }
}

/// What comes next on a connection.
enum Next {
    Whole(Box<Request<Sent>>),
    /// Bytes that are not, or not yet, a request in one piece.
    Other(Bytes),
    End,
    /// Nothing, for too long.
    Nothing,
    /// Nothing, and the gateway closes: no further request is waited for.
    Closing,
}

/// Reads once. The buffer is on the stack: nobody who waits has one.
fn poll_next(stream: &mut TcpStream, context: &mut Context<'_>) -> Poll<io::Result<Next>> {
    let mut room = [MaybeUninit::uninit(); MAX_BYTES];
    let mut buffer = ReadBuf::uninit(&mut room);
    ready!(Pin::new(stream).poll_read(context, &mut buffer))?;
    if buffer.filled().is_empty() {
        return Poll::Ready(Ok(Next::End));
    }
    let read = Bytes::copy_from_slice(buffer.filled());
    Poll::Ready(Ok(whole(&read).map_or(Next::Other(read), |request| Next::Whole(Box::new(request)))))
}

/// The request that these bytes are, no more and no less, if it is one for this module.
pub(super) fn whole(read: &Bytes) -> Option<Request<Sent>> {
    let mut room = [MaybeUninit::uninit(); MAX_HEADERS];
    let mut head = httparse::Request::new(&mut []);
    let httparse::Status::Complete(length) = head.parse_with_uninit_headers(read, &mut room).ok()? else { return None };
    let (method, path) = (head.method?, head.path?);
    let method = match method {
        "GET" if path.split_once('?').map_or(path, |(path, _)| path) == "/events" => Method::GET,
        "POST" if path.starts_with('/') => Method::POST,
        _ => return None,
    };
    if head.version != Some(1) {
        return None;
    }
    let mut announced = None;
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for header in head.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        match name.as_str() {
            "transfer-encoding" | "upgrade" | "expect" => return None,
            "connection" if !is_plain(header.value) || headers.contains_key(&name) => return None,
            "content-length" if announced.is_some() => return None,
            "content-length" => announced = Some(digits(header.value)?),
            _ => {}
        }
        headers.append(name, HeaderValue::from_maybe_shared(read.slice_ref(header.value)).ok()?);
    }
    // One that may wait for long is told apart, since hyper notices when its client has gone.
    let is_ours = match method {
        Method::POST => announced == Some(read.len() - length),
        _ => announced.unwrap_or(0) == 0 && read.len() == length && negotiate::form(&headers).ok() != Some(Form::Poll),
    };
    if !is_ours {
        return None;
    }
    let mut request = Request::new(Sent::Whole(read.slice(length..)));
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_maybe_shared(read.slice_ref(path.as_bytes())).ok()?;
    *request.headers_mut() = headers;
    Some(request)
}

/// Whether a `Connection` header says no more than what is done after the answer.
fn is_plain(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
}

/// A number that is written in digits alone.
fn digits(value: &[u8]) -> Option<usize> {
    let is_number = (1..=5).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()
}
