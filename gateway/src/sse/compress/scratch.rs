//! What one thread compresses independent blocks with.
//!
//! Compressors are made when they are first needed. A few large blocks are remembered: when many clients come back at
//! once, most are sent the same pages of history.

use super::{Encoding, codec::Compressor};
use crate::metrics::Metrics;
use bytes::Bytes;
use std::{collections::VecDeque, sync::Arc};

/// Large blocks remembered.
const REMEMBERED: usize = 4;
/// Plain bytes of what is worth remembering: less is compressed as fast as it is found, more takes too much memory.
const WORTH_REMEMBERING: std::ops::RangeInclusive<usize> = 1024..=128 * 1024;

/// See the module's documentation.
pub struct Scratch {
    gzip: Option<Compressor>,
    zstd: Option<Compressor>,
    /// The latest first.
    remembered: VecDeque<Remembered>,
    metrics: Arc<Metrics>,
}

struct Remembered {
    encoding: Encoding,
    plain: Box<[u8]>,
    block: Bytes,
}

impl Scratch {
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { gzip: None, zstd: None, remembered: VecDeque::new(), metrics }
    }

    /// An independent block with `plain`.
    pub fn block(&mut self, encoding: Encoding, plain: &[u8]) -> Bytes {
        let compressor = match encoding {
            Encoding::Identity => return Bytes::copy_from_slice(plain),
            Encoding::Gzip => &mut self.gzip,
            Encoding::Zstd => &mut self.zstd,
        };
        if compressor.is_none() {
            *compressor = Compressor::new(encoding, &self.metrics);
        }
        if let Some(compressor) = compressor {
            return compressor.restart(plain);
        }
        let mut block = Vec::new();
        super::literal(encoding, plain, &mut block);
        block.into()
    }

    /// The same for a block that others may ask for as well.
    pub fn shared_block(&mut self, encoding: Encoding, plain: &[u8]) -> Bytes {
        // To compare is far quicker than to compress, and ends at the first difference.
        let known = self.remembered.iter().position(|known| known.encoding == encoding && *known.plain == *plain);
        let known = known.and_then(|at| self.remembered.remove(at));
        let known = known.unwrap_or_else(|| {
            let block = self.block(encoding, plain);
            Remembered { encoding, plain: plain.into(), block }
        });
        let block = known.block.clone();
        if WORTH_REMEMBERING.contains(&plain.len()) {
            self.remembered.push_front(known);
            self.remembered.truncate(REMEMBERED);
        }
        block
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Reader, *};

    #[test]
    fn a_page_that_many_are_sent_is_compressed_once() {
        let metrics = Arc::new(Metrics::new());
        let mut scratch = Scratch::new(Arc::clone(&metrics));
        let page = |n: u32| format!("id: {n}\ndata: {{}}\n\n").repeat(1000).into_bytes();
        for _ in 0..100 {
            for encoding in Encoding::COMPRESSED {
                for n in [10, 11] {
                    let mut reader = Reader::new(encoding.as_str());
                    let mut bytes = Vec::new();
                    super::super::open(encoding, &mut bytes);
                    bytes.extend_from_slice(&scratch.shared_block(encoding, &page(n)));
                    assert_eq!(reader.read(&bytes), page(n));
                }
            }
        }
        let runs = |encoding: Encoding| metrics.compressions.with_label_values(&[encoding.as_str()]).get();
        assert_eq!((runs(Encoding::Gzip), runs(Encoding::Zstd)), (2, 2));
        assert!(scratch.remembered.len() <= REMEMBERED);
    }
}
