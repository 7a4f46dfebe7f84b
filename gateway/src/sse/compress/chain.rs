//! A channel's chains: one compressor for each format and encoding, whose blocks all clients in step share.
//!
//! A channel's frames are numbered as its feed passes them on. Shards come to a frame at their own pace; the first that
//! needs its block has it made here, and the frame keeps it ([`super::Blocks`]). What always holds: **a block that is no
//! keyframe goes on from the block of the frame just before, as that frame keeps it.**
//!
//! So it does not matter where shards stand. A block is made as a dependent one only if the last block that the chain
//! made was that of the frame before, and what the chain makes for a frame is what the frame keeps, since it is asked
//! once for each. A shard that is behind, and asks for a frame that the chain has gone past, gets an independent block
//! and leaves the chain as it is. That block may count as a keyframe: whoever has it is in step, for the block of the
//! frame after it cannot be a dependent one. That would go on from this frame's, and the chain had made none.
//!
//! Time counts for keyframes too, so the blocks of a channel that is quiet are all keyframes, and shared by everyone.
//! Such a channel needs no compressor of its own; [`super::pool`] has those of the busy ones.

use super::{Encoding, Pool, Scratch, Wire, codec::Compressor};
use bytes::Bytes;
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A keyframe comes after this many events, or this long, whichever is first: so long a client that is not in step gets
/// blocks of two or three times the size.
const KEYFRAME_EVENTS: u32 = 256;
pub(super) const KEYFRAME_EVERY: Duration = Duration::from_secs(5);

/// One frame's block.
#[derive(Clone, Debug)]
pub struct Block {
    pub bytes: Bytes,
    /// Independent, and the next block of its chain may go on from it.
    pub keyframe: bool,
}

/// See the module's documentation.
pub struct Chains {
    pool: Arc<Pool>,
    chains: Mutex<Vec<Chain>>,
}

struct Chain {
    wire: Wire,
    /// The number after that of the last frame with a block.
    next: u64,
    /// Blocks since the last keyframe, that one included.
    since_keyframe: u32,
    keyframe_at: Instant,
    last_at: Instant,
    held: Option<Held>,
}

/// A compressor that the chain has for itself.
struct Held {
    compressor: Compressor,
    /// When it was last used, by the pool's clock.
    used: Arc<AtomicU64>,
}

impl Chains {
    #[must_use]
    pub fn new(pool: Arc<Pool>) -> Self {
        Self { pool, chains: Mutex::default() }
    }

    /// The block of the frame with the number `nth`, whose bytes in the wire's format are `plain`; asked for once. A
    /// `fresh` one is a keyframe whether or not it is due.
    pub(crate) fn block(
        self: &Arc<Self>,
        wire: Wire,
        nth: u64,
        plain: &[u8],
        fresh: bool,
        scratch: &mut Scratch,
        now: Instant,
    ) -> Block {
        let mut chains = self.lock();
        let chain = match chains.iter().position(|chain| chain.wire == wire) {
            Some(at) => &mut chains[at],
            None => chains.push_mut(Chain::new(wire, now)),
        };
        if nth < chain.next {
            return Block { bytes: scratch.block(wire.encoding(), plain), keyframe: true };
        }
        let due = fresh
            || nth != chain.next
            || chain.since_keyframe >= KEYFRAME_EVENTS
            || now.saturating_duration_since(chain.keyframe_at) >= KEYFRAME_EVERY;
        let is_busy = now.saturating_duration_since(chain.last_at) < KEYFRAME_EVERY;
        chain.next = nth + 1;
        chain.last_at = now;
        if let Some(held) = &chain.held {
            held.used.store(self.pool.time(now), Ordering::Relaxed);
        }
        if !due
            && let Some(held) = &mut chain.held
            && let Some(bytes) = held.compressor.go_on(plain)
        {
            chain.since_keyframe += 1;
            return Block { bytes, keyframe: false };
        }
        chain.since_keyframe = 1;
        chain.keyframe_at = now;
        if chain.held.is_none() && is_busy {
            let used = Arc::new(AtomicU64::new(self.pool.time(now)));
            let claimed = self.pool.claim(self, wire, &used, now);
            chain.held = claimed.map(|compressor| Held { compressor, used });
        }
        let bytes = match &mut chain.held {
            Some(held) => held.compressor.restart(plain),
            None => scratch.block(wire.encoding(), plain),
        };
        Block { bytes, keyframe: true }
    }

