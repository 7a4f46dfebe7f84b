//! Serving one connection by itself: whoever is behind, blocked, just starting, or has an id of its own, oldest frame
//! first.
//!
//! Thousands may come back at once and be sent the same: what one of them is sent of a single channel is made once.

use super::{batch::Which, encode::Sent, pass::Tally, relief::Held, *};
use crate::sse::{compress::Wire, frame::Parts};
use bytes::Bytes;

/// The most that is gathered for one write, and written to one connection before it is the next one's turn.
const CHUNK_BYTES: usize = 64 * 1024;
const TURN_BYTES: usize = 128 * 1024;
/// What waits already goes out together with what comes next if it is no more than this: a stream's first bytes.
const FIRST_BYTES: usize = 8 * 1024;

/// What comes first of several channels' next frames: history by its time, then live frames as they came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    Published(u64),
    Came(u64),
}

impl Shard {
    /// Writes what a connection has not been sent, as far as its socket takes it and its turn lasts.
    pub(super) fn serve(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else { return };
        let wire = connection.wire;
        connection.queued = false;
        if matches!(connection.stage, Stage::Starting(_)) {
            return;
        }
        let goes_along = connection.blocked.is_none() && connection.unsent.len() <= FIRST_BYTES;
        if !goes_along && !self.write_unsent(key) {
            return;
        }
        let mut written = 0;
        loop {
            let news = self.next_bytes(key, wire);
            let Some(connection) = self.connection(key) else { return };
            written += news.len();
            let is_last = news.is_empty();
            // What is there already, such as the first bytes, goes out with it.
            connection.unsent = match (connection.unsent.is_empty(), is_last) {
                (true, _) => news,
                (false, true) => std::mem::take(&mut connection.unsent),
                (false, false) => [&connection.unsent[..], &news].concat().into(),
            };
            if !self.write_unsent(key) || is_last {
                break;
            }
            if written >= TURN_BYTES {
                self.serve_alone(key);
                break;
            }
        }
        self.set_aside(key);
    }

    /// What a connection is sent next, encoded; nothing if there is nothing.
    fn next_bytes(&mut self, key: Key, wire: Wire) -> Bytes {
        if let Some(plain) = self.next_run(key, wire) {
            return self.encode_run(key, wire, plain);
        }
        let mut chunk = std::mem::take(&mut self.scratch);
        let mut frames = Vec::new();
        chunk.clear();
        while chunk.len() < CHUNK_BYTES
            && let Some(sent) = self.append_next(key, &mut chunk)
        {
            frames.push(sent);
        }
        let bytes = if frames.is_empty() { Bytes::new() } else { self.encode_frames(key, wire, &chunk, &frames) };
        self.scratch = chunk;
        bytes
    }

    /// All that is there for a connection with news of one channel only, if it is not too much, as it would be sent
    /// uncompressed: the same bytes for all who stand at the same place.
    fn next_run(&mut self, key: Key, wire: Wire) -> Option<Bytes> {
        let mut found = None;
        for nth in 0..self.connection(key)?.links.len() {
            if self.has_run(key, nth)? && found.replace(nth).is_some() {
                return None;
            }
        }
        let nth = found?;
        if self.has_own_id(self.connections.get(key.index as usize)?) {
            return None;
        }
        let connection = self.connections.get_mut(key.index as usize)?;
        let link = &mut connection.links[nth];
        let channel = &mut self.channels[link.channel as usize];
        let metrics = &self.hub.metrics;
        if let Progress::Replay(reading) = &mut link.progress {
            let page = reading.page.as_ref()?;
            let run = page.run(reading.next, wire.format(), CHUNK_BYTES)?;
            let mut events = 0;
            for frame in &page.frames[reading.next..] {
                match frame.content() {
                    Content::Event(_) => events += 1,
                    Content::Gap { reason, .. } => metrics.gaps.with_label_values(&[reason.as_str()]).inc(),
                }
            }
            metrics.messages.inc_by(events);
            metrics.replayed_events.inc_by(events);
            if channel.positioned
                && let Some(at) = page.frames.iter().rev().find_map(|frame| frame.at())
            {
                link.at = at;
            }
            reading.next = page.frames.len();
            return Some(run);
        }
        let place = channel.subscribers[link.subscriber as usize].next;
        if channel.behind(place) > CHUNK_BYTES as u64 {
            return None;
        }
        let which = Which { place, wire: wire.format().into(), in_step: false };
        let batch = channel.batch(which, || false, &mut self.compressors);
        let mut tally = Tally::of(channel, place, link.live_from);
        tally.writes = 1;
        tally.count(metrics);
        channel.subscribers[link.subscriber as usize].next = channel.head();
        if channel.positioned {
            link.at = channel.last();
        }
        Some(batch.bytes)
    }

    /// Whether a link has news that are a run of frames and nothing else; `None` if they are something else.
    fn has_run(&mut self, key: Key, nth: usize) -> Option<bool> {
        loop {
            let connection = self.connections.get(key.index as usize)?;
            let link = &connection.links[nth];
            let channel = &self.channels[link.channel as usize];
            let next = channel.subscribers[link.subscriber as usize].next;
            if link.held.is_some() {
                return None;
            }
            match &link.progress {
                Progress::Waiting(_) => return Some(false),
                Progress::Live if next < channel.first() => return None,
                Progress::Live => return Some(next < channel.head()),
                Progress::Floor(_) => return if next < channel.head() { None } else { Some(false) },
                Progress::Replay(reading) if reading.gap.is_some() => return None,
                Progress::Replay(reading) if reading.peek().is_some() => return Some(true),
                Progress::Replay(_) => {
                    if !self.rejoin(key, nth) {
                        return Some(false);
                    }
                }
            }
        }
    }

