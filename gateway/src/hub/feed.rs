//! One channel on one replica: puts what the broker announces into order, repairs holes, and hands each frame to the
//! shards that have subscribers.
//!
//! What always holds: the frames that a feed passes on follow each other without a hole, or have a gap frame between
//! them. A feed is locked for moments only, and calls no broker under its lock: what needs the broker is returned as a
//! [`Need`] for the hub to see to.

use super::{
    queue::{Command, Pushed, Queue, Tail},
    recent::{Keeping, Recent},
};
use crate::{
    broker::{announcement::Announced, log::Entry, log::Page, memory::now_micros},
    channel::Channel,
    position::Position,
    sse::{
        compress::Chains,
        frame::{Frame, GapReason},
    },
};
use std::{sync::Arc, time::Instant};

/// Announcements kept while history is read. More are let go: reading on finds them too.
const MAX_HELD: usize = 4096;

/// What a feed needs done that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Nothing,
    /// Read on from where the feed stands until nothing is missing.
    Repair(Cause),
    /// Look at the top again, since it may be that the history is another one.
    LookAgain,
}

/// Why history is read, as `sse_repairs_total{cause}` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Hole,
    Cut,
    Order,
    Unreadable,
    Audit,
}

impl Cause {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Hole => "hole",
            Self::Cut => "cut",
            Self::Order => "order",
            Self::Unreadable => "unreadable",
            Self::Audit => "audit",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The subscription is not in force yet, or the top not known.
    Joining,
    Live,
    /// History is being read; what is announced is held until it is through.
    Repairing,
}

/// Bits for shards: there are at most 64.
pub(crate) type ShardSet = u64;

pub(crate) struct Feed {
    channel: Channel,
    phase: Phase,
    positioned: bool,
    last: Position,
    /// Frames passed on, and what they are compressed with, if they may be.
    passed: u64,
    chains: Option<Arc<Chains>>,
    tail: Recent,
    /// Where a client stands that needs all of `tail`.
    base: Position,
    /// Shards with subscribers, and those of them that wait to hear where to go on from.
    shards: ShardSet,
    waiting: ShardSet,
    /// Shards that missed a frame, and get none until they were told anew where the channel stands: what came between
    /// would look like a whole.
    dirty: ShardSet,
    held: Vec<Announced>,
    /// The subscription was interrupted since the top was last compared.
    was_cut: bool,
    /// The top was found to be another history's once; twice proves it.
    suspect: bool,
    /// The top was ahead of this position once, with no cut to explain it; twice means a lost announcement.
    behind_at: Option<Position>,
    /// An announcement that history did not lead up to when it was read for it: read once more, and let go of then, since
    /// whoever can publish can make one up.
    unreached: Option<Position>,
    /// Another look at the top was asked for and has not been had.
    looking: bool,
    /// Something was announced that only the log can tell, while it was being read.
    unread: bool,
    /// A top that was learned of while history was being read, and must be reached.
    seen_top: Position,
    /// Since when no shard has subscribers.
    pub(crate) idle_since: Option<Instant>,
}

/// What a feed hands frames to.
pub(crate) struct Outlets<'a> {
    pub(crate) queues: &'a [Arc<Queue>],
    /// Called for a shard whose queue turned a frame away.
    pub(crate) overflowed: &'a dyn Fn(usize, &Channel),
    /// Called for a shard that sleeps and has been given a frame.
    pub(crate) asleep: &'a dyn Fn(usize),
    pub(crate) tail_bytes: usize,
}

impl Feed {
    pub(crate) fn new(channel: Channel, chains: Option<Arc<Chains>>, keeping: Keeping) -> Self {
        Self {
            channel,
            phase: Phase::Joining,
            positioned: false,
            last: Position::default(),
            passed: 0,
            chains,
            tail: Recent::new(keeping),
            base: Position::default(),
            shards: 0,
            waiting: 0,
            dirty: 0,
            held: Vec::new(),
            was_cut: false,
            suspect: false,
            behind_at: None,
            unreached: None,
            looking: false,
            unread: false,
            seen_top: Position::default(),
            idle_since: None,
        }
    }

