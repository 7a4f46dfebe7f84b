//! A batch of publishes as commands, and what Redis says to these as answers to publishers.
//!
//! Events of one channel that stand next to each other go in one call of the script, where each costs Redis a fraction
//! of what it would cost alone. Only neighbours do: the order of the batch is the order in Redis.

use super::{
    Conflicts, Shared,
    facts::Announce,
    is_demoted,
    names::Names,
    redirect::Redirect,
    scripts::{self, Announced, Keys},
    unavailable,
};
use crate::broker::{Accepted, Publish, Retention, Rules, Unavailable, announcement, memory::now_micros};
use crate::{channel::Channel, position::Position};
use redis::{Pipeline, RedisResult, Value, aio::ConnectionLike};
use std::{collections::HashSet, time::Duration};

/// The most in one call: while it runs, which is less than a millisecond, Redis serves nobody else.
const MAX_CALL_EVENTS: usize = 64;
const MAX_CALL_BYTES: usize = 256 << 10;
/// Channels of which is remembered that they have no log.
const MAX_UNLINKED: usize = 10_000;

/// Channels without history whose log, if they ever had one, is gone.
///
/// Switched on again, a log from a time when they had one would look continuous. Once for each channel is enough.
#[derive(Default)]
pub(super) struct Unlinked {
    done: HashSet<Channel>,
    /// Nothing is to be unlinked.
    all: bool,
}

impl Unlinked {
    /// For where it is not the time to unlink anything.
    pub(super) fn none() -> Self {
        Self { done: HashSet::new(), all: true }
    }

    /// Forgets all: a connection broke, so whether they are gone is not known.
    pub(super) fn clear(&mut self) {
        self.done.clear();
    }

    /// Those of `calls` that still have to lose their log. From now on they count as done.
    fn take_new<'a>(&mut self, calls: &[Call<'a>]) -> Vec<&'a Channel> {
        if self.done.len() > MAX_UNLINKED {
            self.done.clear();
        }
        let without_history =
            calls.iter().filter(|call| call.retention.is_none() && !self.all).map(|call| call.channel);
        without_history.filter(|channel| self.done.insert((*channel).clone())).collect()
    }
}

/// What became of a batch that was sent.
pub(super) struct Answered {
    /// For each event, in order.
    pub(super) events: Vec<Settled>,
    /// The server is no master any more.
    pub(super) demoted: bool,
}

/// What became of one event.
pub(super) type Settled = Result<Result<Accepted, Unavailable>, Redirect>;

/// How a batch is published.
pub(super) struct Manner<'a> {
    pub(super) names: &'a Names,
    pub(super) rules: &'a Rules,
    pub(super) conflicts: &'a Conflicts,
    pub(super) announce: Announce,
    /// On how many replicas each entry must be, and how long that may take.
    pub(super) wait: Option<(usize, Duration)>,
    /// The slot is on its way here: as the server from which it comes says.
    pub(super) asking: bool,
    pub(super) keys: Keys,
}

impl<'a> Manner<'a> {
    /// As a master is published to that has the slots.
    pub(super) fn of(shared: &'a Shared, announce: Announce) -> Self {
        let Shared { names, rules, conflicts, wait, .. } = shared;
        Self { names, rules, conflicts, announce, wait: *wait, asking: false, keys: Keys::All }
    }
}

