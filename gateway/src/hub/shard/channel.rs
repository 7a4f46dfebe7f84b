//! A channel as one shard sees it: a ring of its recent frames, and its subscribers as places in that ring.
//!
//! Places are counted from the shard's first frame of the channel and never go back; `next` of a subscriber is the
//! first frame that it has not been sent.

use super::batch::Batches;
use crate::{
    channel::Channel,
    config::SlowPolicy,
    position::Position,
    sse::{
        compress::Wire,
        frame::{Content, Frame},
    },
};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

/// One connection's subscription.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscriber {
    pub(super) connection: u32,
    /// Index of the connection's link to this channel.
    pub(super) link: u16,
    pub(super) wire: Wire,
    /// Not served by the shared pass: it is behind, blocked, starting, or has an id of its own.
    pub(super) aside: bool,
    pub(super) next: u64,
}

// The shared pass goes through thousands of them.
const _: () = assert!(size_of::<Subscriber>() == 16);

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) frame: Arc<Frame>,
    /// Its block in the channel's chain goes on from that of the frame before it here.
    pub(super) follows: bool,
    /// When it came, among all of the shard's frames.
    stamp: u64,
    /// Where a client stands that was sent this and all before it.
    stands: Position,
    /// Bytes of all frames up to and with this one, since the first.
    end: u64,
}

/// How far the shared pass over a channel's subscribers has come. A pass over many is made in several turns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pass {
    /// The subscriber that is next; 0 between passes.
    pub(super) at: usize,
    /// The channel's head when it began.
    pub(super) head: u64,
    /// The oldest place that one of those who were passed still needs.
    pub(super) needed: u64,
    /// A subscriber was moved to where the pass had been already.
    pub(super) again: bool,
}

#[derive(Debug)]
pub(super) struct ShardChannel {
    pub(super) channel: Channel,
    /// The feed has said where the channel stands.
    pub(super) attached: bool,
    pub(super) positioned: bool,
    pub(super) subscribers: Vec<Subscriber>,
    pub(super) dirty: bool,
    /// When the last frame came.
    pub(super) news_at: Option<Instant>,
    pub(super) pass: Pass,
    /// Connections that asked for what follows a position.
    pub(super) asking: HashMap<Position, Vec<super::Key>>,
    ring: VecDeque<Slot>,
    weight: u64,
    /// Place of the ring's first frame.
    first: u64,
    /// Where a client stands that needs all of the ring, and the bytes before it.
    base: Position,
    base_end: u64,
    /// Frames before this place belong to another history: nobody may resume among them.
    line: u64,
    /// The number of the newest frame, which the ring may hold no longer.
    newest: Option<u64>,
    pub(super) batches: Batches,
    /// What is done for those who read too slowly.
    pub(super) slow: SlowPolicy,
}

/// What a frame is counted with towards an outbox: near its size on the wire.
pub(super) fn size(frame: &Frame) -> u64 {
    match frame.content() {
        Content::Event(event) => event.len() as u64 + 48,
        Content::Gap { .. } => 160,
    }
}

impl ShardChannel {
    pub(super) fn new(channel: Channel, slow: SlowPolicy) -> Self {
        Self {
            channel,
            attached: false,
            positioned: false,
            subscribers: Vec::new(),
            dirty: false,
            news_at: None,
            pass: Pass::default(),
            asking: HashMap::new(),
            ring: VecDeque::new(),
            weight: 0,
            first: 0,
            base: Position::default(),
            base_end: 0,
            line: 0,
            newest: None,
            batches: Batches::default(),
            slow,
        }
    }

