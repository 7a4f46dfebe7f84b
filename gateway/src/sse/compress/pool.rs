//! Which of a replica's channels have a compressor of their own: a bounded number, those that are busy.
//!
//! A channel that has none is no worse off than a quiet one: its blocks are independent, and shared by all its clients.
//! One that has a compressor and does not use it loses it to the next that asks. While all are in use, whoever asks
//! goes without, but for one time in many: then the one that has waited longest for its next event makes room. So over
//! time the busiest have them.

use super::{Chains, Wire, chain::KEYFRAME_EVERY, codec::Compressor};
use crate::metrics::Metrics;
use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// Compressors that channels of a replica have: some 9 MiB.
const MOST: usize = 64;
/// Of so many that find all compressors in use, the last gets one all the same.
const ASKED_IN_VAIN: u32 = 64;

/// See the module's documentation.
pub struct Pool {
    most: usize,
    holders: Mutex<Holders>,
    started: Instant,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Holders {
    list: Vec<Holder>,
    asked_in_vain: u32,
}

struct Holder {
    chains: Weak<Chains>,
    wire: Wire,
    /// When it was last used.
    used: Arc<AtomicU64>,
}

impl Pool {
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self::of(MOST, metrics)
    }

    fn of(most: usize, metrics: Arc<Metrics>) -> Self {
        Self { most, holders: Mutex::default(), started: Instant::now(), metrics }
    }

    /// Milliseconds on the pool's clock.
    pub(super) fn time(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// A compressor for a chain of `chains`, which is locked; `None` if it has to go without.
    pub(super) fn claim(
        &self,
        chains: &Arc<Chains>,
        wire: Wire,
        used: &Arc<AtomicU64>,
        now: Instant,
    ) -> Option<Compressor> {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let mut freed = None;
        holders.list.retain(|holder| holder.chains.strong_count() > 0);
        if holders.list.len() >= self.most {
            let by_use = |&at: &usize| holders.list[at].used.load(Ordering::Relaxed);
            let longest = (0..holders.list.len()).min_by_key(by_use)?;
            let idle = self.time(now).saturating_sub(by_use(&longest));
            if u128::from(idle) < KEYFRAME_EVERY.as_millis() {
                holders.asked_in_vain += 1;
                if holders.asked_in_vain < ASKED_IN_VAIN {
                    return None;
                }
            }
            holders.asked_in_vain = 0;
            let holder = &holders.list[longest];
            // Never waits: that one may be asking, too.
            freed = Some(holder.chains.upgrade()?.give_up(holder.wire)?);
            holders.list.swap_remove(longest);
        }
        let compressor = freed
            .filter(|freed| freed.encoding() == wire.encoding())
            .or_else(|| Compressor::new(wire.encoding(), &self.metrics))?;
        holders.list.push(Holder { chains: Arc::downgrade(chains), wire, used: Arc::clone(used) });
        Some(compressor)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Encoding, Scratch},
        *,
    };
    use crate::sse::frame::Format;
    use std::time::Duration;

    struct World {
        pool: Arc<Pool>,
        metrics: Arc<Metrics>,
        start: Instant,
    }

    impl World {
        fn new(most: usize) -> Self {
            let metrics = Arc::new(Metrics::new());
            Self { pool: Arc::new(Pool::of(most, Arc::clone(&metrics))), metrics, start: Instant::now() }
        }

        fn claim(&self, chains: &Arc<Chains>, at_ms: u64) -> Option<Compressor> {
            let now = self.start + Duration::from_millis(at_ms);
            let used = Arc::new(AtomicU64::new(self.pool.time(now)));
            self.pool.claim(chains, Wire::new(Format::Sse, Encoding::Gzip), &used, now)
        }
    }

    /// The share of blocks that are dependent, of channels with an event every so many milliseconds, from some time on
    /// to some time.
    fn run(channels: &[(u64, std::ops::Range<u64>)], most: usize) -> Vec<f64> {
        let world = World::new(most);
        let mut scratch = Scratch::new(Arc::clone(&world.metrics));
        let chains: Vec<_> = channels.iter().map(|_| Arc::new(Chains::new(Arc::clone(&world.pool)))).collect();
        let wire = Wire::new(Format::Sse, Encoding::Gzip);
        let (mut nths, mut dependent) = (vec![0; channels.len()], vec![0; channels.len()]);
        for ms in 0..20_000 {
            let now = world.start + Duration::from_millis(ms);
            for (which, (every_ms, while_ms)) in channels.iter().enumerate() {
                if ms % every_ms == 0 && while_ms.contains(&ms) {
                    let block = chains[which].block(wire, nths[which], b"data: x\n\n", false, &mut scratch, now);
                    nths[which] += 1;
                    dependent[which] += u64::from(!block.keyframe);
                }
            }
        }
        (0..channels.len()).map(|which| dependent[which] as f64 / nths[which] as f64).collect()
    }

    #[test]
    fn only_so_many_channels_have_a_compressor() {
        let shares = run(&[(10, 0..20_000), (10, 0..20_000), (10, 0..20_000)], 2);
        let without = shares.iter().filter(|share| **share < 0.9).count();
        assert!((1..=3).contains(&without) && shares.iter().sum::<f64>() < 2.1, "{shares:?}");
    }

    #[test]
    fn a_channel_that_has_fallen_silent_makes_room() {
        let shares = run(&[(10, 0..5_000), (10, 6_100..20_000)], 1);
        assert!(shares.iter().all(|share| *share > 0.9), "{shares:?}");
    }

    #[test]
    fn over_time_the_busiest_have_them() {
        let shares = run(&[(900, 0..20_000), (5, 0..20_000), (800, 0..20_000)], 1);
        assert!(shares[1] > 0.9, "{shares:?}");
    }

    #[test]
    fn channels_that_are_gone_hold_nothing() {
        let world = World::new(1);
        let gone = Arc::new(Chains::new(Arc::clone(&world.pool)));
        assert!(world.claim(&gone, 0).is_some());
        let other = Arc::new(Chains::new(Arc::clone(&world.pool)));
        assert!(world.claim(&other, 1).is_none(), "it was used just now");
        drop(gone);
        assert!(world.claim(&other, 2).is_some());
    }
}
