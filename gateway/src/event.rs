//! What a publisher sends, checked once at the edge: nothing behind this needs to check again.

use crate::traceparent::Traceparent;
use bytes::Bytes;
use std::sync::Arc;

/// The longest event type, in bytes.
pub const MAX_TYPE_BYTES: usize = 200;

/// The type of an event that was given none, as the standard names it.
pub const DEFAULT_TYPE: &str = "message";

/// One event's content. Its type holds no line break and its data is UTF-8, so that any encoding of it is well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    event_type: Option<Arc<str>>,
    data: Bytes,
    retry: Option<u32>,
    traceparent: Option<Box<Traceparent>>,
}

/// Why something cannot be an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEvent {
    #[error("an event's type is at most {MAX_TYPE_BYTES} bytes, this one has {0}")]
    TypeTooLong(usize),
    #[error("an event's type has no CR, LF or NUL, this one has {0:?}")]
    TypeCharacter(char),
    #[error("an event's data is UTF-8; this is not, from byte {0} on")]
    NotUtf8(usize),
    #[error("an event's data is text; this JSON string is none: {0}")]
    NotText(String),
}

impl Event {
    /// Checks a type and data. An empty type and `message` are the same as none.
    ///
    /// # Errors
    /// When the type is longer than [`MAX_TYPE_BYTES`] or has a CR, LF or NUL, or the data is not UTF-8.
    pub fn new(event_type: Option<&str>, data: Bytes) -> Result<Self, InvalidEvent> {
        let event_type = match event_type {
            None | Some("" | DEFAULT_TYPE) => None,
            Some(text) if text.len() > MAX_TYPE_BYTES => return Err(InvalidEvent::TypeTooLong(text.len())),
            Some(text) => {
                if let Some(bad) = text.chars().find(|c| matches!(c, '\r' | '\n' | '\0')) {
                    return Err(InvalidEvent::TypeCharacter(bad));
                }
                Some(Arc::from(text))
            }
        };
        std::str::from_utf8(&data).map_err(|e| InvalidEvent::NotUtf8(e.valid_up_to()))?;
        Ok(Self { event_type, data, retry: None, traceparent: None })
    }

    /// Sets the reconnection time, in milliseconds, that travels with the event as a `retry:` line.
    #[must_use]
    pub fn with_retry(mut self, retry_ms: Option<u32>) -> Self {
        self.retry = retry_ms;
        self
    }

    /// Sets the span that the event comes from.
    #[must_use]
    pub fn traced(mut self, traceparent: Option<Traceparent>) -> Self {
        self.set_traceparent(traceparent);
        self
    }

    /// The same of one that is there.
    pub fn set_traceparent(&mut self, traceparent: Option<Traceparent>) {
        self.traceparent = traceparent.map(Box::new);
    }

    /// The span that the event comes from, where somebody keeps its trace.
    #[must_use]
    pub fn traceparent(&self) -> Option<&Traceparent> {
        self.traceparent.as_deref()
    }

    /// The type, `None` for the standard's `message`.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        self.event_type.as_deref()
    }

    #[must_use]
    pub fn data(&self) -> &str {
        // Checked in `new`, the only way to make one; the fallback keeps this free of panics.
        std::str::from_utf8(&self.data).unwrap_or_default()
    }

    #[must_use]
    pub fn data_bytes(&self) -> &Bytes {
        &self.data
    }

    /// The reconnection time in milliseconds, if the publisher set one.
    #[must_use]
    pub fn retry_ms(&self) -> Option<u32> {
        self.retry
    }

    /// Bytes of content: what limits are counted in.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len() + self.event_type.as_ref().map_or(0, |t| t.len())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_one_line() {
        for bad in ["a\nb", "a\rb", "a\0b"] {
            assert!(matches!(Event::new(Some(bad), Bytes::new()), Err(InvalidEvent::TypeCharacter(_))));
        }
        assert_eq!(Event::new(Some(&"x".repeat(201)), Bytes::new()), Err(InvalidEvent::TypeTooLong(201)));
        assert_eq!(Event::new(Some("message"), Bytes::new()).expect("valid").event_type(), None);
        assert_eq!(Event::new(Some("update"), Bytes::new()).expect("valid").event_type(), Some("update"));
    }

    #[test]
    fn data_is_utf8() {
        assert_eq!(Event::new(None, Bytes::from_static(b"ok\xff")), Err(InvalidEvent::NotUtf8(2)));
    }
}
