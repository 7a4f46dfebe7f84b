//! Writing events: one pass over a channel's subscribers for all who are in step, and one by one for the others.
//!
//! Those in step get the same bytes, so the pass touches their place, their socket and nothing else. Whoever is aside
//! (behind, blocked, just starting, or with an id of its own) is served from its links, oldest frame first.

use super::{
    batch::{Batch, Which},
    connection::Outlet,
    encode::Sent,
    *,
};
use crate::{
    position::Position,
    sse::{
        compress::{Encoding, Wire},
        cursor::CursorWriter,
        frame::{Format, Parts},
    },
};
use bytes::Bytes;

/// The most that is gathered for one write, and written to one connection before it is the next one's turn.
const CHUNK_BYTES: usize = 64 * 1024;
const TURN_BYTES: usize = 128 * 1024;
/// Connections that a channel's pass writes to before it is other channels' turn: a millisecond or two.
const PASS_A_TURN: usize = 256;
/// How long one turn may serve connections one by one, and as long again those who read history.
const ALONE_A_TURN: Duration = Duration::from_millis(2);
/// Writes after which the clock is read again, for the delivery metric.
const CLOCK_EVERY: u64 = 256;

/// The client is gone.
pub(super) struct Gone;

/// What comes first of several channels' next frames: history by its time, then live frames as they came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    Published(u64),
    Came(u64),
}

/// Sends what the socket takes; 0 if it takes nothing now.
pub(super) fn send(socket: &TcpStream, bytes: &[u8]) -> Result<usize, Gone> {
    let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
    loop {
        match rustix::net::send(socket, bytes, flags) {
            Ok(sent) => return Ok(sent),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(0),
            Err(_) => return Err(Gone),
        }
    }
}

/// What a batch of frames counts for, times the connections that got it.
#[derive(Default)]
struct Tally {
    published: Vec<u64>,
    gaps: Vec<GapReason>,
    writes: u64,
}

impl Tally {
    fn of(channel: &ShardChannel, from: u64) -> Self {
        let mut tally = Self::default();
        for frame in (from..channel.head()).filter_map(|place| channel.frame(place)) {
            match frame.content() {
                Content::Event(_) => tally.published.push(frame.published()),
                Content::Gap { reason, .. } => tally.gaps.push(*reason),
            }
        }
        tally
    }

    fn count(&mut self, metrics: &crate::metrics::Metrics) {
        let writes = std::mem::take(&mut self.writes);
        if writes == 0 {
            return;
        }
        let now = now_micros();
        metrics.messages.inc_by(writes * self.published.len() as u64);
        for published in &self.published {
            metrics.delivery.observe(now.saturating_sub(*published), writes);
        }
        for reason in &self.gaps {
            metrics.gaps.with_label_values(&[reason.as_str()]).inc_by(writes);
        }
    }
}

/// What compressed streams were sent, by encoding: plain bytes, and what they became.
#[derive(Default)]
struct Compressed([(u64, u64); 3]);

impl Compressed {
    fn add(&mut self, wire: Wire, batch: &Batch) {
        let (plain, bytes) = &mut self.0[wire.encoding() as usize];
        *plain += batch.plain_bytes;
        *bytes += batch.bytes.len() as u64;
    }

    fn count(&self, metrics: &crate::metrics::Metrics) {
        for encoding in Encoding::COMPRESSED {
            let (plain, bytes) = self.0[encoding as usize];
            if plain > 0 {
                metrics.count_compressed(encoding, plain, bytes);
            }
        }
    }
}

