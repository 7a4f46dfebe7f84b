//! A parser of `text/event-stream`, as the HTML standard defines it (section 9.2.6, "Interpreting an event stream").
//!
//! Bytes go in, cut anywhere; events come out, the same ones whatever the cuts. Every byte is looked at a bounded
//! number of times, and what is held at once never exceeds the parser's limit. It knows nothing of connections: who
//! reconnects makes a new parser with [`Parser::resuming`].

mod lines;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod promises;

pub(crate) use lines::LineEnds;

use std::{mem, sync::Arc};

/// The largest event that a [`Parser`] takes unless told otherwise, in bytes.
pub const DEFAULT_LIMIT_BYTES: usize = 16 << 20;

/// One dispatched event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The last event ID when the event was dispatched: its own `id:`, or the one that an earlier event left. Shared,
    /// as a stream may name one id and then send any number of events under it.
    pub id: Arc<str>,
    /// The type, `message` if the stream named none.
    pub event: String,
    /// The data, its lines joined by LF.
    pub data: String,
    /// The reconnection time in milliseconds, if this event's block set one. The time in force is
    /// [`Parser::reconnection_time_ms`].
    pub retry: Option<u64>,
}

/// An event, or a line of it, is larger than the parser's limit. Nothing more can be read from this stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream has an event of more than {limit_bytes} bytes")]
pub struct TooLarge {
    pub limit_bytes: usize,
}

/// The state of one stream.
#[derive(Debug)]
pub struct Parser {
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    line_ends: LineEnds,
    /// No line has been read yet: a byte order mark may stand before the first.
    at_start: bool,
    data: String,
    event_type: String,
    /// What the stream says the id will be; becomes `last_event_id` only when a block ends, so that a block cut short
    /// does not move the place to resume from.
    id_buffer: Arc<str>,
    block_retry_ms: Option<u64>,
    last_event_id: Arc<str>,
    reconnection_time_ms: Option<u64>,
    limit_bytes: usize,
    failed: bool,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// A parser at the beginning of a stream, with a limit of [`DEFAULT_LIMIT_BYTES`].
    #[must_use]
    pub fn new() -> Self {
        Self::resuming("")
    }

    /// A parser of the stream that follows a reconnection: until the stream names another, the last event ID is the
    /// one that an earlier stream left, as in browsers.
    #[must_use]
    pub fn resuming(last_event_id: &str) -> Self {
        let last_event_id: Arc<str> = Arc::from(last_event_id);
        Self {
            line: Vec::new(),
            line_ends: LineEnds::default(),
            at_start: true,
            data: String::new(),
            event_type: String::new(),
            id_buffer: Arc::clone(&last_event_id),
            block_retry_ms: None,
            last_event_id,
            reconnection_time_ms: None,
            limit_bytes: DEFAULT_LIMIT_BYTES,
            failed: false,
        }
    }

    /// Sets how many bytes one event, with its unfinished line, may have.
    #[must_use]
    pub fn with_limit(mut self, limit_bytes: usize) -> Self {
        self.limit_bytes = limit_bytes;
        self
    }

    /// The value to send as `Last-Event-ID` when reconnecting; empty if there is none. It can change without an event:
    /// a block of an `id:` and no data sets it.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The last `retry:` of the stream, in milliseconds.
    #[must_use]
    pub fn reconnection_time_ms(&self) -> Option<u64> {
        self.reconnection_time_ms
    }

    /// Reads the next bytes of the stream and appends the events that they complete to `events`. What is incomplete
    /// when the stream ends is dropped with the parser, as the standard wants.
    ///
    /// # Errors
    /// When an event or a line is larger than the limit, now and on every later call. The events before it have been
    /// appended.
    pub fn push(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) -> Result<(), TooLarge> {
        self.check_limit(0)?;
        while let Some(rest) = self.line_ends.next(&mut bytes) {
            self.check_limit(rest.len())?;
            if self.line.is_empty() {
                self.take_line(rest, events);
            } else {
                let mut line = mem::take(&mut self.line);
                line.extend_from_slice(rest);
                self.take_line(&line, events);
                line.clear();
                self.line = line;
            }
            self.check_limit(0)?;
        }
        self.check_limit(bytes.len())?;
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn check_limit(&mut self, more: usize) -> Result<(), TooLarge> {
        let held = self.line.len() + self.data.len() + self.event_type.len() + self.id_buffer.len();
        self.failed |= held + more > self.limit_bytes;
        if self.failed { Err(TooLarge { limit_bytes: self.limit_bytes }) } else { Ok(()) }
    }

    fn take_line(&mut self, mut line: &[u8], events: &mut Vec<Event>) {
        if mem::take(&mut self.at_start) {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        if line.is_empty() {
            events.extend(self.end_block());
            return;
        }
        // Decoding line by line is the same as decoding the stream: CR and LF never stand inside a UTF-8 sequence.
        let line = String::from_utf8_lossy(line);
        match line.split_once(':') {
            Some(("", _comment)) => {}
            Some((field, value)) => self.take_field(field, value.strip_prefix(' ').unwrap_or(value)),
            None => self.take_field(&line, ""),
        }
    }

    fn take_field(&mut self, field: &str, value: &str) {
        match field {
            "event" => value.clone_into(&mut self.event_type),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id_buffer = Arc::from(value),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                let ms = value.parse().unwrap_or(u64::MAX); // Only digits, so all that can be wrong is their number.
                self.block_retry_ms = Some(ms);
                self.reconnection_time_ms = Some(ms);
            }
            _ => {}
        }
    }

    fn end_block(&mut self) -> Option<Event> {
        self.last_event_id = Arc::clone(&self.id_buffer);
        let retry = self.block_retry_ms.take();
        let mut event = mem::take(&mut self.event_type);
        let mut data = mem::take(&mut self.data);
        // Every data line left an LF: the last one is not part of the data, and none at all means no data line.
        data.pop()?;
        if event.is_empty() {
            event.push_str("message");
        }
        Some(Event { id: Arc::clone(&self.last_event_id), event, data, retry })
    }
}

#[cfg(test)]
mod tests;