    /// Gives a compressor up for another channel, unless it is in use just now.
    pub(super) fn give_up(&self, wire: Wire) -> Option<Compressor> {
        let mut chains = self.chains.try_lock().ok()?;
        let chain = chains.iter_mut().find(|chain| chain.wire == wire)?;
        chain.held.take().map(|held| held.compressor)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Chain>> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chain {
    fn new(wire: Wire, now: Instant) -> Self {
        debug_assert_ne!(wire.encoding(), Encoding::Identity);
        let long_ago = now.checked_sub(KEYFRAME_EVERY).unwrap_or(now);
        Self { wire, next: 0, since_keyframe: 0, keyframe_at: long_ago, last_at: long_ago, held: None }
    }
}

impl fmt::Debug for Chains {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Chains").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Reader, *};
    use crate::{metrics::Metrics, sse::frame::Format};

    const GZIP: Wire = Wire::new(Format::Sse, Encoding::Gzip);

    struct World {
        chains: Arc<Chains>,
        scratch: Scratch,
        start: Instant,
    }

    impl World {
        fn new() -> Self {
            let metrics = Arc::new(Metrics::new());
            let chains = Arc::new(Chains::new(Arc::new(Pool::new(Arc::clone(&metrics)))));
            Self { chains, scratch: Scratch::new(metrics), start: Instant::now() }
        }

        fn block(&mut self, nth: u64, at_ms: u64) -> Block {
            let now = self.start + Duration::from_millis(at_ms);
            self.chains.block(GZIP, nth, plain(nth).as_bytes(), false, &mut self.scratch, now)
        }

        fn holds(&self) -> bool {
            self.chains.lock().iter().any(|chain| chain.held.is_some())
        }
    }

    fn plain(nth: u64) -> String {
        format!("data: the same in every event, but for the number {nth}\n\n")
    }

    #[test]
    fn a_keyframe_comes_every_256_events() {
        let mut world = World::new();
        let keyframes: Vec<_> = (0..300).filter(|&nth| world.block(nth, nth * 10).keyframe).collect();
        // The second is one too: only then is the channel known to be busy.
        assert_eq!(keyframes, [0, 1, 257]);
    }

    #[test]
    fn a_keyframe_comes_every_five_seconds() {
        let mut world = World::new();
        let keyframes: Vec<_> = (0..20).filter(|&nth| world.block(nth, nth * 700).keyframe).collect();
        assert_eq!(keyframes, [0, 1, 9, 17]);
    }

    #[test]
    fn a_quiet_channel_has_keyframes_alone_and_no_compressor() {
        let mut world = World::new();
        for nth in 0..20 {
            assert!(world.block(nth, nth * 5001).keyframe && !world.holds());
        }
    }

    #[test]
    fn who_asks_late_gets_an_independent_block_and_disturbs_nobody() {
        let mut world = World::new();
        let mut ahead = Reader::new("gzip");
        let mut bytes = Vec::new();
        super::super::open(Encoding::Gzip, &mut bytes);
        ahead.read(&bytes);
        for nth in [0, 1, 2, 10, 11, 12] {
            assert_eq!(ahead.read(&world.block(nth, nth).bytes), plain(nth).into_bytes());
            if nth == 10 {
                let late = world.block(5, nth);
                assert!(late.keyframe);
                let mut behind = Reader::new("gzip");
                behind.read(&bytes);
                assert_eq!(behind.read(&late.bytes), plain(5).into_bytes());
            }
            assert_eq!(world.block_is_keyframe_again(nth), nth == 10 || nth < 2);
        }
    }

    impl World {
        /// Whether the block just made began the chain anew.
        fn block_is_keyframe_again(&self, nth: u64) -> bool {
            let chains = self.chains.lock();
            assert_eq!(chains[0].next, nth + 1, "where the chain stands");
            chains[0].since_keyframe == 1
        }
    }
}
