//! One stream as it is read: HTTP, then event stream lines, then stamps.

use super::{
    decoder::Decoder,
    ledger::Ledger,
    lines::{Line, Lines},
    response::{Encoding, Head, Piece, Response},
    stamp::Stamp,
};

/// Why a stream has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ended {
    #[error("the server closed it")]
    Closed,
    #[error("it was answered {0}")]
    Status(u16),
    #[error("it was answered with something other than text/event-stream")]
    NoEventStream,
    #[error("its encoding is none that can be decoded")]
    Encoding,
    #[error("what came is not HTTP/1.1, or no event stream")]
    Malformed,
    #[error("{0}")]
    Socket(std::io::ErrorKind),
}

/// A stream's place in everything. Some tens of bytes, as there are tens of thousands; what is larger is kept only
/// while an event is cut.
#[derive(Debug)]
pub(super) struct Reader {
    channel: u32,
    /// The place in the channel's order of the event that comes next.
    next: u32,
    response: Response,
    lines: Lines,
    is_open: bool,
    decoder: Option<Box<Decoder>>,
    partial: Option<Box<Partial>>,
}

/// What reading needs besides, empty before and after it; shared by all streams.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    partial: Box<Partial>,
    decoded: Vec<u8>,
}

/// What has come of a head, or of an event, that is not whole yet.
#[derive(Debug, Default)]
struct Partial {
    bytes: Vec<u8>,
    stamps: Vec<Stamp>,
    has_data: bool,
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.stamps.is_empty() && !self.has_data
    }
}

impl Reader {
    pub(super) fn new(channel: u32) -> Self {
        let (response, lines) = (Response::START, Lines::default());
        Self { channel, next: 0, response, lines, is_open: false, decoder: None, partial: None }
    }

    pub(super) fn channel(&self) -> u32 {
        self.channel
    }

    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// The head has come, and it is that of an event stream.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Takes bytes of an HTTP/1.1 connection that came at this time.
    pub(super) fn take(
        &mut self,
        stream: u32,
        mut bytes: &[u8],
        at: u64,
        ledger: &mut Ledger,
        scratch: &mut Scratch,
    ) -> Result<(), Ended> {
        self.with_partial(scratch, |reader, scratch| {
            let mut response = reader.response;
            while let Some(piece) =
                response.next(&mut scratch.partial.bytes, &mut bytes).map_err(|_| Ended::Malformed)?
            {
                match piece {
                    Piece::Head(head) => reader.open(head)?,
                    Piece::Body(body) => reader.body(stream, body, at, ledger, scratch)?,
                    Piece::End => return Err(Ended::Closed),
                }
            }
            reader.response = response;
            Ok(())
        })
    }

    /// Takes bytes of the body, where HTTP is read by others.
    pub(super) fn take_body(
        &mut self,
        stream: u32,
        body: &[u8],
        at: u64,
        ledger: &mut Ledger,
        scratch: &mut Scratch,
    ) -> Result<(), Ended> {
        self.with_partial(scratch, |reader, scratch| reader.body(stream, body, at, ledger, scratch))
    }

    fn with_partial(
        &mut self,
        scratch: &mut Scratch,
        take: impl FnOnce(&mut Self, &mut Scratch) -> Result<(), Ended>,
    ) -> Result<(), Ended> {
        if let Some(partial) = self.partial.take() {
            scratch.partial = partial;
        }
        let taken = take(self, scratch);
        if taken.is_err() {
            *scratch = Scratch::default();
        } else if !scratch.partial.is_empty() {
            self.partial = Some(std::mem::take(&mut scratch.partial));
        }
        taken
    }

    /// Takes the head.
    pub(super) fn open(&mut self, head: Head) -> Result<(), Ended> {
        match head {
            Head { status: 200, encoding: Encoding::Other, .. } => return Err(Ended::Encoding),
            Head { status: 200, is_event_stream: true, .. } => {}
            Head { status: 200, .. } => return Err(Ended::NoEventStream),
            Head { status, .. } => return Err(Ended::Status(status)),
        }
        self.decoder = Decoder::new(head.encoding).map_err(|_| Ended::Encoding)?.map(Box::new);
        self.is_open = true;
        Ok(())
    }

    fn body(
        &mut self,
        stream: u32,
        body: &[u8],
        at: u64,
        ledger: &mut Ledger,
        scratch: &mut Scratch,
    ) -> Result<(), Ended> {
        let Self { channel, next, lines, decoder, .. } = self;
        let Scratch { partial, decoded } = scratch;
        let Partial { bytes, stamps, has_data } = &mut **partial;
        decoded.clear();
        let body = match decoder {
            None => body,
            Some(decoder) => {
                decoder.push(body, decoded).map_err(|_| Ended::Malformed)?;
                decoded
            }
        };
        ledger.body_bytes += body.len() as u64;
        let taken = lines.push(bytes, body, |line| match line {
            Line::Data(data) => {
                *has_data = true;
                stamps.extend(ledger.stamps.find(data));
            }
            Line::End => {
                ledger.other_events += u64::from(std::mem::take(has_data) && stamps.is_empty());
                for stamp in stamps.drain(..) {
                    ledger.arrived(stream, *channel, next, stamp, at);
                }
            }
        });
        taken.map_err(|_| Ended::Malformed)
    }
}

#[cfg(test)]
mod tests;