    /// Appends the oldest frame that a connection has not been sent, and answers it, if there is one.
    fn append_next(&mut self, key: Key, chunk: &mut Vec<u8>) -> Option<Sent> {
        let connection = self.connection(key)?;
        let mut oldest: Option<(usize, Age, Arc<Frame>)> = None;
        for nth in 0..connection.links.len() {
            if let Some((age, frame)) = self.next_of(key, nth)
                && oldest.as_ref().is_none_or(|(_, than, _)| age < *than)
            {
                oldest = Some((nth, age, frame));
            }
        }
        let (nth, _, frame) = oldest?;
        self.advance(key, nth, &frame);
        let metrics = &self.hub.metrics;
        match frame.content() {
            Content::Event(_) => metrics.messages.inc(),
            Content::Gap { reason, .. } => metrics.gaps.with_label_values(&[reason.as_str()]).inc(),
        }
        let connection = self.connections.get(key.index as usize)?;
        let format = connection.wire.format();
        let own_id =
            (frame.at().is_some() && self.has_own_id(connection)).then(|| self.cursor(connection).unwrap_or_default());
        if let Some(id) = &own_id {
            let Parts { before_id, after_id } = frame.parts(format);
            chunk.extend_from_slice(&before_id);
            chunk.extend_from_slice(id.as_bytes());
            chunk.extend_from_slice(&after_id);
        } else {
            chunk.extend_from_slice(frame.bytes(format));
        }
        Some(Sent { frame, own_id })
    }

    /// The next frame of one link, after whatever has to happen before there can be one.
    fn next_of(&mut self, key: Key, nth: usize) -> Option<(Age, Arc<Frame>)> {
        loop {
            let connection = self.connections.get_mut(key.index as usize)?;
            let link = connection.links.get_mut(nth)?;
            let channel = &mut self.channels[link.channel as usize];
            let next = channel.subscribers[link.subscriber as usize].next;
            if let Some(frame) = link.held.as_ref().and_then(|held| held.peek()) {
                return Some((Age::Published(0), Arc::clone(frame)));
            }
            match &mut link.progress {
                Progress::Waiting(_) => return None,
                Progress::Replay(reading) => {
                    if let Some(frame) = reading.peek() {
                        return Some((Age::Published(frame.published()), Arc::clone(frame)));
                    }
                    if !self.rejoin(key, nth) {
                        return None;
                    }
                }
                Progress::Live | Progress::Floor(_) if next < channel.first() => {
                    if channel.positioned {
                        link.progress = Progress::Replay(Box::default());
                        channel.subscribers[link.subscriber as usize].next = u64::MAX;
                        self.ask(key, nth);
                        return None;
                    }
                    channel.subscribers[link.subscriber as usize].next = channel.first();
                    let gap = Frame::gap(channel.channel.clone(), GapReason::Overflow, None, None);
                    // Kept until it is sent: another channel's frame may be older.
                    link.held = Some(Box::new(Held { gap: Some(Arc::new(gap)), frames: VecDeque::new() }));
                }
                Progress::Live => return Some((Age::Came(channel.stamp(next)?), channel.frame(next)?.clone())),
                Progress::Floor(floor) => {
                    let floor = *floor;
                    let (age, frame) = (Age::Came(channel.stamp(next)?), channel.frame(next)?.clone());
                    match frame.at() {
                        Some(at) if frame.is_event() && at.seq <= floor.seq => {
                            channel.subscribers[link.subscriber as usize].next += 1;
                        }
                        Some(_) => {
                            link.progress = Progress::Live;
                            return Some((age, frame));
                        }
                        None => return Some((age, frame)),
                    }
                }
            }
        }
    }

    /// Moves a link past `frame`, which is about to be sent.
    fn advance(&mut self, key: Key, nth: usize, frame: &Arc<Frame>) {
        let Some(connection) = self.connections.get_mut(key.index as usize) else { return };
        let link = &mut connection.links[nth];
        let channel = &mut self.channels[link.channel as usize];
        match &mut link.progress {
            _ if link.held.is_some() => {
                if !link.held.as_mut().is_some_and(|held| held.advance()) {
                    link.held = None;
                }
            }
            Progress::Replay(reading) => {
                reading.advance();
                if frame.is_event() {
                    self.hub.metrics.replayed_events.inc();
                }
            }
            Progress::Waiting(_) => {}
            Progress::Live | Progress::Floor(_) => {
                let next = channel.subscribers[link.subscriber as usize].next;
                channel.subscribers[link.subscriber as usize].next = next + 1;
                if frame.is_event() && next >= link.live_from {
                    let late = now_micros().saturating_sub(frame.published());
                    self.hub.metrics.delivery.observe(late, 1);
                }
            }
        }
        if channel.positioned
            && let Some(at) = frame.at()
        {
            link.at = at;
        }
    }
}