/// Publishes `events` in their order.
///
/// # Errors
/// When the connection fails. Whether the events were taken is unknown then.
pub(super) async fn publish(
    connection: &mut (impl ConnectionLike + Send),
    manner: &Manner<'_>,
    events: &[&Publish],
    unlinked: &mut Unlinked,
) -> RedisResult<Answered> {
    let calls = calls(manner.rules, events);
    let unlinks = unlinked.take_new(&calls);
    // One call by itself may go by its hash: it has no tail that could get in before it while it is repeated.
    let by_hash = matches!(calls.as_slice(), [call] if !call.plain);
    let (mut answers, mut on_replicas) = send(connection, manner, &unlinks, &calls, !by_hash).await?;
    if by_hash && answers.first().is_some_and(is_unknown_script) {
        (answers, on_replicas) = send(connection, manner, &[], &calls, true).await?;
    }
    let demoted = answers.iter().any(says_demoted);
    let mut settled = settle(manner.conflicts, &calls, answers);
    if let (Some((wanted, _)), Some(found)) = (manner.wait, on_replicas) {
        if found >= wanted {
            announce(connection, manner, &calls, &settled).await?;
        } else {
            // What has no entry is on no replica either way.
            for (accepted, _) in settled.iter_mut().flatten().flatten().filter(|(taken, _)| taken.position.is_some()) {
                accepted.replicated = false;
            }
        }
    }
    let events = settled.into_iter().map(|event| event.map(|done| done.map(|(accepted, _)| accepted))).collect();
    Ok(Answered { events, demoted })
}

