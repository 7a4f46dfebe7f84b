//! HTTP/1.1 answers, read from bytes that are cut anywhere: the head through httparse, the body by its framing.
//!
//! One of these stands in every stream's state, so it is small; what must be kept of a head that is not whole yet is the
//! caller's buffer, which is empty for all but a moment of a stream's life.

use super::chunked::{self, Chunked};

/// The largest head that is taken.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;

/// How far the reading of one answer is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Response(State);

#[derive(Clone, Copy, Debug)]
enum State {
    Head,
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    End,
}

/// What a head says that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) is_event_stream: bool,
    pub(super) encoding: Encoding,
    /// The connection takes no further request.
    pub(super) closes: bool,
}

/// What a body is compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
    Other,
}

impl Encoding {
    pub(super) fn named(name: &[u8]) -> Self {
        match name {
            b"" => Self::Identity,
            _ if name.eq_ignore_ascii_case(b"identity") => Self::Identity,
            _ if name.eq_ignore_ascii_case(b"gzip") => Self::Gzip,
            _ if name.eq_ignore_ascii_case(b"zstd") => Self::Zstd,
            _ => Self::Other,
        }
    }
}

/// Whether a `Content-Type` is that of an event stream.
pub(super) fn is_event_stream(value: &[u8]) -> bool {
    value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// The next thing in an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Head(Head),
    Body(&'a [u8]),
    /// The answer is complete.
    End,
}

/// The bytes are no HTTP/1.1 answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl From<chunked::Malformed> for Malformed {
    fn from(_: chunked::Malformed) -> Self {
        Self
    }
}

impl Response {
    pub(super) const START: Self = Self(State::Head);

    /// Takes the next piece off the front of `bytes`; `None` when more bytes are needed. `held` keeps what there is of
    /// a head, and is left alone otherwise.
    pub(super) fn next<'a>(
        &mut self,
        held: &mut Vec<u8>,
        bytes: &mut &'a [u8],
    ) -> Result<Option<Piece<'a>>, Malformed> {
        match &mut self.0 {
            State::Head if bytes.is_empty() => Ok(None),
            State::Head => self.head(held, bytes),
            State::Length(0) => self.end(),
            State::Length(left) => {
                let here = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= here as u64;
                Ok(take(bytes, here))
            }
            State::Chunked(chunked) => match chunked.next(bytes)? {
                Some(piece) => Ok(Some(Piece::Body(piece))),
                None if *chunked == Chunked::End => self.end(),
                None => Ok(None),
            },
            State::UntilClose => Ok(take(bytes, bytes.len())),
            State::End => Ok(None),
        }
    }

    /// Whether an answer that was cut here was complete, as one is that only the closing ends.
    pub(super) fn may_end_here(&self) -> bool {
        matches!(self.0, State::UntilClose | State::End)
    }

    fn end<'a>(&mut self) -> Result<Option<Piece<'a>>, Malformed> {
        self.0 = State::End;
        Ok(Some(Piece::End))
    }

    fn head<'a>(&mut self, held: &mut Vec<u8>, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, Malformed> {
        loop {
            let before = held.len();
            held.extend_from_slice(bytes);
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut parsed = httparse::Response::new(&mut headers);
            let length = match parsed.parse(held) {
                Ok(httparse::Status::Complete(length)) => length,
                Ok(httparse::Status::Partial) if held.len() <= MAX_HEAD_BYTES => {
                    *bytes = &[];
                    return Ok(None);
                }
                _ => return Err(Malformed),
            };
            let status = parsed.code.ok_or(Malformed)?;
            let (head, state) = read_head(status, parsed.headers);
            // What was held before was not a whole head, so the end of this one is in the new bytes.
            *bytes = bytes.get(length.saturating_sub(before)..).unwrap_or_default();
            held.clear();
            // Interim answers (100, 103) stand before the one that was asked for.
            if !(100..200).contains(&status) {
                self.0 = state;
                return Ok(Some(Piece::Head(head)));
            }
        }
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<Piece<'a>> {
    let (piece, rest) = bytes.split_at(count);
    *bytes = rest;
    (!piece.is_empty()).then_some(Piece::Body(piece))
}

fn read_head(status: u16, headers: &[httparse::Header<'_>]) -> (Head, State) {
    let mut head = Head { status, is_event_stream: false, encoding: Encoding::Identity, closes: false };
    let mut state = State::UntilClose;
    for header in headers {
        let value = header.value.trim_ascii();
        let has = |token: &[u8]| value.split(|&b| b == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(token));
        match header.name {
            name if name.eq_ignore_ascii_case("transfer-encoding") && has(b"chunked") => {
                state = State::Chunked(Chunked::START);
            }
            name if name.eq_ignore_ascii_case("content-length") && !matches!(state, State::Chunked(_)) => {
                let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                state = length.map_or(State::UntilClose, State::Length);
            }
            name if name.eq_ignore_ascii_case("content-type") => {
                head.is_event_stream = is_event_stream(value);
            }
            name if name.eq_ignore_ascii_case("content-encoding") => {
                head.encoding = Encoding::named(value);
            }
            name if name.eq_ignore_ascii_case("connection") => head.closes |= has(b"close"),
            _ => {}
        }
    }
    if matches!(status, 204 | 304) {
        state = State::Length(0);
    }
    head.closes |= matches!(state, State::UntilClose);
    (head, state)
}

#[cfg(test)]
mod tests;
