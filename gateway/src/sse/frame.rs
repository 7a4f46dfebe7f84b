//! One event encoded as bytes, once, and shared by every connection that is sent it.
//!
//! A frame is encoded when the first connection of a format needs it. The encoding always ends in what a client needs
//! to see the event at once, and holds the `id` of a connection with this one positioned channel; a connection with
//! several has an id of its own and takes the [`Parts`] around it.

mod compressed;

use super::compress::{Blocks, Chains};
use crate::{channel::Channel, event::Event, position::Position, sse::cursor};
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::{Arc, OnceLock};

/// How a connection wants its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `text/event-stream`, the data as it was published.
    Sse,
    /// `text/event-stream`, the data wrapped in JSON that names the channel.
    Envelope,
    /// `application/x-ndjson`, a line of JSON for each event.
    Ndjson,
}

/// Why continuity could not be proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// History no longer reaches back to where the client stood.
    Trimmed,
    /// The history is another one: wiped, or forked by a failover that lost its end.
    Reset,
    /// More came than could be held for the client, and the channel's policy, or its want of a history, is to go on.
    Overflow,
    /// The client's cursor cannot be read.
    Cursor,
    /// The channel's subscription was cut, and without a history nobody knows what was missed.
    Cut,
}

impl GapReason {
    /// Every reason, for metrics and docs.
    pub const ALL: [Self; 5] = [Self::Trimmed, Self::Reset, Self::Overflow, Self::Cursor, Self::Cut];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Reset => "reset",
            Self::Overflow => "overflow",
            Self::Cursor => "cursor",
            Self::Cut => "cut",
        }
    }
}

/// What a frame says.
#[derive(Clone, Debug)]
pub enum Content {
    Event(Event),
    /// Events after `from`, up to and with `to`, are lost or unknown.
    Gap {
        reason: GapReason,
        from: Option<Position>,
        to: Option<Position>,
    },
}

/// One event or gap of one channel.
#[derive(Debug)]
pub struct Frame {
    channel: Channel,
    /// Where a client stands that was sent this; `None` for an event without position.
    at: Option<Position>,
    /// The time of the entry before, from the log; means nothing without a position or for a gap.
    prev: u64,
    /// When it was published, in microseconds since the epoch, by the broker's clock (by ours without position).
    published: u64,
    content: Content,
    sse: OnceLock<Encoded>,
    /// Boxed, as hardly any frame has them, and many frames are kept.
    envelope: OnceLock<Box<Encoded>>,
    ndjson: OnceLock<Box<Encoded>>,
    /// The channel's chains, and the frame's number among those that its feed has passed on.
    chained: Option<(Arc<Chains>, u64)>,
    blocks: Blocks,
}

#[derive(Debug, Clone)]
struct Encoded {
    bytes: Bytes,
    id_start: usize,
    id_end: usize,
}

/// An encoding around its id: what stands before the cursor, and after.
#[derive(Debug, Clone)]
pub struct Parts {
    pub before_id: Bytes,
    pub after_id: Bytes,
}

impl Frame {
    /// An event that stands in its channel's history at `at`, after an entry of the time `prev`.
    #[must_use]
    pub fn positioned(channel: Channel, at: Position, prev: u64, event: Event) -> Self {
        Self::build(channel, Some(at), prev, at.micros, Content::Event(event))
    }

    /// An event without position, published (or received) at `published` µs.
    #[must_use]
    pub fn unpositioned(channel: Channel, published: u64, event: Event) -> Self {
        Self::build(channel, None, 0, published, Content::Event(event))
    }

    /// Says that what lies after `from`, up to `to`, cannot be shown; the stream goes on after `to`.
    #[must_use]
    pub fn gap(channel: Channel, reason: GapReason, from: Option<Position>, to: Option<Position>) -> Self {
        let published = to.map_or(0, |to| to.micros);
        Self::build(channel, to, 0, published, Content::Gap { reason, from, to })
    }

    /// The same where older events than `to` follow: a client that was sent this stands where it stood.
    #[must_use]
    pub fn gap_among(channel: Channel, reason: GapReason, from: Option<Position>, to: Option<Position>) -> Self {
        let published = to.map_or(0, |to| to.micros);
        Self::build(channel, None, 0, published, Content::Gap { reason, from, to })
    }

