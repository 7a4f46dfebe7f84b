//! A channel's recent frames as its feed keeps them, and how many channels keep some: they share a budget.

use crate::{position::Position, sse::frame::Frame};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// How many channels keep frames.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keeping(Arc<AtomicUsize>);

impl Keeping {
    /// What each of them may keep of `total` bytes.
    pub(super) fn share(&self, total: usize) -> usize {
        total / self.0.load(Ordering::Relaxed).max(1)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Recent {
    frames: VecDeque<Arc<Frame>>,
    weight: usize,
    keeping: Keeping,
}

impl Recent {
    pub(super) fn new(keeping: Keeping) -> Self {
        Self { frames: VecDeque::new(), weight: 0, keeping }
    }

    pub(super) fn push(&mut self, frame: Arc<Frame>) {
        if self.frames.is_empty() {
            self.keeping.0.fetch_add(1, Ordering::Relaxed);
        }
        self.weight += frame.weight();
        self.frames.push_back(frame);
    }

    /// Lets go of the oldest beyond so many bytes of memory; answers where a client stands that needs all others, if that
    /// has changed.
    pub(super) fn trim(&mut self, most: usize) -> Option<Position> {
        let mut base = None;
        while self.weight > most
            && let Some(oldest) = self.frames.pop_front()
        {
            self.weight -= oldest.weight();
            base = oldest.at().or(base);
            if self.frames.is_empty() {
                self.keeping.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        base
    }

    pub(super) fn clear(&mut self) {
        self.trim(0);
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Frame>> {
        self.frames.iter()
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{channel::Channel, event::Event};

    #[test]
    fn those_that_keep_something_share_and_no_others() {
        let keeping = Keeping::default();
        let frame = |seq| {
            let event = Event::new(None, bytes::Bytes::from_static(b"x")).expect("valid");
            let channel = Channel::new("news").expect("a name");
            Arc::new(Frame::positioned(channel, Position::new(seq, seq), seq - 1, event))
        };
        let mut channels: Vec<_> = (0..4).map(|_| Recent::new(keeping.clone())).collect();
        assert_eq!(keeping.share(100), 100);
        for channel in &mut channels[..2] {
            (1..=3).for_each(|seq| channel.push(frame(seq)));
        }
        assert_eq!(keeping.share(100), 50);
        assert_eq!(channels[0].trim(Frame::weight_of(1)), Some(Position::new(2, 2)));
        assert_eq!(channels[0].trim(Frame::weight_of(1)), None);
        assert_eq!((channels[0].iter().count(), keeping.share(100)), (1, 50));
        channels[0].clear();
        assert_eq!(keeping.share(100), 100);
        channels[0].push(frame(4));
        drop(channels);
        assert_eq!((keeping.share(100), keeping.0.load(Ordering::Relaxed)), (100, 0));
    }
}
