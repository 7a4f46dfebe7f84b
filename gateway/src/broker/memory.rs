//! The embedded broker: history, resume and everything else but other replicas, for a gateway without Redis.
//!
//! One lock holds it all, and announcements are made under it, so that they come in the order of their numbers. What is
//! kept is bounded by a budget of bytes: over it, the oldest events of all channels go first. Nothing survives the
//! process; positions of an earlier one are found to be of another history, as after a wiped Redis.

use super::{
    Accepted, BoxFuture, Broker, Ends, Publish, Retention, Rules, Since, Sink, Top, Unavailable,
    announcement::Announced,
    log::{Entry, Page},
};
use crate::{channel::Channel, event::Event, position::Position};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What an entry is counted with beside its content, and a channel with nothing in it.
const ENTRY_OVERHEAD: usize = 128;
const LOG_OVERHEAD: usize = 512;
/// What nobody uses is looked for once in this time at most.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// See the module's documentation.
pub struct MemoryBroker {
    rules: Rules,
    max_bytes: usize,
    sink: Arc<dyn Sink>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    logs: HashMap<Channel, Log>,
    keys: HashMap<(Channel, String), Key>,
    keys_by_age: VecDeque<(u64, Channel, String)>,
    subscribed: HashSet<Channel>,
    held: Held,
    /// When what nobody uses was last looked for, which takes a look at every channel.
    tidied: u64,
}

/// What is held, in bytes.
#[derive(Default)]
struct Held {
    bytes: usize,
    /// Entries' part of it, by when they were published: what is the oldest tenth is asked for while publishers wait.
    by_age: BTreeMap<Age, usize>,
}

/// A moment, in units that are coarse enough for few of them and fine enough to let go of little too much.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Age(u64);

impl Age {
    fn of(entry: &Entry) -> Self {
        Self(entry.at.micros / 1000)
    }
}

impl Held {
    fn add(&mut self, entry: &Entry) {
        self.bytes += weight(entry);
        *self.by_age.entry(Age::of(entry)).or_default() += weight(entry);
    }

    fn remove(&mut self, entry: &Entry) {
        self.bytes -= weight(entry);
        if let Some(bytes) = self.by_age.get_mut(&Age::of(entry)) {
            *bytes -= weight(entry);
            if *bytes == 0 {
                self.by_age.remove(&Age::of(entry));
            }
        }
    }

    /// The age of entries to let go of, with all that are older, so that `excess` bytes are free.
    fn oldest(&self, mut excess: usize) -> Option<Age> {
        let mut oldest = None;
        for (&age, &bytes) in &self.by_age {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(bytes);
            oldest = Some(age);
        }
        oldest
    }
}

struct Log {
    entries: VecDeque<Entry>,
    last: Position,
    used: u64,
}

struct Key {
    position: Option<Position>,
    expires: u64,
}

/// Now, in microseconds since the epoch.
#[must_use]
pub fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn weight(entry: &Entry) -> usize {
    entry.event.len() + ENTRY_OVERHEAD
}

