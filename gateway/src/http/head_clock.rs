//! Cuts clients that send their request heads too slowly, and kept-alive connections that are idle for too long.
//!
//! hyper has a timer for both together, which can only be as short as idling may be long, and sets it anew for every
//! request. This one looks at the bytes, and costs a store: a head runs from its first byte until the request is whole,
//! and a connection's first one from the beginning.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection's reading side is at, in the low bits, and since when, in milliseconds, above them.
const IDLE: u64 = 0;
const IN_HEAD: u64 = 1;
const ANSWERING: u64 = 2;
const STATE_BITS: u32 = 2;

/// What a head that does not come is counted as.
pub(super) const HEAD: &str = "head";
/// And a connection without a request.
pub(super) const IDLE_FOR_LONG: &str = "idle";

/// See the module's documentation.
pub(super) struct HeadClock {
    started: Instant,
    state: AtomicU64,
}

impl HeadClock {
    /// For a connection whose head began at `started`.
    pub(super) fn new(started: Instant) -> Arc<Self> {
        Arc::new(Self { started, state: AtomicU64::new(IN_HEAD) })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX >> STATE_BITS)
    }

    fn enter(&self, state: u64) {
        self.state.store(self.now() << STATE_BITS | state, Ordering::Relaxed);
    }

    fn bytes_came(&self) {
        if self.state.load(Ordering::Relaxed) & (IN_HEAD | ANSWERING) == IDLE {
            self.enter(IN_HEAD);
        }
    }

    /// An answer goes on its way still.
    fn bytes_went(&self) {
        if self.state.load(Ordering::Relaxed) & (IN_HEAD | ANSWERING) == IDLE {
            self.enter(IDLE);
        }
    }

    /// The head is whole.
    pub(super) fn request_began(&self) {
        self.state.store(ANSWERING, Ordering::Relaxed);
    }

    /// The next bytes are another head's.
    pub(super) fn request_ended(&self) {
        self.enter(IDLE);
    }

    /// Answers what has taken too long, once something has: a head, `head`, or being idle, `idle`.
    pub(super) async fn expired(&self, head: Duration, idle: Duration) -> &'static str {
        loop {
            let state = self.state.load(Ordering::Relaxed);
            let lasted = Duration::from_millis(self.now().saturating_sub(state >> STATE_BITS));
            let wait = match state & ((1 << STATE_BITS) - 1) {
                IDLE if lasted >= idle => return IDLE_FOR_LONG,
                IN_HEAD if lasted >= head => return HEAD,
                // A head may begin meanwhile.
                IDLE => head.min(idle - lasted),
                IN_HEAD => head - lasted,
                _ => head,
            };
            tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
        }
    }
}

/// A socket that tells the clock when bytes come and go.
pub(super) struct Clocked<S> {
    pub(super) stream: S,
    pub(super) clock: Arc<HeadClock>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Clocked<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if into.filled().len() > before {
            self.clock.bytes_came();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Clocked<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(written, Poll::Ready(Ok(count)) if count > 0) {
            self.clock.bytes_went();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        if matches!(written, Poll::Ready(Ok(count)) if count > 0) {
            self.clock.bytes_went();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
