//! When the next event falls due.

use super::{super::clock::SECOND, Engine};
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

/// How long events were to go out, and how late the last one did, or would have if it is still to.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Schedule {
    length: u64,
    pub(in crate::bench) behind: u64,
}

impl Schedule {
    /// A machine that stops for a moment at the end is no server that cannot keep up: that one falls further behind
    /// the longer it lasts.
    const EXCUSED_NS: u64 = SECOND / 2;
    const EXCUSED_PART: u64 = 20;

    /// Whether events went out at their rate.
    pub(in crate::bench) fn was_held(self) -> bool {
        self.behind <= Self::EXCUSED_NS.max(self.length / Self::EXCUSED_PART)
    }
}

/// Events for some channels in turn.
#[derive(Debug)]
pub(in crate::bench) struct Traffic {
    pub(in crate::bench) group: u8,
    pub(in crate::bench) channels: Range<u32>,
    pub(in crate::bench) pace: Pace,
    /// When its schedule began, and with which event.
    began: u64,
    first: u64,
    /// So many events have gone out.
    pub(in crate::bench) sent: u64,
    /// How late the latest of them was.
    late: u64,
    /// No event goes out that has this number or falls due at this time or later. One that fell due before goes out
    /// also when it is late: else a server that holds up the publisher would be spared what it cannot take.
    pub(in crate::bench) last: u64,
    pub(in crate::bench) until: u64,
    /// What the group had completed when this began.
    pub(in crate::bench) completed_before: u64,
}

impl Traffic {
    /// Traffic that begins now and has no end.
    pub(in crate::bench) fn new(group: u8, channels: Range<u32>, pace: Pace, now: u64) -> Self {
        let (last, until) = (u64::MAX, u64::MAX);
        Self { group, channels, pace, began: now, first: 0, sent: 0, late: 0, last, until, completed_before: 0 }
    }

    /// Begins its schedule anew: what was overdue in the old one is not due any more.
    pub(in crate::bench) fn restart(&mut self, now: u64) {
        (self.began, self.first, self.late) = (now, self.sent, 0);
    }

    /// When the next event is due; never if there is none, or not before another one is through.
    fn due(&self, completed: u64, now: u64) -> u64 {
        let due = match self.pace {
            Pace::Rate(rate) => self.due_at(self.sent, rate),
            Pace::Outstanding(most) if self.outstanding(completed) < most => now,
            Pace::Outstanding(_) => u64::MAX,
            Pace::Burst => now,
        };
        if self.sent >= self.last || due >= self.until { u64::MAX } else { due }
    }

    fn due_at(&self, number: u64, rate: f64) -> u64 {
        self.began.saturating_add((number.saturating_sub(self.first) as f64 / rate * 1e9) as u64)
    }

    /// When all its events are due, of traffic that has a rate and a last event; never of any other.
    pub(in crate::bench) fn all_due(&self) -> u64 {
        match self.pace {
            Pace::Rate(rate) if self.last < u64::MAX => self.due_at(self.last, rate),
            Pace::Rate(_) | Pace::Outstanding(_) | Pace::Burst => u64::MAX,
        }
    }

    /// How many events are due before this time, of traffic that has a rate.
    pub(in crate::bench) fn due_by(&self, time: u64) -> u64 {
        match self.pace {
            Pace::Rate(rate) => {
                let about = self.first + (time.saturating_sub(self.began) as f64 / 1e9 * rate) as u64;
                // Both ways of reckoning round, and an event that is due at the time itself is not due before it.
                let near = about.saturating_sub(1).max(self.first)..=about + 1;
                near.into_iter().find(|&number| self.due_at(number, rate) >= time).unwrap_or(about)
            }
            Pace::Outstanding(_) | Pace::Burst => self.sent,
        }
    }

    /// How many events are to have gone out when it has come to its end.
    pub(in crate::bench) fn planned(&self) -> u64 {
        match self.pace {
            Pace::Rate(_) => self.due_by(self.until).min(self.last),
            // Where time ends it, there are as many as there are.
            Pace::Outstanding(_) | Pace::Burst if self.until < u64::MAX => self.sent,
            Pace::Outstanding(_) | Pace::Burst => self.last,
        }
    }

    /// What has become of its schedule by now, which is at its end; `None` if it has none.
    pub(in crate::bench) fn schedule(&self, now: u64) -> Option<Schedule> {
        let Pace::Rate(rate) = self.pace else { return None };
        let is_over = self.sent >= self.planned();
        let behind = if is_over { self.late } else { now.saturating_sub(self.due_at(self.sent, rate)) };
        Some(Schedule { length: self.until.saturating_sub(self.began), behind })
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
                traffic.late = now - due;
                self.publish(channel, due, now)?;
            }
        }
        Ok(next)
    }
}
