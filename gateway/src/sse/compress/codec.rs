//! The bytes of compressed streams: how one begins and ends, and how blocks are made.
//!
//! gzip (RFC 1952): one header, then raw deflate blocks (RFC 1951), each flushed with an empty stored block, which ends
//! on a byte boundary; several members in one stream would be the simpler way, but browsers read the first alone.
//!
//! zstd (RFC 8878): a stream is always inside an open frame, so that what begins a frame of its own first ends the one
//! before, with an empty last block.

use super::{Encoding, Sum};
use crate::metrics::Metrics;
use bytes::Bytes;
use prometheus::IntCounter;
use zlib_rs::{Deflate, DeflateFlush};
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

/// How far back a block may refer, as a power of two. Every inflater has room for the most that deflate can have; with
/// zstd, 8 KiB are 40 events of usual size, and keep both sides small.
const DEFLATE_WINDOW_BITS: u8 = 15;
const ZSTD_WINDOW_BITS: u8 = 13;
/// On JSON events of 170 bytes: 0.29 of the size at 6 µs an event (level 1: 0.32 at 1 µs, but nothing at all for an
/// independent block; 9: 0.28 at 7 µs, and half as much again for a large one).
const DEFLATE_LEVEL: i32 = 6;
/// Parameters of our own come to 0.30 at 3 µs an event, with 110 KiB of memory. Level 1 with that window: 0.32 at 1.5 µs
/// with 140 KiB; level 3 is no smaller and takes 850 KiB.
const ZSTD_LEVEL: i32 = 1;
const ZSTD_PARAMETERS: [CParameter; 7] = [
    CParameter::WindowLog(ZSTD_WINDOW_BITS as u32),
    CParameter::HashLog(12),
    CParameter::ChainLog(12),
    CParameter::SearchLog(3),
    CParameter::MinMatch(5),
    CParameter::TargetLength(16),
    CParameter::Strategy(zstd::zstd_safe::Strategy::ZSTD_lazy2),
];

/// Method deflate, no name, no time, no extra flags, unknown system.
const GZIP_HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty last block with the fixed codes.
const DEFLATE_END: &[u8] = &[0x03, 0x00];
/// The magic number; a frame of unknown size, without checksum and dictionary; its window, 2^(10 + 3).
const ZSTD_HEADER: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd, 0x00, (ZSTD_WINDOW_BITS - 10) << 3];
/// An empty last raw block: it ends the open frame.
const ZSTD_END: &[u8] = &[0x01, 0x00, 0x00];

/// The most that a stored block of deflate may hold, and a raw block of zstd with this window.
const MAX_STORED: usize = u16::MAX as usize;
const MAX_RAW: usize = 1 << ZSTD_WINDOW_BITS;

/// A compressor's buffer beyond this is given back after use.
const MAX_KEPT: usize = 64 * 1024;

/// Appends what a stream begins with.
pub fn open(encoding: Encoding, into: &mut Vec<u8>) {
    match encoding {
        Encoding::Identity => {}
        Encoding::Gzip => into.extend_from_slice(GZIP_HEADER),
        Encoding::Zstd => into.extend_from_slice(ZSTD_HEADER),
    }
}

/// Appends `plain` as it is, as an independent block: for what is too short to become shorter, at no cost.
pub fn literal(encoding: Encoding, plain: &[u8], into: &mut Vec<u8>) {
    match encoding {
        Encoding::Identity => into.extend_from_slice(plain),
        Encoding::Gzip => {
            for part in plain.chunks(MAX_STORED) {
                let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
                into.push(0);
                into.extend_from_slice(&length.to_le_bytes());
                into.extend_from_slice(&(!length).to_le_bytes());
                into.extend_from_slice(part);
            }
        }
        Encoding::Zstd => {
            for part in plain.chunks(MAX_RAW) {
                let header = u32::try_from(part.len()).unwrap_or(u32::MAX) << 3;
                into.extend_from_slice(&header.to_le_bytes()[..3]);
                into.extend_from_slice(part);
            }
        }
    }
}

/// Appends what a stream ends with that has held `sum`.
pub fn close(encoding: Encoding, sum: Sum, into: &mut Vec<u8>) {
    match encoding {
        Encoding::Identity => {}
        Encoding::Gzip => {
            into.extend_from_slice(DEFLATE_END);
            into.extend_from_slice(&sum.trailer());
        }
        Encoding::Zstd => into.extend_from_slice(ZSTD_END),
    }
}

/// Makes blocks. It is big (100 to 300 KiB) and is kept for the next.
pub(super) struct Compressor {
    encoding: Encoding,
    codec: Codec,
    output: Vec<u8>,
    runs: IntCounter,
}

