//! Where an event stands in its channel's history: `<µs>-<seq>`.
//!
//! `seq` counts the channel's events 1, 2, 3 … without holes; `µs` is the broker's clock at publishing, always later
//! than the entry before. It is the entry's id in a Redis stream as it stands.

use std::{fmt, str::FromStr};

/// The largest time that a Lua number, a double, holds exactly (2^53 µs is the year 2255).
pub const MAX_MICROS: u64 = 1 << 53;

/// A place in one channel's history. Positions of one unbroken history order by `seq`; two positions are the same
/// entry only if both numbers agree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position {
    /// Number of the event in its channel, from 1; 0 stands before the first event.
    pub seq: u64,
    /// The broker's clock when the event was published, in microseconds since the Unix epoch.
    pub micros: u64,
}

/// A string is not `<µs>-<seq>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a position is `<µs>-<seq>`, two decimal numbers, not {0:?}")]
pub struct InvalidPosition(pub String);

impl Position {
    #[must_use]
    pub const fn new(micros: u64, seq: u64) -> Self {
        Self { seq, micros }
    }

    /// Whether the entry at `next`, which says that the entry before it was published at `prev` µs, comes directly
    /// after this one. The number alone proves nothing: after a failover that lost the tail, the same numbers come
    /// again with other times.
    #[must_use]
    pub const fn is_followed_by(self, next: Self, prev: u64) -> bool {
        // Anybody may make up the highest number there is, which no other follows.
        next.seq != 0 && next.seq - 1 == self.seq && prev == self.micros
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.micros, self.seq)
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |digits: &str| {
            // `parse` alone would take a leading `+`.
            if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
        };
        text.split_once('-')
            .and_then(|(micros, seq)| Some(Self::new(number(micros)?, number(seq)?)))
            .ok_or_else(|| InvalidPosition(text.to_owned()))
    }
}

impl serde::Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Two numbers of up to 20 digits; the formatting machinery would cost more than the rest of a publish's answer.
        let mut text = String::with_capacity(41);
        let mut digits = itoa::Buffer::new();
        text.push_str(digits.format(self.micros));
        text.push('-');
        text.push_str(digits.format(self.seq));
        serializer.serialize_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let position = Position::new(1_763_712_000_000_000, 42);
        assert_eq!(position.to_string(), "1763712000000000-42");
        assert_eq!(position.to_string().parse(), Ok(position));
        for bad in ["", "1", "-", "1-", "-1", "+1-2", "1-+2", "1-2-3", "a-1", "99999999999999999999-1"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }

    #[test]
    fn following_needs_the_number_and_the_time() {
        let last = Position::new(100, 7);
        assert!(last.is_followed_by(Position::new(200, 8), 100));
        assert!(!last.is_followed_by(Position::new(200, 8), 99));
        assert!(!last.is_followed_by(Position::new(200, 9), 100));
        assert!(!Position::new(100, u64::MAX).is_followed_by(Position::new(200, 0), 100));
    }
}
