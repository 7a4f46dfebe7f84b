//! Compression of streams: once per event and encoding on a replica, and not once per client.
//!
//! A compressed stream is an opening, then *blocks*, then a closing. A block ends on a byte boundary and is flushed, so
//! that whatever it holds can be read as soon as it has come. There are two kinds:
//!
//! - An *independent* block refers to nothing before it. The same bytes can be appended to any stream, at any time.
//! - A *dependent* block refers to what its [`chain`] has compressed since the chain's last *keyframe*, which is an
//!   independent block that others go on from. It is a third of the size, and of use only to a connection that was sent
//!   the keyframe and every block since, with nothing in between: one that is *in step*.
//!
//! A channel has a chain per format and encoding, shared by all shards. Who is not in step is sent independent blocks
//! until the next keyframe. What is written for one connection alone is independent too, and leaves its chain.
//!
//! No block holds events of two channels: whoever may publish to one channel must not learn of another from the sizes of
//! what is sent to a client of both.

mod blocks;
mod chain;
mod codec;
mod pool;
mod scratch;
mod sum;
#[cfg(test)]
pub(crate) mod testing;

pub use blocks::{Blocks, Kind};
pub use chain::{Block, Chains};
pub use codec::{close, literal, open};
pub use pool::Pool;
pub use scratch::Scratch;
pub use sum::{Part, Sum};

use super::frame::Format;

/// The content coding of a stream (RFC 9110, 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// Those that compress, for metrics.
    pub const COMPRESSED: [Self; 2] = [Self::Gzip, Self::Zstd];

    /// Its name in `Content-Encoding`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// How a stream looks on the wire: its format and its encoding. Connections with the same are sent the same bytes.
///
/// In one byte: a shard has a dense array with one for each subscriber.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wire(u8);

impl Wire {
    const FORMATS: [Format; 3] = [Format::Sse, Format::Envelope, Format::Ndjson];
    const ENCODINGS: [Encoding; 3] = [Encoding::Identity, Encoding::Gzip, Encoding::Zstd];

    #[must_use]
    pub const fn new(format: Format, encoding: Encoding) -> Self {
        Self((encoding as u8) << 2 | format as u8)
    }

    #[must_use]
    pub const fn format(self) -> Format {
        Self::FORMATS[(self.0 & 3) as usize]
    }

    #[must_use]
    pub const fn encoding(self) -> Encoding {
        Self::ENCODINGS[(self.0 >> 2) as usize]
    }

    #[must_use]
    pub const fn is_compressed(self) -> bool {
        self.0 >> 2 != Encoding::Identity as u8
    }
}

impl From<Format> for Wire {
    /// As it is, uncompressed.
    fn from(format: Format) -> Self {
        Self::new(format, Encoding::Identity)
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?}+{:?}", self.format(), self.encoding())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_holds_every_format_with_every_encoding() {
        for format in Wire::FORMATS {
            for encoding in Wire::ENCODINGS {
                let wire = Wire::new(format, encoding);
                assert_eq!((wire.format(), wire.encoding()), (format, encoding));
                assert_eq!(wire.is_compressed(), encoding != Encoding::Identity);
            }
        }
    }
}
