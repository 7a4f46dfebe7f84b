//! When the next event falls due.

use super::Engine;
use std::{io, ops::Range};

/// Then it is time to read: also where every event fails at once, so that there is always a next one.
const MOST_A_TURN: usize = 64;

/// When events go out.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) enum Pace {
    /// So many a second, whatever becomes of them: an event's latency counts from when it was to be sent.
    Rate(f64),
    /// The next when fewer than so many are on their way to some stream.
    Outstanding(u64),
    /// As fast as the connections carry them.
    Burst,
}

/// Events for some channels in turn.
#[derive(Debug)]
pub(in crate::bench) struct Traffic {
    pub(in crate::bench) group: u8,
    pub(in crate::bench) channels: Range<u32>,
    pub(in crate::bench) pace: Pace,
    /// When it began.
    pub(in crate::bench) began: u64,
    /// So many events have gone out.
    pub(in crate::bench) sent: u64,
    /// No event goes out that has this number or falls due after this time.
    pub(in crate::bench) last: u64,
    pub(in crate::bench) until: u64,
    /// What the group had completed when this began.
    pub(in crate::bench) completed_before: u64,
}

impl Traffic {
    /// Traffic that begins now and has no end.
    pub(in crate::bench) fn new(group: u8, channels: Range<u32>, pace: Pace, now: u64) -> Self {
        Self { group, channels, pace, began: now, sent: 0, last: u64::MAX, until: u64::MAX, completed_before: 0 }
    }

    /// When the next event is due; never if there is none, or not before another one is through.
    fn due(&self, completed: u64, now: u64) -> u64 {
        if self.sent >= self.last || now >= self.until {
            return u64::MAX;
        }
        let due = match self.pace {
            Pace::Rate(rate) => self.began + (self.sent as f64 / rate * 1e9) as u64,
            Pace::Outstanding(most) if self.outstanding(completed) < most => now,
            Pace::Outstanding(_) => u64::MAX,
            Pace::Burst => now,
        };
        if due >= self.until { u64::MAX } else { due }
    }

    /// How many events are due before this time, of traffic that has a rate.
    pub(in crate::bench) fn due_by(&self, time: u64) -> u64 {
        match self.pace {
            Pace::Rate(rate) => (time.saturating_sub(self.began) as f64 / 1e9 * rate).ceil() as u64,
            Pace::Outstanding(_) | Pace::Burst => self.sent,
        }
    }

    /// How many are on their way, of a group that has completed so many.
    pub(in crate::bench) fn outstanding(&self, completed: u64) -> u64 {
        self.sent.saturating_sub(completed - self.completed_before)
    }
}

impl Engine {
    /// Publishes what is due, and gives the time of the next event.
    pub(super) fn publish_due(&mut self) -> io::Result<u64> {
        let mut next = u64::MAX;
        for index in 0..self.traffic.len() {
            for turn in 0.. {
                let traffic = &mut self.traffic[index];
                let completed = self.ledger.groups[usize::from(traffic.group)].completed;
                let now = self.clock.now();
                let due = traffic.due(completed, now);
                if due > now {
                    next = next.min(due);
                    break;
                }
                if turn == MOST_A_TURN {
                    next = now;
                    break;
                }
                if !self.publishers.can_send(traffic.pace) {
                    // An answer will wake us.
                    break;
                }
                let count = u64::from(traffic.channels.end - traffic.channels.start);
                let channel = traffic.channels.start + (traffic.sent % count) as u32;
                traffic.sent += 1;
                self.publish(channel, due, now)?;
            }
        }
        Ok(next)
    }
}
