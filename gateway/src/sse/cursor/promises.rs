//! Reading a cursor never fails and never forgets that something could not be read; what is written is read.

use super::{Cursor, CursorWriter, Found, MAX_BYTES, push_base36};
use crate::{channel::Channel, position::Position};
use std::collections::HashMap;

/// Any text as a client's cursor: what was understood of it, written again, says the same.
pub fn cursor(text: &str) {
    let read = Cursor::parse(text);
    let again = write(&read);
    if again.len() <= MAX_BYTES {
        assert_eq!(Cursor::parse(&again), read, "{text:?} is {again:?}");
    }
    if text.is_empty() || text.ends_with('~') || text.len() > MAX_BYTES {
        assert!(!read.whole, "{text:?}");
    }
    for name in ["news", "=x.1", "$all"] {
        let channel = Channel::new(name).expect("a name");
        if let Found::At(_) = read.find(&channel) {
            let key = std::str::from_utf8(channel.cursor_key()).expect("ASCII");
            assert!(text.contains(&format!("{key}.")) || text.contains(&format!("={name}.")), "{text:?}");
        }
        assert!(read.whole || read.find(&channel) != Found::New, "{text:?} may have named {name}");
    }
}

/// What was understood of a cursor, as a cursor.
fn write(cursor: &Cursor) -> String {
    let keys = cursor.hashed.iter().map(|(key, at)| (String::from_utf8_lossy(key).into_owned(), at));
    let names = cursor.named.iter().map(|(name, at)| (format!("={name}"), at));
    let components: Vec<_> = keys
        .chain(names)
        .map(|(channel, at)| {
            let mut text = format!("{channel}.");
            push_base36(&mut text, at.micros);
            text.push('-');
            push_base36(&mut text, at.seq);
            text
        })
        .collect();
    format!("{}{}", components.join(","), if cursor.whole { "" } else { "~" })
}

/// The places of a connection's channels, some of which share their keys with others (or so the writer is told): each is
/// found again, or the cursor says that something was left out.
pub fn places(places: &[(Channel, Position, bool)]) {
    let mut writer = CursorWriter::default();
    let mut first = HashMap::new();
    for (channel, position, collides) in places {
        // A connection has a channel once.
        if !first.contains_key(channel) {
            first.insert(channel.clone(), *position);
            writer.add(channel, *position, *collides);
        }
    }
    let Some(text) = writer.finish() else { return assert!(places.is_empty()) };
    assert!(text.len() <= MAX_BYTES, "{} bytes", text.len());
    assert!(text.bytes().all(|b| b.is_ascii_graphic()), "{text:?} stands in a header and in an `id:`");
    let read = Cursor::parse(&text);
    let left_out = text.ends_with('~');
    for (channel, position) in &first {
        match read.find(channel) {
            Found::At(found) => assert_eq!(found, *position, "{channel} in {text}"),
            found => assert!(left_out && found == Found::Unreadable, "{channel} in {text}: {found:?}"),
        }
    }
    cursor(&text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn anything_at_all_is_read_without_a_panic(
            text in "((1f9l9hg5|=news|==x\\.1|=[!-~]{0,4}|[a-z0-9]{8}|[A-Z]{0,9})\\.?[0-9a-z]{0,14}-?[0-9a-z+]{0,14}[,~]?){0,6}|.*",
        ) {
            super::cursor(&text);
        }

        #[test]
        fn what_is_written_is_read(
            many in prop::collection::vec(("[a-z.=:-]{1,20}|\\$all|[a-z]{150,200}", any::<u64>(), any::<u64>(), any::<bool>()), 0..60),
        ) {
            let many: Vec<_> = many
                .into_iter()
                .map(|(name, micros, seq, collides)| (Channel::new(&name).expect("a name"), Position::new(micros, seq), collides))
                .collect();
            super::places(&many);
        }
    }
}
