//! What is said on a channel's pub/sub channel, and how to tell it from what anybody may `PUBLISH` there.
//!
//! An announcement begins with the byte 0xFF, which no UTF-8 text contains, and a version. Version 1:
//! `FF 01 <µs>-<seq> <µs of the entry before> <type> LF <data>`, where `seq` 0 means an event without position. Version 2
//! is the same with the event's traceparent before its type. `FF 00`
//! says to look into the log, and so does, to an older build, a version that it does not know. Anything else is a raw payload: its data, or a JSON object with `data` and nothing but `event`, `data` and `retry` beside it.
//!
//! Reading never fails in a way that could stop a link: whatever bytes come are an [`Announced`].

use crate::{
    event::{Event, InvalidEvent},
    position::Position,
    traceparent::Traceparent,
};
use bytes::Bytes;
use serde_json::value::RawValue;

/// The byte that no text begins with.
pub const MARK: u8 = 0xff;
/// The version that this build writes and reads.
pub const VERSION: u8 = 1;
/// The same for events of a trace.
pub const TRACED: u8 = 2;

/// In a version's place: look into the log.
pub const LOOK: u8 = 0;

/// A message on a channel.
#[derive(Clone, Debug)]
pub enum Announced {
    /// An entry of the channel's history; `prev` is the time of the entry before it.
    Entry { at: Position, prev: u64, event: Event },
    /// An event without position, from a gateway or the CLI; published at this time, in µs.
    Plain { published: u64, event: Event },
    /// A raw `PUBLISH`.
    Raw { event: Event },
    /// Something stands in the log that is not announced itself: read it.
    Look,
    /// An announcement of a version that this build does not know, or a damaged one: something was published.
    Unreadable,
    /// A raw payload that cannot be an event; says why.
    Refused(String),
}

impl Announced {
    /// The event, if it is here.
    #[must_use]
    pub fn event(&self) -> Option<&Event> {
        match self {
            Self::Entry { event, .. } | Self::Plain { event, .. } | Self::Raw { event } => Some(event),
            Self::Look | Self::Unreadable | Self::Refused(_) => None,
        }
    }
}

/// Writes an announcement.
#[must_use]
pub fn encode(at: Position, prev: u64, event: &Event) -> Bytes {
    let traceparent = event.traceparent().map(|span| format!("{span} "));
    let mut out = vec![MARK, if traceparent.is_some() { TRACED } else { VERSION }];
    out.extend_from_slice(format!("{at} {prev} {}", traceparent.unwrap_or_default()).as_bytes());
    out.extend_from_slice(event.event_type().unwrap_or_default().as_bytes());
    out.push(b'\n');
    out.extend_from_slice(event.data_bytes());
    out.into()
}

/// Writes that something stands in the log that is to be read there.
#[must_use]
pub fn look() -> Bytes {
    vec![MARK, LOOK].into()
}

/// Reads whatever came on a channel. `max_bytes` bounds an event's content.
#[must_use]
pub fn decode(payload: Bytes, max_bytes: usize) -> Announced {
    if payload.first() == Some(&MARK) {
        return decode_marked(&payload).unwrap_or(Announced::Unreadable);
    }
    if payload.len() > 2 * max_bytes + 1024 {
        return Announced::Refused(format!("{} bytes, where {max_bytes} are allowed", payload.len()));
    }
    match decode_raw(payload) {
        Ok(event) if event.len() > max_bytes => {
            Announced::Refused(format!("{} bytes, where {max_bytes} are allowed", event.len()))
        }
        Ok(event) => Announced::Raw { event },
        Err(invalid) => Announced::Refused(invalid.to_string()),
    }
}

fn decode_marked(payload: &Bytes) -> Option<Announced> {
    let is_traced = match payload.get(1) {
        Some(&LOOK) => return Some(Announced::Look),
        Some(&VERSION) => false,
        Some(&TRACED) => true,
        _ => return None,
    };
    let header_end = payload.iter().position(|&b| b == b'\n')?;
    let header = std::str::from_utf8(&payload[2..header_end]).ok()?;
    let mut fields = header.splitn(3, ' ');
    let at: Position = fields.next()?.parse().ok()?;
    let prev: u64 = fields.next()?.parse().ok()?;
    let rest = fields.next()?;
    let (span, event_type) = if is_traced { rest.split_once(' ')? } else { ("", rest) };
    let event = Event::new(Some(event_type), payload.slice(header_end + 1..)).ok()?.traced(Traceparent::parse(span));
    Some(match at.seq {
        0 => Announced::Plain { published: at.micros, event },
        _ => Announced::Entry { at, prev, event },
    })
}