impl Shard {
    /// Writes all that this turn has brought.
    pub(super) fn write_all(&mut self) {
        self.turn = self.turn.wrapping_add(2);
        let mut dirty = std::mem::take(&mut self.dirty);
        let several = dirty.len() > 1;
        if several {
            // What has just come is not held up by what takes several turns.
            dirty.sort_by_key(|&index| self.channels.get(index as usize).is_some_and(|channel| channel.pass.at > 0));
            // A connection with news in several of these is served once, by itself.
            for &index in &dirty {
                let channel = &self.channels[index as usize];
                for subscriber in channel.subscribers.iter().filter(|subscriber| subscriber.next < channel.head()) {
                    let seen = &mut self.seen[subscriber.connection as usize];
                    *seen = if *seen == self.turn || *seen == self.turn + 1 { self.turn + 1 } else { self.turn };
                }
            }
        }
        for &index in &dirty {
            if self.channels.contains(index as usize) {
                self.pass(index, several);
            }
            if self.channels.get(index as usize).is_some_and(|channel| channel.dirty) {
                self.dirty.push(index);
            }
        }
        if self.dirty.is_empty() {
            dirty.clear();
            self.dirty = dirty;
        }
        let enough = Instant::now() + ALONE_A_TURN;
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else { break };
            if self.connection(key).is_some_and(|connection| connection.is_reading()) {
                self.catching_up.push_back(key);
                continue;
            }
            self.serve(key);
            if Instant::now() >= enough {
                break;
            }
        }
        // Thousands may be catching up: whoever is live waits for a few of them only.
        let enough = Instant::now() + ALONE_A_TURN;
        for _ in 0..self.catching_up.len() {
            let Some(key) = self.catching_up.pop_front() else { break };
            self.serve(key);
            if Instant::now() >= enough {
                break;
            }
        }
    }

    /// Writes a channel's news to those who are in step, up to [`PASS_A_TURN`] of them. The channel stays dirty if that
    /// was not all.
    fn pass(&mut self, index: u32, several: bool) {
        let channel = &mut self.channels[index as usize];
        let (first, head) = (channel.first(), channel.head());
        if channel.pass.at == 0 {
            channel.pass = channel::Pass { at: 0, head, needed: head, again: false };
        }
        let start = channel.pass.at;
        let mut stopped_at = None;
        let mut subscribers = std::mem::take(&mut channel.subscribers);
        let mut which = Which { place: u64::MAX, wire: Wire::from(Format::Sse), in_step: false };
        let mut batch = Batch::default();
        let mut tally = Tally::default();
        let mut needed = channel.pass.needed.min(head);
        let mut sent_bytes = 0;
        let mut served = 0;
        let mut compressed = Compressed::default();
        let (mut alone, mut cut_short, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for nth in start..subscribers.len() {
            let subscriber = subscribers[nth];
            if subscriber.next >= head {
                continue;
            }
            if served == PASS_A_TURN {
                stopped_at = Some(nth);
                break;
            }
            served += 1;
            let connection = subscriber.connection as usize;
            if subscriber.aside || subscriber.next < first || (several && self.seen[connection] == self.turn + 1) {
                needed = needed.min(subscriber.next);
                alone.push(subscriber.connection);
                continue;
            }
            let Subscriber { next: place, wire, .. } = subscriber;
            let in_step = wire.is_compressed() && self.streams[connection].is_in_step_with(index);
            if which != (Which { place, wire, in_step }) {
                if which.place != place {
                    tally.count(&self.hub.metrics);
                    tally = Tally::of(channel, place);
                }
                which = Which { place, wire, in_step };
                let nobody_in_step = || {
                    let mut others = subscribers.iter().filter(|other| other.wire == wire && !other.aside);
                    !others.any(|other| self.streams[other.connection as usize].is_in_step_with(index))
                };
                batch = channel.batch(which, nobody_in_step, &mut self.compressors);
            }
            let bytes = &batch.bytes;
            let sent = match &self.sockets[connection] {
                Some(socket) => send(socket, bytes),
                None => offer(&self.connections, connection, bytes),
            };
            match sent {
                Ok(sent) => {
                    subscribers[nth].next = head;
                    sent_bytes += sent as u64;
                    if sent < bytes.len() {
                        cut_short.push((subscriber.connection, bytes.slice(sent..)));
                    }
                }
                Err(Gone) => gone.push(subscriber.connection),
            }
            if wire.is_compressed() {
                self.streams[connection].go_on(index, &batch);
                compressed.add(wire, &batch);
            }
            tally.writes += 1;
            if tally.writes == CLOCK_EVERY {
                tally.count(&self.hub.metrics);
            }
        }
        compressed.count(&self.hub.metrics);
        tally.count(&self.hub.metrics);
        self.hub.metrics.bytes_sent.inc_by(sent_bytes);
        let tail_bytes = self.tail_bytes();
        let channel = &mut self.channels[index as usize];
        channel.subscribers = subscribers;
        let whole = stopped_at.is_none() && !channel.pass.again && channel.pass.head == head;
        // Not whole: on from there, or once more from the first for those who were moved and for what has come since.
        channel.pass.at = stopped_at.unwrap_or(0);
        channel.pass.needed = needed;
        channel.dirty = !whole;
        if stopped_at.is_none() && !channel.pass.again {
            let keep = if channel.positioned { tail_bytes } else { 0 };
            channel.trim(keep, needed, keep + self.hub.config.outbox.max_bytes.get() as u64);
        }

        for (connection, rest) in cut_short {
            let Some(connection) = self.connections.get_mut(connection as usize) else { continue };
            let key = connection.key;
            connection.unsent = rest;
            self.block(key);
            self.set_aside(key);
        }
        for connection in gone {
            if let Some(key) = self.connections.get(connection as usize).map(|connection| connection.key) {
                self.close(key, Reason::Client, false);
            }
        }
        for connection in alone {
            let Some(connection) = self.connections.get(connection as usize) else { continue };
            let key = connection.key;
            if connection.blocked.is_none() {
                self.serve_alone(key);
            } else if self.behind_bytes(connection) > self.hub.config.outbox.max_bytes.get() as u64 {
                self.hub.metrics.slow_consumers.with_label_values(&["disconnect"]).inc();
                self.close(key, Reason::Slow, false);
            }
        }
    }

    /// Bytes of recent frames that each channel keeps: as configured, or its share of the total if there are many.
    fn tail_bytes(&self) -> u64 {
        let share = self.hub.config.hub.tail_total_bytes.get() / self.channels.len().max(1);
        self.hub.config.hub.tail_bytes.get().min(share) as u64
    }

    /// What has come for a connection since its socket was full. The write that filled it does not count: one event,
    /// however large, is never too much.
    fn behind_bytes(&self, connection: &Connection) -> u64 {
        let behind = connection.links.iter().map(|link| {
            let channel = &self.channels[link.channel as usize];
            let next = channel.subscribers[link.subscriber as usize].next;
            match link.progress {
                Progress::Live | Progress::Floor(_) => channel.behind(next.min(channel.head())),
                Progress::Waiting(_) | Progress::Replay(_) => 0,
            }
        });
        behind.sum()
    }

    /// What a connection has not been sent yet.
    pub(super) fn waiting_bytes(&self, connection: &Connection) -> u64 {
        connection.unsent.len() as u64 + self.behind_bytes(connection)
    }

    /// Writes what a connection has not been sent, as far as its socket takes it and its turn lasts.
    fn serve(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else { return };
        let wire = connection.wire;
        connection.queued = false;
        if matches!(connection.stage, Stage::Starting(_)) || !self.write_unsent(key) {
            return;
        }
        let mut chunk = std::mem::take(&mut self.scratch);
        let mut frames = Vec::new();
        let mut written = 0;
        loop {
            chunk.clear();
            frames.clear();
            while chunk.len() < CHUNK_BYTES
                && let Some(sent) = self.append_next(key, &mut chunk)
            {
                frames.push(sent);
            }
            if chunk.is_empty() {
                break;
            }
            written += chunk.len();
            let bytes = self.encode_frames(key, wire, &chunk, &frames);
            if let Some(connection) = self.connection(key) {
                connection.unsent = bytes;
            }
            if !self.write_unsent(key) {
                break;
            }
            if written >= TURN_BYTES {
                self.serve_alone(key);
                break;
            }
        }
        self.scratch = chunk;
        self.set_aside(key);
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
                    return Some((Age::Published(0), Arc::new(gap)));
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
            Progress::Replay(reading) => {
                reading.advance();
                if frame.is_event() {
                    self.hub.metrics.replayed_events.inc();
                }
            }
            Progress::Waiting(_) => {}
            Progress::Live | Progress::Floor(_) => {
                let next = channel.subscribers[link.subscriber as usize].next;
                // A gap made for this link alone has no place in the ring.
                if channel.ring_holds(next, frame) {
                    channel.subscribers[link.subscriber as usize].next = next + 1;
                    if frame.is_event() {
                        let late = now_micros().saturating_sub(frame.published());
                        self.hub.metrics.delivery.observe(late, 1);
                    }
                }
            }
        }
        if channel.positioned
            && let Some(at) = frame.at()
        {
            link.at = at;
        }
    }

    /// Writes what is left over; answers whether the socket took all of it.
    pub(super) fn write_unsent(&mut self, key: Key) -> bool {
        let Some(connection) = self.connections.get_mut(key.index as usize).filter(|c| c.key == key) else {
            return false;
        };
        let had = connection.unsent.len();
        if had == 0 {
            connection.blocked = None;
            return true;
        }
        let sent = match &self.sockets[key.index as usize] {
            Some(socket) => send(socket, &connection.unsent),
            None => offer(&self.connections, key.index as usize, &self.connections[key.index as usize].unsent),
        };
        let Ok(sent) = sent else {
            self.close(key, Reason::Client, false);
            return false;
        };
        self.hub.metrics.bytes_sent.inc_by(sent as u64);
        let connection = &mut self.connections[key.index as usize];
        if sent == had {
            connection.unsent = Bytes::new();
            connection.blocked = None;
            return true;
        }
        if sent > 0 {
            connection.unsent = connection.unsent.slice(sent..);
            connection.blocked = None;
        }
        self.block(key);
        self.set_aside(key);
        false
    }

    /// Notes that a connection's socket takes nothing more for now.
    fn block(&mut self, key: Key) {
        let (now, patience) = (self.now, self.hub.config.stream.write_timeout);
        let Some(connection) = self.connection(key) else { return };
        if connection.blocked.is_none() {
            connection.blocked = Some(now);
            self.wheel.add(key, now + patience);
        }
    }

    /// Works out which of a connection's links the shared pass may serve, and notes where those stand that it may not.
    pub(super) fn set_aside(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key.index as usize).filter(|c| c.key == key) else { return };
        let own_id = self.has_own_id(connection);
        // The pass must never overtake what waits for this connection alone.
        let hindered = matches!(connection.stage, Stage::Starting(_))
            || connection.blocked.is_some()
            || connection.queued
            || !connection.unsent.is_empty();
        let Some(connection) = self.connections.get_mut(key.index as usize) else { return };
        for link in &mut connection.links {
            let channel = &mut self.channels[link.channel as usize];
            let mut subscriber = channel.subscribers[link.subscriber as usize];
            let live = matches!(link.progress, Progress::Live);
            if matches!(link.progress, Progress::Live | Progress::Floor(_)) {
                if channel.positioned
                    && let Some(stands) = channel.stands(subscriber.next)
                    && live
                {
                    link.at = stands;
                }
            } else {
                subscriber.next = u64::MAX;
            }
            subscriber.aside = hindered || !live || (own_id && channel.positioned);
            channel.subscribers[link.subscriber as usize] = subscriber;
        }
    }

    /// Whether a connection's id is not that of one channel alone.
    fn has_own_id(&self, connection: &Connection) -> bool {
        let parts = connection.links.iter().filter(|link| {
            let channel = &self.channels[link.channel as usize];
            if channel.attached { channel.positioned } else { !channel.channel.is_reserved() }
        });
        parts.count() > 1
    }

    /// The connection's cursor: where it stands in every channel with history.
    pub(super) fn cursor(&self, connection: &Connection) -> Option<String> {
        let mut cursor = CursorWriter::default();
        for link in &connection.links {
            let channel = &self.channels[link.channel as usize];
            match &link.progress {
                // What the client said itself, as long as nothing better is known.
                Progress::Waiting(crate::hub::connection::Start::After(at)) if !channel.attached => {
                    cursor.add(&channel.channel, *at, link.by_name);
                }
                _ if channel.attached && !channel.positioned => {}
                Progress::Waiting(_) if channel.channel.is_reserved() => {}
                Progress::Waiting(_) => cursor.leave_out(),
                Progress::Replay(reading) if reading.gap.is_some() && reading.page.is_none() => cursor.leave_out(),
                Progress::Live => {
                    let next = channel.subscribers[link.subscriber as usize].next;
                    let at: Position = channel.stands(next).unwrap_or(link.at);
                    cursor.add(&channel.channel, at, link.by_name);
                }
                Progress::Floor(_) | Progress::Replay(_) => cursor.add(&channel.channel, link.at, link.by_name),
            }
        }
        cursor.finish()
    }
}

/// [`send`] for a stream that hyper writes.
pub(super) fn offer(connections: &Slab<Connection>, index: usize, bytes: &Bytes) -> Result<usize, Gone> {
    let Some(Connection { outlet: Outlet::Body(outbox), .. }) = connections.get(index) else { return Err(Gone) };
    match outbox.offer(bytes) {
        Ok(true) => Ok(bytes.len()),
        Ok(false) => Ok(0),
        Err(_) => Err(Gone),
    }
}
