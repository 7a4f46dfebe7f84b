//! The scripts, and their answers read into our own types.

use super::{facts::Announce, intake, names::Names};
use crate::{
    broker::{Accepted, Publish, Retention, Since, log::Entry, log::Page},
    channel::Channel,
    event::Event,
    position::Position,
    traceparent::Traceparent,
};
use redis::{Cmd, ErrorKind, RedisError, RedisResult, Script, Value};
use std::{borrow::Cow, sync::LazyLock, time::Duration};

/// The script's text, as it is sent, and its hash.
pub(super) struct Lua {
    text: String,
    hash: String,
}

impl Lua {
    fn new(text: &str) -> Self {
        let text = without_comments(text);
        let hash = Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    /// The call by its text, which also puts it into the server's cache, or by its hash alone.
    pub(super) fn call(&self, whole: bool) -> Cmd {
        self.call_with_room(whole, 0, 0)
    }

    /// The same, with room for so many more arguments of so many bytes in all.
    fn call_with_room(&self, whole: bool, arguments: usize, bytes: usize) -> Cmd {
        let (name, script) = if whole { ("EVAL", self.text.as_str()) } else { ("EVALSHA", self.hash.as_str()) };
        let mut command = Cmd::with_capacity(2 + arguments, name.len() + script.len() + bytes);
        command.arg(name).arg(script);
        command
    }
}

/// What the server need not read: it hashes a text whenever it comes, which with the comments took as long again.
fn without_comments(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("--"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

static FORK: LazyLock<Lua> = LazyLock::new(|| Lua::new(concat!(include_str!("core.lua"), include_str!("fork.lua"))));
static PUBLISH: LazyLock<Lua> =
    LazyLock::new(|| Lua::new(concat!(include_str!("core.lua"), include_str!("publish.lua"))));
/// For publishers that do not know the rules.
pub(super) static DIRECT: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(concat!(include_str!("core.lua"), include_str!("direct.lua"), include_str!("direct_script.lua")))
});
static JOIN: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("join.lua")));
static READ: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("read.lua")));
static PLACE: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("place.lua")));

/// By itself it may create a key while its slot moves.
static TOUCH: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new("redis.call('HINCRBY', KEYS[1], 'head', 0)\nreturn redis.call('EXPIRE', KEYS[1], ARGV[1])\n")
});

static INTAKE: LazyLock<Lua> =
    LazyLock::new(|| Lua::new(concat!(include_str!("core.lua"), include_str!("intake.lua"))));
static LEASE: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("lease.lua")));
static RELEASE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end\nreturn 0\n")
});

/// The limits that hold for a channel without a limits key: what the publishers assume that do not know the rules.
/// The same as in `core.lua`.
const DEFAULT_LIMITS: &str = "1000 600000000 604800 600";

/// How many of the newest entries are searched for a fork's mark.
const FORK_SEARCH: usize = 1000;

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// As they stand in a channel's limits key.
fn limits(kept: Retention, idempotency: Duration) -> String {
    let Retention { size, age, memory } = kept;
    format!("{size} {} {} {}", micros(age), memory.as_secs().max(1), idempotency.as_secs().max(1))
}

/// Who announces what a script writes to a log: itself, or the caller once it is where it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    AtOnce,
    Later,
}

const fn how_announced(announce: (Announce, Announced)) -> &'static str {
    match announce {
        (Announce::Classic, Announced::AtOnce) => "PUBLISH",
        (Announce::Classic, Announced::Later) => "PUBLISH later",
        (Announce::Sharded, Announced::AtOnce) => "SPUBLISH",
        (Announce::Sharded, Announced::Later) => "SPUBLISH later",
    }
}

/// Which keys a script is told of. While a slot moves, one that is told of a key that does not exist is refused for as
/// long as the slot moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    All,
    /// Without the limits, which most channels have none of, and without the others where nothing is in them.
    Needed,
}

