//! Reading history for clients that resume: one read at a time per channel, however many clients wait for it, and a
//! bounded number at a time in all.
//!
//! A page that was just read answers everyone whose place lies in it. Clients of a storm stood in nearly the same
//! place, so a page begins a little before the earliest that is asked for. All pages together are bounded ([`budget`]).

mod answer;
mod budget;
mod doubt;

use super::{
    queue::{Command, Queue},
    wheel::Key,
};
use crate::{
    broker::{
        Broker, Since, Unavailable,
        log::{Entry, Link, Located, Page, locate},
    },
    channel::Channel,
    config::Limits,
    metrics::Metrics,
    position::Position,
    sse::frame::{Format, Frame, GapReason},
};
pub(crate) use answer::{Answer, NoAnswer};
pub(crate) use budget::Share;
use budget::{Budget, PageSize};
use bytes::{Bytes, BytesMut};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, mpsc};

/// How long a page answers others, and how many a channel keeps.
const KEEP: Duration = Duration::from_secs(5);
const KEEP_PAGES: usize = 8;
/// After a read that failed.
const RETRY: Duration = Duration::from_millis(250);

/// Frames of one page, made once for all who read it.
pub(crate) struct ReplayPage {
    pub(crate) frames: Vec<Arc<Frame>>,
    runs: Mutex<Runs>,
}

/// Encodings of all of a page's frames from one on. Few clients of a storm begin anywhere else than the others.
struct Runs {
    made: Vec<(usize, Format, Option<Bytes>)>,
    share: Share,
}

impl std::fmt::Debug for ReplayPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplayPage").field("frames", &self.frames).finish_non_exhaustive()
    }
}

/// Runs of a page that are remembered.
const RUNS: usize = 8;

impl ReplayPage {
    /// All frames from `from` on, encoded and one after the other, unless that is more than `most` bytes; made once
    /// for all who are sent it.
    pub(crate) fn run(&self, from: usize, format: Format, most: usize) -> Option<Bytes> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., run)) = runs.made.iter().find(|(start, of, _)| (*start, *of) == (from, format)) {
            return run.clone();
        }
        let frames = || self.frames[from..].iter().map(|frame| frame.bytes(format));
        let fits = frames().map(Bytes::len).sum::<usize>() <= most;
        let run = fits.then(|| {
            frames()
                .fold(BytesMut::new(), |mut all, bytes| {
                    all.extend_from_slice(bytes);
                    all
                })
                .freeze()
        });
        if runs.made.len() < RUNS && runs.share.grow(run.as_ref().map_or(0, Bytes::len)) {
            runs.made.push((from, format, run.clone()));
        }
        run
    }
}

/// Why a client is not shown what lies after its place, and where the stream goes on.
type Gap = (GapReason, Position);

/// What a shard is told when it asked for what follows a position.
#[derive(Debug)]
pub(crate) struct PageAnswer {
    pub(crate) channel: Channel,
    pub(crate) after: Position,
    /// A gap to send first.
    pub(crate) gap: Option<Arc<Frame>>,
    pub(crate) page: Arc<ReplayPage>,
    /// The first frame of the page to send.
    pub(crate) start: usize,
    /// The log held nothing more when this was read.
    pub(crate) complete: bool,
}

/// A frame's position and the time of the entry before it.
struct Chain(Position, u64);

impl Link for Chain {
    fn link(&self) -> (Position, u64) {
        (self.0, self.1)
    }
}

struct Kept {
    read: Instant,
    page: Arc<ReplayPage>,
    links: Vec<Chain>,
    last: Position,
    complete: bool,
}

#[derive(Default)]
struct Channels {
    waiting: Vec<(usize, Position)>,
    running: bool,
    kept: VecDeque<Arc<Kept>>,
    /// Those whose place is in no history that was read so far.
    doubted: Vec<(usize, Position)>,
}

/// Those whom a page did not serve.
#[derive(Default)]
struct Unsettled {
    /// Some were set aside, and nobody was before.
    is_first: bool,
    /// Nobody need look again.
    of_another_line: doubt::Doubted,
}

/// See the module's documentation.
pub(crate) struct Replayer {
    broker: Arc<dyn Broker>,
    queues: Vec<Arc<Queue>>,
    metrics: Arc<Metrics>,
    permits: Semaphore,
    budget: Budget,
    page: PageSize,
    channels: Mutex<HashMap<Channel, Channels>>,
    verdicts: doubt::Verdicts,
    /// Where a feed's top is asked for: told of channels whose history turned out to be another one.
    joins: mpsc::UnboundedSender<Channel>,
    runtime: tokio::runtime::Handle,
}

