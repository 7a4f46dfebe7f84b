//! The body of an answer: bytes that are known, or a stream that a shard feeds.

use super::connection::Handoff;
use crate::{hub::Share, sse::outbox::OutboxBody};
use bytes::Bytes;
use http_body_util::{BodyExt, Collected};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

pub(super) enum Body {
    Full(Bytes),
    /// A large one, and the memory that it takes.
    Held {
        bytes: Bytes,
        _share: Share,
    },
    Stream(OutboxBody),
    /// None: the socket is to be a shard's, which writes the answer.
    Leaves(Box<Handoff>),
}

/// How much of a large body is given to hyper at a time, which copies it: the rest stays here until that is written.
const PIECE: usize = 64 * 1024;

impl Body {
    /// Whether it goes on for as long as its client stays.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    pub(super) fn empty() -> Self {
        Self::Full(Bytes::new())
    }

    /// All of it.
    pub(super) async fn whole(self) -> Bytes {
        match self {
            Self::Full(bytes) => bytes,
            other => other.collect().await.map(Collected::to_bytes).unwrap_or_default(),
        }
    }

    /// The same, keeping `share` until the last of it is on its way.
    pub(super) fn holding(self, share: Share) -> Self {
        match self {
            Self::Full(bytes) => Self::Held { bytes, _share: share },
            other => other,
        }
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self::Full(bytes.into())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Leaves(_) => Poll::Ready(None),
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Held { bytes, .. } if bytes.is_empty() => Poll::Ready(None),
            Self::Held { bytes, .. } => Poll::Ready(Some(Ok(Frame::data(bytes.split_to(bytes.len().min(PIECE)))))),
            Self::Stream(stream) => Pin::new(stream).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(bytes) | Self::Held { bytes, .. } if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) | Self::Held { bytes, .. } => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) | Self::Leaves(_) => SizeHint::default(),
        }
    }
}
