//! The cursor: the positions of all of one connection's channels, the value of `id:` and of `Last-Event-ID`.
//!
//! Components `<key>.<time>-<seq>` joined by `,`: `key` is the channel's [`CursorKey`], the numbers are base 36. A
//! component whose channel shares its key with another of the same connection carries `=` and the name instead. A
//! cursor that had to leave channels out ends in `~`. Reading never fails: what cannot be read is remembered as such,
//! and becomes a gap for the channels it may have been about.

#[cfg(any(test, fuzzing))]
pub(crate) mod promises;

use crate::{
    channel::{Channel, CursorKey},
    position::Position,
};

/// The longest cursor that is written or read, in bytes: with it a request's headers pass nginx's default 8 KiB buffer.
pub const MAX_BYTES: usize = 6 * 1024;

/// What one channel finds in a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The client stood here.
    At(Position),
    /// The cursor is whole and does not name the channel: it is new to the client.
    New,
    /// The cursor named it, or may have, in a way that cannot be read.
    Unreadable,
}

/// A cursor as a client sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    hashed: Vec<(CursorKey, Position)>,
    named: Vec<(String, Position)>,
    whole: bool,
}

impl Cursor {
    /// Reads what a client sent. Never fails: see [`Found::Unreadable`].
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut cursor = Self { whole: true, ..Self::default() };
        if text.len() > MAX_BYTES {
            cursor.whole = false;
            return cursor;
        }
        let body = text.strip_suffix('~').inspect(|_| cursor.whole = false).unwrap_or(text);
        if body.is_empty() {
            // A client that has no positioned channel yet is sent no id at all; an empty one says nothing.
            cursor.whole = false;
            return cursor;
        }
        for component in body.split(',') {
            if cursor.take(component).is_none() {
                cursor.whole = false;
            }
        }
        cursor
    }

    fn take(&mut self, component: &str) -> Option<()> {
        let (key, place) = component.rsplit_once('.')?;
        let (micros, seq) = place.split_once('-')?;
        let position = Position::new(from_base36(micros)?, from_base36(seq)?);
        if let Some(name) = key.strip_prefix('=') {
            self.named.push((Channel::new(name).ok()?.as_str().to_owned(), position));
        } else {
            let key: CursorKey = key.as_bytes().try_into().ok()?;
            key.iter().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()).then_some(())?;
            self.hashed.push((key, position));
        }
        Some(())
    }

    /// Where the cursor says that the client stood in `channel`. Two components for one channel are unreadable: which
    /// of them was meant is anybody's guess.
    #[must_use]
    pub fn find(&self, channel: &Channel) -> Found {
        let named = self.named.iter().filter(|(name, _)| name == channel.as_str()).map(|(_, at)| *at);
        let hashed = self.hashed.iter().filter(|(key, _)| key == channel.cursor_key()).map(|(_, at)| *at);
        let mut found = named.chain(hashed);
        match (found.next(), found.next()) {
            (Some(position), None) => Found::At(position),
            (Some(_), Some(_)) => Found::Unreadable,
            (None, _) if self.whole => Found::New,
            (None, _) => Found::Unreadable,
        }
    }
}

/// Writes a connection's cursor component by component.
#[derive(Debug, Default)]
pub struct CursorWriter {
    text: String,
    left_out: bool,
}

impl CursorWriter {
    /// Adds one channel; `collides` says that another channel of the connection has the same key.
    pub fn add(&mut self, channel: &Channel, position: Position, collides: bool) {
        // 2 numbers of up to 13 digits, `.`, `-`, `,`, `=` and a closing `~`.
        let name_bytes = if collides { channel.as_str().len() } else { 8 };
        if self.text.len() + name_bytes + 31 > MAX_BYTES {
            self.left_out = true;
            return;
        }
        if !self.text.is_empty() {
            self.text.push(',');
        }
        write_component(&mut self.text, channel, position, collides);
    }

    /// Notes that a channel of the connection has no readable place.
    pub fn leave_out(&mut self) {
        self.left_out = true;
    }