    /// Adds a shard, and tells it where the channel stands as soon as that is known.
    pub(crate) fn attach(&mut self, shard: usize, outlets: &Outlets<'_>) {
        self.shards |= 1 << shard;
        self.idle_since = None;
        if self.phase == Phase::Joining {
            self.waiting |= 1 << shard;
        } else {
            self.tell(shard, false, outlets);
        }
    }

    /// Tells a shard anew where the channel stands, since it has missed something.
    pub(crate) fn resync(&mut self, shard: usize, outlets: &Outlets<'_>) {
        self.dirty &= !(1 << shard);
        if self.phase != Phase::Joining && self.shards & (1 << shard) != 0 {
            self.tell(shard, true, outlets);
        }
    }

    fn tell(&self, shard: usize, missed: bool, outlets: &Outlets<'_>) {
        let tail = Tail {
            missed,
            last: self.positioned.then_some(self.last),
            base: self.base,
            frames: self.tail.iter().cloned().collect(),
        };
        outlets.queues[shard].push(Command::Attached { channel: self.channel.clone(), tail });
    }

    pub(crate) fn detach(&mut self, shard: usize) {
        self.shards &= !(1 << shard);
        self.waiting &= !(1 << shard);
        self.dirty &= !(1 << shard);
        if self.shards == 0 {
            self.idle_since = Some(Instant::now());
        }
    }

    /// Lets go of recent events: the history that they belong to was deleted.
    pub(crate) fn forget(&mut self) {
        self.tail.clear();
        self.base = self.last;
    }

    /// The subscription was cut: what is announced from now on may have holes before it.
    pub(crate) fn cut(&mut self, outlets: &Outlets<'_>) {
        if self.phase == Phase::Joining || self.was_cut {
            return;
        }
        self.was_cut = true;
        if !self.positioned && !self.channel.is_reserved() {
            // Nobody can know what was missed. Reserved channels promise nothing, and every client has one.
            self.pass(Frame::gap(self.channel.clone(), GapReason::Cut, None, None), outlets);
        }
    }

    /// The broker's answer to what the channel's top is, asked after the subscription was in force.
    pub(crate) fn joined(&mut self, top: Option<Position>, outlets: &Outlets<'_>) -> Need {
        let was_cut = std::mem::take(&mut self.was_cut);
        self.looking = false;
        match (self.phase, top) {
            (Phase::Joining, top) => {
                self.positioned = top.is_some();
                self.last = top.unwrap_or_default();
                self.base = self.last;
                self.phase = Phase::Live;
                for shard in 0..outlets.queues.len() {
                    if self.waiting & (1 << shard) != 0 {
                        self.tell(shard, false, outlets);
                    }
                }
                self.waiting = 0;
                match self.release(false, outlets) {
                    Need::Nothing if std::mem::take(&mut self.unread) && self.positioned => {
                        self.repair(Cause::Unreadable)
                    }
                    need => need,
                }
            }
            (_, None) => Need::Nothing,
            (Phase::Repairing, Some(top)) => {
                // The page on its way may have been read before this.
                self.seen_top = self.seen_top.max(top);
                Need::Nothing
            }
            (Phase::Live, Some(_)) if self.unreached.is_some() && !self.held.is_empty() => self.repair(Cause::Hole),
            (Phase::Live, Some(top)) if self.has_passed(top) => {
                // Announcements may have come since the top was read; it is one of ours all the same.
                (self.suspect, self.behind_at) = (false, None);
                Need::Nothing
            }
            (Phase::Live, Some(top)) if top.seq > self.last.seq => {
                self.suspect = false;
                let twice = self.behind_at.replace(self.last) == Some(self.last);
                // An announcement may be on its way, unless there was a cut that it could have been lost in.
                match (was_cut, twice) {
                    (true, _) => self.repair(Cause::Cut),
                    (false, true) => self.repair(Cause::Audit),
                    (false, false) => self.look_again(),
                }
            }
            (Phase::Live, Some(_)) if self.suspect => {
                // Twice: the history is another one. Reading it finds where the two part.
                self.suspect = false;
                self.repair(Cause::Order)
            }
            (Phase::Live, Some(_)) => {
                self.suspect = true;
                self.look_again()
            }
        }
    }

    fn has_passed(&self, top: Position) -> bool {
        top == self.last || top == self.base || self.tail.iter().rev().any(|frame| frame.at() == Some(top))
    }

