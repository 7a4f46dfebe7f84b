//! A batch of publishes as commands, and what Redis says to these as answers to publishers.
//!
//! Events of one channel go in one call of the script, where each costs Redis a fraction of what it would cost alone:
//! those that stand next to each other, and those of requests that came at the same time, which have no order between
//! them. What one request asks for stays in its order.

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
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

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

/// Publishes what the `requests` ask for, each in its order. The answers are in the order of all of them.
///
/// # Errors
/// When the connection fails. Whether the events were taken is unknown then.
pub(super) async fn publish(
    connection: &mut (impl ConnectionLike + Send),
    manner: &Manner<'_>,
    requests: &[&[Publish]],
    unlinked: &mut Unlinked,
) -> RedisResult<Answered> {
    let calls = Calls::of(manner.rules, requests);
    let unlinks = unlinked.take_new(&calls.calls);
    let (answers, on_replicas) = carry_out(connection, manner, &unlinks, &calls).await?;
    let demoted = answers.iter().any(says_demoted);
    let mut settled = settle(manner.conflicts, &calls.calls, answers);
    if let (Some((wanted, _)), Some(found)) = (manner.wait, on_replicas) {
        if found >= wanted {
            announce(connection, manner, &calls.calls, &settled).await?;
        } else {
            // What has no entry is on no replica either way.
            for (accepted, _) in settled.iter_mut().flatten().flatten().filter(|(taken, _)| taken.position.is_some()) {
                accepted.replicated = false;
            }
        }
    }
    let events = settled.into_iter().map(|event| event.map(|done| done.map(|(accepted, _)| accepted))).collect();
    Ok(Answered { events: calls.in_their_order(events), demoted })
}

/// Sends the calls, and once more those that the server has not the script for, with its text.
async fn carry_out(
    connection: &mut (impl ConnectionLike + Send),
    manner: &Manner<'_>,
    unlinks: &[&Channel],
    calls: &Calls<'_>,
) -> RedisResult<(Vec<Value>, Option<usize>)> {
    // The server hashes a text whenever it comes, so it comes only where it must.
    let (mut answers, mut on_replicas) = send(connection, manner, unlinks, &calls.calls, false).await?;
    loop {
        let unknown: Vec<_> = (0..answers.len()).filter(|&nth| is_unknown_script(&answers[nth])).collect();
        if unknown.is_empty() {
            return Ok((answers, on_replicas));
        }
        // The first has the text and is answered otherwise, so each time there are fewer.
        let again: Vec<_> = unknown.iter().map(|&nth| calls.calls[nth].clone()).collect();
        let (of_these, replicas) = send(connection, manner, &[], &again, true).await?;
        on_replicas = replicas;
        for (nth, answer) in unknown.into_iter().zip(of_these) {
            answers[nth] = answer;
        }
    }
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
        commands.add_command(scripts::wait(replicas, limit));
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
#[derive(Clone)]
struct Call<'a> {
    channel: &'a Channel,
    retention: Option<Retention>,
    events: Vec<&'a Publish>,
    bytes: usize,
    /// One event without history and key, which needs no script.
    plain: bool,
    /// The channel has more calls after it.
    followed: bool,
}

impl Call<'_> {
    fn has_room_for(&self, publish: &Publish) -> bool {
        let plain = self.retention.is_none() && publish.idempotency_key.is_none();
        !plain
            && !self.plain
            && self.events.len() < MAX_CALL_EVENTS
            && self.bytes + publish.event.len() <= MAX_CALL_BYTES
    }
}

/// What a batch comes to.
struct Calls<'a> {
    calls: Vec<Call<'a>>,
    /// Where the event is whose answer comes at each place: the calls' events, one after the other.
    places: Vec<usize>,
}