    /// The cursor, or nothing if there is nothing to say.
    #[must_use]
    pub fn finish(mut self) -> Option<String> {
        if self.text.is_empty() {
            return None;
        }
        if self.left_out {
            self.text.push('~');
        }
        Some(self.text)
    }
}

/// Appends `<key>.<time>-<seq>`.
pub fn write_component(out: &mut String, channel: &Channel, position: Position, by_name: bool) {
    if by_name {
        out.push('=');
        out.push_str(channel.as_str());
    } else {
        // All digits and lower case letters.
        out.push_str(std::str::from_utf8(channel.cursor_key()).unwrap_or_default());
    }
    out.push('.');
    push_base36(out, position.micros);
    out.push('-');
    push_base36(out, position.seq);
}

fn push_base36(out: &mut String, mut number: u64) {
    let mut digits = [0u8; 13];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize];
        number /= 36;
        if number == 0 {
            break;
        }
    }
    out.push_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
}

fn from_base36(digits: &str) -> Option<u64> {
    let canonical = digits.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    (canonical && !digits.is_empty()).then(|| u64::from_str_radix(digits, 36).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn channel(name: &str) -> Channel {
        Channel::new(name).expect("a name")
    }

    fn write(places: &[(Channel, Position)]) -> String {
        let mut writer = CursorWriter::default();
        for (channel, position) in places {
            writer.add(channel, *position, false);
        }
        writer.finish().expect("a cursor")
    }

    #[test]
    fn a_channel_that_a_whole_cursor_lacks_is_new_and_one_that_a_cut_cursor_lacks_is_a_gap() {
        let cursor = Cursor::parse(&write(&[(channel("a"), Position::new(5, 1))]));
        assert_eq!(cursor.find(&channel("a")), Found::At(Position::new(5, 1)));
        assert_eq!(cursor.find(&channel("b")), Found::New);
        for cut in ["", "~", "nonsense", "1234", "key.1", "abcdefgh.1-2,rest", "ABCDEFGH.1-2", "abcdefgh.+1-2"] {
            assert_eq!(Cursor::parse(cut).find(&channel("b")), Found::Unreadable, "{cut}");
        }
    }

    #[test]
    fn colliding_channels_carry_their_names() {
        let mut writer = CursorWriter::default();
        writer.add(&channel("a.b"), Position::new(7, 2), true);
        writer.add(&channel("=x-1"), Position::new(8, 3), true);
        let cursor = Cursor::parse(&writer.finish().expect("a cursor"));
        assert_eq!(cursor.find(&channel("a.b")), Found::At(Position::new(7, 2)));
        assert_eq!(cursor.find(&channel("=x-1")), Found::At(Position::new(8, 3)));
    }

    #[test]
    fn sixty_four_channels_fit_and_what_does_not_fit_is_said() {
        let many = |n: usize| -> Vec<_> {
            (0..n).map(|i| (channel(&format!("c{i}")), Position::new(1 << 53, u64::MAX))).collect()
        };
        let text = write(&many(64));
        assert!(text.len() <= 64 * 36 && !text.ends_with('~'), "{}", text.len());
        let text = write(&many(400));
        assert!(text.len() <= MAX_BYTES && text.ends_with('~'));
        let cursor = Cursor::parse(&text);
        assert_eq!(cursor.find(&channel("c0")), Found::At(Position::new(1 << 53, u64::MAX)));
        assert_eq!(cursor.find(&channel("c399")), Found::Unreadable);
    }

    proptest! {
        #[test]
        fn a_cut_cursor_never_makes_a_channel_new(cut in 0usize..200, n in 1usize..8) {
            let places: Vec<_> = (0..n).map(|i| (channel(&format!("c{i}")), Position::new(1_763_712_000_000_000, 40_000))).collect();
            let text = write(&places);
            let cut = cut.min(text.len());
            let cursor = Cursor::parse(&text[..cut]);
            // A component that was cut off whole leaves a cursor that reads as whole; the last one seen may lack digits.
            // What can never be is that the first channel, cut within its own component, is taken for new.
            if cut < 8 {
                prop_assert_eq!(cursor.find(&places[0].0), Found::Unreadable);
            }
        }
    }
}
