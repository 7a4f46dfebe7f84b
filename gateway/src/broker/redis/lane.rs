//! The lane that publishes go through: one connection, a pipeline of all that waits, one after the other.
//!
//! One lane keeps the order in which a replica's publishers published. While one pipeline is on its way the next one
//! fills, so the more is published, the less each event costs. What cannot be sent by its deadline is answered so, and
//! not sent later.

use super::{Conflicts, checkout, is_demoted, names::Names, scripts, unavailable};
use crate::broker::{Accepted, Publish, Rules, Unavailable, announcement, memory::now_micros};
use crate::{channel::Channel, position::Position};
use deadpool_redis::Pool;
use redis::{Pipeline, RedisResult, Value, aio::ConnectionLike};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// The most that goes into one pipeline.
const MAX_EVENTS: usize = 512;
const MAX_BYTES: usize = 4 << 20;
/// Requests that may wait; beyond them a publisher is told at once that the broker does not keep up.
const QUEUE: usize = 4096;
/// Channels of which the lane remembers that they have no log.
const MAX_UNLINKED: usize = 10_000;
/// A connection that was not used for this long is looked at before it is used again.
const CHECK_AFTER: Duration = Duration::from_millis(100);

pub(super) type Answers = Vec<Result<Accepted, Unavailable>>;

struct Request {
    batch: Vec<Publish>,
    deadline: Instant,
    answer: oneshot::Sender<Answers>,
}

#[derive(Clone)]
pub(super) struct Lane {
    requests: mpsc::Sender<Request>,
    timeout: Duration,
}

impl Lane {
    /// Starts the lane's task, which ends when the last handle is gone.
    pub(super) fn start(pool: Pool, names: Names, rules: Rules, timeout: Duration, conflicts: Arc<Conflicts>) -> Self {
        let (requests, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(run(pool, names, rules, timeout, conflicts, waiting));
        Self { requests, timeout }
    }

    pub(super) async fn publish(&self, batch: Vec<Publish>) -> Answers {
        let events = batch.len();
        let (answer, answered) = oneshot::channel();
        let request = Request { batch, deadline: Instant::now() + self.timeout, answer };
        if self.requests.try_send(request).is_err() {
            return refuse(events, "too many publishes wait for it");
        }
        answered.await.unwrap_or_else(|_| refuse(events, "the gateway is stopping"))
    }
}

fn refuse(events: usize, why: &str) -> Answers {
    (0..events).map(|_| Err(Unavailable(why.to_owned()))).collect()
}

async fn run(
    pool: Pool,
    names: Names,
    rules: Rules,
    timeout: Duration,
    conflicts: Arc<Conflicts>,
    mut waiting: mpsc::Receiver<Request>,
) {
    let mut connection = None;
    let mut used = Instant::now();
    let mut unlinked = HashSet::new();
    let mut requests = Vec::new();
    while let Some(first) = waiting.recv().await {
        let (mut events, mut bytes) = (first.batch.len(), size(&first));
        requests.push(first);
        while events < MAX_EVENTS
            && bytes < MAX_BYTES
            && let Ok(next) = waiting.try_recv()
        {
            events += next.batch.len();
            bytes += size(&next);
            requests.push(next);
        }
        if used.elapsed() > CHECK_AFTER {
            // It may have died meanwhile: back to the pool, which looks before it gives one out.
            connection = None;
        }
        if connection.is_none() {
            match checkout(&pool, timeout).await {
                Ok(fresh) => connection = Some(fresh),
                Err(Unavailable(why)) => {
                    waiting_too(&mut waiting, &mut requests);
                    for request in requests.drain(..) {
                        let _ = request.answer.send(refuse(request.batch.len(), &why));
                    }
                    continue;
                }
            }
        }
        let now = Instant::now();
        requests.retain_mut(|request| {
            // Nobody waits for it any more, or will not when the answer comes: a late publish would surprise.
            let late = request.deadline <= now || request.answer.is_closed();
            if late {
                let (closed, _) = oneshot::channel();
                let answer = std::mem::replace(&mut request.answer, closed);
                let _ = answer.send(refuse(request.batch.len(), "it did not answer in time"));
            }
            !late
        });
        let (pipeline, unlinks) =
            pipeline(&names, &rules, requests.iter().flat_map(|request| &request.batch), &mut unlinked);
        let Some(open) = connection.as_mut() else { continue };
        let count = requests.iter().map(|request| request.batch.len()).sum();
        match open.req_packed_commands(&pipeline, unlinks, count).await {
            Ok(answers) => {
                used = Instant::now();
                if answers.iter().any(is_demoted) {
                    drop(connection.take().map(deadpool_redis::Connection::take));
                }
                settle(&rules, &conflicts, &mut requests, answers);
            }
            Err(error) => {
                // Whether the events were taken is unknown; the connection's state is too.
                drop(connection.take().map(deadpool_redis::Connection::take));
                let Unavailable(why) = unavailable(&error);
                unlinked.clear();
                for request in requests.drain(..) {
                    let _ = request.answer.send(refuse(request.batch.len(), &why));
                }
            }
        }
    }
}

fn size(request: &Request) -> usize {
    request.batch.iter().map(|publish| publish.event.len() + 400).sum()
}

/// What came in while a connection was sought in vain shares its fate, or it would wait as long again.
fn waiting_too(waiting: &mut mpsc::Receiver<Request>, requests: &mut Vec<Request>) {
    while let Ok(next) = waiting.try_recv() {
        requests.push(next);
    }
}

/// The commands for a batch, and how many come before them whose answers mean nothing.
///
/// A channel without history loses the log that it may have from a time when it had one: switched on again, that log
/// would look continuous. Once for each channel is enough.
fn pipeline<'a>(
    names: &Names,
    rules: &Rules,
    batch: impl Iterator<Item = &'a Publish> + Clone,
    unlinked: &mut HashSet<Channel>,
) -> (Pipeline, usize) {
    let mut pipeline = Pipeline::new();
    if unlinked.len() > MAX_UNLINKED {
        unlinked.clear();
    }
    let mut unlinks = 0;
    for Publish { channel, .. } in batch.clone() {
        if rules.retention(channel).is_none() && unlinked.insert(channel.clone()) {
            pipeline.cmd("UNLINK").arg(names.log(channel));
            unlinks += 1;
        }
    }
    let mut whole = true;
    for publish in batch {
        let retention = rules.retention(&publish.channel);
        if retention.is_none() && publish.idempotency_key.is_none() {
            let payload = announcement::encode(Position::new(now_micros(), 0), 0, &publish.event);
            pipeline.cmd("PUBLISH").arg(names.pubsub(&publish.channel)).arg(&payload[..]);
        } else {
            pipeline.add_command(scripts::publish(names, publish, retention, rules.idempotency(), whole));
            whole = false;
        }
    }
    (pipeline, unlinks)
}