impl<'a> Calls<'a> {
    fn of(rules: &Rules, requests: &[&'a [Publish]]) -> Self {
        let mut calls: Vec<Call<'a>> = Vec::new();
        let mut places: Vec<Vec<usize>> = Vec::new();
        let mut last_of: HashMap<&Channel, usize> = HashMap::new();
        let mut place = 0;
        for request in requests {
            // What comes after another event of its request does not overtake it.
            let mut earliest = 0;
            for publish in *request {
                let channel = &publish.channel;
                let last = last_of.get(channel).copied();
                let joined = last.filter(|&last| last >= earliest && calls[last].has_room_for(publish));
                let nth = joined.unwrap_or_else(|| {
                    let retention = last.map_or_else(|| rules.retention(channel), |last| calls[last].retention);
                    let plain = retention.is_none() && publish.idempotency_key.is_none();
                    if let Some(before) = last_of.insert(channel, calls.len()) {
                        calls[before].followed = true;
                    }
                    calls.push(Call { channel, retention, events: Vec::new(), bytes: 0, plain, followed: false });
                    places.push(Vec::new());
                    calls.len() - 1
                });
                calls[nth].events.push(publish);
                calls[nth].bytes += publish.event.len();
                places[nth].push(place);
                earliest = nth;
                place += 1;
            }
        }
        Self { calls, places: places.into_iter().flatten().collect() }
    }

    /// Puts what was said of the calls' events into the order in which these were asked for.
    fn in_their_order<T>(&self, of_calls: Vec<T>) -> Vec<T> {
        let mut placed: Vec<_> = self.places.iter().zip(of_calls).collect();
        placed.sort_unstable_by_key(|(place, _)| **place);
        placed.into_iter().map(|(_, said)| said).collect()
    }
}

/// The commands that carry out `calls`, after the ones that unlink logs, whose answers mean nothing. A call has the
/// script's text where others of its channel follow: these could get in before it if somebody gave the server the script
/// after it was refused, and whoever sends the first one elsewhere does so with the others. `whole`: the first script
/// call has it in any case.
fn pipeline(manner: &Manner<'_>, unlinks: &[&Channel], calls: &[Call<'_>], mut whole: bool) -> Pipeline {
    let Manner { names, rules, announce, asking, keys, .. } = *manner;
    let mut pipeline = Pipeline::with_capacity(unlinks.len() + calls.len() + 1);
    for channel in unlinks {
        if asking {
            pipeline.cmd("ASKING");
        }
        pipeline.cmd("UNLINK").arg(names.log(channel));
    }
    for Call { channel, retention, events, plain, followed, .. } in calls {
        if asking {
            pipeline.cmd("ASKING");
        }
        if *plain {
            let payload = announcement::encode(Position::new(now_micros(), 0), 0, &events[0].event);
            pipeline.cmd(announce.command()).arg(names.pubsub(channel)).arg(&payload[..]);
        } else {
            let lifetime = rules.idempotency();
            let announce = (announce, if manner.wait.is_some() { Announced::Later } else { Announced::AtOnce });
            let text = whole || *followed;
            pipeline.add_command(scripts::publish(names, channel, *retention, lifetime, events, text, announce, keys));
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
        let calls = Calls::of(&rules, &[batch]).calls;
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

    /// How many events each call for a request has.
    fn sizes(request: &[Publish]) -> Vec<usize> {
        Calls::of(&rules(), &[request]).calls.iter().map(|call| call.events.len()).collect()
    }

    #[test]
    fn what_could_be_overtaken_goes_with_the_text() {
        let batch = ["$all", "a", "b", "$all", "a"].map(|name| publish(name, None, 1));
        assert_eq!(words(&batch[..3], true), ["UNLINK", "PUBLISH", "EVAL", "EVALSHA"]);
        assert_eq!(words(&batch[..3], false), ["UNLINK", "PUBLISH", "EVALSHA", "EVALSHA"]);
        // Each call that another of its channel could overtake; the first of all if it is asked for.
        assert_eq!(words(&batch, false), ["UNLINK", "PUBLISH", "EVAL", "EVALSHA", "PUBLISH", "EVALSHA"]);
        assert_eq!(words(&batch[2..], true), ["UNLINK", "EVAL", "PUBLISH", "EVALSHA"]);
    }

    #[test]
    fn a_server_that_is_no_master_is_noticed_by_the_answer_to_any_event() {
        let read = |answer: &str| redis::parse_redis_value(answer.as_bytes()).expect("an answer");
        assert!(says_demoted(&read("-READONLY You can't write against a read only replica.\r\n")));
        assert!(says_demoted(&read("*3\r\n$3\r\n5-1\r\n-READONLY You can't write\r\n$0\r\n\r\n")));
        assert!(!says_demoted(&read("*3\r\n$3\r\n5-1\r\n-OOM no memory\r\n$0\r\n\r\n")));
    }

    #[test]
    fn within_a_request_only_neighbours_of_one_channel_share_a_call() {
        let batch = ["a", "a", "b", "a", "a", "a"].map(|name| publish(name, None, 1));
        assert_eq!(sizes(&batch), [2, 1, 3]);
        let batch = [None, Some("k"), Some("l"), None, None].map(|key| publish("$all", key, 1));
        assert_eq!(sizes(&batch), [1, 2, 1, 1]);
        assert_eq!(words(&batch, true), ["UNLINK", "PUBLISH", "EVAL", "PUBLISH", "PUBLISH"]);
    }

    /// The data of each call's events, and the order in which they are answered.
    fn shared(requests: &[&[(&str, &str)]]) -> (Vec<String>, Vec<String>) {
        let event = |(channel, data): &(&str, &str)| Publish {
            event: Event::new(None, (*data).to_owned().into()).expect("valid"),
            ..publish(channel, None, 0)
        };
        let requests: Vec<Vec<_>> = requests.iter().map(|request| request.iter().map(event).collect()).collect();
        let requests: Vec<_> = requests.iter().map(Vec::as_slice).collect();
        let calls = Calls::of(&rules(), &requests);
        let data = |publish: &&Publish| String::from_utf8_lossy(publish.event.data_bytes()).into_owned();
        let each: Vec<Vec<_>> = calls.calls.iter().map(|call| call.events.iter().map(data).collect()).collect();
        let answered = calls.in_their_order(each.iter().flatten().cloned().collect());
        (each.iter().map(|call| call.join(" ")).collect(), answered)
    }

    #[test]
    fn what_came_at_the_same_time_shares_calls_and_each_request_stays_in_order() {
        let (calls, answered) = shared(&[&[("a", "1")], &[("b", "2")], &[("a", "3")], &[("b", "4")]]);
        assert_eq!(calls, ["1 3", "2 4"]);
        assert_eq!(answered, ["1", "2", "3", "4"]);
        // The second `a` may join the first; the third comes after a `c` of its own request.
        let requests: &[&[_]] = &[&[("a", "1")], &[("a", "2"), ("c", "3"), ("a", "4")], &[("c", "5"), ("a", "6")]];
        let (calls, answered) = shared(requests);
        assert_eq!(calls, ["1 2", "3 5", "4 6"]);
        assert_eq!(answered, ["1", "2", "3", "4", "5", "6"]);
    }

    #[test]
    fn a_call_is_bounded_in_events_and_bytes() {
        let small: Vec<_> = (0..150).map(|_| publish("a", None, 1)).collect();
        assert_eq!(sizes(&small), [64, 64, 22]);
        let large: Vec<_> = [100, 100, 57, 300, 256, 1].map(|kib| publish("a", None, kib << 10)).into();
        assert_eq!(sizes(&large), [2, 1, 1, 1, 1]);
    }
}
