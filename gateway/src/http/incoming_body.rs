//! Bodies of requests: read within their limits, in time, and together within the memory that there is for them.

use super::{App, pending::Seat, problem::Problem};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    Request,
    body::{Body as HttpBody, Frame, Incoming},
    header::{CONTENT_ENCODING, CONTENT_LENGTH},
};
use std::{
    error::Error,
    ops::Deref,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

/// A request's body.
pub(super) enum Sent {
    /// It comes as hyper reads it.
    Coming(Incoming),
    /// It came with its head.
    Whole(Bytes),
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Coming(incoming) => Pin::new(incoming).poll_frame(context),
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Coming(incoming) => incoming.is_end_stream(),
            Self::Whole(bytes) => bytes.is_empty(),
        }
    }
}

/// Memory for bodies that are being received or published, of all connections.
pub(super) struct Memory {
    most: usize,
    held: AtomicUsize,
}

impl Memory {
    pub(super) fn new(most: usize) -> Self {
        Self { most, held: AtomicUsize::new(0) }
    }

    fn take(&self, bytes: usize) -> bool {
        let take = |held: usize| Some(held + bytes).filter(|&sum| sum <= self.most);
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }
}

/// A body, and the memory that it takes until it is dropped.
pub(super) struct Received<'a> {
    /// All of it, where it came in one piece, as nearly every one does.
    first: Bytes,
    /// All of it, where it did not.
    joined: BytesMut,
    memory: &'a Memory,
}

impl<'a> Received<'a> {
    fn new(memory: &'a Memory) -> Self {
        Self { first: Bytes::new(), joined: BytesMut::new(), memory }
    }

    fn push(&mut self, more: Bytes) -> Result<(), Failure> {
        if !self.memory.take(more.len()) {
            return Err(Failure::NoMemory);
        }
        if self.is_empty() {
            self.first = more;
        } else {
            // Copied: many pieces of larger buffers would hold all of these, however small they are.
            self.joined.extend_from_slice(&std::mem::take(&mut self.first));
            self.joined.extend_from_slice(&more);
        }
        Ok(())
    }
}

impl Deref for Received<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.joined.is_empty() { &self.first } else { &self.joined }
    }
}

impl Drop for Received<'_> {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.len(), Ordering::AcqRel);
    }
}

enum Failure {
    NoMemory,
    Body(Box<dyn Error + Send + Sync>),
}

/// Reads a request's body.
///
/// # Errors
/// When it has more than `most` bytes, does not come in time, or comes while others' bodies take all the memory.
pub(super) async fn receive<'a>(
    app: &'a App,
    seat: &Arc<Seat>,
    request: Request<Sent>,
    most: usize,
) -> Result<Received<'a>, Problem> {
    let too_large = || Problem::too_large(format!("the body has more than the {most} bytes that are allowed"));
    if let Some(encoding) = request.headers().get(CONTENT_ENCODING)
        && encoding.as_bytes() != b"identity"
    {
        return Err(Problem::unsupported("bodies are taken as they are: send no `Content-Encoding`"));
    }
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most as u64) {
        return Err(too_large());
    }
    let mut reading = pin!(read(Limited::new(request.into_body(), most), &app.bodies));
    // Most bodies are there with their heads, and need no timer.
    let read = match reading.as_mut().now_or_never() {
        Some(read) => Ok(read),
        None => {
            let _waiting = seat.waiting();
            tokio::time::timeout(app.config.http.body_timeout, reading).await
        }
    };
    match read {
        Err(_) => Err(Problem::timed_out("the body did not arrive in time")),
        Ok(Err(Failure::NoMemory)) => {
            app.metrics.publish_refused.with_label_values(&["memory"]).inc();
            Err(Problem::overloaded("other requests' bodies take all of `limits.body_bytes` just now"))
        }
        Ok(Err(Failure::Body(error))) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(Failure::Body(error))) => Err(Problem::invalid_request(format!("the body could not be read: {error}"))),
        Ok(Ok(received)) => Ok(received),
    }
}

async fn read(mut body: Limited<Sent>, memory: &Memory) -> Result<Received<'_>, Failure> {
    let mut received = Received::new(memory);
    while let Some(frame) = body.frame().await {
        // Trailers mean nothing here.
        if let Ok(data) = frame.map_err(Failure::Body)?.into_data() {
            received.push(data)?;
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_taken_as_bytes_come_and_given_back_with_the_body() {
        let memory = Memory::new(10);
        let mut first = Received::new(&memory);
        let push = |body: &mut Received<'_>, bytes: &'static [u8]| body.push(Bytes::from_static(bytes));
        assert!(
            push(&mut first, b"12345").is_ok() && push(&mut first, b"67").is_ok() && push(&mut first, b"8").is_ok()
        );
        let mut second = Received::new(&memory);
        assert!(push(&mut second, b"12").is_ok());
        assert!(matches!(push(&mut second, b"3"), Err(Failure::NoMemory)));
        assert_eq!((&first[..], &second[..]), (&b"12345678"[..], &b"12"[..]));
        drop(first);
        assert!(push(&mut second, b"3").is_ok());
        drop(second);
        assert_eq!(memory.held.load(Ordering::Acquire), 0);
    }
}
