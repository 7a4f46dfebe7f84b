//! The compressed forms of one frame, each made when it is first needed, and once for all shards.

use super::{Block, Wire};
use std::sync::{Mutex, PoisonError};

/// What of a frame a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All of it, as the channel's chain has it.
    Chained,
    /// All of it, independent.
    Whole,
    /// What stands before its id, or after, independent.
    BeforeId,
    AfterId,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Blocks(Mutex<Vec<(Wire, Kind, Block)>>);

impl Blocks {
    /// The block of this kind; if there is none yet, `make` makes it, and nobody else does in the meantime.
    pub fn get_or_make(&self, wire: Wire, kind: Kind, make: impl FnOnce() -> Block) -> Block {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., block)) = blocks.iter().find(|(of, is, _)| (*of, *is) == (wire, kind)) {
            return block.clone();
        }
        let block = make();
        blocks.push((wire, kind, block.clone()));
        block
    }
}