fn decode_raw(payload: Bytes) -> Result<Event, InvalidEvent> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
        #[serde(default)]
        event: Option<String>,
        #[serde(default)]
        retry: Option<u32>,
    }
    let looks_like_an_object = payload.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    if looks_like_an_object && let Ok(raw) = serde_json::from_slice::<Raw<'_>>(&payload) {
        let data = json_data(raw.data)?;
        return Ok(Event::new(raw.event.as_deref(), data)?.with_retry(raw.retry));
    }
    Event::new(None, payload)
}

/// The data that a JSON value stands for: a string is sent as it is, any other value as compact JSON, its numbers and
/// the order of its keys untouched.
///
/// # Errors
/// When it is a string that no UTF-8 text is, for half a surrogate pair in it.
pub fn json_data(value: &RawValue) -> Result<Bytes, InvalidEvent> {
    let text = value.get();
    if text.starts_with('"') {
        let string = serde_json::from_str::<String>(text);
        return string.map(Into::into).map_err(|error| InvalidEvent::NotText(error.to_string()));
    }
    let mut compact = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in text.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c == '"' {
            in_string = true;
        } else if c.is_ascii_whitespace() {
            continue;
        }
        compact.push(c);
    }
    Ok(compact.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(payload: &str) -> Event {
        match decode(Bytes::copy_from_slice(payload.as_bytes()), 1000) {
            Announced::Raw { event } => event,
            other => panic!("{payload}: {other:?}"),
        }
    }

    #[test]
    fn a_raw_payload_is_its_data_or_a_json_event() {
        assert_eq!(raw("hello").data(), "hello");
        assert_eq!(raw("{\"a\":1}").data(), "{\"a\":1}");
        assert_eq!(raw("{\"data\":\"x\",\"id\":1}").data(), "{\"data\":\"x\",\"id\":1}");
        assert_eq!(raw("{\"event\":\"e\"}").data(), "{\"event\":\"e\"}");
        let event = raw(" {\"data\": {\"n\": 1.50, \"s\": \"a \\\" b\"}, \"event\":\"update\", \"retry\":5}");
        assert_eq!(event.data(), "{\"n\":1.50,\"s\":\"a \\\" b\"}");
        assert_eq!((event.event_type(), event.retry_ms()), (Some("update"), Some(5)));
    }

    #[test]
    fn what_cannot_be_an_event_is_refused_and_what_is_newer_is_unreadable() {
        assert!(matches!(decode(Bytes::from_static(b"a\xff"), 9), Announced::Refused(_)));
        assert!(matches!(decode(Bytes::from(vec![b'a'; 10]), 9), Announced::Refused(_)));
        assert!(matches!(decode(Bytes::from_static(b"{\"data\":1,\"event\":\"a\\nb\"}"), 99), Announced::Refused(_)));
        for damaged in [
            &b"\xff"[..],
            b"\xff\x02rest",
            b"\xff\x021-1 0 type\n",
            b"\xff\x03rest",
            b"\xff\x011-1 0",
            b"\xff\x01x 0 \n",
            b"\xff\x011-1 0 \n\xff",
        ] {
            assert!(matches!(decode(Bytes::copy_from_slice(damaged), 99), Announced::Unreadable), "{damaged:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(micros in 0u64..1 << 53, seq in 1u64.., prev in any::<u64>(), kind in "[^\r\n\0]{0,9}", data in ".*", span in any::<Option<u64>>()) {
            let span = span.and_then(|span| Traceparent::parse(&format!("00-{:032x}-{span:016x}-01", u128::MAX)));
            let event = Event::new(Some(&kind), data.into()).expect("valid").traced(span);
            let position = Position::new(micros, seq);
            match decode(encode(position, prev, &event), 0) {
                Announced::Entry { at, prev: before, event: read } => {
                    prop_assert_eq!((at, before, read), (position, prev, event));
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
