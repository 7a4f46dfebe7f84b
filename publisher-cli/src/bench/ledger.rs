//! What arrives, checked and counted.

use super::{
    checker::{Arrival, Checker},
    latency::Latency,
    stamp::{Stamp, Stamps},
};
use std::io;

/// Streams whose figures belong together, and the channels that only they follow.
#[derive(Debug)]
pub(super) struct Group {
    /// From publishing to arrival, of events that were to be published between these times.
    pub(super) latency: Latency,
    pub(super) record_from: u64,
    pub(super) record_until: u64,
    pub(super) deliveries: u64,
    pub(super) last_delivery: u64,
    /// So many events have come to all their streams.
    pub(super) completed: u64,
}

/// Everything about what has come, for all streams together.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) stamps: Stamps,
    pub(super) checker: Checker,
    pub(super) groups: Vec<Group>,
    /// The group of each channel.
    group_of: Vec<u8>,
    pub(super) wire_bytes: u64,
    pub(super) body_bytes: u64,
    pub(super) other_events: u64,
}

impl Ledger {
    pub(super) fn new(run: u32) -> Self {
        Self {
            stamps: Stamps::new(run),
            checker: Checker::default(),
            groups: Vec::new(),
            group_of: Vec::new(),
            wire_bytes: 0,
            body_bytes: 0,
            other_events: 0,
        }
    }

    pub(super) fn add_group(&mut self) -> io::Result<u8> {
        let latency = Latency::new()?;
        let (record_from, record_until) = (0, u64::MAX);
        self.groups.push(Group { latency, record_from, record_until, deliveries: 0, last_delivery: 0, completed: 0 });
        Ok((self.groups.len() - 1) as u8)
    }

    /// Adds a channel that so many streams of a group will follow, and gives its index.
    pub(super) fn add_channel(&mut self, group: u8, streams: u32) -> u32 {
        self.group_of.push(group);
        self.checker.add(streams)
    }

    /// Takes note of an event on a stream of `channel` whose next place is `next`.
    pub(super) fn arrived(&mut self, stream: u32, channel: u32, next: &mut u32, stamp: Stamp, at: u64) {
        let claimed = if stamp.channel == channel { channel } else { u32::MAX };
        let Arrival { is_new, is_last } = self.checker.arrived(stream, next, claimed, stamp.number);
        if !is_new {
            return;
        }
        let group = &mut self.groups[usize::from(self.group_of[channel as usize])];
        group.deliveries += 1;
        group.last_delivery = at;
        group.completed += u64::from(is_last);
        if (group.record_from..group.record_until).contains(&stamp.time) {
            group.latency.record(at.saturating_sub(stamp.time));
        }
    }

    /// A stream has ended.
    pub(super) fn left(&mut self, stream: u32, channel: u32, next: u32) {
        let completed = self.checker.left(stream, next, channel);
        self.groups[usize::from(self.group_of[channel as usize])].completed += u64::from(completed);
    }

    /// An event was not published: nobody waits for it.
    pub(super) fn refused(&mut self, channel: u32, number: u32) {
        let was_awaited = self.checker.refused(channel, number);
        self.groups[usize::from(self.group_of[channel as usize])].completed += u64::from(was_awaited);
    }

    pub(super) fn deliveries(&self) -> u64 {
        self.groups.iter().map(|group| group.deliveries).sum()
    }
}