    fn look_again(&mut self) -> Need {
        if std::mem::replace(&mut self.looking, true) { Need::Nothing } else { Need::LookAgain }
    }

    fn repair(&mut self, cause: Cause) -> Need {
        self.phase = Phase::Repairing;
        Need::Repair(cause)
    }

    /// Something was announced.
    pub(crate) fn announced(&mut self, announced: Announced, outlets: &Outlets<'_>) -> Need {
        match announced {
            Announced::Entry { at, prev, event } if self.positioned => match self.phase {
                Phase::Live if self.last.is_followed_by(at, prev) => {
                    self.last = at;
                    self.pass(Frame::positioned(self.channel.clone(), at, prev, event), outlets);
                    Need::Nothing
                }
                Phase::Live if self.tail.iter().rev().any(|frame| frame.at() == Some(at)) => Need::Nothing,
                Phase::Live => {
                    let cause = if at.seq > self.last.seq { Cause::Hole } else { Cause::Order };
                    self.hold(Announced::Entry { at, prev, event });
                    if cause == Cause::Order {
                        // Perhaps an old announcement, perhaps another history: the top decides.
                        return self.look_again();
                    }
                    self.repair(cause)
                }
                Phase::Joining | Phase::Repairing => {
                    self.hold(Announced::Entry { at, prev, event });
                    Need::Nothing
                }
            },
            Announced::Entry { .. } if self.phase == Phase::Joining => {
                self.hold(announced);
                Need::Nothing
            }
            Announced::Entry { at, event, .. } => {
                // The rules here give the channel no history, those of the publisher did.
                self.pass(Frame::unpositioned(self.channel.clone(), at.micros, event), outlets);
                Need::Nothing
            }
            Announced::Plain { published, event } => {
                self.pass(Frame::unpositioned(self.channel.clone(), published, event), outlets);
                Need::Nothing
            }
            Announced::Raw { event } => {
                self.pass(Frame::unpositioned(self.channel.clone(), now_micros(), event), outlets);
                Need::Nothing
            }
            Announced::Look | Announced::Unreadable if self.phase != Phase::Live => {
                self.unread = true;
                Need::Nothing
            }
            Announced::Look | Announced::Unreadable if self.positioned => self.repair(Cause::Unreadable),
            Announced::Unreadable => {
                self.pass(Frame::gap(self.channel.clone(), GapReason::Cut, None, None), outlets);
                Need::Nothing
            }
            Announced::Look | Announced::Refused(_) => Need::Nothing,
        }
    }

