//! The outbox: streams in Redis from which the replicas take events in, for programs that have nothing but `XADD`.
//!
//! One replica at a time holds a stream's lease. It reads in order, publishes, and deletes what was settled; what cannot
//! be published goes to a stream of rejected entries. A lease alone does not make "once" of it: a holder that was
//! frozen goes on where it was. So the script that publishes keeps, beside each channel's log, the id of the last
//! entry of each stream that was published there, and passes over what is not later. And as one that could not be published
//! must not be passed over by the next, a call names the entry that has to be there before it.

mod entry;

use super::{
    Shared,
    calls::{Calls, Place},
    facts::Announce,
    node::Node,
    redirect::Redirect,
    scripts::{self, Announced, Keys},
    unavailable,
};
use crate::{
    broker::{Unavailable, announcement},
    channel::Channel,
    event::Event,
};
pub(super) use entry::Entry;
use entry::Rejected;
use futures_util::future::join_all;
use redis::{Pipeline, Value, aio::ConnectionLike};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How long a lease holds: so long nobody takes entries in after the holder was killed.
const LEASE: Duration = Duration::from_secs(3);
/// How often those who do not hold it ask for it; half of it is chance.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How often the holder looks for entries, while some come and after a while without any.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
const IDLE_AFTER: u32 = 200;
/// Before what could not be published is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Entries that are read at a time.
const PAGE: usize = 256;
/// As for other publishes: the most in one call.
const MAX_CALL_EVENTS: usize = 64;
const MAX_CALL_BYTES: usize = 256 << 10;
/// Rejected entries that are kept, about.
const REJECTED_KEPT: usize = 10_000;

/// Takes a stream's entries in until `stopping` says so, and then lets go of its lease.
pub(super) async fn run(calls: Calls, stream: String, mut stopping: watch::Receiver<bool>) {
    let shared = Arc::clone(&calls.shared);
    let intake = Intake { who: format!("{}-{:08x}", shared.replica, fastrand::u32(..)), calls, stream };
    let mut state = State::default();
    loop {
        let pause = tokio::select! {
            pause = intake.turn(&mut state) => pause,
            _ = stopping.changed() => break,
        };
        if tokio::time::timeout(pause, stopping.changed()).await.is_ok() {
            break;
        }
    }
    if state.holds {
        intake.release().await;
    }
}

struct Intake {
    calls: Calls,
    stream: String,
    who: String,
}

#[derive(Default)]
struct State {
    holds: bool,
    /// When the lease was last taken or kept.
    leased: Option<Instant>,
    /// Everything up to this id is settled, and not deleted yet.
    settled: Option<String>,
    /// Looks in a row that found nothing.
    empty: u32,
    complained: bool,
}

/// One call of the script: neighbours of one channel.
struct Call<'a> {
    channel: &'a Channel,
    /// The last one of the channel before these on this page.
    before: &'a str,
    /// Where they stand on the page, and what they are.
    entries: Vec<(usize, &'a str, &'a Event)>,
    bytes: usize,
}

/// Why a page could not be settled whole: from which entry on.
struct Stopped {
    at: usize,
    why: Unavailable,
    /// It is about that one's channel alone, and would be the same for ever.
    for_good: bool,
}

impl Stopped {
    fn new(at: usize, why: Unavailable) -> Self {
        // A key of another kind stands in the place of one of the channel's own.
        let for_good = why.0.contains("WRONGTYPE");
        Self { at, why, for_good }
    }
}

impl Intake {
    /// One look at the stream; answers how long to wait before the next.
    async fn turn(&self, state: &mut State) -> Duration {
        let page = match self.lease(state.settled.as_deref()).await {
            Ok(page) => page,
            Err(error) => {
                self.complain(state, &error);
                if state.leased.is_none_or(|leased| leased.elapsed() >= LEASE) {
                    self.hold(state, false, "nobody here takes in: the lease has run out");
                }
                return AGAIN_AFTER;
            }
        };
        state.settled = None;
        let Some(entries) = page else {
            self.hold(state, false, "another replica takes in");
            return ASK_EVERY.mul_f64(0.5 + fastrand::f64() / 2.0);
        };
        self.hold(state, true, "this replica takes in");
        state.leased = Some(Instant::now());
        if entries.is_empty() {
            state.empty = state.empty.saturating_add(1);
            state.complained = false;
            return if state.empty > IDLE_AFTER { LOOK_EVERY.1 } else { LOOK_EVERY.0 };
        }
        state.empty = 0;
        let stopped = self.take(&entries).await;
        let settled = stopped.as_ref().map_or(entries.len(), |stopped| stopped.at);
        state.settled = settled.checked_sub(1).map(|last| entries[last].id.clone());
        match stopped {
            Some(stopped) => {
                self.complain(state, &stopped.why);
                AGAIN_AFTER
            }
            None => {
                state.complained = false;
                Duration::ZERO
            }
        }
    }