/// Publishes events of one channel in one step; `whole`: with the script's text.
#[expect(clippy::too_many_arguments, reason = "as many as the script has")]
pub(super) fn publish(
    names: &Names,
    channel: &Channel,
    retention: Option<Retention>,
    idempotency: Duration,
    events: &[&Publish],
    whole: bool,
    announce: (Announce, Announced),
    keys: Keys,
) -> Cmd {
    let kept = retention.unwrap_or(Retention { size: 0, age: Duration::ZERO, memory: Duration::ZERO });
    let content = |publish: &&Publish| publish.event.len() + publish.idempotency_key.as_ref().map_or(0, String::len);
    let bytes = events.iter().map(content).sum::<usize>() + 5 * (channel.as_str().len() + names.prefix().len());
    let mut command = PUBLISH.call_with_room(whole, 12 + 3 * events.len(), bytes + 256);
    match keys {
        Keys::All => {
            command.arg(3).arg(names.log(channel)).arg(names.idempotency(channel)).arg(names.limits(channel));
        }
        // One that is not used stands for one that is.
        Keys::Needed => {
            let remembers = events.iter().any(|publish| publish.idempotency_key.is_some());
            let log = if retention.is_some() { names.log(channel) } else { names.idempotency(channel) };
            let idempotency = if remembers { names.idempotency(channel) } else { log.clone() };
            command.arg(2).arg(log).arg(idempotency);
        }
    }
    command
        .arg(how_announced(announce))
        .arg(names.pubsub(channel))
        .arg(idempotency.as_secs().max(1))
        .arg(kept.size)
        .arg(micros(kept.age))
        .arg(kept.memory.as_secs().max(1))
        .arg(limits(kept, idempotency))
        .arg(if channel.is_reserved() { "" } else { DEFAULT_LIMITS });
    for Publish { event, idempotency_key, .. } in events {
        command.arg(&*kind(event)).arg(&event.data_bytes()[..]).arg(idempotency_key.as_deref().unwrap_or_default());
    }
    command
}

/// An event's type as the scripts take it: with its traceparent in a line of its own, which no type has.
fn kind(event: &Event) -> Cow<'_, str> {
    let kind = event.event_type().unwrap_or_default();
    event.traceparent().map_or(Cow::Borrowed(kind), |span| format!("{kind}\n{span}").into())
}

/// Sees to it that a channel's hash of idempotency keys exists, for at least this long.
pub(super) fn touch(idempotency: &str, lifetime: Duration) -> Cmd {
    let mut command = TOUCH.call(true);
    command.arg(1).arg(idempotency).arg(lifetime.as_secs().max(1));
    command
}

/// Waits until so many replicas have what the connection wrote, or the time is over.
pub(super) fn wait(replicas: usize, limit: Duration) -> Cmd {
    let mut command = redis::cmd("WAIT");
    command.arg(replicas).arg(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    command
}

/// What publishing answers.
pub(super) struct Published {
    /// For each event, in order.
    pub(super) events: Vec<RedisResult<Taken>>,
    /// Limits that stood there and were not ours.
    pub(super) other_limits: Option<String>,
}

/// An event that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) accepted: Accepted,
    /// The µs of the entry before it, where it is still to be announced and was not before.
    pub(super) prev: Option<u64>,
}

/// Reads what publishing so many `events` answered.
///
/// # Errors
/// What the server said of all of them, or an answer that is not the script's.
pub(super) fn published(answer: Value, events: usize) -> RedisResult<Published> {
    let mut answers = match answer {
        Value::Array(answers) if answers.len() == events + 1 => answers,
        Value::ServerError(error) => return Err(error.into()),
        _ => return Err(unexpected("the answer to a publish has not one for each event")),
    };
    let other_limits: String = redis::from_redis_value(answers.pop().unwrap_or(Value::Nil))?;
    Ok(Published {
        events: answers.into_iter().map(accepted).collect(),
        other_limits: Some(other_limits).filter(|limits| !limits.is_empty()),
    })
}

