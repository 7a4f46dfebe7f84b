//! What is done for a client that reads more slowly than events come, before it is cut: what its channels' policies say.
//!
//! A client that is behind is a place in a channel's ring. Relief moves the place on, and has the client told by a gap of
//! what it will not get; with `latest`, the newest event of each type among what is passed over is kept for it aside.
//! What was handed to the socket is never touched, so a frame is whole or not there.
//!
//! The gap comes before everything else of its channel, and until it has been written the client's cursor stays where it
//! was: whoever reconnects before it was told is sent what it missed.

use super::{channel::size, *};
use crate::{config::SlowPolicy, position::Position};

/// What a link is sent before what stands at its place in the ring.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) gap: Option<Arc<Frame>>,
    pub(super) frames: VecDeque<Arc<Frame>>,
}

impl Held {
    pub(super) fn bytes(&self) -> u64 {
        self.frames.iter().chain(&self.gap).map(|frame| size(frame)).sum()
    }

    pub(super) fn peek(&self) -> Option<&Arc<Frame>> {
        self.gap.as_ref().or_else(|| self.frames.front())
    }

    /// Moves past what [`Self::peek`] showed; answers whether anything is left.
    pub(super) fn advance(&mut self) -> bool {
        if self.gap.take().is_none() {
            self.frames.pop_front();
        }
        !self.frames.is_empty()
    }
}

/// What may be done about what waits for one link.
fn policy_of(channels: &Slab<ShardChannel>, link: &Link) -> SlowPolicy {
    match link.progress {
        Progress::Live => channels[link.channel as usize].slow,
        // Whoever reads history is sent it at its own pace.
        _ => SlowPolicy::Disconnect,
    }
}

impl Shard {
    /// Keeps what waits for a blocked connection within `most` bytes, but for the newest event of each channel. It is cut
    /// if what must not be given up is more than that by itself.
    pub(super) fn bound_outbox(&mut self, key: Key, most: u64) {
        let Some(connection) = self.connections.get(key.index as usize).filter(|c| c.key == key) else { return };
        if self.behind_bytes(connection) <= most {
            return;
        }
        let firm = connection.links.iter().filter(|link| policy_of(&self.channels, link) == SlowPolicy::Disconnect);
        let firm: u64 = firm.map(|link| self.behind_bytes_of(link)).sum();
        if firm <= most {
            self.relieve(key, most - firm);
            return;
        }
        self.hub.metrics.slow_consumers.with_label_values(&[SlowPolicy::Disconnect.as_str()]).inc();
        self.close(key, Reason::Slow, false);
    }

    /// Gives up what waits for a connection beyond `most` bytes on channels whose policies allow it. Answers how much is
    /// left on all of them.
    pub(super) fn relieve(&mut self, key: Key, most: u64) -> u64 {
        let Some(connection) = self.connections.get_mut(key.index as usize).filter(|c| c.key == key) else { return 0 };
        let waits = |channels: &Slab<ShardChannel>, link: &Link| {
            let channel = &channels[link.channel as usize];
            link.held.is_some() || channel.subscribers[link.subscriber as usize].next < channel.head()
        };
        let gives =
            |link: &&Link| policy_of(&self.channels, link) != SlowPolicy::Disconnect && waits(&self.channels, link);
        let share = most / connection.links.iter().filter(gives).count().max(1) as u64;
        for link in &mut connection.links {
            let policy = policy_of(&self.channels, link);
            let channel = &mut self.channels[link.channel as usize];
            let dropped = match policy {
                SlowPolicy::Disconnect => continue,
                // Half, so that not every further event does this again.
                SlowPolicy::DropOldest => drop_oldest(channel, link, share / 2),
                SlowPolicy::Latest => keep_latest(channel, link, share),
            };
            if dropped > 0 {
                self.hub.metrics.slow_consumers.with_label_values(&[policy.as_str()]).inc();
                self.hub.metrics.dropped_events.with_label_values(&[policy.as_str()]).inc_by(dropped);
            }
        }
        self.connections.get(key.index as usize).map_or(0, |connection| self.behind_bytes(connection))
    }
}

/// Where the client stands, if the channel has positions, and the end of what it was to be told is missing already.
fn missing_from(channel: &ShardChannel, link: &Link) -> Option<Position> {
    let told = link.held.as_ref().and_then(|held| held.gap.as_ref()).map(|gap| gap.content().clone());
    match told {
        Some(Content::Gap { from, .. }) => from,
        _ => channel.positioned.then_some(link.at),
    }
}

/// Moves the link's place on until no more than `most` bytes wait at it, the newest frame aside. Answers how many events
/// it passes over.
fn drop_oldest(channel: &mut ShardChannel, link: &mut Link, most: u64) -> u64 {
    let (next, head) = (channel.subscribers[link.subscriber as usize].next, channel.head());
    let mut place = next.max(channel.first());
    // What the ring has let go of was events, as far as anybody knows.
    let mut dropped = place - next;
    while place + 1 < head && channel.behind(place) > most {
        dropped += u64::from(channel.frame(place).is_some_and(|frame| frame.is_event()));
        place += 1;
    }
    if dropped == 0 {
        return 0;
    }
    let (from, to) = (missing_from(channel, link), channel.stands(place).filter(|_| channel.positioned));
    let gap = Frame::gap(channel.channel.clone(), GapReason::Overflow, from, to);
    link.held = Some(Box::new(Held { gap: Some(Arc::new(gap)), frames: VecDeque::new() }));
    channel.subscribers[link.subscriber as usize].next = place;
    dropped
}

/// Keeps the newest event of each type among what waits, and of these the newest that fit. Answers how many are given up.
fn keep_latest(channel: &mut ShardChannel, link: &mut Link, most: u64) -> u64 {
    let (next, head) = (channel.subscribers[link.subscriber as usize].next, channel.head());
    let first = next.max(channel.first());
    let kept_before = link.held.iter().flat_map(|held| held.frames.iter()).cloned();
    let waiting: Vec<_> = kept_before.chain((first..head).filter_map(|place| channel.frame(place).cloned())).collect();
    let mut types = std::collections::HashSet::new();
    let mut frames = VecDeque::new();
    let (mut bytes, mut dropped, mut to) = (0, first - next, None);
    for frame in waiting.iter().rev() {
        let is_newest = match frame.content() {
            Content::Event(event) => types.insert(event.event_type().map(str::to_owned)),
            Content::Gap { .. } => true,
        };
        if is_newest && (frames.is_empty() || bytes + size(frame) <= most) {
            bytes += size(frame);
            frames.push_front(Arc::clone(frame));
        } else {
            dropped += u64::from(frame.is_event());
            // The first that is met is the newest.
            to = to.or(frame.at());
        }
    }
    if dropped == 0 {
        return 0;
    }
    let from = missing_from(channel, link);
    // Older events than the gap's end follow: it has no position of its own.
    let gap = Frame::gap_among(channel.channel.clone(), GapReason::Overflow, from, to.filter(|_| channel.positioned));
    link.held = Some(Box::new(Held { gap: Some(Arc::new(gap)), frames }));
    channel.subscribers[link.subscriber as usize].next = head;
    dropped
}
