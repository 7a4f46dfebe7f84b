//! The memory that pages of history may take while clients read them, of all channels together.
//!
//! A page's size is known once it has been read, so room for the largest there can be is taken before, and what it does
//! not need is given back after. Who finds no room waits in line, holding nothing meanwhile; whoever holds a page either
//! goes on reading or has it taken away ([`Replayer::press`](super::Replayer::press)). So nobody waits for ever.

use crate::{metrics::Metrics, sse::frame::Frame};
use futures_util::FutureExt;
use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What permits stand for, so that they can be counted in 32 bits.
const UNIT: usize = 1024;
/// While somebody waits, how often those who hold memory are asked for it.
const PRESS_EVERY: Duration = Duration::from_millis(100);
/// Bytes of a page, if all of its events are as large as they may be, and the least and most entries of one.
const PAGE_BYTES: usize = 16 << 20;
const ENTRIES: (usize, usize) = (4, 256);
/// What an event may have beside its data: a type.
const TYPE_BYTES: usize = 256;

/// See the module's documentation.
pub(super) struct Budget {
    room: Arc<Semaphore>,
    /// For a page, whatever is in it.
    needed: u32,
    metrics: Arc<Metrics>,
    pressed: Mutex<Option<Instant>>,
}

/// How much is read at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageSize {
    pub(super) entries: usize,
    /// How many of them may lie before the place that is asked for.
    pub(super) before: usize,
}

impl PageSize {
    /// For events of up to so many bytes.
    pub(super) fn of(event_bytes: usize) -> Self {
        let entries = (PAGE_BYTES / event_bytes.max(1)).clamp(ENTRIES.0, ENTRIES.1);
        Self { entries, before: entries / 4 }
    }
}

impl Budget {
    pub(super) fn new(bytes: usize, page: PageSize, event_bytes: usize, metrics: Arc<Metrics>) -> Self {
        let room = bytes / UNIT;
        let largest = (page.entries + page.before) * Frame::weight_of(event_bytes + TYPE_BYTES);
        // A page that is larger than everything is read alone.
        let needed = u32::try_from(largest.div_ceil(UNIT).clamp(1, room)).unwrap_or(u32::MAX);
        Self { room: Arc::new(Semaphore::new(room)), needed, metrics, pressed: Mutex::default() }
    }

    /// Room for a page, once there is some; `press` is called now and then while there is none.
    pub(super) async fn room(&self, press: impl Fn()) -> OwnedSemaphorePermit {
        const OPEN: &str = "nobody closes it";
        let mut room = pin!(Arc::clone(&self.room).acquire_many_owned(self.needed));
        if let Some(taken) = room.as_mut().now_or_never() {
            return taken.expect(OPEN);
        }
        self.metrics.replay_waits.inc();
        loop {
            match tokio::time::timeout(PRESS_EVERY, room.as_mut()).await {
                Ok(taken) => return taken.expect(OPEN),
                Err(_) if self.is_time_to_press() => press(),
                Err(_) => {}
            }
        }
    }

    fn is_time_to_press(&self) -> bool {
        let mut pressed = self.pressed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = pressed.is_none_or(|when| when.elapsed() >= PRESS_EVERY);
        if is_time {
            *pressed = Some(Instant::now());
        }
        is_time
    }

    /// Keeps of `room` what `bytes` need.
    pub(super) fn share(&self, mut room: OwnedSemaphorePermit, bytes: usize) -> Share {
        let unneeded = room.num_permits().saturating_sub(bytes.div_ceil(UNIT));
        drop(room.split(unneeded));
        self.metrics.replay_bytes.add(i64::try_from(bytes).unwrap_or(i64::MAX));
        Share { room, bytes, metrics: Arc::clone(&self.metrics) }
    }
}

/// What one page takes of the memory, given back when it goes.
pub(crate) struct Share {
    room: OwnedSemaphorePermit,
    bytes: usize,
    metrics: Arc<Metrics>,
}

impl Share {
    /// Takes so many bytes more, if they are there just now.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(self.room.semaphore()).try_acquire_many_owned(units) else { return false };
        self.room.merge(more);
        self.bytes += bytes;
        self.metrics.replay_bytes.add(i64::try_from(bytes).unwrap_or(i64::MAX));
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.metrics.replay_bytes.sub(i64::try_from(self.bytes).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const EVENT: usize = 64 * 1024;

    fn budget(bytes: usize) -> Budget {
        Budget::new(bytes, PageSize::of(EVENT), EVENT, Arc::new(Metrics::new()))
    }

    #[test]
    fn a_page_of_large_events_has_fewer() {
        let size = |bytes| (PageSize::of(bytes).entries, PageSize::of(bytes).before);
        assert_eq!((size(1), size(EVENT), size(1 << 20), size(16 << 20)), ((256, 64), (256, 64), (16, 4), (4, 1)));
    }

    #[tokio::test]
    async fn pages_hold_what_they_need_and_who_finds_no_room_waits_for_it() {
        let budget = budget(64 << 20);
        let first = budget.room(|| {}).await;
        let held = budget.share(first, 40 << 20);
        assert_eq!(budget.metrics.replay_bytes.get(), 40 << 20);
        let asked = AtomicUsize::new(0);
        let mut held = Some(held);
        let given_up = std::cell::RefCell::new(&mut held);
        let room = budget.room(|| {
            asked.fetch_add(1, Ordering::Relaxed);
            given_up.borrow_mut().take();
        });
        let room = tokio::time::timeout(Duration::from_secs(5), room).await;
        assert!(room.is_ok(), "what was pressed out is room");
        assert_eq!((asked.load(Ordering::Relaxed), budget.metrics.replay_bytes.get()), (1, 0));
        assert_eq!(budget.metrics.replay_waits.get(), 1);
    }

    #[tokio::test]
    async fn a_share_grows_only_into_what_is_free() {
        let budget = budget(1 << 20);
        let mut share = budget.share(budget.room(|| {}).await, 512 << 10);
        assert!(share.grow(256 << 10) && !share.grow(257 << 10) && share.grow(256 << 10));
        assert_eq!((budget.metrics.replay_bytes.get(), budget.room.available_permits()), (1 << 20, 0));
        drop(share);
        assert_eq!((budget.metrics.replay_bytes.get(), budget.room.available_permits()), (0, 1024));
    }

    #[tokio::test]
    async fn a_page_that_is_larger_than_everything_is_read_alone() {
        let budget = budget(1 << 20);
        let room = budget.room(|| {}).await;
        let share = budget.share(room, 50 << 20);
        assert_eq!(budget.room.available_permits(), 0);
        drop(share);
        assert_eq!(budget.room.available_permits(), 1024);
    }
}