enum Codec {
    Gzip(Deflate),
    Zstd(Encoder<'static>),
}

impl Compressor {
    /// `None` if there is nothing to compress with: for no encoding, or if zstd cannot be had.
    pub(super) fn new(encoding: Encoding, metrics: &Metrics) -> Option<Self> {
        let codec = match encoding {
            Encoding::Identity => return None,
            Encoding::Gzip => Codec::Gzip(Deflate::new(DEFLATE_LEVEL, false, DEFLATE_WINDOW_BITS)),
            Encoding::Zstd => {
                let mut encoder = Encoder::new(ZSTD_LEVEL).ok()?;
                for parameter in ZSTD_PARAMETERS {
                    encoder.set_parameter(parameter).ok()?;
                }
                Codec::Zstd(encoder)
            }
        };
        let runs = metrics.compressions.with_label_values(&[encoding.as_str()]);
        Some(Self { encoding, codec, output: Vec::new(), runs })
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// An independent block, which the next may go on from. A block of nothing would not begin a frame of zstd: there is
    /// always something.
    pub(super) fn restart(&mut self, plain: &[u8]) -> Bytes {
        debug_assert!(!plain.is_empty());
        let restarted = match &mut self.codec {
            Codec::Gzip(deflate) => {
                deflate.reset();
                Some(&[][..])
            }
            Codec::Zstd(encoder) => encoder.reinit().ok().map(|()| ZSTD_END),
        };
        restarted.and_then(|before| self.run(before, plain)).unwrap_or_else(|| {
            // Compressors fail for want of memory alone.
            let mut block = Vec::with_capacity(plain.len() + 16);
            literal(self.encoding, plain, &mut block);
            block.into()
        })
    }

    /// A block that depends on those since the last restart; `None` if it cannot be made, and what comes next must
    /// restart.
    pub(super) fn go_on(&mut self, plain: &[u8]) -> Option<Bytes> {
        self.run(&[], plain)
    }

    fn run(&mut self, before: &[u8], plain: &[u8]) -> Option<Bytes> {
        self.runs.inc();
        let block = match &mut self.codec {
            Codec::Gzip(codec) => deflate(codec, plain, &mut self.output).map(|filled| &self.output[..filled]),
            Codec::Zstd(encoder) => {
                self.output.clear();
                self.output.extend_from_slice(before);
                zstandard(encoder, plain, &mut self.output).ok().map(|()| &self.output[..])
            }
        };
        let block = block.map(Bytes::copy_from_slice);
        if self.output.capacity() > MAX_KEPT {
            self.output = Vec::new();
        }
        block
    }
}

/// Fills `output` from its start, and answers how far.
fn deflate(deflate: &mut Deflate, mut plain: &[u8], output: &mut Vec<u8>) -> Option<usize> {
    let mut filled = 0;
    loop {
        if output.len() - filled < 64 {
            output.resize(output.len() + plain.len() / 2 + 1024, 0);
        }
        let (taken, given) = (deflate.total_in(), deflate.total_out());
        deflate.compress(plain, &mut output[filled..], DeflateFlush::SyncFlush).ok()?;
        plain = &plain[usize::try_from(deflate.total_in() - taken).ok()?..];
        filled += usize::try_from(deflate.total_out() - given).ok()?;
        // The flush is through when there is room left (zlib's manual, on `deflate`).
        if plain.is_empty() && filled < output.len() {
            return Some(filled);
        }
    }
}

fn zstandard(encoder: &mut Encoder<'_>, plain: &[u8], output: &mut Vec<u8>) -> std::io::Result<()> {
    let mut input = InBuffer::around(plain);
    loop {
        output.reserve(plain.len() / 2 + 1024);
        let filled = output.len();
        let mut room = OutBuffer::around_pos(output, filled);
        if input.pos() < plain.len() {
            encoder.run(&mut input, &mut room)?;
        }
        if input.pos() == plain.len() && encoder.flush(&mut room)? == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Part, testing::Reader},
        *,
    };
    use proptest::prelude::*;

    /// Appends plain text as one kind of block or the other.
    #[derive(Clone, Debug)]
    enum Step {
        Literal(Vec<u8>),
        Restart(Vec<u8>),
        GoOn(Vec<u8>),
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        let words = prop::collection::vec(prop::sample::select(vec!["data: ", "\n\n", "{\"a\":", "17", "ä"]), 1..40);
        prop_oneof![
            words.prop_map(|words| words.concat().into_bytes()),
            prop::collection::vec(any::<u8>(), 1..400),
            (1..200_000usize).prop_map(|length| (0..length).map(|n| ((n * n) >> 7) as u8).collect()),
        ]
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step =
            prop_oneof![text().prop_map(Step::Literal), text().prop_map(Step::Restart), text().prop_map(Step::GoOn)];
        prop::collection::vec(step, 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_block_can_be_read_as_soon_as_it_has_come(steps in steps()) {
            for encoding in Encoding::COMPRESSED {
                let metrics = Metrics::new();
                let mut compressor = Compressor::new(encoding, &metrics).expect("a compressor");
                let (mut reader, mut bytes, mut sum) = (Reader::new(encoding.as_str()), Vec::new(), Sum::default());
                open(encoding, &mut bytes);
                prop_assert_eq!(reader.read(&bytes), b"");
                let mut restarted = false;
                for step in &steps {
                    bytes.clear();
                    let plain = match step {
                        Step::GoOn(plain) if restarted => {
                            bytes.extend_from_slice(&compressor.go_on(plain).expect("memory"));
                            plain
                        }
                        Step::Literal(plain) => {
                            restarted = false;
                            literal(encoding, plain, &mut bytes);
                            plain
                        }
                        Step::Restart(plain) | Step::GoOn(plain) => {
                            restarted = true;
                            bytes.extend_from_slice(&compressor.restart(plain));
                            plain
                        }
                    };
                    sum.add(&Part::of([&plain[..]]));
                    prop_assert_eq!(&reader.read(&bytes), plain);
                }
                bytes.clear();
                close(encoding, sum, &mut bytes);
                prop_assert_eq!(reader.read(&bytes), b"");
                prop_assert!(reader.is_whole(), "the end is the end, with the right sum");
            }
        }
    }
}
