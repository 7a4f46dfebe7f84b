//! Whether every stream got every event of its channel once and in the channel's order.
//!
//! Where several requests publish to one channel at a time, the server decides their order. So the first stream to see
//! an event at a place defines what stands there, and every other stream must see the same one at the same place. Beyond
//! that, an event whose publishing began after another one had been accepted must come behind it.
//!
//! An event is forgotten when all have it: what is held is what is on the way, and what was lost.

use std::collections::{BTreeSet, HashMap, VecDeque};

/// The place of an event that no stream has seen.
const UNSEEN: u32 = u32::MAX;
/// The time of what has not happened, or not for certain.
const NEVER: u64 = u64::MAX;

/// What came out at the end, in deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) disordered: u64,
    /// On a stream of another channel, or never published.
    pub(super) stray: u64,
}

/// What an arrival was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// The stream had not had it yet.
    pub(super) is_new: bool,
    /// With it all streams of the channel have it.
    pub(super) is_last: bool,
}

#[derive(Debug)]
struct Event {
    /// Where in the channel's order it stands.
    place: u32,
    /// How many streams do not have it yet.
    left: u32,
    sent: u64,
    /// When it was certain to have its place in the order.
    placed: u64,
    fate: Fate,
}

/// What the server said of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unknown,
    Accepted,
    Refused,
}

#[derive(Debug, Default)]
struct Channel {
    subscribers: u32,
    /// By number, from `first_number`.
    events: VecDeque<Event>,
    first_number: u32,
    /// The number of the event at each place, from `first_place`.
    order: VecDeque<u32>,
    first_place: u32,
    /// When the latest event that has a place was sent.
    latest_sent: u64,
}

#[derive(Debug, Default)]
pub(super) struct Checker {
    channels: Vec<Channel>,
    /// By stream, the places that it was led past.
    skipped: HashMap<u32, BTreeSet<u32>>,
    faults: Faults,
}

impl Checker {
    /// Adds a channel with so many streams, and gives its index.
    pub(super) fn add(&mut self, subscribers: u32) -> u32 {
        self.channels.push(Channel { subscribers, ..Channel::default() });
        (self.channels.len() - 1) as u32
    }

    /// Takes note of an event on its way out, and gives its number.
    pub(super) fn sent(&mut self, channel: u32, now: u64) -> u32 {
        let channel = &mut self.channels[channel as usize];
        let left = channel.subscribers;
        channel.events.push_back(Event { place: UNSEEN, left, sent: now, placed: NEVER, fate: Fate::Unknown });
        channel.first_number + (channel.events.len() - 1) as u32
    }

    /// The server has taken the event; `is_placed` unless it said only that it will see to it.
    pub(super) fn accepted(&mut self, channel: u32, number: u32, now: u64, is_placed: bool) {
        let channel = &mut self.channels[channel as usize];
        if let Some(event) = channel.event(number) {
            event.fate = Fate::Accepted;
            event.placed = if is_placed { now } else { NEVER };
        }
        channel.forget();
    }

    /// The event was refused, or nobody knows: it is not missed unless some stream gets it. Whether anybody was
    /// waiting for it.
    pub(super) fn refused(&mut self, channel: u32, number: u32) -> bool {
        let Some(event) = self.channels[channel as usize].event(number) else { return false };
        event.fate = Fate::Refused;
        event.place == UNSEEN && std::mem::take(&mut event.left) > 0
    }

    /// Takes note that a stream, whose next place this is, has got an event.
    pub(super) fn arrived(&mut self, stream: u32, next: &mut u32, channel: u32, number: u32) -> Arrival {
        let nothing = Arrival { is_new: false, is_last: false };
        let Some(here) = self.channels.get_mut(channel as usize) else {
            self.faults.stray += 1;
            return nothing;
        };
        if number < here.first_number {
            // All have it, this stream too.
            self.faults.doubled += 1;
            return nothing;
        }
        if here.event(number).is_none() {
            self.faults.stray += 1;
            return nothing;
        }
        let (place, came_late) = here.place(number);
        self.faults.disordered += u64::from(came_late);
        if place == *next {
            *next += 1;
        } else if place > *next {
            self.skipped.entry(stream).or_default().extend(*next..place);
            *next = place + 1;
        } else if self.skipped.get_mut(&stream).is_some_and(|places| places.remove(&place)) {
            self.faults.disordered += 1;
        } else {
            self.faults.doubled += 1;
            return nothing;
        }
        let Some(event) = here.event(number) else { return nothing };
        event.left = event.left.saturating_sub(1);
        let is_last = event.left == 0;
        if is_last {
            here.forget();
        }
        Arrival { is_new: true, is_last }
    }

    /// A stream has ended whose next place this is: what it has not got is lost. Gives the number of events that
    /// nobody else waits for.
    pub(super) fn left(&mut self, stream: u32, next: u32, channel: u32) -> u32 {
        let skipped = self.skipped.remove(&stream).unwrap_or_default();
        let channel = &mut self.channels[channel as usize];
        channel.subscribers = channel.subscribers.saturating_sub(1);
        let mut completed = 0;
        for event in &mut channel.events {
            let has_it = event.place < next && !skipped.contains(&event.place);
            if event.left > 0 && !has_it {
                event.left -= 1;
                self.faults.lost += 1;
                completed += u32::from(event.left == 0);
            }
        }
        channel.forget();
        completed
    }

    /// What was wrong, if nothing more comes.
    pub(super) fn faults(&self) -> Faults {
        let missed = |event: &Event| event.fate == Fate::Accepted || event.place != UNSEEN;
        let events = self.channels.iter().flat_map(|channel| &channel.events);
        let lost: u64 = events.filter(|event| missed(event)).map(|event| u64::from(event.left)).sum();
        Faults { lost: self.faults.lost + lost, ..self.faults }
    }
}

impl Channel {
    fn event(&mut self, number: u32) -> Option<&mut Event> {
        self.events.get_mut(number.checked_sub(self.first_number)? as usize)
    }

    /// The place of an event that is held, and whether it has just got one that is too late: the next place is its
    /// own if nobody has seen it.
    fn place(&mut self, number: u32) -> (u32, bool) {
        let next = self.first_place + self.order.len() as u32;
        let (subscribers, latest_sent) = (self.subscribers, self.latest_sent);
        let Some(event) = self.event(number) else { return (next, false) };
        if event.place != UNSEEN {
            return (event.place, false);
        }
        event.place = next;
        if event.fate == Fate::Refused {
            // It has been published after all.
            event.left = subscribers;
        }
        let (sent, came_late) = (event.sent, event.placed < latest_sent);
        self.latest_sent = latest_sent.max(sent);
        self.order.push_back(number);
        (next, came_late)
    }

    /// Lets go of what all have, from the front.
    fn forget(&mut self) {
        while let Some(event) = self.events.front()
            && event.left == 0
            && event.fate == Fate::Accepted
        {
            self.events.pop_front();
            self.first_number += 1;
        }
        while let Some(&number) = self.order.front()
            && number < self.first_number
        {
            self.order.pop_front();
            self.first_place += 1;
        }
    }
}

#[cfg(test)]
mod tests;