fn accepted(answer: Value) -> RedisResult<Taken> {
    let answer = match answer {
        Value::BulkString(answer) => text(answer)?,
        Value::ServerError(error) => return Err(error.into()),
        _ => return Err(unexpected("the answer to an event is no position")),
    };
    let (position, repeated) = answer.strip_prefix('=').map_or((answer.as_str(), false), |position| (position, true));
    let (position, prev) = match position.split_once(' ') {
        Some((position, prev)) => {
            let prev = prev.parse().map_err(|_| unexpected("the time before an event is no number"))?;
            (position, Some(prev))
        }
        None => (position, None),
    };
    let position = if position.is_empty() { None } else { Some(parse_position(position)?) };
    Ok(Taken { accepted: Accepted { position, repeated, replicated: true }, prev })
}

/// Creates what a channel needs, renews it and answers its last position.
pub(super) fn join(
    names: &Names,
    channel: &Channel,
    retention: Option<Retention>,
    idempotency: Duration,
    whole: bool,
    keys: Keys,
) -> Cmd {
    let kept = retention.unwrap_or(Retention { size: 0, age: Duration::ZERO, memory: Duration::from_secs(604_800) });
    let mut command = JOIN.call(whole);
    match keys {
        Keys::All => command.arg(2).arg(names.log(channel)).arg(names.limits(channel)),
        Keys::Needed => command.arg(1).arg(names.log(channel)),
    };
    command.arg(kept.size).arg(micros(kept.age)).arg(kept.memory.as_secs().max(1)).arg(idempotency.as_secs().max(1));
    // A reserved channel has no history by default, which is what publishers assume of it.
    let implied = retention.is_none() && channel.is_reserved();
    let own = limits(kept, idempotency);
    let implicit = match (implied, channel.is_reserved()) {
        (true, _) => own.as_str(),
        // Whatever history a rule gives it has to be written down.
        (false, true) => "",
        (false, false) => DEFAULT_LIMITS,
    };
    command.arg(implicit);
    command
}

/// # Errors
/// What the server said, or an answer that is not the script's.
pub(super) fn joined(answer: Value) -> RedisResult<Joined> {
    let (last, other_limits): (String, String) = redis::from_redis_value(answer.extract_error()?)?;
    let top = if last.is_empty() { None } else { Some(parse_position(&last)?) };
    Ok(Joined { top, other_limits: Some(other_limits).filter(|limits| !limits.is_empty()) })
}

/// Publishes entries of an intake stream to one channel: ids and events.
#[expect(clippy::too_many_arguments, reason = "as many as the script has")]
pub(super) fn intake<'a>(
    names: &Names,
    channel: &Channel,
    retention: Option<Retention>,
    stream: &str,
    before: &str,
    entries: impl Iterator<Item = (&'a str, &'a Event)>,
    whole: bool,
    announce: (Announce, Announced),
) -> Cmd {
    let week = Duration::from_secs(604_800);
    let kept = retention.unwrap_or(Retention { size: 0, age: Duration::ZERO, memory: week });
    let mut command = INTAKE.call(whole);
    command
        .arg(2)
        // Without history no log is looked at.
        .arg(if retention.is_some() { names.log(channel) } else { names.taken(channel) })
        .arg(names.taken(channel))
        .arg(how_announced(announce))
        .arg(names.pubsub(channel))
        .arg(kept.size)
        .arg(micros(kept.age))
        .arg(kept.memory.as_secs().max(1))
        .arg(stream)
        .arg(before);
    for (id, event) in entries {
        command.arg(id).arg(&*kind(event)).arg(&event.data_bytes()[..]);
    }
    command
}

/// What became of an entry that was to be taken in.
pub(super) enum TakenIn {
    /// It had been.
    Before,
    /// Its position, and the µs of the entry before it where it is still to be announced.
    Now { position: Option<Position>, prev: Option<u64> },
}