    fn hold(&mut self, announced: Announced) {
        if self.held.len() < MAX_HELD {
            self.held.push(announced);
        }
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Where a repair has come to.
    pub(crate) fn last(&self) -> Position {
        self.last
    }

    /// Takes a page that was read after [`Feed::last`]; answers whether the repair is through, and if so what else is
    /// needed. `proven` says that the page was read twice, a second apart, and a fork in it can be believed.
    pub(crate) fn repaired(&mut self, page: &Page, proven: bool, outlets: &Outlets<'_>) -> Repaired {
        let mut entries = page.entries.as_slice();
        let found = entries.iter().position(|entry| entry.at == self.last);
        if let Some(index) = found {
            entries = &entries[index + 1..];
        }
        let continuous = match entries.first() {
            _ if found.is_some() => true,
            Some(first) => self.last.is_followed_by(first.at, first.prev),
            None => page.last == self.last,
        };
        if !continuous {
            let next = entries.first().map_or(page.last.seq.saturating_add(1), |first| first.at.seq);
            if next <= self.last.seq.saturating_add(1) {
                if !proven {
                    return Repaired::Doubtful;
                }
                return Repaired::Forked(self.fork(page));
            }
            // Trimmed before this replica had read it.
            let to = entries.first().map_or(page.last, |first| Position::new(first.prev, first.at.seq - 1));
            let gap = Frame::gap(self.channel.clone(), GapReason::Trimmed, Some(self.last), Some(to));
            self.last = to;
            self.pass(gap, outlets);
        }
        for entry in entries {
            self.take(entry, outlets);
        }
        if !page.complete || self.seen_top.seq > self.last.seq || std::mem::take(&mut self.unread) {
            // A top of another history would never be reached: each counts once.
            self.seen_top = Position::default();
            return Repaired::ReadOn;
        }
        self.phase = Phase::Live;
        Repaired::Done(self.release(true, outlets))
    }

    fn take(&mut self, entry: &Entry, outlets: &Outlets<'_>) {
        if !self.last.is_followed_by(entry.at, entry.prev) {
            let to = Position::new(entry.prev, entry.at.seq.saturating_sub(1));
            self.pass(Frame::gap(self.channel.clone(), GapReason::Trimmed, Some(self.last), Some(to)), outlets);
        }
        if let Some(to) = entry.fork {
            self.last = entry.at;
            self.pass(Frame::gap(self.channel.clone(), GapReason::Reset, Some(to), Some(entry.at)), outlets);
            return;
        }
        self.last = entry.at;
        let frame = Frame::positioned(self.channel.clone(), entry.at, entry.prev, entry.event.clone());
        self.pass(frame, outlets);
    }

    /// The log is another one than what was passed on: goes back to the last position that both have, or to before the
    /// first entry of the new one, and answers it. The gap comes by the log itself, once the fork is written down there.
    fn fork(&mut self, page: &Page) -> Position {
        let is_known = |at| at == self.base || self.tail.iter().any(|frame| frame.at() == Some(at));
        // Where all that this replica knows was lost: what was there before that. Another replica may know it as its own, and
        // both have to write down the same place.
        let is_older = |at: Position| at.seq < self.base.seq && at.micros < self.base.micros;
        let entries = || page.entries.iter().rev();
        let common = entries().find(|entry| is_known(entry.at)).or_else(|| entries().find(|entry| is_older(entry.at)));
        self.last = match (common, page.entries.first()) {
            (Some(entry), _) => entry.at,
            (None, Some(first)) => Position::new(first.prev, first.at.seq.saturating_sub(1)),
            (None, None) => page.last,
        };
        // What is in the tail belongs to the old line: nobody may resume within it.
        self.tail.clear();
        self.base = self.last;
        self.last
    }

    /// Passes on what was held while history was read, as far as it follows.
    fn release(&mut self, all_read: bool, outlets: &Outlets<'_>) -> Need {
        let mut held = std::mem::take(&mut self.held).into_iter();
        while let Some(announced) = held.next() {
            if let Announced::Entry { at, prev, .. } = &announced
                && self.positioned
            {
                if at.seq <= self.last.seq {
                    continue;
                }
                if all_read && !self.last.is_followed_by(*at, *prev) {
                    if self.unreached.take() == Some(*at) {
                        tracing::warn!(channel = %self.channel, %at, "what was announced is not in the history");
                        continue;
                    }
                    self.unreached = Some(*at);
                    self.held.push(announced);
                    self.held.extend(held);
                    return self.look_again();
                }
            }
            let need = self.announced(announced, outlets);
            if need != Need::Nothing {
                self.held.extend(held);
                return need;
            }
        }
        Need::Nothing
    }

    fn pass(&mut self, frame: Frame, outlets: &Outlets<'_>) {
        let frame = Arc::new(match &self.chains {
            Some(chains) => frame.numbered(chains, self.passed),
            None => frame,
        });
        self.passed += 1;
        for (shard, queue) in outlets.queues.iter().enumerate() {
            if self.shards & !self.waiting & !self.dirty & (1 << shard) == 0 {
                continue;
            }
            match queue.push_frame(&frame) {
                Pushed::Taken => {}
                Pushed::TakenAsleep => (outlets.asleep)(shard),
                Pushed::TurnedAway => {
                    self.dirty |= 1 << shard;
                    (outlets.overflowed)(shard, &self.channel);
                }
            }
        }
        if !self.positioned {
            return;
        }
        self.tail.push(frame);
        self.trim(outlets.tail_bytes);
    }

    /// Lets go of the oldest of the recent events beyond so many bytes of memory.
    pub(crate) fn trim(&mut self, tail_bytes: usize) {
        self.base = self.tail.trim(tail_bytes).unwrap_or(self.base);
    }
}

/// How far a repair has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Repaired {
    /// There may be more.
    ReadOn,
    /// The page looks like another history's: wait a second, read again, and then believe it.
    Doubtful,
    /// It is another history since this position, which is to be written down in it.
    Forked(Position),
    Done(Need),
}
