//! The answers that hyper gives by itself to heads that it does not read, with a body that says what to do.
//!
//! What is so long never becomes a request, and what hyper writes then has a status and nothing else. It is known by that
//! where it is written: no answer of ours is empty with one of these statuses.

use super::{App, body::Body, cors, problem::Problem, raw, route::count};
use bytes::{Buf, Bytes};
use hyper::header::{CONNECTION, HeaderValue};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest target that hyper reads.
const MAX_TARGET_BYTES: usize = 65_534;
/// The most headers that hyper reads.
const MAX_HEADERS: usize = 100;

/// See the module's documentation.
pub(super) struct Explained<S> {
    pub(super) stream: S,
    app: Arc<App>,
    /// What is written instead.
    left: Bytes,
}

impl<S> Explained<S> {
    pub(super) fn new(stream: S, app: Arc<App>) -> Self {
        Self { stream, app, left: Bytes::new() }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Explained<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.left.is_empty() {
            match explanation(&this.app, bytes) {
                Some(whole) => this.left = whole,
                None => return Pin::new(&mut this.stream).poll_write(context, bytes),
            }
        }
        while !this.left.is_empty() {
            match Pin::new(&mut this.stream).poll_write(context, &this.left) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => this.left.advance(count),
                // The same bytes are given again.
                other => return other,
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Explained<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

/// The whole answer to write instead of a bare refusal.
fn explanation(app: &App, bytes: &[u8]) -> Option<Bytes> {
    let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let is_bare = || {
        let mut lines = bytes.split(|&byte| byte == b'\n');
        lines.any(|line| line.eq_ignore_ascii_case(b"content-length: 0\r")) && bytes.ends_with(b"\r\n\r\n")
    };
    let problem = match status {
        b"414" if is_bare() => Problem::target_too_long(format!("the URL has more than {MAX_TARGET_BYTES} bytes")),
        b"431" if is_bare() => Problem::headers_too_large(format!(
            "the request has more than {MAX_HEADERS} headers, or a head much larger than `http.max_header_bytes` \
             allows: {}",
            app.config.http.max_header_bytes.get()
        )),
        _ => return None,
    };
    let mut response = problem.into_response();
    count(app, &response);
    cors::add(&app.config, None, response.headers_mut());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let body = match response.body() {
        Body::Full(body) => body.clone(),
        _ => Bytes::new(),
    };
    Some(raw::whole(&response, &body).into())
}