fn settle(rules: &Rules, conflicts: &Conflicts, requests: &mut Vec<Request>, answers: Vec<Value>) {
    let mut answers = answers.into_iter();
    for request in requests.drain(..) {
        let answered = request
            .batch
            .iter()
            .map(|publish| {
                let answer = answers.next().unwrap_or(Value::Nil);
                let plain = rules.retention(&publish.channel).is_none() && publish.idempotency_key.is_none();
                if plain {
                    return plainly(answer).map_err(|error| unavailable(&error));
                }
                let (accepted, other_limits) = scripts::published(answer).map_err(|error| unavailable(&error))?;
                if let Some(limits) = other_limits {
                    conflicts.found(&publish.channel, &limits);
                }
                Ok(accepted)
            })
            .collect();
        let _ = request.answer.send(answered);
    }
}

fn plainly(answer: Value) -> RedisResult<Accepted> {
    answer.extract_error().map(|_| Accepted { position: None, repeated: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, event::Event};
    use redis::Arg;

    #[test]
    fn a_pipeline_of_scripts_begins_with_one_whole_text() {
        let (names, rules) = (Names::new("sluice:"), Rules::new(Arc::new(Config::default())));
        let publish = |name: &str| Publish {
            channel: Channel::new(name).expect("a name"),
            event: Event::new(None, "x".into()).expect("valid"),
            idempotency_key: None,
        };
        let batch = [publish("$all"), publish("a"), publish("b"), publish("$all"), publish("a")];
        let (pipeline, unlinks) = pipeline(&names, &rules, batch.iter(), &mut HashSet::new());
        let commands: Vec<_> = pipeline
            .cmd_iter()
            .map(|command| match command.args_iter().next() {
                Some(Arg::Simple(word)) => String::from_utf8_lossy(word).into_owned(),
                _ => String::new(),
            })
            .collect();
        // Else the tail could be carried out by a server that someone had given the script in between, before the head.
        assert_eq!(commands, ["UNLINK", "PUBLISH", "EVAL", "EVALSHA", "PUBLISH", "EVALSHA"]);
        assert_eq!(unlinks, 1);
    }
}
