//! Cuts clients that send their request heads too slowly.
//!
//! hyper's own timer runs while a kept-alive connection is idle too, so it can only be as short as idling may be long.
//! This one looks at the bytes: it runs from the first byte of a head until the request is whole.

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
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

const IDLE: u64 = u64::MAX;
const ANSWERING: u64 = u64::MAX - 1;

/// What a connection's reading side is at: idle, in a head since a moment, or busy with a request.
pub(super) struct HeadClock {
    started: Instant,
    state: AtomicU64,
}

impl HeadClock {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), state: AtomicU64::new(IDLE) })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(ANSWERING - 1)
    }

    fn bytes_came(&self) {
        let _ = self.state.compare_exchange(IDLE, self.now(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The head is whole.
    pub(super) fn request_began(&self) {
        self.state.store(ANSWERING, Ordering::Relaxed);
    }

    /// The next bytes are another head's.
    pub(super) fn request_ended(&self) {
        self.state.store(IDLE, Ordering::Relaxed);
    }

    /// Returns once a head has taken longer than `limit`.
    pub(super) async fn expired(&self, limit: Duration) {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        loop {
            let wait = match self.state.load(Ordering::Relaxed) {
                IDLE | ANSWERING => limit,
                since => match (since.saturating_add(millis)).checked_sub(self.now()) {
                    None | Some(0) => return,
                    Some(left) => Duration::from_millis(left),
                },
            };
            tokio::time::sleep(wait).await;
        }
    }
}

/// A socket that tells the clock when bytes come.
pub(super) struct Clocked {
    pub(super) stream: TcpStream,
    pub(super) clock: Arc<HeadClock>,
}

impl AsyncRead for Clocked {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if into.filled().len() > before {
            self.clock.bytes_came();
        }
        read
    }
}

impl AsyncWrite for Clocked {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
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
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