    fn build(channel: Channel, at: Option<Position>, prev: u64, published: u64, content: Content) -> Self {
        let (sse, envelope, ndjson) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let blocks = Blocks::default();
        Self { channel, at, prev, published, content, sse, envelope, ndjson, chained: None, blocks }
    }

    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Where a client stands that was sent this.
    #[must_use]
    pub fn at(&self) -> Option<Position> {
        self.at
    }

    #[must_use]
    pub fn prev(&self) -> u64 {
        self.prev
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.published
    }

    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    #[must_use]
    pub fn is_event(&self) -> bool {
        matches!(self.content, Content::Event(_))
    }

    /// Bytes that this frame is counted with where memory is bounded: its content, one encoding of it, and what the
    /// allocator and those who keep it need beside.
    #[must_use]
    pub fn weight(&self) -> usize {
        let content = match &self.content {
            Content::Event(event) => event.len(),
            Content::Gap { .. } => 64,
        };
        Self::weight_of(content)
    }

    /// The same of an event of `content` bytes.
    #[must_use]
    pub const fn weight_of(content: usize) -> usize {
        2 * content + 448
    }

    /// Near the size of an encoding: frames are kept, and so is the room that they do not need.
    fn size_hint(&self) -> usize {
        let content = match &self.content {
            Content::Event(event) => event.len(),
            Content::Gap { .. } => 64,
        };
        content + 96
    }

    /// The whole encoding, with the id of a connection that has this one positioned channel.
    #[must_use]
    pub fn bytes(&self, format: Format) -> &Bytes {
        &self.encoded(format).bytes
    }

    /// The encoding without its id, to put another one in.
    #[must_use]
    pub fn parts(&self, format: Format) -> Parts {
        let encoded = self.encoded(format);
        Parts { before_id: encoded.bytes.slice(..encoded.id_start), after_id: encoded.bytes.slice(encoded.id_end..) }
    }

    fn encoded(&self, format: Format) -> &Encoded {
        match format {
            Format::Sse => self.sse.get_or_init(|| self.encode_sse(false)),
            Format::Envelope => self.envelope.get_or_init(|| Box::new(self.encode_sse(true))),
            Format::Ndjson => self.ndjson.get_or_init(|| Box::new(self.encode_ndjson())),
        }
    }

    fn own_id(&self) -> Option<String> {
        self.at.map(|at| {
            let mut id = String::with_capacity(40);
            cursor::write_component(&mut id, &self.channel, at, false);
            id
        })
    }

    fn event_type(&self) -> Option<&str> {
        match &self.content {
            Content::Event(event) => event.event_type(),
            Content::Gap { .. } => Some("gap"),
        }
    }

    fn data(&self) -> std::borrow::Cow<'_, str> {
        match &self.content {
            Content::Event(event) => event.data().into(),
            Content::Gap { reason, from, to } => serde_json::json!({
                "channel": self.channel, "reason": reason.as_str(), "from": from, "to": to,
            })
            .to_string()
            .into(),
        }
    }

    fn encode_sse(&self, envelope: bool) -> Encoded {
        let mut out = BytesMut::with_capacity(self.size_hint());
        let (mut id_start, mut id_end) = (0, 0);
        if let Some(id) = self.own_id() {
            out.put_slice(b"id: ");
            id_start = out.len();
            out.put_slice(id.as_bytes());
            id_end = out.len();
            out.put_u8(b'\n');
        }
        if let Some(event_type) = self.event_type() {
            out.put_slice(b"event: ");
            out.put_slice(event_type.as_bytes());
            out.put_u8(b'\n');
        }
        if let Content::Event(event) = &self.content
            && let Some(retry) = event.retry_ms()
        {
            out.put_slice(format!("retry: {retry}\n").as_bytes());
        }
        let data = self.data();
        if envelope && self.is_event() {
            out.put_slice(b"data: ");
            self.put_json(&mut out, &data);
            out.put_slice(b"}\n");
        } else {
            for_each_line(&data, |line| {
                out.put_slice(b"data: ");
                out.put_slice(line.as_bytes());
                out.put_u8(b'\n');
            });
        }
        out.put_u8(b'\n');
        Encoded { bytes: out.freeze(), id_start, id_end }
    }

    fn encode_ndjson(&self) -> Encoded {
        let mut out = BytesMut::with_capacity(self.size_hint());
        self.put_json(&mut out, &self.data());
        let Some(id) = self.own_id() else {
            let at = out.len();
            out.put_slice(b",\"id\":null}\n");
            return Encoded { bytes: out.freeze(), id_start: at, id_end: at };
        };
        out.put_slice(b",\"id\":\"");
        let id_start = out.len();
        out.put_slice(id.as_bytes());
        let id_end = out.len();
        out.put_slice(b"\"}\n");
        Encoded { bytes: out.freeze(), id_start, id_end }
    }

    /// `{"channel":…,"event":…,"data":…`, and the traceparent if there is one; still open.
    fn put_json(&self, out: &mut BytesMut, data: &str) {
        let event_type = self.event_type().unwrap_or(crate::event::DEFAULT_TYPE);
        for (name, value) in
            [("{\"channel\":", self.channel.as_str()), (",\"event\":", event_type), (",\"data\":", data)]
        {
            out.put_slice(name.as_bytes());
            // Writing a string to memory cannot fail.
            let _ = serde_json::to_writer(out.writer(), value);
        }
        if let Content::Event(event) = &self.content
            && let Some(span) = event.traceparent()
        {
            out.put_slice(format!(",\"traceparent\":\"{span}\"").as_bytes());
        }
    }
}

