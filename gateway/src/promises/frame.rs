//! An event as every client reads it: exactly one, with the type and data that were published, and an `id` that is ours.

use crate::{
    channel::Channel,
    event::{DEFAULT_TYPE, Event},
    position::Position,
    sse::{
        cursor::{Cursor, Found},
        frame::{Format, Frame},
    },
};

/// What a stream of one event says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    id: Option<String>,
    event_type: Option<String>,
    retry: Option<u32>,
    data: Vec<String>,
}

/// Whatever an event holds, its encodings hold it and nothing else.
pub fn event(channel: &Channel, at: Option<(Position, u64)>, event: &Event) {
    let frame = match at {
        Some((at, prev)) => Frame::positioned(channel.clone(), at, prev, event.clone()),
        None => Frame::unpositioned(channel.clone(), 0, event.clone()),
    };
    let data = event.data();
    // A client cannot tell one kind of line break from another.
    let lines: Vec<_> = data.replace("\r\n", "\n").replace('\r', "\n").split('\n').map(str::to_owned).collect();
    let plain = read(frame.bytes(Format::Sse));
    assert_eq!((plain.event_type.as_deref(), plain.retry), (event.event_type(), event.retry_ms()));
    assert_eq!(plain.data, lines);
    check_id(channel, at, plain.id.as_deref());

    let envelope = read(frame.bytes(Format::Envelope));
    assert_eq!((&envelope.event_type, envelope.retry, &envelope.id), (&plain.event_type, plain.retry, &plain.id));
    let event_type = event.event_type().unwrap_or(DEFAULT_TYPE);
    let mut json = serde_json::json!({ "channel": channel, "event": event_type, "data": data });
    let [line] = envelope.data.as_slice() else { panic!("an envelope is one line: {envelope:?}") };
    assert_eq!(serde_json::from_str::<serde_json::Value>(line).expect("JSON"), json);

    json["id"] = plain.id.into();
    let ndjson = std::str::from_utf8(frame.bytes(Format::Ndjson)).expect("UTF-8");
    let line = ndjson.strip_suffix('\n').expect("a whole line");
    assert!(!line.contains(['\n', '\r']), "{line:?}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(line).expect("JSON"), json);
}

/// The id of a stream of this one channel says where it stands, and nothing of any other.
fn check_id(channel: &Channel, at: Option<(Position, u64)>, id: Option<&str>) {
    assert_eq!(id.is_some(), at.is_some());
    if let (Some(id), Some((at, _))) = (id, at) {
        assert_eq!(Cursor::parse(id).find(channel), Found::At(at));
        assert!(!id.contains(['\r', '\n', '\0', ',', '~']), "{id:?}");
    }
}

/// Reads one event, strictly: as the standard has it (HTML, 9.2.6), and nothing in it that a gateway does not write, so
/// that whatever gets out of its field is seen.
fn read(bytes: &[u8]) -> Read {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    let text = text.strip_suffix("\n\n").expect("an event ends in an empty line");
    let mut read = Read::default();
    for line in text.split(['\n', '\r']) {
        let (field, value) = line.split_once(": ").expect("a field");
        match field {
            "id" if read == Read::default() => read.id = Some(value.to_owned()),
            "event" if read.event_type.is_none() && read.data.is_empty() => read.event_type = Some(value.to_owned()),
            "retry" if read.retry.is_none() && read.data.is_empty() => read.retry = value.parse().ok(),
            "data" => read.data.push(value.to_owned()),
            _ => panic!("{line:?} in {text:?}"),
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::collection::vec(
                prop::sample::select(vec![
                    "\n", "\r", "\r\n", "\0", "data: ", "id: 1", "event: x", ":", " ", "\u{feff}", "\u{2028}", "\"",
                    "}", "é",
                ]),
                0..12,
            )
            .prop_map(|pieces| pieces.concat()),
            ".*",
        ]
    }

    proptest! {
        #[test]
        fn whatever_an_event_holds_a_client_reads_that_one_event(
            event_type in proptest::option::of(text()), data in text(), retry: Option<u32>,
            at: Option<(u64, u64, u64)>,
        ) {
            let Ok(valid) = Event::new(event_type.as_deref(), data.into()) else {
                prop_assert!(event_type.is_some_and(|text| text.len() > 200 || text.contains(['\r', '\n', '\0'])));
                return Ok(());
            };
            let channel = Channel::new("a.b").expect("a name");
            let at = at.map(|(micros, seq, prev)| (Position::new(micros, seq), prev));
            super::event(&channel, at, &valid.with_retry(retry));
        }
    }
}