    /// The place after the newest frame.
    pub(super) fn head(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    /// Memory that the ring's frames take.
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Where a client stands that was sent everything.
    pub(super) fn last(&self) -> Position {
        self.ring.back().map_or(self.base, |slot| slot.stands)
    }

    pub(super) fn frame(&self, place: u64) -> Option<&Arc<Frame>> {
        let index = usize::try_from(place.checked_sub(self.first)?).ok()?;
        self.ring.get(index).map(|slot| &slot.frame)
    }

    /// When the frame at `place` came, among all of the shard's frames.
    pub(super) fn stamp(&self, place: u64) -> Option<u64> {
        let index = usize::try_from(place.checked_sub(self.first)?).ok()?;
        self.ring.get(index).map(|slot| slot.stamp)
    }

    fn before(&self, place: u64) -> Option<&Slot> {
        let index = usize::try_from(place.checked_sub(self.first)?).ok()?;
        self.ring.get(index.checked_sub(1)?)
    }

    /// Where a client stands whose next frame is at `place`; `None` if the ring no longer knows.
    pub(super) fn stands(&self, place: u64) -> Option<Position> {
        (place >= self.first).then(|| self.before(place).map_or(self.base, |slot| slot.stands))
    }

    /// Bytes that a client whose next frame is at `place` has not been sent.
    pub(super) fn behind(&self, place: u64) -> u64 {
        let end = self.ring.back().map_or(self.base_end, |slot| slot.end);
        end - self.before(place).map_or(self.base_end, |slot| slot.end)
    }

    /// Begins anew where the feed says that the channel stands.
    pub(super) fn restart(&mut self, positioned: bool, base: Position) {
        self.first = self.head();
        self.line = self.first;
        self.ring.clear();
        self.weight = 0;
        self.batches.clear();
        self.newest = None;
        self.base = base;
        self.positioned = positioned;
        self.attached = true;
    }

    /// Nobody resumes among what the ring holds: the history that it belongs to was deleted. Those who are live and
    /// behind are still sent it.
    pub(super) fn forget(&mut self) {
        self.line = self.head();
    }

    pub(super) fn push(&mut self, frame: Arc<Frame>, stamp: u64) {
        let (last, end) = (self.last(), self.ring.back().map_or(self.base_end, |slot| slot.end));
        let stands = frame.at().filter(|_| self.positioned).unwrap_or(last);
        if stands.seq < last.seq || (!frame.is_event() && frame.prev() == 0 && stands.seq <= last.seq) {
            self.line = self.head();
        }
        let end = end + size(&frame);
        let before = std::mem::replace(&mut self.newest, frame.nth());
        let follows = before.is_some_and(|before| self.newest == Some(before + 1));
        self.weight += frame.weight() as u64;
        self.ring.push_back(Slot { frame, follows, stamp, stands, end });
        self.batches.clear();
    }

    /// The place of the first frame that a client lacks that stood at `position`, if the ring proves it.
    pub(super) fn locate(&self, position: Position) -> Option<u64> {
        if position == self.last() && self.line <= self.head() {
            return Some(self.head());
        }
        if position == self.base && self.line == self.first {
            return Some(self.first);
        }
        let line = usize::try_from(self.line.saturating_sub(self.first)).ok()?;
        let (mut low, mut high) = (line, self.ring.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.ring[middle].stands.seq < position.seq { low = middle + 1 } else { high = middle }
        }
        let slot = self.ring.get(low)?;
        (slot.frame.at() == Some(position)).then_some(self.first + low as u64 + 1)
    }

    /// Lets go of the oldest frames beyond `keep` bytes of memory, but of none from `needed` on unless they are more than
    /// `most` bytes on the wire.
    pub(super) fn trim(&mut self, keep: u64, needed: u64, most: u64) {
        while let (Some(oldest), Some(newest)) = (self.ring.front(), self.ring.back()) {
            let held = newest.end - self.base_end;
            if self.weight <= keep || (self.first >= needed && held <= most) {
                break;
            }
            self.weight -= oldest.frame.weight() as u64;
            self.base = oldest.stands;
            self.base_end = oldest.end;
            self.first += 1;
            self.ring.pop_front();
        }
        self.line = self.line.max(self.first);
        // A burst's room is given back.
        if self.ring.capacity() > 64 && self.ring.len() < self.ring.capacity() / 4 {
            self.ring.shrink_to(self.ring.len() * 2);
        }
        self.batches.clear();
    }

    /// What is held from `place` on.
    pub(super) fn slots(&self, place: u64) -> impl Iterator<Item = &Slot> {
        let start = usize::try_from(place.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.ring.range(start.min(self.ring.len())..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Event, sse::frame::GapReason};
    use bytes::Bytes;

    fn news() -> Channel {
        Channel::new("news").expect("a name")
    }

    fn entry(seq: u64) -> Arc<Frame> {
        let event = Event::new(None, Bytes::from(format!("{seq}"))).expect("valid");
        Arc::new(Frame::positioned(news(), Position::new(seq * 10, seq), (seq - 1) * 10, event))
    }

    fn raw() -> Arc<Frame> {
        Arc::new(Frame::unpositioned(news(), 0, Event::new(None, Bytes::new()).expect("valid")))
    }

    fn ring(seqs: std::ops::RangeInclusive<u64>) -> ShardChannel {
        let mut ring = ShardChannel::new(news(), SlowPolicy::Disconnect);
        ring.restart(true, Position::new((seqs.start() - 1) * 10, seqs.start() - 1));
        seqs.for_each(|seq| ring.push(entry(seq), 0));
        ring
    }

    #[test]
    fn a_position_is_found_only_if_it_is_that_very_entry() {
        let mut ring = ring(3..=6);
        ring.push(raw(), 0);
        assert_eq!(ring.locate(Position::new(20, 2)), Some(0));
        assert_eq!(ring.locate(Position::new(40, 4)), Some(2));
        // At the top there is nothing to send, a raw event after it included: it has no replay.
        assert_eq!(ring.locate(Position::new(60, 6)), Some(5));
        for elsewhere in [Position::new(10, 1), Position::new(41, 4), Position::new(70, 7), Position::new(21, 2)] {
            assert_eq!(ring.locate(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn trimming_moves_the_base_but_takes_nothing_that_is_needed() {
        let mut ring = ring(1..=10);
        let weight = |frames| frames * Frame::weight_of(1) as u64;
        ring.trim(weight(3), 0, u64::MAX);
        assert_eq!((ring.first(), ring.head()), (0, 10));
        ring.trim(weight(3) + 2, 10, u64::MAX);
        assert_eq!((ring.first(), ring.stands(ring.first())), (7, Some(Position::new(70, 7))));
        assert_eq!(ring.locate(Position::new(70, 7)), Some(7));
        assert_eq!(ring.locate(Position::new(60, 6)), None);
        assert_eq!((ring.stands(6), ring.behind(10)), (None, 0));
        ring.trim(0, 0, 60);
        assert_eq!(ring.head() - ring.first(), 1);
    }

    #[test]
    fn nobody_resumes_in_a_history_that_was_replaced() {
        let mut ring = ring(1..=5);
        let after = Position::new(20, 2);
        ring.push(Arc::new(Frame::gap(news(), GapReason::Reset, Some(Position::new(50, 5)), Some(after))), 0);
        assert_eq!(ring.locate(Position::new(40, 4)), None);
        assert_eq!(ring.locate(after), Some(6));
        assert_eq!(ring.last(), after);
    }
}