/// # Errors
/// What the server said of all of them, or an answer that is not the script's.
pub(super) fn taken_in(answer: Value) -> RedisResult<Vec<RedisResult<TakenIn>>> {
    let answers = match answer {
        Value::Array(answers) => answers,
        Value::ServerError(error) => return Err(error.into()),
        _ => return Err(unexpected("the answer to entries is no list")),
    };
    let one = |answer: Value| match &answer {
        Value::BulkString(text) if text == b"=" => Ok(TakenIn::Before),
        _ => accepted(answer).map(|taken| TakenIn::Now { position: taken.accepted.position, prev: taken.prev }),
    };
    Ok(answers.into_iter().map(one).collect())
}

/// Takes or keeps the lease of an intake stream, deletes what is settled, and reads on.
pub(super) fn lease(stream: &str, lease: &str, who: &str, long: Duration, settled: &str, count: usize) -> Cmd {
    let mut command = LEASE.call(true);
    let long = u64::try_from(long.as_millis()).unwrap_or(u64::MAX);
    command.arg(2).arg(stream).arg(lease).arg(who).arg(long).arg(settled).arg(count);
    command
}

pub(super) fn release(lease: &str, who: &str) -> Cmd {
    let mut command = RELEASE.call(true);
    command.arg(1).arg(lease).arg(who);
    command
}

/// The entries that come next, with data of at most `most` bytes; `None` if another has the lease.
///
/// # Errors
/// What the server said, or an answer that is not the script's.
pub(super) fn intake_page(answer: Value, most: usize) -> RedisResult<Option<Vec<intake::Entry>>> {
    let entries: Option<Vec<RawEntry>> = redis::from_redis_value(answer.extract_error()?)?;
    let entry = |(id, fields): RawEntry| intake::Entry::new(id, fields, most);
    Ok(entries.map(|entries| entries.into_iter().map(entry).collect()))
}

/// What joining answers: the channel's top, and limits that stood there and were not ours.
pub(super) struct Joined {
    pub(super) top: Option<Position>,
    pub(super) other_limits: Option<String>,
}

/// Writes down that the history after `common` was replaced; answered as [`publish`] is.
pub(super) fn mark_fork(
    names: &Names,
    channel: &Channel,
    common: Position,
    retention: Retention,
    announce: Announce,
) -> Cmd {
    let mut command = FORK.call(true);
    command
        .arg(1)
        .arg(names.log(channel))
        .arg(announce.command())
        .arg(names.pubsub(channel))
        .arg(common.to_string())
        .arg(retention.size)
        .arg(micros(retention.age))
        .arg(retention.memory.as_secs().max(1))
        .arg(FORK_SEARCH);
    command
}

pub(super) fn read(names: &Names, channel: &Channel, after: Position, before: usize, count: usize) -> Cmd {
    let mut command = READ.call(true);
    command.arg(1).arg(names.log(channel)).arg(after.to_string()).arg(before).arg(count);
    command
}

/// # Errors
/// What the server said, or an answer that is not the script's.
pub(super) fn page(answer: Value) -> RedisResult<Page> {
    let (last, entries, complete): (String, Vec<RawEntry>, u8) = redis::from_redis_value(answer.extract_error()?)?;
    let last = if last.is_empty() { Position::default() } else { parse_position(&last)? };
    let entries = entries.into_iter().map(entry).collect::<RedisResult<Vec<_>>>()?;
    Ok(Page { entries, last, complete: complete == 1 })
}

pub(super) fn place(names: &Names, channel: &Channel, since: Since) -> Cmd {
    let mut command = PLACE.call(true);
    command.arg(1).arg(names.log(channel));
    match since {
        // What a Lua number holds exactly is more than anybody's history.
        Since::Ago(micros) => command.arg("ago").arg(micros.min(crate::position::MAX_MICROS)),
        Since::Time(micros) => command.arg("time").arg(micros),
        // More than any history holds; the server's own numbers end at 2^63.
        Since::Last(count) => command.arg("last").arg(count.min(1 << 32)),
        Since::Earliest => command.arg("earliest").arg(0),
    };
    command
}

