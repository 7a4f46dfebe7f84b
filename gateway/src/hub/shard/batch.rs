//! What a channel has for all subscribers that stand at the same place: one run of bytes, made once.
//!
//! On a compressed wire there are two of them: for connections in step with the channel's chain, and for the others.

use super::channel::{ShardChannel, Slot};
use crate::sse::compress::{Encoding, Part, Scratch, Wire};
use bytes::{Bytes, BytesMut};

/// Most stand at the last head; these are for different wires, in step and not.
const REMEMBERED: usize = 8;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Bytes,
    /// Length of what it stands for.
    pub(super) plain_bytes: u64,
    /// For the end of a gzip stream.
    pub(super) sum: Option<Part>,
    /// Whether a connection is in step with the channel's chain after it.
    pub(super) in_step: bool,
}

/// Which batch, but for the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Which {
    pub(super) place: u64,
    pub(super) wire: Wire,
    /// For connections that are in step before it.
    pub(super) in_step: bool,
}

#[derive(Debug, Default)]
pub(super) struct Batches(Vec<(Which, Batch)>);

impl Batches {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl ShardChannel {
    /// All frames from a place on. `fresh` has the chain begin anew if it can: nobody here is in step with it.
    pub(super) fn batch(&mut self, which: Which, fresh: impl FnOnce() -> bool, scratch: &mut Scratch) -> Batch {
        if let Some((_, batch)) = self.batches.0.iter().find(|(known, _)| *known == which) {
            return batch.clone();
        }
        let batch = if which.wire.is_compressed() {
            let fresh = !which.in_step && fresh();
            self.compressed(which, fresh, scratch)
        } else {
            self.plain(which)
        };
        if self.batches.0.len() >= REMEMBERED {
            self.batches.0.remove(0);
        }
        self.batches.0.push((which, batch.clone()));
        batch
    }

    fn plain(&self, which: Which) -> Batch {
        let mut frames = self.slots(which.place).map(|slot| slot.frame.bytes(which.wire.format()));
        let bytes = match (frames.next(), frames.next()) {
            (None, _) => Bytes::new(),
            (Some(only), None) => only.clone(),
            (Some(one), Some(two)) => {
                let mut all = BytesMut::from(&one[..]);
                all.extend_from_slice(two);
                frames.for_each(|more| all.extend_from_slice(more));
                all.freeze()
            }
        };
        Batch { plain_bytes: bytes.len() as u64, bytes, ..Batch::default() }
    }

    /// The chain's blocks as far as they can be used, from the first keyframe on if the connections are not in step;
    /// and for what comes before that, independent blocks.
    fn compressed(&self, which: Which, fresh: bool, scratch: &mut Scratch) -> Batch {
        let (wire, mut in_step) = (which.wire, which.in_step);
        let mut blocks = Vec::new();
        let mut alone: Vec<&Slot> = Vec::new();
        let mut plain_bytes = 0;
        for slot in self.slots(which.place) {
            plain_bytes += slot.frame.bytes(wire.format()).len() as u64;
            let block = slot.frame.chained_block(wire, fresh && !in_step, scratch);
            match block.filter(|block| block.keyframe || (in_step && slot.follows)) {
                Some(block) => {
                    blocks.extend(independent(wire, &std::mem::take(&mut alone), scratch));
                    blocks.push(block.bytes);
                    in_step = true;
                }
                None => {
                    alone.push(slot);
                    in_step = false;
                }
            }
        }
        blocks.extend(independent(wire, &alone, scratch));
        let bytes = if let [only] = &blocks[..] { only.clone() } else { blocks.concat().into() };
        let frames = || self.slots(which.place).map(|slot| &slot.frame.bytes(wire.format())[..]);
        let sum = (wire.encoding() == Encoding::Gzip).then(|| Part::of(frames()));
        Batch { bytes, plain_bytes, sum, in_step }
    }
}

/// Frames of one channel as one independent block.
fn independent(wire: Wire, slots: &[&Slot], scratch: &mut Scratch) -> Option<Bytes> {
    match slots {
        [] => None,
        [only] => Some(only.frame.whole_block(wire, scratch)),
        several => {
            let plain: Vec<_> = several.iter().map(|slot| &slot.frame.bytes(wire.format())[..]).collect();
            Some(scratch.block(wire.encoding(), &plain.concat()))
        }
    }
}

#[cfg(test)]
mod tests;