impl Replayer {
    pub(crate) fn new(
        broker: Arc<dyn Broker>,
        queues: Vec<Arc<Queue>>,
        metrics: Arc<Metrics>,
        limits: &Limits,
        joins: mpsc::UnboundedSender<Channel>,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let permits = Semaphore::new(limits.replays);
        let event_bytes = limits.event_bytes.get();
        let page = PageSize::of(event_bytes);
        let budget = Budget::new(limits.replay_bytes.get(), page, event_bytes, Arc::clone(&metrics));
        let (channels, verdicts) = (Mutex::default(), doubt::Verdicts::default());
        Self { broker, queues, metrics, permits, budget, page, channels, verdicts, joins, runtime }
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<Channel, Channels>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Replayer::ask`] after a pause: there was nothing more, and yet the live stream does not go on from there.
    pub(crate) fn ask_later(self: &Arc<Self>, shard: usize, channel: &Channel, after: Position) {
        let (this, channel) = (Arc::clone(self), channel.clone());
        self.runtime.spawn(async move {
            tokio::time::sleep(RETRY).await;
            this.ask(shard, &channel, after);
        });
    }

    /// Asks for what follows `after`, to be answered with a [`PageAnswer`] for that very position.
    pub(crate) fn ask(self: &Arc<Self>, shard: usize, channel: &Channel, after: Position) {
        let mut channels = self.channels();
        let state = channels.entry(channel.clone()).or_default();
        let kept = state.kept.iter().find_map(|kept| Some((kept, kept.serves(after)?)));
        if let Some((kept, start)) = kept {
            self.answer(shard, channel, after, kept, start, None);
            return;
        }
        if !state.waiting.contains(&(shard, after)) {
            state.waiting.push((shard, after));
        }
        if !std::mem::replace(&mut state.running, true) {
            let (this, channel) = (Arc::clone(self), channel.clone());
            self.runtime.spawn(async move { this.run(channel).await });
        }
    }

    /// Asks where `since` begins, to be answered with [`Command::Placed`].
    pub(crate) fn place(self: &Arc<Self>, shard: usize, connection: Key, channel: &Channel, since: Since) {
        let (this, channel) = (Arc::clone(self), channel.clone());
        self.runtime.spawn(async move {
            let place = loop {
                let Ok(_permit) = this.permits.acquire().await else { return };
                match this.broker.place(&channel, since).await {
                    Ok(place) => break place,
                    Err(error) => tracing::debug!(%channel, %error, "history cannot be read yet"),
                }
                tokio::time::sleep(RETRY).await;
            };
            this.queues[shard].push(Command::Placed { connection, channel, place });
        });
    }

    async fn run(self: Arc<Self>, channel: Channel) {
        loop {
            let earliest = {
                let mut channels = self.channels();
                let Some(state) = channels.get_mut(&channel) else { return };
                let Some((_, after)) = state.waiting.iter().min_by_key(|(_, after)| after.seq).copied() else {
                    state.running = false;
                    break;
                };
                after
            };
            let kept = Arc::new(self.read(&channel, earliest).await);
            let unsettled = self.settle(&channel, earliest, &kept);
            if unsettled.is_first {
                let (this, channel) = (Arc::clone(&self), channel.clone());
                self.runtime.spawn(async move { this.look_again(channel).await });
            }
            if !unsettled.of_another_line.is_empty() {
                let (this, channel) = (Arc::clone(&self), channel.clone());
                self.runtime.spawn(async move { this.cross_over(&channel, unsettled.of_another_line).await });
            }
        }
        // What was kept serves the rest of the storm, and then goes.
        tokio::time::sleep(KEEP).await;
        let mut channels = self.channels();
        if channels
            .get(&channel)
            .is_some_and(|state| !state.running && state.waiting.is_empty() && state.doubted.is_empty())
        {
            channels.remove(&channel);
        }
    }

    async fn read(&self, channel: &Channel, after: Position) -> Kept {
        loop {
            let room = self.budget.room(|| self.press()).await;
            match self.read_once(channel, after, self.page.before, self.page.entries).await {
                Ok(page) => return Kept::new(channel, &page, |bytes| self.budget.share(room, bytes)),
                Err(error) => tracing::debug!(%channel, %error, "history cannot be read yet"),
            }
            drop(room);
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Reads a page when it is its turn. Who does so has room for it already: who waits for that must keep nobody from
    /// looking up a place.
    async fn read_once(
        &self,
        channel: &Channel,
        after: Position,
        before: usize,
        count: usize,
    ) -> Result<Page, Unavailable> {
        // Never closed.
        let _permit = self.permits.acquire().await;
        self.metrics.replays_in_flight.inc();
        let timer = self.metrics.history_read_seconds.start_timer();
        let read = self.broker.read(channel, after, before, count).await;
        timer.observe_duration();
        self.metrics.replays_in_flight.dec();
        read
    }

    /// Answers everyone whom this page serves, and `asked`, whose page it is, in any case; unless the page looks like
    /// another history's to it: then whoever stands there is set aside, so that nobody else waits for what becomes of
    /// it.
    fn settle(&self, channel: &Channel, asked: Position, kept: &Arc<Kept>) -> Unsettled {
        let mut channels = self.channels();
        let mut unsettled = Unsettled::default();
        let Some(state) = channels.get_mut(channel) else { return unsettled };
        let mut doubted = Vec::new();
        state.waiting.retain(|&(shard, after)| {
            let outcome =
                if after == asked { kept.serves_or_gap(after) } else { kept.serves(after).map(|s| (s, None)) };
            match outcome {
                Some((start, gap)) => {
                    self.answer(shard, channel, after, kept, start, gap);
                    false
                }
                None if after == asked && self.verdicts.is_of_another_line(channel, asked) => {
                    unsettled.of_another_line.entry(after).or_default().push(shard);
                    false
                }
                None if after == asked => {
                    doubted.push((shard, after));
                    false
                }
                None => true,
            }
        });
        while state.kept.len() >= KEEP_PAGES {
            state.kept.pop_front();
        }
        state.kept.retain(|old| old.read.elapsed() < KEEP);
        if doubted.is_empty() {
            if unsettled.of_another_line.is_empty() {
                state.kept.push_back(Arc::clone(kept));
            }
            return unsettled;
        }
        unsettled.is_first = state.doubted.is_empty();
        state.doubted.extend(doubted);
        unsettled
    }

    /// Memory is wanted: lets go of pages that nobody reads, and has the shards take those away that wait for a client
    /// whose socket is full.
    fn press(&self) {
        for state in self.channels().values_mut() {
            state.kept.retain(|kept| Arc::strong_count(&kept.page) > 1);
        }
        for queue in &self.queues {
            queue.push(Command::LetGo);
        }
    }

    /// Forgets what was kept of a channel, whose history was deleted.
    pub(crate) fn forget(&self, channel: &Channel) {
        if let Some(state) = self.channels().get_mut(channel) {
            state.kept.clear();
        }
    }

    fn answer(&self, shard: usize, channel: &Channel, after: Position, kept: &Kept, start: usize, gap: Option<Gap>) {
        self.queues[shard].push(Command::Page(PageAnswer {
            channel: channel.clone(),
            after,
            gap: gap.map(|(reason, to)| Arc::new(Frame::gap(channel.clone(), reason, Some(after), Some(to)))),
            page: Arc::clone(&kept.page),
            start,
            complete: kept.complete,
        }));
    }
}

impl Kept {
    /// Checks that each entry follows the one before, and puts a gap where one does not.
    fn new(channel: &Channel, page: &Page, share: impl FnOnce(usize) -> Share) -> Self {
        let mut frames = Vec::with_capacity(page.entries.len());
        let mut links = Vec::with_capacity(page.entries.len());
        let mut last: Option<Position> = None;
        for Entry { at, prev, event, fork } in &page.entries {
            if let Some(last) = last
                && !last.is_followed_by(*at, *prev)
            {
                let reason = if at.seq > last.seq.saturating_add(1) { GapReason::Trimmed } else { GapReason::Reset };
                let to = Position::new(*prev, at.seq.saturating_sub(1));
                frames.push(Arc::new(Frame::gap(channel.clone(), reason, Some(last), Some(to))));
                links.push(Chain(to, last.micros));
            }
            frames.push(Arc::new(match fork {
                Some(common) => Frame::gap(channel.clone(), GapReason::Reset, Some(*common), Some(*at)),
                None => Frame::positioned(channel.clone(), *at, *prev, event.clone()),
            }));
            links.push(Chain(*at, *prev));
            last = Some(*at);
        }
        let (last, complete) = (page.last, page.complete);
        let weight = frames.iter().map(|frame| frame.weight()).sum();
        Self {
            read: Instant::now(),
            page: Arc::new(ReplayPage { frames, runs: Mutex::new(Runs { made: Vec::new(), share: share(weight) }) }),
            links,
            last,
            complete,
        }
    }

    /// Where someone who stood at `after` goes on, if this page has something for it without a doubt.
    fn serves(&self, after: Position) -> Option<usize> {
        match locate(&self.links, after) {
            Located::At(start) if start < self.links.len() && self.read.elapsed() < KEEP => Some(start),
            _ => None,
        }
    }

    /// The same for the one whom the page was read for, who may also be at the end, or have lost what was trimmed;
    /// nothing if the page looks like another history's.
    fn serves_or_gap(&self, after: Position) -> Option<(usize, Option<Gap>)> {
        let trimmed = |to| Some((GapReason::Trimmed, to));
        match (locate(&self.links, after), self.links.first()) {
            (Located::At(start), _) => Some((start, None)),
            (Located::Before, Some(Chain(at, prev))) => Some((0, trimmed(Position::new(*prev, at.seq - 1)))),
            (Located::Beyond, _) if self.last == after => Some((self.links.len(), None)),
            (Located::Beyond, _) if self.complete && self.last.seq > after.seq => {
                Some((self.links.len(), trimmed(self.last)))
            }
            _ => None,
        }
    }
}