/// # Errors
/// What the server said, or an answer that is not the script's.
pub(super) fn placed(answer: Value) -> RedisResult<Position> {
    let found: Vec<String> = redis::from_redis_value(answer.extract_error()?)?;
    match found.as_slice() {
        [first, prev] => {
            let first = parse_position(first)?;
            let prev = prev.parse().map_err(|_| unexpected("an entry's `prev` is no number"))?;
            Ok(Position::new(prev, first.seq.saturating_sub(1)))
        }
        [last] => parse_position(last),
        _ => Ok(Position::default()),
    }
}

/// An entry as the stream has it: its id, and names and values in turn.
type RawEntry = (String, Vec<Vec<u8>>);

/// An entry of the log: fields by name, in any order, so that later builds can add some.
fn entry((id, fields): RawEntry) -> RedisResult<Entry> {
    let (mut event_type, mut data, mut prev, mut fork, mut span) = (None, None, 0, None, None);
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        match name.as_slice() {
            b"event" => event_type = Some(text(value)?),
            b"data" => data = Some(value),
            b"prev" => prev = text(value)?.parse().map_err(|_| unexpected("an entry's `prev` is no number"))?,
            b"traceparent" => span = Traceparent::parse(&text(value)?),
            b"fork" => fork = Some(parse_position(&text(value)?)?),
            _ => {}
        }
    }
    let event = Event::new(event_type.as_deref(), data.unwrap_or_default().into())
        .map_err(|_| unexpected("an entry of the log is no event"))?
        .traced(span);
    Ok(Entry { at: parse_position(&id)?, prev, event, fork })
}

fn text(bytes: Vec<u8>) -> RedisResult<String> {
    String::from_utf8(bytes).map_err(|_| unexpected("a field of an entry is not UTF-8"))
}

pub(super) fn parse_position(text: &str) -> RedisResult<Position> {
    text.parse().map_err(|_| unexpected("an entry's id is no position"))
}

fn unexpected(what: &'static str) -> RedisError {
    (ErrorKind::UnexpectedReturnType, what).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_the_middle_is_that_events_alone() {
        let bulk = |text: &str| Value::BulkString(text.into());
        let error = redis::parse_redis_value(b"-OOM no memory\r\n").expect("an error");
        let later = accepted(bulk("5-2 4")).expect("it can be read");
        assert_eq!((later.accepted.position, later.prev), (Some(Position::new(5, 2)), Some(4)));
        let answer = Value::Array(vec![bulk("5-1"), error.clone(), bulk("=4-1"), bulk(""), bulk("=")]);
        assert!(published(answer.clone(), 5).is_err(), "one is missing");
        let Ok(Published { events, other_limits }) = published(answer, 4) else { panic!("it can be read") };
        let events: Vec<_> = events
            .into_iter()
            .map(|event| event.map(|taken| taken.accepted).map_err(|error| error.to_string()))
            .collect();
        let accepted = |position, repeated| Ok(Accepted { position, repeated, replicated: true });
        assert_eq!(events[0], accepted(Some(Position::new(5, 1)), false));
        assert!(events[1].as_ref().is_err_and(|error| error.contains("no memory")), "{:?}", events[1]);
        assert_eq!(events[2..], [accepted(Some(Position::new(4, 1)), true), accepted(None, false)]);
        assert_eq!(other_limits.as_deref(), Some("="));
        assert!(published(error, 4).is_err());
    }

    #[test]
    fn scripts_are_sent_without_their_comments() {
        let text = "-- a\nlocal x = 1 -- b\n\n  --c\n  return x - -x\n";
        assert_eq!(without_comments(text), "local x = 1 -- b\nreturn x - -x\n");
        // A line within such a string could look like a comment.
        assert!([&FORK, &PUBLISH, &DIRECT, &JOIN, &READ, &PLACE].iter().all(|script| !script.text.contains("[[")));
    }

    #[test]
    fn the_scripts_assume_the_same_limits() {
        assert!(include_str!("core.lua").contains(&format!("local DEFAULT_LIMITS = '{DEFAULT_LIMITS}'")));
    }
}