    fn hold(&self, state: &mut State, holds: bool, told: &str) {
        if std::mem::replace(&mut state.holds, holds) != holds {
            let stream = &self.stream;
            tracing::info!(%stream, "{told}");
        }
        self.calls.shared.metrics.intake_held.with_label_values(&[&self.stream]).set(i64::from(holds));
    }

    fn complain(&self, state: &mut State, error: &Unavailable) {
        let stream = &self.stream;
        if std::mem::replace(&mut state.complained, true) {
            tracing::debug!(%stream, %error, "entries still cannot be taken in");
        } else {
            tracing::warn!(%stream, %error, "entries cannot be taken in, trying again");
        }
    }

    /// Takes or keeps the lease, deletes what is settled, and reads on; `None` if another has it.
    async fn lease(&self, settled: Option<&str>) -> Result<Option<Vec<Entry>>, Unavailable> {
        let lease = self.calls.shared.names.lease(&self.stream);
        let command =
            |_: &Place| scripts::lease(&self.stream, &lease, &self.who, LEASE, settled.unwrap_or_default(), PAGE);
        let answer = self.calls.query(&self.stream, command).await?;
        let most = self.calls.shared.max_event_bytes;
        scripts::intake_page(answer, most).map_err(|error| unavailable(&error))
    }

    async fn release(&self) {
        let lease = self.calls.shared.names.lease(&self.stream);
        let command = |_: &Place| scripts::release(&lease, &self.who);
        if let Err(error) = self.calls.query(&lease, command).await {
            tracing::debug!(%error, "a lease runs out by itself");
        }
    }

