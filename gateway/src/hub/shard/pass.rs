//! The shared pass: a channel's news for all who are in step with it.
//!
//! They get the same bytes, so the pass touches their place, their socket and nothing else. A pass over many is made in
//! several turns, so that nobody who has news of another channel waits for the end of it.

use super::{
    batch::{Batch, Which},
    write::{Gone, offer, send},
    *,
};
use crate::sse::{
    compress::{Encoding, Wire},
    frame::Format,
};

/// Connections that a channel's pass writes to before it is other channels' turn: a millisecond or two.
const PASS_A_TURN: usize = 256;
/// How long one turn may serve connections one by one, and as long again those who read history.
const ALONE_A_TURN: Duration = Duration::from_millis(2);
/// Writes after which the clock is read again, for the delivery metric.
const CLOCK_EVERY: u64 = 256;

/// What a batch of frames counts for, times the connections that got it.
#[derive(Default)]
pub(super) struct Tally {
    events: u64,
    /// When those were published that are news.
    published: Vec<u64>,
    gaps: Vec<GapReason>,
    pub(super) writes: u64,
}

impl Tally {
    /// What stands in the ring from a place on, of which what stands before `live_from` is a replay.
    pub(super) fn of(channel: &ShardChannel, from: u64, live_from: u64) -> Self {
        let mut tally = Self::default();
        for place in from..channel.head() {
            let Some(frame) = channel.frame(place) else { continue };
            match frame.content() {
                Content::Gap { reason, .. } => tally.gaps.push(*reason),
                Content::Event(_) => {
                    tally.events += 1;
                    if place >= live_from {
                        tally.published.push(frame.published());
                    }
                }
            }
        }
        tally
    }

    pub(super) fn count(&mut self, metrics: &crate::metrics::Metrics) {
        let writes = std::mem::take(&mut self.writes);
        if writes == 0 {
            return;
        }
        let now = now_micros();
        metrics.messages.inc_by(writes * self.events);
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
                    tally = Tally::of(channel, place, 0);
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
        let tail_bytes = self.hub.tail_bytes() as u64;
        let channel = &mut self.channels[index as usize];
        channel.subscribers = subscribers;
        let whole = stopped_at.is_none() && !channel.pass.again && channel.pass.head == head;
        // Not whole: on from there, or once more from the first for those who were moved and for what has come since.
        channel.pass.at = stopped_at.unwrap_or(0);
        channel.pass.needed = needed;
        channel.dirty = !whole;
        if stopped_at.is_none() && !channel.pass.again {
            let keep = if channel.positioned { tail_bytes } else { 0 };
            // Twice an outbox, so that whoever falls behind is looked after before the ring lets go of what it lacks.
            channel.trim(keep, needed, keep + 2 * self.hub.config.outbox.max_bytes.get() as u64);
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
        let most = self.hub.config.outbox.max_bytes.get() as u64;
        for connection in alone {
            let Some(connection) = self.connections.get(connection as usize) else { continue };
            let key = connection.key;
            if connection.blocked.is_none() {
                self.serve_alone(key);
            } else {
                self.bound_outbox(key, most);
            }
        }
    }
}