/// Calls `line` for each line of `text`, which ends in LF, CRLF or a lone CR, as the standard's parser has it
/// (HTML, 9.2.5). A text that ends in a line break has an empty last line, so that the break arrives too.
fn for_each_line(text: &str, mut line: impl FnMut(&str)) {
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'\n', b'\r', rest.as_bytes()) {
        line(&rest[..at]);
        let skip = if rest[at..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[at + skip..];
    }
    line(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event_type: Option<&str>, data: &str) -> Event {
        Event::new(event_type, Bytes::copy_from_slice(data.as_bytes())).expect("valid")
    }

    fn news() -> Channel {
        Channel::new("news").expect("a name")
    }

    fn text(frame: &Frame, format: Format) -> String {
        String::from_utf8(frame.bytes(format).to_vec()).expect("UTF-8")
    }

    #[test]
    fn every_kind_of_line_break_begins_a_data_line() {
        let frame = Frame::unpositioned(news(), 0, event(Some("update"), "a\nb\r\nc\rd\n"));
        assert_eq!(text(&frame, Format::Sse), "event: update\ndata: a\ndata: b\ndata: c\ndata: d\ndata: \n\n");
        assert_eq!(text(&Frame::unpositioned(news(), 0, event(None, "")), Format::Sse), "data: \n\n");
    }

    #[test]
    fn the_id_can_be_taken_out_and_another_put_in() {
        let frame = Frame::positioned(news(), Position::new(36, 35), 1, event(None, "x"));
        let key = String::from_utf8_lossy(news().cursor_key()).into_owned();
        assert_eq!(text(&frame, Format::Sse), format!("id: {key}.10-z\ndata: x\n\n"));
        for format in [Format::Sse, Format::Envelope, Format::Ndjson] {
            let parts = frame.parts(format);
            let whole = [&parts.before_id[..], format!("{key}.10-z").as_bytes(), &parts.after_id[..]].concat();
            assert_eq!(whole, frame.bytes(format).to_vec());
        }
    }

    #[test]
    fn json_forms_name_the_channel() {
        let frame = Frame::unpositioned(news(), 0, event(None, "a\n\"b\""));
        assert_eq!(
            text(&frame, Format::Ndjson),
            "{\"channel\":\"news\",\"event\":\"message\",\"data\":\"a\\n\\\"b\\\"\",\"id\":null}\n"
        );
        assert_eq!(
            text(&frame, Format::Envelope),
            "data: {\"channel\":\"news\",\"event\":\"message\",\"data\":\"a\\n\\\"b\\\"\"}\n\n"
        );
    }

    #[test]
    fn a_gap_names_its_channel_and_carries_the_cursor_after_it() {
        let gap = Frame::gap(news(), GapReason::Trimmed, Some(Position::new(1, 1)), Some(Position::new(5, 3)));
        let text = text(&gap, Format::Sse);
        assert!(text.starts_with("id: ") && text.contains(".5-3\nevent: gap\n"), "{text}");
        let data = text.lines().find_map(|l| l.strip_prefix("data: ")).expect("data");
        let json: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(json, serde_json::json!({"channel":"news","reason":"trimmed","from":"1-1","to":"5-3"}));
    }
}
