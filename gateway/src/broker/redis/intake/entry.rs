//! An entry of an intake stream, read into the event that it is to become.

use crate::{channel::Channel, event::Event, traceparent::Traceparent};

/// An entry as it stands in the stream.
pub(in super::super) struct Entry {
    pub(in super::super) id: String,
    pub(in super::super) content: Result<(Channel, Event), Rejected>,
}

/// Why an entry cannot be published, and its fields as they stand there.
#[derive(Debug)]
pub(in super::super) struct Rejected {
    pub(super) why: String,
    pub(super) fields: Vec<Vec<u8>>,
}

impl Entry {
    /// Names and values in turn; data of at most `most` bytes.
    pub(in super::super) fn new(id: String, fields: Vec<Vec<u8>>, most: usize) -> Self {
        let content = read(&fields, most).map_err(|why| Rejected { why, fields });
        Self { id, content }
    }
}

/// What an entry's fields say; others than these are nobody's business here.
fn read(fields: &[Vec<u8>], most: usize) -> Result<(Channel, Event), String> {
    let (mut channel, mut event_type, mut data, mut span) = (None, None, None, None);
    for field in fields.chunks_exact(2) {
        let value = &field[1];
        match field[0].as_slice() {
            b"channel" => channel = Some(value),
            b"event" => event_type = Some(value),
            b"data" => data = Some(value),
            b"traceparent" => span = std::str::from_utf8(value).ok().and_then(Traceparent::parse),
            _ => {}
        }
    }
    let channel = channel.ok_or("it has no field `channel`")?;
    let channel = std::str::from_utf8(channel).map_err(|_| "its channel is no text")?;
    let channel = Channel::new(channel).map_err(|error| error.to_string())?;
    let data = data.ok_or("it has no field `data`")?;
    if data.len() > most {
        return Err(format!("its data has {} bytes, where {most} are allowed", data.len()));
    }
    let event_type = event_type.map(|text| std::str::from_utf8(text)).transpose();
    let event_type = event_type.map_err(|_| "its event type is no text")?;
    let event = Event::new(event_type, data.clone().into()).map_err(|error| error.to_string())?;
    Ok((channel, event.traced(span.filter(Traceparent::is_sampled))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, fields: &[&str]) -> Entry {
        Entry::new(id.to_owned(), fields.iter().map(|field| field.as_bytes().to_vec()).collect(), 20)
    }

    #[test]
    fn an_entry_is_a_channel_and_data() {
        let read = |fields: &[&str]| entry("1-0", fields).content;
        let (channel, event) = read(&["data", "x", "channel", "orders.eu", "trace", "1"]).expect("an event");
        assert_eq!((channel.as_str(), event.event_type(), event.data()), ("orders.eu", None, "x"));
        let span = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let (_, event) = read(&["channel", "a", "data", "x", "traceparent", span]).expect("an event");
        assert_eq!(event.traceparent().map(ToString::to_string).as_deref(), Some(span));
        let (_, event) = read(&["channel", "a", "data", "x", "traceparent", "none"]).expect("an event all the same");
        assert_eq!(event.traceparent(), None);
        assert!(
            read(&["channel", "a", "event", "update", "data", "x"])
                .is_ok_and(|(_, e)| e.event_type() == Some("update"))
        );
        for (wrong, part) in [
            (&["data", "x"][..], "no field `channel`"),
            (&["channel", "a"], "no field `data`"),
            (&["channel", "a*", "data", "x"], "channel name"),
            (&["channel", "a", "data", "012345678901234567890"], "21 bytes"),
            (&["channel", "a", "data", "x", "event", "a\nb"], "type"),
            (&["channel"], "no field `channel`"),
        ] {
            let why = read(wrong).expect_err(part).why;
            assert!(why.contains(part), "{why}");
        }
    }
}