impl MemoryBroker {
    #[must_use]
    pub fn new(rules: Rules, max_bytes: usize, sink: Arc<dyn Sink>) -> Self {
        sink.reachable(Ok(()));
        Self { rules, max_bytes, sink, state: Mutex::new(State::default()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_one(&self, state: &mut State, publish: Publish) -> Accepted {
        let now = now_micros();
        let Publish { channel, event, idempotency_key } = publish;
        if let Some(key) = &idempotency_key {
            state.forget_keys(now);
            if let Some(known) = state.keys.get(&(channel.clone(), key.clone())) {
                return Accepted { position: known.position, repeated: true, replicated: true };
            }
        }
        let position = match self.rules.retention(&channel) {
            Some(retention) => {
                let entry = state.append(&channel, event, retention, now, None);
                let position = entry.at;
                if state.subscribed.contains(&channel) {
                    let Entry { at, prev, event, .. } = entry;
                    self.sink.announced(channel.as_str(), Announced::Entry { at, prev, event });
                }
                Some(position)
            }
            None => {
                if state.subscribed.contains(&channel) {
                    self.sink.announced(channel.as_str(), Announced::Plain { published: now, event });
                }
                None
            }
        };
        if let Some(key) = idempotency_key {
            let expires = now + micros(self.rules.idempotency());
            state.held.bytes += key.len() + channel.as_str().len() + ENTRY_OVERHEAD;
            state.keys_by_age.push_back((expires, channel.clone(), key.clone()));
            state.keys.insert((channel, key), Key { position, expires });
        }
        if state.held.bytes > self.max_bytes {
            state.shrink(self.max_bytes / 10 * 9);
        }
        Accepted { position, repeated: false, replicated: true }
    }
}

impl State {
    fn log(&mut self, channel: &Channel, now: u64) -> &mut Log {
        self.log_and_held(channel, now).0
    }

    fn log_and_held(&mut self, channel: &Channel, now: u64) -> (&mut Log, &mut Held) {
        let held = &mut self.held;
        let log = self.logs.entry(channel.clone()).or_insert_with(|| {
            held.bytes += LOG_OVERHEAD;
            // The identity of an empty channel, so that a client that has seen nothing notices when it is wiped.
            Log { entries: VecDeque::new(), last: Position::new(now, 0), used: now }
        });
        log.used = now;
        (log, held)
    }

    fn append(
        &mut self,
        channel: &Channel,
        event: Event,
        retention: Retention,
        now: u64,
        fork: Option<Position>,
    ) -> Entry {
        let (log, held) = self.log_and_held(channel, now);
        let micros_at = if now > log.last.micros { now } else { log.last.micros + 1 + now % 1000 };
        let at = Position::new(micros_at, log.last.seq + 1);
        let entry = Entry { at, prev: log.last.micros, event, fork };
        log.last = at;
        log.entries.push_back(entry.clone());
        held.add(&entry);
        let oldest = now.saturating_sub(micros(retention.age));
        while let Some(first) = log.entries.front()
            && (log.entries.len() as u64 > retention.size || first.at.micros < oldest)
        {
            held.remove(first);
            log.entries.pop_front();
        }
        entry
    }

    fn forget_keys(&mut self, now: u64) {
        while let Some((expires, ..)) = self.keys_by_age.front()
            && *expires <= now
        {
            self.forget_oldest_key();
        }
    }

    fn forget_oldest_key(&mut self) -> bool {
        let Some((expires, channel, key)) = self.keys_by_age.pop_front() else { return false };
        self.held.bytes = self.held.bytes.saturating_sub(key.len() + channel.as_str().len() + ENTRY_OVERHEAD);
        let name = (channel, key);
        if self.keys.get(&name).is_some_and(|known| known.expires == expires) {
            self.keys.remove(&name);
        }
        true
    }

    /// Drops the oldest events of all channels, then channels that nobody uses, then keys, until `target` is met.
    fn shrink(&mut self, target: usize) {
        let oldest = self.held.oldest(self.held.bytes.saturating_sub(target));
        for log in self.logs.values_mut() {
            while let Some(first) = log.entries.front()
                && Some(Age::of(first)) <= oldest
            {
                self.held.remove(first);
                log.entries.pop_front();
            }
        }
        if self.held.bytes > target {
            let subscribed = &self.subscribed;
            let before = self.logs.len();
            self.logs.retain(|channel, log| !log.entries.is_empty() || subscribed.contains(channel));
            self.held.bytes = self.held.bytes.saturating_sub((before - self.logs.len()) * LOG_OVERHEAD);
        }
        while self.held.bytes > target && self.forget_oldest_key() {}
    }

    fn forget_unused(&mut self, rules: &Rules, now: u64) {
        if now < self.tidied.saturating_add(micros(TIDY_EVERY)) {
            return;
        }
        self.tidied = now;
        let (subscribed, held) = (&self.subscribed, &mut self.held);
        self.logs.retain(|channel, log| {
            let memory = rules.retention(channel).map_or(0, |retention| micros(retention.memory));
            let keep = subscribed.contains(channel) || log.used.saturating_add(memory) > now;
            if !keep {
                held.bytes = held.bytes.saturating_sub(LOG_OVERHEAD);
                log.entries.iter().for_each(|entry| held.remove(entry));
            }
            keep
        });
    }
}

impl Broker for MemoryBroker {
    fn publish(&self, batch: Vec<Publish>) -> BoxFuture<'_, Vec<Result<Accepted, Unavailable>>> {
        Box::pin(async move {
            let answers = {
                let mut state = self.state();
                batch.into_iter().map(|publish| Ok(self.publish_one(&mut state, publish))).collect()
            };
            self.sink.flush();
            answers
        })
    }

    fn subscribe(&self, channel: &Channel) {
        self.state().subscribed.insert(channel.clone());
        self.sink.subscribed(channel);
    }

    fn unsubscribe(&self, channel: &Channel) {
        self.state().subscribed.remove(channel);
    }

    fn join(&self, channels: Vec<Channel>) -> BoxFuture<'_, Result<Vec<Top>, Unavailable>> {
        Box::pin(async move {
            let now = now_micros();
            let mut state = self.state();
            // Joins come at least once a minute for whatever is subscribed, so this is also where the rest is forgotten.
            // They also come with every new channel, thousands a second.
            state.forget_keys(now);
            state.forget_unused(&self.rules, now);
            Ok(channels
                .iter()
                .map(|channel| Ok(self.rules.retention(channel).map(|_| state.log(channel, now).last)))
                .collect())
        })
    }

    fn read<'a>(
        &'a self,
        channel: &'a Channel,
        after: Position,
        before: usize,
        count: usize,
    ) -> BoxFuture<'a, Result<Page, Unavailable>> {
        Box::pin(async move {
            let state = self.state();
            let Some(log) = state.logs.get(channel) else {
                return Ok(Page { entries: Vec::new(), last: Position::default(), complete: true });
            };
            // By time, as in a stream: after a wipe the numbers begin again, and only times tell the lines apart.
            let next =
                log.entries.partition_point(|entry| (entry.at.micros, entry.at.seq) <= (after.micros, after.seq));
            let range = next.saturating_sub(before)..log.entries.len().min(next.saturating_add(count));
            let complete = range.end == log.entries.len();
            Ok(Page { entries: log.entries.range(range).cloned().collect(), last: log.last, complete })
        })
    }

    fn place<'a>(&'a self, channel: &'a Channel, since: Since) -> BoxFuture<'a, Result<Position, Unavailable>> {
        Box::pin(async move {
            let mut state = self.state();
            let log = state.log(channel, now_micros());
            let first = match since {
                Since::Ago(micros) => {
                    let from = now_micros().saturating_sub(micros);
                    log.entries.partition_point(|entry| entry.at.micros < from)
                }
                Since::Time(from) => log.entries.partition_point(|entry| entry.at.micros < from),
                Since::Last(count) => log.entries.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX)),
                Since::Earliest => 0,
            };
            Ok(log.entries.get(first).map_or(log.last, |entry| Position::new(entry.prev, entry.at.seq - 1)))
        })
    }

    fn ends<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Option<Ends>, Unavailable>> {
        Box::pin(async move {
            let state = self.state();
            Ok(state
                .logs
                .get(channel)
                .map(|log| Ends { first: log.entries.front().map(|entry| entry.at), last: log.last }))
        })
    }

    fn forget<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async move {
            let mut state = self.state();
            let State { logs, held, .. } = &mut *state;
            if let Some(log) = logs.get_mut(channel) {
                log.entries.drain(..).for_each(|entry| held.remove(&entry));
            }
            Ok(())
        })
    }

    fn mark_fork<'a>(&'a self, channel: &'a Channel, common: Position) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async move {
            let mut state = self.state();
            let now = now_micros();
            let Some(retention) = self.rules.retention(channel) else { return Ok(()) };
            let known = state.log(channel, now).entries.iter().any(|entry| entry.fork == Some(common));
            if !known {
                let event = Event::new(None, Bytes::new()).map_err(|error| Unavailable(error.to_string()))?;
                state.append(channel, event, retention, now, Some(common));
                // Says only that there is something to read.
                self.sink.announced(channel.as_str(), Announced::Look);
            }
            drop(state);
            self.sink.flush();
            Ok(())
        })
    }

    fn control(&self, message: Bytes) -> BoxFuture<'_, Result<usize, Unavailable>> {
        Box::pin(async move {
            self.sink.control(message);
            Ok(1)
        })
    }

    /// The replica that asks remembers it as long as this broker could: there is no other.
    fn deny<'a>(&'a self, _token_id: &'a str, _until_ms: u64) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async { Ok(()) })
    }

    fn denied(&self) -> BoxFuture<'_, Result<Vec<(String, u64)>, Unavailable>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn stop(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_nobody_uses_goes_but_is_not_looked_for_with_every_channel_that_comes() {
        let rules = Rules::new(Arc::new(Config::default()));
        let channel = |name: &str| Channel::new(name).expect("a name");
        let later = |seconds: u64| micros(Duration::from_secs(8 * 24 * 3600 + seconds));
        let mut state = State::default();
        state.subscribed.insert(channel("used"));
        for name in ["used", "left"] {
            state.log(&channel(name), 0);
        }
        state.forget_unused(&rules, later(0));
        assert_eq!(state.logs.keys().map(Channel::as_str).collect::<Vec<_>>(), ["used"]);
        assert_eq!(state.held.bytes, LOG_OVERHEAD);
        state.log(&channel("left"), 0);
        state.forget_unused(&rules, later(59));
        assert_eq!(state.logs.len(), 2, "every channel is looked at once a minute, not once for each that comes");
        state.forget_unused(&rules, later(60));
        assert_eq!(state.logs.len(), 1);
    }
}
