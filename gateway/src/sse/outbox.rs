//! The queue between a shard and a stream that hyper writes (HTTP/2): bytes in order, bounded, with the reader waking
//! the writer when there is room again.
//!
//! It mirrors a socket on purpose, so that a shard treats both alike: [`Outbox::offer`] takes bytes or says that it is
//! full, and the shard is told once when that has changed. It has no policy and drops nothing.

use bytes::Bytes;
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

/// Bytes queued at which the outbox says that it is full. As small as a socket's unsent bytes are kept.
pub const HIGH_WATER: usize = 16 * 1024;

/// What the reader tells the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// There is room again.
    Drained,
    /// The reader is gone.
    Closed,
}

type Notify = Box<dyn Fn(Signal) + Send + Sync>;

struct State {
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
    /// The writer was turned away and waits for [`Signal::Drained`].
    writer_waits: bool,
    finished: bool,
    reader_gone: bool,
    waker: Option<Waker>,
}

struct Shared {
    state: Mutex<State>,
    notify: Notify,
}

/// The shard's end.
pub struct Outbox(Arc<Shared>);

/// hyper's end: an `http_body::Body`.
pub struct OutboxBody(Arc<Shared>);

/// Both ends; `notify` is called from hyper's task and must not block.
#[must_use]
pub fn outbox(notify: Notify) -> (Outbox, OutboxBody) {
    let state = State {
        queue: VecDeque::new(),
        queued_bytes: 0,
        writer_waits: false,
        finished: false,
        reader_gone: false,
        waker: None,
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), notify });
    (Outbox(Arc::clone(&shared)), OutboxBody(shared))
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbox {
    /// Takes `bytes` whole, or not at all if it is full; `Err` if the reader is gone.
    ///
    /// # Errors
    /// When the reader is gone.
    pub fn offer(&self, bytes: &Bytes) -> Result<bool, ReaderGone> {
        let waker = {
            let mut state = self.0.state();
            if state.reader_gone {
                return Err(ReaderGone);
            }
            if state.queued_bytes >= HIGH_WATER {
                state.writer_waits = true;
                return Ok(false);
            }
            state.queued_bytes += bytes.len();
            state.queue.push_back(bytes.clone());
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(true)
    }
}

impl Drop for Outbox {
    /// Ends the stream once what was taken has been written.
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.state();
            state.finished = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The stream was closed by its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderGone;

impl hyper::body::Body for OutboxBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        let (bytes, drained) = {
            let mut state = self.0.state();
            let Some(bytes) = state.queue.pop_front() else {
                if state.finished {
                    return Poll::Ready(None);
                }
                state.waker = Some(context.waker().clone());
                return Poll::Pending;
            };
            state.queued_bytes -= bytes.len();
            let drained = state.writer_waits && state.queued_bytes < HIGH_WATER / 2;
            state.writer_waits &= !drained;
            (bytes, drained)
        };
        if drained {
            (self.0.notify)(Signal::Drained);
        }
        Poll::Ready(Some(Ok(hyper::body::Frame::data(bytes))))
    }
}

impl Drop for OutboxBody {
    fn drop(&mut self) {
        {
            let mut state = self.0.state();
            state.reader_gone = true;
            state.queue.clear();
            if state.finished {
                return;
            }
        }
        (self.0.notify)(Signal::Closed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::sync::mpsc;

    fn pair() -> (Outbox, OutboxBody, mpsc::Receiver<Signal>) {
        let (sender, signals) = mpsc::channel();
        let (outbox, body) = outbox(Box::new(move |signal| {
            let _ = sender.send(signal);
        }));
        (outbox, body, signals)
    }

    #[tokio::test]
    async fn bytes_arrive_in_order_and_the_end_comes_after_them() {
        let (outbox, body, _signals) = pair();
        for part in ["a", "b", "c"] {
            assert_eq!(outbox.offer(&Bytes::from_static(part.as_bytes())), Ok(true));
        }
        drop(outbox);
        assert_eq!(body.collect().await.expect("infallible").to_bytes(), "abc");
    }

    #[tokio::test]
    async fn a_full_outbox_turns_away_and_says_once_when_there_is_room() {
        let (outbox, mut body, signals) = pair();
        let block = Bytes::from(vec![b'x'; HIGH_WATER]);
        assert_eq!(outbox.offer(&block), Ok(true));
        assert_eq!(outbox.offer(&block), Ok(false));
        assert!(signals.try_recv().is_err());
        assert!(body.frame().await.is_some());
        assert_eq!(signals.try_recv(), Ok(Signal::Drained));
        assert!(signals.try_recv().is_err());
        drop(body);
        assert_eq!(signals.try_recv(), Ok(Signal::Closed));
        assert_eq!(outbox.offer(&block), Err(ReaderGone));
    }
}
