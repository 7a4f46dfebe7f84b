//! Clients whose place is in no history: was it replaced, or did a server lag behind?
//!
//! A second look, a second later, decides; then the new history's first entry is where they go on. All who are in doubt
//! at a time share each of these steps, and nobody else waits for any of them: cursors can be made up.

use super::{Gap, Kept, RETRY, Replayer};
use crate::{
    broker::{Since, Unavailable},
    channel::Channel,
    position::Position,
    sse::frame::GapReason,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Between two looks where the first one looked like another history.
const DOUBT: Duration = Duration::from_secs(1);
/// How long a feed may take to find and write down that a history was replaced.
const FEED_LOOKS: Duration = Duration::from_secs(3);
/// How many of the newest entries are searched for that.
const FORK_SEARCH: usize = 1000;

/// How long it is remembered what was found, for clients that were gone before, and come back with the same place.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Of how many places, as they can be made up.
const MOST_REMEMBERED: usize = 4096;

/// Shards that wait, by the position that they wait for.
pub(super) type Doubted = BTreeMap<Position, Vec<usize>>;

/// Places that were found to be in no history, for good.
#[derive(Default)]
pub(super) struct Verdicts(Mutex<HashMap<(Channel, Position), Instant>>);

impl Verdicts {
    fn places(&self) -> MutexGuard<'_, HashMap<(Channel, Position), Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_of_another_line(&self, channel: &Channel, place: Position) -> bool {
        let found = self.places().get(&(channel.clone(), place)).copied();
        found.is_some_and(|found| found.elapsed() < REMEMBERED)
    }

    fn remember(&self, channel: &Channel, place: Position) {
        let mut places = self.places();
        if places.len() >= MOST_REMEMBERED {
            places.retain(|_, found| found.elapsed() < REMEMBERED);
        }
        if places.len() >= MOST_REMEMBERED {
            // Whoever is forgotten waits once more.
            places.clear();
        }
        places.insert((channel.clone(), place), Instant::now());
    }
}

impl Replayer {
    /// Settles those who were in doubt about `channel` when the second look was due.
    pub(super) async fn look_again(self: Arc<Self>, channel: Channel) {
        tokio::time::sleep(DOUBT).await;
        let mut doubted = Doubted::new();
        if let Some(state) = self.channels().get_mut(&channel) {
            for (shard, after) in std::mem::take(&mut state.doubted) {
                doubted.entry(after).or_default().push(shard);
            }
        }
        // A log that was deleted needs an identity again, and as joining writes, only a master can answer it.
        while !matches!(self.broker.join(vec![channel.clone()]).await.as_deref(), Ok([Ok(_)])) {
            tokio::time::sleep(RETRY).await;
        }
        // The channel's feed should look at it too, and may know where the two lines part: what it writes down is
        // better than what can be told from here.
        let _ = self.joins.send(channel.clone());
        let mut other_line = Doubted::new();
        for (after, shards) in doubted {
            let kept = self.read(&channel, after).await;
            match kept.serves_or_gap(after) {
                Some((start, gap)) => self.answer_all(&channel, after, &shards, &kept, start, gap),
                None => drop(other_line.insert(after, shards)),
            }
        }
        if other_line.is_empty() {
            return;
        }
        tokio::time::sleep(FEED_LOOKS).await;
        for &after in other_line.keys() {
            self.verdicts.remember(&channel, after);
        }
        self.cross_over(&channel, other_line).await;
    }

    /// Has those who stood on another line go on with the one that there is.
    pub(super) async fn cross_over(&self, channel: &Channel, of_another_line: Doubted) {
        let forks = self.forks(channel).await;
        for (after, shards) in of_another_line {
            while let Err(error) = self.go_on(channel, after, &shards, &forks).await {
                tracing::debug!(%channel, %error, "history cannot be read yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Has those who stood at `after` go on with the new line.
    async fn go_on(
        &self,
        channel: &Channel,
        after: Position,
        shards: &[usize],
        forks: &[Position],
    ) -> Result<(), Unavailable> {
        let (start, gap) = match forks.iter().rev().find(|common| common.seq < after.seq) {
            // The gap stands in the log, and is crossed.
            Some(common) => (*common, None),
            None => {
                // Nothing names the last entry that both lines share, so time decides: whatever is later than what the
                // client has seen is new to it. In a wiped history that is all of it.
                let start = self.broker.place(channel, Since::Time(after.micros.saturating_add(1))).await?;
                (start, Some((GapReason::Reset, start)))
            }
        };
        let kept = self.read(channel, start).await;
        let (index, trimmed) = kept.serves_or_gap(start).unwrap_or((0, Some((GapReason::Reset, start))));
        self.answer_all(channel, after, shards, &kept, index, gap.or(trimmed));
        Ok(())
    }

    fn answer_all(
        &self,
        channel: &Channel,
        after: Position,
        shards: &[usize],
        kept: &Kept,
        start: usize,
        gap: Option<Gap>,
    ) {
        for &shard in shards {
            self.answer(shard, channel, after, kept, start, gap);
        }
    }

    /// The last common positions of the forks that are written down, oldest first.
    async fn forks(&self, channel: &Channel) -> Vec<Position> {
        let (mut forks, mut looked_at, mut end) = (Vec::new(), 0, Position::new(u64::MAX - 1, 0));
        while looked_at < FORK_SEARCH {
            let room = self.budget.room(|| self.press()).await;
            match self.read_once(channel, end, self.page.entries, 0).await {
                Ok(page) => {
                    looked_at += page.entries.len();
                    forks.extend(page.entries.iter().rev().filter_map(|entry| entry.fork));
                    match page.entries.first() {
                        Some(oldest) if page.entries.len() == self.page.entries && oldest.at.seq > 0 => {
                            end = Position::new(oldest.at.micros, oldest.at.seq - 1);
                        }
                        _ => break,
                    }
                }
                Err(error) => {
                    tracing::debug!(%channel, %error, "history cannot be read yet");
                    drop(room);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        forks.reverse();
        forks
    }
}
