//! A batch of publishes as commands, and what Redis says to these as answers to publishers.
//!
//! Events of one channel that stand next to each other go in one call of the script, where each costs Redis a fraction
//! of what it would cost alone. Only neighbours do: the order of the batch is the order in Redis.

use super::{Conflicts, is_demoted, names::Names, scripts, unavailable};
use crate::broker::{Accepted, Publish, Retention, Rules, Unavailable, announcement, memory::now_micros};
use crate::{channel::Channel, position::Position};
use redis::{Pipeline, RedisResult, Value, aio::ConnectionLike};
use std::collections::HashSet;

/// The most in one call: while it runs, which is less than a millisecond, Redis serves nobody else.
const MAX_CALL_EVENTS: usize = 64;
const MAX_CALL_BYTES: usize = 256 << 10;
/// Channels of which is remembered that they have no log.
const MAX_UNLINKED: usize = 10_000;

/// Channels without history whose log, if they ever had one, is gone.
///
/// Switched on again, a log from a time when they had one would look continuous. Once for each channel is enough.
#[derive(Default)]
pub(super) struct Unlinked(HashSet<Channel>);

impl Unlinked {
    /// Forgets all: a connection broke, so whether they are gone is not known.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Those of `calls` that still have to lose their log. From now on they count as done.
    fn take_new<'a>(&mut self, calls: &[Call<'a>]) -> Vec<&'a Channel> {
        if self.0.len() > MAX_UNLINKED {
            self.0.clear();
        }
        let without_history = calls.iter().filter(|call| call.retention.is_none()).map(|call| call.channel);
        without_history.filter(|channel| self.0.insert((*channel).clone())).collect()
    }
}

/// What became of a batch that was sent.
pub(super) struct Answered {
    /// For each event, in order.
    pub(super) events: Vec<Result<Accepted, Unavailable>>,
    /// The server is no master any more.
    pub(super) demoted: bool,
}

/// Publishes `events` in their order.
///
/// # Errors
/// When the connection fails. Whether the events were taken is unknown then.
pub(super) async fn publish(
    connection: &mut (impl ConnectionLike + Send),
    names: &Names,
    rules: &Rules,
    conflicts: &Conflicts,
    events: &[&Publish],
    unlinked: &mut Unlinked,
) -> RedisResult<Answered> {
    let calls = calls(rules, events);
    let unlinks = unlinked.take_new(&calls);
    // One call by itself may go by its hash: it has no tail that could get in before it while it is repeated.
    let by_hash = matches!(calls.as_slice(), [call] if !call.plain);
    let commands = pipeline(names, rules, &unlinks, &calls, !by_hash);
    let mut answers = connection.req_packed_commands(&commands, unlinks.len(), calls.len()).await?;
    if by_hash && answers.first().is_some_and(is_unknown_script) {
        let commands = pipeline(names, rules, &[], &calls, true);
        answers = connection.req_packed_commands(&commands, 0, calls.len()).await?;
    }
    let demoted = answers.iter().any(says_demoted);
    Ok(Answered { events: settle(conflicts, &calls, answers), demoted })
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
fn pipeline(names: &Names, rules: &Rules, unlinks: &[&Channel], calls: &[Call<'_>], mut whole: bool) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(unlinks.len() + calls.len());
    for channel in unlinks {
        pipeline.cmd("UNLINK").arg(names.log(channel));
    }
    for Call { channel, retention, events, plain } in calls {
        if *plain {
            let payload = announcement::encode(Position::new(now_micros(), 0), 0, &events[0].event);
            pipeline.cmd("PUBLISH").arg(names.pubsub(channel)).arg(&payload[..]);
        } else {
            pipeline.add_command(scripts::publish(names, channel, *retention, rules.idempotency(), events, whole));
            whole = false;
        }
    }
    pipeline
}

/// Tells the answers to `calls` apart into those to their events.
fn settle(conflicts: &Conflicts, calls: &[Call<'_>], answers: Vec<Value>) -> Vec<Result<Accepted, Unavailable>> {
    let mut settled = Vec::new();
    let mut answers = answers.into_iter();
    for call in calls {
        let answer = answers.next().unwrap_or(Value::Nil);
        if call.plain {
            let answer = answer.extract_error().map(|_| Accepted { position: None, repeated: false });
            settled.push(answer.map_err(|error| unavailable(&error)));
            continue;
        }
        match scripts::published(answer, call.events.len()) {
            Ok(published) => {
                if let Some(limits) = published.other_limits {
                    conflicts.found(call.channel, &limits);
                }
                settled.extend(published.events.into_iter().map(|answer| answer.map_err(|error| unavailable(&error))));
            }
            Err(error) => settled.extend(call.events.iter().map(|_| Err(unavailable(&error)))),
        }
    }
    settled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, event::Event};
    use redis::Arg;
    use std::sync::Arc;

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
        let events: Vec<_> = batch.iter().collect();
        let calls = calls(&rules, &events);
        let unlinks = Unlinked::default().take_new(&calls);
        let pipeline = pipeline(&names, &rules, &unlinks, &calls, whole);
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