/// Announces what was written to logs and is on its replicas by now. Whoever subscribes thus sees nothing that a promoted
/// replica does not have. What was not announced is found by the next announcement, and by whoever publishes it again.
async fn announce(
    connection: &mut (impl ConnectionLike + Send),
    manner: &Manner<'_>,
    calls: &[Call<'_>],
    settled: &[Noted],
) -> RedisResult<()> {
    let mut commands = Pipeline::with_capacity(settled.len());
    let mut count = 0;
    let mut settled = settled.iter();
    for call in calls {
        let mut looked = false;
        for (event, noted) in call.events.iter().zip(settled.by_ref()) {
            let Ok(Ok((Accepted { position: Some(position), .. }, prev))) = noted else { continue };
            let payload = match prev {
                Some(prev) => announcement::encode(*position, *prev, &event.event),
                // It was there before, and perhaps not announced then.
                None if !std::mem::replace(&mut looked, true) => announcement::look(),
                None => continue,
            };
            if manner.asking {
                commands.cmd("ASKING");
                count += 1;
            }
            commands.cmd(manner.announce.command()).arg(manner.names.pubsub(call.channel)).arg(&payload[..]);
            count += 1;
        }
    }
    if count > 0 {
        connection.req_packed_commands(&commands, 0, count).await?;
    }
    Ok(())
}

/// Sends the calls in one pipeline; answers what was said of each, and on how many replicas the last entry is, if that
/// was to be waited for.
async fn send(
    connection: &mut (impl ConnectionLike + Send),
    manner: &Manner<'_>,
    unlinks: &[&Channel],
    calls: &[Call<'_>],
    whole: bool,
) -> RedisResult<(Vec<Value>, Option<usize>)> {
    let mut commands = pipeline(manner, unlinks, calls, whole);
    // Each has an ASKING before it.
    let each = if manner.asking { 2 } else { 1 };
    let before = unlinks.len() * each;
    let wait = manner.wait.filter(|_| calls.iter().any(|call| !call.plain));
    if let Some((replicas, limit)) = wait {
        commands.cmd("WAIT").arg(replicas).arg(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    }
    let answered = calls.len() * each + usize::from(wait.is_some());
    let mut answers = connection.req_packed_commands(&commands, before, answered).await?;
    // A server that refuses to wait has not waited.
    let on_replicas = wait.map(|_| answers.pop().and_then(|answer| redis::from_redis_value(answer).ok()).unwrap_or(0));
    if manner.asking {
        // Every other answer is to ASKING.
        answers = answers.into_iter().skip(1).step_by(2).collect();
    }
    Ok((answers, on_replicas))
}

/// Whether the server says, of a call or of one of its events, that it is no master any more.
fn says_demoted(answer: &Value) -> bool {
    match answer {
        Value::Array(of_events) => of_events.iter().any(is_demoted),
        answer => is_demoted(answer),
    }
}

fn is_unknown_script(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

/// One command, and the events that its answer is about.
struct Call<'a> {
    channel: &'a Channel,
    retention: Option<Retention>,
    events: &'a [&'a Publish],
    /// One event without history and key, which needs no script.
    plain: bool,
}

fn calls<'a>(rules: &Rules, events: &'a [&'a Publish]) -> Vec<Call<'a>> {
    let mut calls = Vec::new();
    for neighbours in events.chunk_by(|one, next| one.channel == next.channel) {
        let channel = &neighbours[0].channel;
        let retention = rules.retention(channel);
        let is_plain = |event: &Publish| retention.is_none() && event.idempotency_key.is_none();
        for alike in neighbours.chunk_by(|one, next| is_plain(one) == is_plain(next)) {
            let plain = is_plain(alike[0]);
            let most = if plain { 1 } else { MAX_CALL_EVENTS };
            let mut rest = alike;
            while !rest.is_empty() {
                let events;
                (events, rest) = rest.split_at(fitting(rest, most));
                calls.push(Call { channel, retention, events, plain });
            }
        }
    }
    calls
}

/// How many of the first `events` go in one call: one, and what has room beside it.
fn fitting(events: &[&Publish], most: usize) -> usize {
    let mut bytes = 0;
    let fits = |event: &&&Publish| {
        bytes += event.event.len();
        bytes <= MAX_CALL_BYTES
    };
    events.iter().take(most).take_while(fits).count().max(1)
}

/// The commands that carry out `calls`, after the ones that unlink logs, whose answers mean nothing. `whole`: the first
/// script call has the script's text. It does unless it is alone, as others could get in before it otherwise.
fn pipeline(manner: &Manner<'_>, unlinks: &[&Channel], calls: &[Call<'_>], mut whole: bool) -> Pipeline {
    let Manner { names, rules, announce, asking, keys, .. } = *manner;
    let mut pipeline = Pipeline::with_capacity(unlinks.len() + calls.len() + 1);
    for channel in unlinks {
        if asking {
            pipeline.cmd("ASKING");
        }
        pipeline.cmd("UNLINK").arg(names.log(channel));
    }
    for Call { channel, retention, events, plain } in calls {
        if asking {
            pipeline.cmd("ASKING");
        }
        if *plain {
            let payload = announcement::encode(Position::new(now_micros(), 0), 0, &events[0].event);
            pipeline.cmd(announce.command()).arg(names.pubsub(channel)).arg(&payload[..]);
        } else {
            let lifetime = rules.idempotency();
            let announce = (announce, if manner.wait.is_some() { Announced::Later } else { Announced::AtOnce });
            pipeline.add_command(scripts::publish(names, channel, *retention, lifetime, events, whole, announce, keys));
            whole = false;
        }
    }
    pipeline
}

/// What was said of one event, with the time of the one before it if it is still to be announced.
type Noted = Result<Result<(Accepted, Option<u64>), Unavailable>, Redirect>;

/// Tells the answers to `calls` apart into those to their events.
fn settle(conflicts: &Conflicts, calls: &[Call<'_>], answers: Vec<Value>) -> Vec<Noted> {
    let mut settled: Vec<Noted> = Vec::new();
    let mut answers = answers.into_iter();
    for call in calls {
        let answer = answers.next().unwrap_or(Value::Nil);
        if let Some(redirect) = Redirect::read(&answer) {
            settled.extend(call.events.iter().map(|_| Err(redirect.clone())));
            continue;
        }
        if call.plain {
            let accepted = Accepted { position: None, repeated: false, replicated: true };
            let answer = answer.extract_error().map(|_| (accepted, None));
            settled.push(Ok(answer.map_err(|error| unavailable(&error))));
            continue;
        }
        match scripts::published(answer, call.events.len()) {
            Ok(published) => {
                if let Some(limits) = published.other_limits {
                    conflicts.found(call.channel, &limits);
                }
                let noted = published.events.into_iter().map(|answer| {
                    let taken = answer.map(|taken| (taken.accepted, taken.prev));
                    Ok(taken.map_err(|error| unavailable(&error)))
                });
                settled.extend(noted);
            }
            Err(error) => settled.extend(call.events.iter().map(|_| Ok(Err(unavailable(&error))))),
        }
    }
    settled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, event::Event, metrics::Metrics};
    use redis::Arg;
    use std::sync::{Arc, Mutex};

    fn publish(name: &str, key: Option<&str>, bytes: usize) -> Publish {
        Publish {
            channel: Channel::new(name).expect("a name"),
            event: Event::new(None, "x".repeat(bytes).into()).expect("valid"),
            idempotency_key: key.map(str::to_owned),
        }
    }

    fn rules() -> Rules {
        Rules::new(Arc::new(Config::default()))
    }

    /// The first word of each command for a batch.
    fn words(batch: &[Publish], whole: bool) -> Vec<String> {
        let (names, rules) = (Names::new("sluice:"), rules());
        let conflicts = Conflicts { metrics: Arc::new(Metrics::new()), complained: Mutex::default() };
        let events: Vec<_> = batch.iter().collect();
        let calls = calls(&rules, &events);
        let unlinks = Unlinked::default().take_new(&calls);
        let manner = Manner {
            names: &names,
            rules: &rules,
            conflicts: &conflicts,
            announce: Announce::Classic,
            wait: None,
            asking: false,
            keys: Keys::All,
        };
        let pipeline = pipeline(&manner, &unlinks, &calls, whole);
        let word = |command: &redis::Cmd| match command.args_iter().next() {
            Some(Arg::Simple(word)) => String::from_utf8_lossy(word).into_owned(),
            _ => String::new(),
        };
        pipeline.cmd_iter().map(word).collect()
    }

    /// How many events each call for a batch has.
    fn sizes(batch: &[Publish]) -> Vec<usize> {
        let events: Vec<_> = batch.iter().collect();
        calls(&rules(), &events).iter().map(|call| call.events.len()).collect()
    }

    #[test]
    fn a_pipeline_of_scripts_begins_with_one_whole_text() {
        let batch = ["$all", "a", "b", "$all", "a"].map(|name| publish(name, None, 1));
        // Else the tail could be carried out by a server that someone had given the script in between, before the head.
        assert_eq!(words(&batch, true), ["UNLINK", "PUBLISH", "EVAL", "EVALSHA", "PUBLISH", "EVALSHA"]);
    }

    #[test]
    fn a_server_that_is_no_master_is_noticed_by_the_answer_to_any_event() {
        let read = |answer: &str| redis::parse_redis_value(answer.as_bytes()).expect("an answer");
        assert!(says_demoted(&read("-READONLY You can't write against a read only replica.\r\n")));
        assert!(says_demoted(&read("*3\r\n$3\r\n5-1\r\n-READONLY You can't write\r\n$0\r\n\r\n")));
        assert!(!says_demoted(&read("*3\r\n$3\r\n5-1\r\n-OOM no memory\r\n$0\r\n\r\n")));
    }

    #[test]
    fn only_neighbours_of_one_channel_share_a_call() {
        let batch = ["a", "a", "b", "a", "a", "a"].map(|name| publish(name, None, 1));
        assert_eq!(sizes(&batch), [2, 1, 3]);
        let batch = [None, Some("k"), Some("l"), None, None].map(|key| publish("$all", key, 1));
        assert_eq!(sizes(&batch), [1, 2, 1, 1]);
        assert_eq!(words(&batch, true), ["UNLINK", "PUBLISH", "EVAL", "PUBLISH", "PUBLISH"]);
    }

    #[test]
    fn a_call_is_bounded_in_events_and_bytes() {
        let small: Vec<_> = (0..150).map(|_| publish("a", None, 1)).collect();
        assert_eq!(sizes(&small), [64, 64, 22]);
        let large: Vec<_> = [100, 100, 57, 300, 256, 1].map(|kib| publish("a", None, kib << 10)).into();
        assert_eq!(sizes(&large), [2, 1, 1, 1, 1]);
    }
}
