//! One timer wheel for everything that a shard's connections wait for: heartbeats, write timeouts, ends.
//!
//! Entries are cheap, may be stale, and are never cancelled: whoever gets one looks at what is really due.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The wheel's resolution: nothing here is worth more precision.
const TICK: Duration = Duration::from_millis(50);
/// Slots, so that 100 s fit; what is due later comes by once a turn and is put back.
const SLOTS: usize = 2048;

/// A connection of the shard, if it is still the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

pub(crate) struct Wheel {
    slots: Vec<Vec<(Key, Instant)>>,
    at: usize,
    time: Instant,
}

impl Wheel {
    pub(crate) fn new(now: Instant) -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), at: 0, time: now }
    }

    /// Asks for `key` to be looked at once `due` has passed.
    pub(crate) fn add(&mut self, key: Key, due: Instant) {
        let ticks = due.saturating_duration_since(self.time).as_nanos() / TICK.as_nanos() + 1;
        let ahead = usize::try_from(ticks).unwrap_or(SLOTS).min(SLOTS - 1);
        let slot = (self.at + ahead) % SLOTS;
        self.slots[slot].push((key, due));
    }

    /// How long until the next tick.
    pub(crate) fn until_tick(&self, now: Instant) -> Duration {
        (self.time + TICK).saturating_duration_since(now)
    }

    /// Moves on to `now` and puts what has become due into `due`.
    pub(crate) fn advance(&mut self, now: Instant, due: &mut VecDeque<Key>) {
        while self.time + TICK <= now {
            self.time += TICK;
            self.at = (self.at + 1) % SLOTS;
            for (key, when) in std::mem::take(&mut self.slots[self.at]) {
                if when <= self.time {
                    due.push_back(key);
                } else {
                    self.add(key, when);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn everything_comes_due_once_and_not_before_its_time(delays in proptest::collection::vec(0u64..300_000, 1..50)) {
            let start = Instant::now();
            let mut wheel = Wheel::new(start);
            for (index, delay) in delays.iter().enumerate() {
                wheel.add(Key { index: index as u32, generation: 0 }, start + Duration::from_millis(*delay));
            }
            let mut seen = vec![0; delays.len()];
            let mut now = start;
            while now <= start + Duration::from_secs(301) {
                let mut due = VecDeque::new();
                wheel.advance(now, &mut due);
                for key in due {
                    let late = now.saturating_duration_since(start + Duration::from_millis(delays[key.index as usize]));
                    proptest::prop_assert!(start + Duration::from_millis(delays[key.index as usize]) <= now);
                    proptest::prop_assert!(late <= Duration::from_millis(800), "{late:?}");
                    seen[key.index as usize] += 1;
                }
                now += Duration::from_millis(700);
            }
            proptest::prop_assert!(seen.iter().all(|&n| n == 1));
        }
    }
}
