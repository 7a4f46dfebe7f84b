//! What the end of a gzip stream says of all that it held: a checksum, and the length.
//!
//! Most of it was compressed for many streams at once, so each stream's sum is put together from those of the parts, in
//! some 40 ns a part. Without it a stream could not be ended rightly: curl and browsers do not mind, others (Go's
//! standard library, say) take a stream without it for a broken one.

use zlib_rs::crc32::{crc32, crc32_combine_gen, crc32_combine_op};

/// Of all that a stream has held so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    crc: u32,
    /// Modulo 2^32, as RFC 1952 has it.
    bytes: u32,
}

/// Of a part of a stream, or of many streams.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    crc: u32,
    bytes: u32,
    /// What a checksum is multiplied by to put the part behind it.
    shift: u32,
}

impl Part {
    /// Of these runs of bytes, one after the other.
    pub fn of<'a>(runs: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let (crc, bytes) =
            runs.into_iter().fold((0, 0), |(crc, bytes), run| (crc32(crc, run), bytes + run.len() as u64));
        Self { crc, bytes: bytes as u32, shift: crc32_combine_gen(bytes) }
    }
}

impl Sum {
    pub fn add(&mut self, part: &Part) {
        self.crc = crc32_combine_op(self.crc, part.crc, part.shift);
        self.bytes = self.bytes.wrapping_add(part.bytes);
    }

    pub(super) fn trailer(self) -> [u8; 8] {
        let (crc, bytes) = (self.crc.to_le_bytes(), self.bytes.to_le_bytes());
        [crc[0], crc[1], crc[2], crc[3], bytes[0], bytes[1], bytes[2], bytes[3]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_the_parts_is_that_of_the_whole() {
        let text: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(n) >> 5) as u8).collect();
        for parts in [1, 2, 3, 7, 100, 50_000] {
            let mut sum = Sum::default();
            text.chunks(text.len() / parts).for_each(|part| sum.add(&Part::of([part])));
            sum.add(&Part::of([]));
            assert_eq!(sum, Sum { crc: crc32(0, &text), bytes: 100_000 }, "{parts} parts");
        }
        let whole = Part::of(text.chunks(977));
        assert_eq!((whole.crc, whole.bytes), (crc32(0, &text), 100_000));
    }
}
