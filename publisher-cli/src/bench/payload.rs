//! The data that is published: a stamp, and filler up to the size that was asked for.

use super::stamp::{self, Stamp, Stamps};
use fastrand::Rng;

/// What the filler is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DataKind {
    /// Letters, the same in every event
    Text,
    /// A JSON object as an application would send, other values in every event
    Json,
}

/// The smallest object of the JSON kind, with room for its last field.
pub(crate) const MIN_JSON_BYTES: usize = stamp::LENGTH_BYTES + 24;

#[derive(Debug)]
pub(super) struct Payload {
    kind: DataKind,
    size_bytes: usize,
    random: Rng,
}

impl Payload {
    /// Data of exactly this size, which is at least [`stamp::LENGTH_BYTES`], or [`MIN_JSON_BYTES`] for JSON.
    pub(super) fn new(kind: DataKind, size_bytes: usize) -> Self {
        Self { kind, size_bytes, random: Rng::with_seed(7) }
    }

    pub(super) fn write(&mut self, stamps: &Stamps, stamp: Stamp, into: &mut Vec<u8>) {
        let end = into.len() + self.size_bytes;
        match self.kind {
            DataKind::Text => {
                stamps.write(stamp, into);
                let letters = (b'a'..=b'z').cycle();
                into.extend(letters.take(end.saturating_sub(into.len())));
            }
            DataKind::Json => self.object(stamps, stamp, end, into),
        }
    }

    fn object(&mut self, stamps: &Stamps, stamp: Stamp, end: usize, into: &mut Vec<u8>) {
        const LAST: usize = r#","note":""}"#.len();
        into.extend_from_slice(br#"{"stamp":""#);
        stamps.write(stamp, into);
        into.push(b'"');
        for turn in 0.. {
            let field = self.field(turn);
            if into.len() + field.len() + LAST > end {
                break;
            }
            into.extend_from_slice(field.as_bytes());
        }
        into.extend_from_slice(br#","note":""#);
        while into.len() + 2 < end {
            into.push(self.random.lowercase() as u8);
        }
        into.extend_from_slice(b"\"}");
    }

    /// Names that come again in every event and values that do not, as in an order or a quote.
    fn field(&mut self, turn: usize) -> String {
        let random = &mut self.random;
        let line = turn / 6;
        match turn % 6 {
            0 => format!(r#","order_{line}":{}"#, random.u32(100_000..999_999)),
            1 => format!(r#","price_{line}":{}.{:02}"#, random.u32(1..2_000), random.u32(0..100)),
            2 => {
                let states = ["created", "paid", "packed", "shipped", "delivered", "returned"];
                format!(r#","status_{line}":"{}""#, states[random.usize(..states.len())])
            }
            3 => {
                let (hour, minute, second) = (random.u32(0..24), random.u32(0..60), random.u32(0..60));
                format!(r#","updated_at_{line}":"2026-03-01T{hour:02}:{minute:02}:{second:02}Z""#)
            }
            4 => format!(r#","customer_{line}":"{:016x}""#, random.u64(..)),
            _ => format!(r#","quantity_{line}":{},"gift_{line}":{}"#, random.u32(1..20), random.bool()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_has_its_size_and_carries_its_stamp() {
        let stamps = Stamps::new(1);
        let stamp = Stamp { channel: 1, number: 2, time: 3 };
        for kind in [DataKind::Text, DataKind::Json] {
            for size_bytes in [MIN_JSON_BYTES, MIN_JSON_BYTES + 1, 100, 1_000] {
                let mut data = Vec::new();
                Payload::new(kind, size_bytes).write(&stamps, stamp, &mut data);
                assert_eq!(data.len(), size_bytes, "{kind:?}");
                assert_eq!(stamps.find(&data).collect::<Vec<_>>(), [stamp]);
                if kind == DataKind::Json {
                    serde_json::from_slice::<serde_json::Value>(&data).expect("JSON");
                }
            }
        }
    }
}
