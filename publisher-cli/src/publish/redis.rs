//! Publishing straight to Redis, as durably as through a gateway: by the function `sluice_publish` where the server has
//! it, else by the same code as a script.
//!
//! Events go in groups, each one transaction: a server that begins or ceases to take them in the middle of a group can
//! then not take its tail and refuse its head. Every event has an idempotency key, so that a group whose answer was lost
//! is sent again without publishing anything twice.

use super::{Outcome, Outgoing, Refused, keys::Keys};
use crate::backoff::Retry;
use redis::{ErrorKind, Pipeline, RedisError, RedisResult, Value, aio::MultiplexedConnection};
use sluice_gateway::broker::{
    Publish,
    redis::{
        direct::{self, Direct},
        names::Names,
        servers::{Masters, Place},
    },
};
use std::{collections::HashMap, time::Duration};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Events of one transaction: a few milliseconds in which the server does nothing else.
const GROUP: usize = 128;

pub(super) struct RedisTarget {
    place: Place,
    /// The masters, and what each of those is that were published to.
    masters: Option<Masters>,
    links: HashMap<usize, Link>,
    prefix: String,
    retry_for: Duration,
    keys: Keys,
    /// Less than the constant where some events of a group were refused before they could run.
    group: usize,
}

#[derive(Clone)]
struct Link {
    connection: MultiplexedConnection,
    direct: Direct,
}

/// What became of a group.
enum Attempt {
    Answered(Vec<Outcome>),
    /// The server refused to run a group of these.
    OneByOne,
}

impl RedisTarget {
    pub(super) fn new(place: Place, prefix: &str, retry_for: Duration) -> Self {
        let (masters, links, keys) = (None, HashMap::new(), Keys::new());
        Self { place, masters, links, prefix: prefix.to_owned(), retry_for, keys, group: GROUP }
    }

    pub(super) async fn publish(&mut self, events: &[Outgoing]) -> Vec<Outcome> {
        let publishes: Vec<Publish> = events
            .iter()
            .map(|event| {
                let (channel, event_content) = (event.channel.clone(), event.event.clone());
                Publish { channel, event: event_content, idempotency_key: Some(self.keys.of(event)) }
            })
            .collect();
        let mut outcomes = Vec::with_capacity(events.len());
        while outcomes.len() < publishes.len() {
            match self.publish_some(&publishes[outcomes.len()..]).await {
                Ok(published) => outcomes.extend(published),
                Err(error) => {
                    let refused = Refused { reason: format!("Redis: {error}"), is_final: true };
                    outcomes.resize(publishes.len(), Err(refused));
                }
            }
        }
        outcomes
    }

    /// Publishes at least the first of what is left, trying again for as long as that may help.
    async fn publish_some(&mut self, rest: &[Publish]) -> RedisResult<Vec<Outcome>> {
        let mut retry = Retry::new(self.retry_for);
        loop {
            match self.attempt(rest).await {
                Ok(Attempt::Answered(outcomes)) => return Ok(outcomes),
                Ok(Attempt::OneByOne) => self.group = 1,
                Err(error) => {
                    // What the server can do is asked anew as well: it may be another one by now.
                    (self.masters, self.links) = (None, HashMap::new());
                    if !may_pass(&error) || !retry.wait(None).await {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn attempt(&mut self, rest: &[Publish]) -> RedisResult<Attempt> {
        let Link { mut connection, direct } = self.link(&rest[0]).await?;
        let mut size = rest.len().min(self.group);
        if direct.is_cluster() {
            // A transaction is one slot's.
            size = rest[..size].iter().take_while(|publish| publish.channel == rest[0].channel).count();
        }
        let group = &rest[..size];
        if let [publish] = group {
            let answer = connection.send_packed_command(&direct.command(publish, true)).await?;
            return Ok(Attempt::Answered(vec![outcome(answer)?]));
        }
        let mut pipeline = Pipeline::with_capacity(size + 2);
        pipeline.cmd("MULTI");
        for (index, publish) in group.iter().enumerate() {
            pipeline.add_command(direct.command(publish, index == 0));
        }
        pipeline.cmd("EXEC");
        let mut answers = connection.send_packed_commands(&pipeline, 0, size + 2).await?;
        let executed = answers.pop().unwrap_or(Value::Nil);
        match executed.extract_error() {
            Ok(Value::Array(results)) if results.len() == size => {
                results.into_iter().map(outcome).collect::<RedisResult<_>>().map(Attempt::Answered)
            }
            Ok(_) => Err((ErrorKind::UnexpectedReturnType, "a transaction was not answered as one").into()),
            Err(aborted) => {
                // The reason is with the first command that was refused.
                let refused = answers.into_iter().find_map(|answer| answer.extract_error().err()).unwrap_or(aborted);
                if may_pass(&refused) { Err(refused) } else { Ok(Attempt::OneByOne) }
            }
        }
    }

    /// The master that has the event's channel.
    async fn link(&mut self, publish: &Publish) -> RedisResult<Link> {
        let masters = match &self.masters {
            Some(masters) => masters,
            None => {
                let found = self.place.masters(CONNECT_TIMEOUT).await;
                self.masters.insert(found.map_err(|why| (ErrorKind::Io, "no master", why))?)
            }
        };
        let name = Names::new(&self.prefix).pubsub(&publish.channel);
        let nobody = || RedisError::from((ErrorKind::Io, "no master of the cluster has the channel's slot"));
        let nth = masters.of(&name).ok_or_else(nobody)?;
        if let Some(link) = self.links.get(&nth) {
            return Ok(link.clone());
        }
        let mut connection = masters.connect(nth, CONNECT_TIMEOUT).await?;
        let direct = Direct::find(&mut connection, &self.prefix).await?;
        let link = Link { connection, direct };
        self.links.insert(nth, link.clone());
        Ok(link)
    }
}

/// One event's outcome; an error if the whole group is to be sent again.
fn outcome(answer: Value) -> RedisResult<Outcome> {
    match direct::position(answer) {
        Ok(position) => Ok(Ok(position.map(|position| position.to_string()))),
        Err(error) if may_pass(&error) => Err(error),
        Err(error) => Ok(Err(Refused { reason: told(&error), is_final: false })),
    }
}

/// What the server said, without the client's own classification before it.
fn told(error: &RedisError) -> String {
    match error.code() {
        Some("ERR") => error.detail().map_or_else(|| error.to_string(), str::to_owned),
        _ => format!("Redis: {error}"),
    }
}

/// Whether the same may be taken a little later: everything that is about the server and its connection, nothing that
/// is about the event or the user's rights.
fn may_pass(error: &RedisError) -> bool {
    const STATES: [&str; 12] = [
        "LOADING",
        "BUSY",
        "READONLY",
        "TRYAGAIN",
        "MOVED",
        "ASK",
        "CLUSTERDOWN",
        "MASTERDOWN",
        "NOREPLICAS",
        "MISCONF",
        "OOM",
        // The script was flushed: it is sent whole the next time.
        "NOSCRIPT",
    ];
    error.is_io_error()
        || error.code().is_some_and(|code| STATES.contains(&code))
        // The functions were flushed: the script goes on without them.
        || error.detail().is_some_and(|detail| detail.contains("Function not found"))
}