    /// Publishes what can be published and puts the rest aside; answers where it had to stop, if it had to.
    async fn take(&self, entries: &[Entry]) -> Option<Stopped> {
        let calls = calls(entries);
        let routing = self.calls.routing();
        let mut by_node: Vec<(Arc<Node>, Vec<&Call<'_>>)> = Vec::new();
        let mut failures: Vec<Stopped> = Vec::new();
        for call in &calls {
            match routing.of(&self.calls.shared.names.pubsub(call.channel)) {
                Some(node) => match by_node.iter_mut().find(|(one, _)| Arc::ptr_eq(one, node)) {
                    Some((_, calls)) => calls.push(call),
                    None => by_node.push((Arc::clone(node), vec![call])),
                },
                None => {
                    let why = Unavailable("no master of redis has the channel's slot".to_owned());
                    failures.push(Stopped::new(call.entries[0].0, why));
                }
            }
        }
        let sent = join_all(by_node.iter().map(|(node, calls)| self.send(node, calls))).await;
        failures.extend(sent.into_iter().flatten());
        let stopped = failures.into_iter().min_by_key(|stopped| stopped.at);
        let reached = stopped.as_ref().map_or(entries.len(), |stopped| stopped.at);
        for (at, entry) in entries[..reached].iter().enumerate() {
            if let Err(rejected) = &entry.content
                && let Err(why) = self.reject(&entry.id, rejected).await
            {
                return Some(Stopped::new(at, why));
            }
        }
        let stopped = stopped?;
        let Entry { id, content: Ok((channel, event)) } = &entries[stopped.at] else { return Some(stopped) };
        if !stopped.for_good {
            return Some(stopped);
        }
        let fields =
            [b"channel", channel.as_str().as_bytes(), b"event", event.event_type().unwrap_or_default().as_bytes()];
        let mut fields: Vec<_> = fields.map(<[u8]>::to_vec).into();
        fields.extend([b"data".to_vec(), event.data_bytes().to_vec()]);
        let Unavailable(why) = stopped.why;
        match self.reject(id, &Rejected { why, fields }).await {
            Ok(()) => {
                let why = Unavailable("the entries after it come next".to_owned());
                // Not a failure: the page goes on behind it.
                (stopped.at + 1 < entries.len()).then(|| Stopped::new(stopped.at + 1, why))
            }
            Err(why) => Some(Stopped::new(stopped.at, why)),
        }
    }

    /// Sends the calls to their master in one pipeline; answers the first entry that was not settled there.
    async fn send(&self, node: &Node, calls: &[&Call<'_>]) -> Option<Stopped> {
        let first = calls[0].entries[0].0;
        let stopped = |at: usize, why: Unavailable| Some(Stopped::new(at, why));
        let mut connection = match node.server.checkout().await {
            Ok(connection) => connection,
            Err(why) => return stopped(first, why),
        };
        let announce = match node.server.announce(&mut *connection).await {
            Ok(announce) => announce,
            Err(why) => return stopped(first, why),
        };
        let mut pipeline = Pipeline::with_capacity(calls.len() + 1);
        for (nth, call) in calls.iter().enumerate() {
            pipeline.add_command(self.command(call, announce, nth == 0));
        }
        let wait = self.calls.shared.wait;
        if let Some((replicas, limit)) = wait {
            pipeline.add_command(scripts::wait(replicas, limit));
        }
        let count = calls.len() + usize::from(wait.is_some());
        let mut answers = match connection.req_packed_commands(&pipeline, 0, count).await {
            Ok(answers) => answers,
            Err(error) => {
                drop(deadpool_redis::Connection::take(connection));
                self.calls.shared.refresh.notify_one();
                return stopped(first, unavailable(&error));
            }
        };
        if let Some((wanted, _)) = wait {
            let found = answers.pop().and_then(|answer| redis::from_redis_value(answer).ok()).unwrap_or(0);
            if found < wanted {
                return stopped(first, Unavailable(format!("{found} replicas have the events, and {wanted} are to")));
            }
        }
        let mut failure: Option<Stopped> = None;
        let mut later = Vec::new();
        for (call, answer) in calls.iter().zip(answers) {
            let answer = match Redirect::read(&answer) {
                Some(_) => self.elsewhere(call).await,
                None => Ok(answer),
            };
            let settled = answer.and_then(|answer| self.settle(call, answer, &mut later));
            if let Err((at, why)) = settled.map_err(|why| (call.entries[0].0, why)).and_then(|end| match end {
                None => Ok(()),
                Some(stopped) => Err((stopped.at, stopped.why)),
            }) && failure.as_ref().is_none_or(|failure| at < failure.at)
            {
                failure = Some(Stopped::new(at, why));
            }
        }
        if wait.is_some() && !later.is_empty() {
            let mut pipeline = Pipeline::with_capacity(later.len());
            for (channel, payload) in &later {
                pipeline.cmd(announce.command()).arg(self.calls.shared.names.pubsub(channel)).arg(&payload[..]);
            }
            if let Err(error) = connection.req_packed_commands(&pipeline, 0, later.len()).await {
                drop(deadpool_redis::Connection::take(connection));
                return stopped(first, unavailable(&error));
            }
        }
        failure
    }

    fn command(&self, call: &Call<'_>, announce: Announce, whole: bool) -> redis::Cmd {
        let Shared { names, rules, wait, .. } = &*self.calls.shared;
        let announced = if wait.is_some() { Announced::Later } else { Announced::AtOnce };
        let entries = call.entries.iter().map(|(_, id, event)| (*id, *event));
        let retention = rules.retention(call.channel);
        scripts::intake(
            names,
            call.channel,
            retention,
            &self.stream,
            call.before,
            entries,
            whole,
            (announce, announced),
        )
    }

    /// By itself, to wherever its slot is.
    async fn elsewhere(&self, call: &Call<'_>) -> Result<Value, Unavailable> {
        if self.calls.shared.wait.is_some() {
            // What is waited for is what one connection wrote, so it has to come to its master in the ordinary way.
            return Err(Unavailable("the channel's slot is on its way between masters of redis".to_owned()));
        }
        let Shared { names, rules, .. } = &*self.calls.shared;
        let retention = rules.retention(call.channel);
        // A script that is told of a key that does not exist is refused while the slot moves.
        if retention.is_some() {
            let join =
                |_: &Place| scripts::join(names, call.channel, retention, rules.idempotency(), true, Keys::Needed);
            self.calls.query(&names.log(call.channel), join).await?;
        }
        let taken = names.taken(call.channel);
        let touch = |_: &Place| scripts::touch(&taken, Duration::from_secs(604_800));
        self.calls.query(&taken, touch).await?;
        self.calls.query(&taken, |place| self.command(call, place.announce, true)).await
    }

    /// Reads what the script said of a call; answers where it stopped, if it did, and what is to be announced.
    fn settle<'a>(
        &self,
        call: &Call<'a>,
        answer: Value,
        later: &mut Vec<(&'a Channel, bytes::Bytes)>,
    ) -> Result<Option<Stopped>, Unavailable> {
        let metrics = &self.calls.shared.metrics;
        let answers = scripts::taken_in(answer).map_err(|error| unavailable(&error))?;
        let mut looked = false;
        let mut answers = answers.into_iter();
        for (at, id, event) in &call.entries {
            match answers.next() {
                Some(Ok(scripts::TakenIn::Before)) => {
                    metrics.intake.with_label_values(&["repeated"]).inc();
                    tracing::info!(stream = %self.stream, %id, channel = %call.channel, "an entry was there before, or one with a later id");
                    if !std::mem::replace(&mut looked, true) {
                        later.push((call.channel, announcement::look()));
                    }
                }
                Some(Ok(scripts::TakenIn::Now { position, prev })) => {
                    metrics.intake.with_label_values(&["published"]).inc();
                    if let (Some(position), Some(prev)) = (position, prev) {
                        later.push((call.channel, announcement::encode(position, prev, event)));
                    }
                }
                Some(Err(error)) => return Ok(Some(Stopped::new(*at, unavailable(&error)))),
                None => {
                    let why = Unavailable("redis gave no answer to an entry".to_owned());
                    return Ok(Some(Stopped::new(*at, why)));
                }
            }
        }
        Ok(None)
    }

    /// Puts an entry aside with the reason, once: under its own id.
    async fn reject(&self, id: &str, entry: &Rejected) -> Result<(), Unavailable> {
        let why = &entry.why;
        let rejected = format!("{}:rejected", self.stream);
        tracing::warn!(stream = %self.stream, %id, %why, "an entry was rejected");
        let command = |_: &Place| {
            let mut add = redis::cmd("XADD");
            add.arg(&rejected).arg("MAXLEN").arg("~").arg(REJECTED_KEPT).arg(id);
            add.arg("reason").arg(why);
            // One by one: an odd number of them is no stream's.
            entry.fields.iter().for_each(|field| _ = add.arg(field));
            add
        };
        match self.calls.query(&rejected, command).await {
            Err(Unavailable(why)) if !why.contains("equal or smaller") => Err(Unavailable(why)),
            answered => {
                if answered.is_ok() {
                    self.calls.shared.metrics.intake.with_label_values(&["rejected"]).inc();
                }
                Ok(())
            }
        }
    }
}

/// Runs of neighbours of one channel, bounded in events and bytes, each with the one of its channel before it.
fn calls(entries: &[Entry]) -> Vec<Call<'_>> {
    let mut calls: Vec<Call<'_>> = Vec::new();
    let mut last: HashMap<&Channel, &str> = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let Ok((channel, event)) = &entry.content else { continue };
        let fits = |call: &Call<'_>| {
            call.channel == channel
                && call.entries.len() < MAX_CALL_EVENTS
                && call.bytes + event.len() <= MAX_CALL_BYTES
        };
        let before = last.insert(channel, &entry.id).unwrap_or_default();
        match calls.last_mut().filter(|call| fits(call)) {
            Some(call) => {
                call.bytes += event.len();
                call.entries.push((at, &entry.id, event));
            }
            None => calls.push(Call { channel, before, entries: vec![(at, &entry.id, event)], bytes: event.len() }),
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, fields: &[&str]) -> Entry {
        Entry::new(id.to_owned(), fields.iter().map(|field| field.as_bytes().to_vec()).collect(), 20)
    }

    #[test]
    fn neighbours_share_a_call_and_each_names_the_one_before_it() {
        let page: Vec<_> = [("1-0", "a"), ("2-0", "a"), ("3-0", "b"), ("4-0", "a"), ("5-0", "*"), ("6-0", "a")]
            .map(|(id, channel)| entry(id, &["channel", channel, "data", "x"]))
            .into();
        let calls: Vec<_> = calls(&page)
            .iter()
            .map(|call| {
                let ids: Vec<_> = call.entries.iter().map(|(at, id, _)| format!("{at}:{id}")).collect();
                (call.channel.as_str().to_owned(), call.before.to_owned(), ids.join(" "))
            })
            .collect();
        let expected = [("a", "", "0:1-0 1:2-0"), ("b", "", "2:3-0"), ("a", "2-0", "3:4-0 5:6-0")];
        let expected: Vec<_> = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())).into();
        assert_eq!(calls, expected);
    }
}
