//! A frame's blocks in compressed streams.

use super::{Frame, Parts};
use crate::sse::compress::{self, Block, Chains, Kind, Scratch, Wire};
use bytes::Bytes;
use std::{sync::Arc, time::Instant};

/// Bytes beside an id that are worth a block of their own; fewer are not compressed.
const WORTH_A_BLOCK: usize = 64;

impl Frame {
    /// Makes it the `nth` of the frames that its channel's feed has passed on.
    #[must_use]
    pub fn numbered(mut self, chains: &Arc<Chains>, nth: u64) -> Self {
        self.chained = Some((Arc::clone(chains), nth));
        self
    }

    /// Its number among the frames that its channel's feed has passed on; `None` if it is not one of those.
    #[must_use]
    pub fn nth(&self) -> Option<u64> {
        self.chained.as_ref().map(|(_, nth)| *nth)
    }

    /// Its block in its channel's chain, if it is in one. If that is yet to be made, it becomes a keyframe if it is due
    /// or `fresh`.
    pub fn chained_block(&self, wire: Wire, fresh: bool, scratch: &mut Scratch) -> Option<Block> {
        let (chains, nth) = self.chained.as_ref()?;
        let make = || chains.block(wire, *nth, self.bytes(wire.format()), fresh, scratch, Instant::now());
        Some(self.blocks.get_or_make(wire, Kind::Chained, make))
    }

    /// All of it as an independent block.
    pub fn whole_block(&self, wire: Wire, scratch: &mut Scratch) -> Bytes {
        self.independent(wire, Kind::Whole, self.bytes(wire.format()), scratch)
    }

    /// Appends it with another id, as independent blocks: what stands around the id is compressed once for all.
    pub fn append_with_id(&self, wire: Wire, id: &str, scratch: &mut Scratch, into: &mut Vec<u8>) {
        let Parts { before_id, after_id } = self.parts(wire.format());
        let mut literal = Vec::with_capacity(id.len() + WORTH_A_BLOCK);
        if before_id.len() < WORTH_A_BLOCK {
            literal.extend_from_slice(&before_id);
        } else {
            into.extend_from_slice(&self.independent(wire, Kind::BeforeId, &before_id, scratch));
        }
        literal.extend_from_slice(id.as_bytes());
        let after = after_id.len() >= WORTH_A_BLOCK;
        if !after {
            literal.extend_from_slice(&after_id);
        }
        compress::literal(wire.encoding(), &literal, into);
        if after {
            into.extend_from_slice(&self.independent(wire, Kind::AfterId, &after_id, scratch));
        }
    }

    fn independent(&self, wire: Wire, kind: Kind, plain: &[u8], scratch: &mut Scratch) -> Bytes {
        let make = || Block { bytes: scratch.block(wire.encoding(), plain), keyframe: false };
        self.blocks.get_or_make(wire, kind, make).bytes
    }
}
