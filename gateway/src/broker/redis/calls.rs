//! Single commands and events that follow their slot to wherever it is, for as long as one command may take.

use super::{
    Shared,
    batch::{self, Manner, Unlinked},
    facts::Announce,
    is_demoted,
    lane::Answer,
    names::Names,
    node::Node,
    redirect::Redirect,
    router::Routing,
    scripts::{self, Keys},
    unavailable,
};
use crate::{
    broker::{Accepted, Publish, Unavailable},
    channel::Channel,
};
use futures_util::future::join_all;
use redis::{Cmd, Pipeline, Value, aio::ConnectionLike};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// Before something is tried again that was said to be elsewhere, unless the routing changes first.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Carries out commands at the masters that they belong to.
#[derive(Clone)]
pub(super) struct Calls {
    pub(super) shared: Arc<Shared>,
    pub(super) routing: watch::Receiver<Arc<Routing>>,
}

/// That replicas have what was read: what is written so that there is something to wait for, how many of them, and for
/// how long.
struct Confirmed {
    write: Cmd,
    replicas: usize,
    limit: Duration,
}

/// Where and how a command is carried out.
pub(super) struct Place {
    pub(super) announce: Announce,
    pub(super) keys: Keys,
}

impl Calls {
    pub(super) fn routing(&self) -> Arc<Routing> {
        Arc::clone(&self.routing.borrow())
    }

    /// The same, once any master is known or the time of a command is over.
    pub(super) async fn known_routing(&self) -> Arc<Routing> {
        let deadline = Instant::now() + self.shared.timeout;
        while self.routing().nodes().is_empty() && self.wait(deadline).await {}
        self.routing()
    }

    /// Waits a moment for another routing, or until `deadline`; answers whether there is time left.
    async fn wait(&self, deadline: Instant) -> bool {
        self.shared.refresh.notify_one();
        let mut routing = self.routing.clone();
        routing.mark_unchanged();
        let again = (Instant::now() + AGAIN_AFTER).min(deadline);
        let _ = tokio::time::timeout_at(again, routing.changed()).await;
        Instant::now() < deadline
    }

    /// The master that has `name`, as soon as it is known.
    async fn node(&self, name: &str, deadline: Instant) -> Result<Arc<Node>, Unavailable> {
        loop {
            if let Some(node) = self.routing().of(name) {
                return Ok(Arc::clone(node));
            }
            if !self.wait(deadline).await {
                return Err(Unavailable(match self.routing().nodes().is_empty() {
                    true => "no master of redis is known yet".to_owned(),
                    false => "no master of the redis cluster has the channel's slot".to_owned(),
                }));
            }
        }
    }

    /// One command about `name`, made for where it is carried out.
    pub(super) async fn query(&self, name: &str, make: impl Fn(&Place) -> Cmd) -> Result<Value, Unavailable> {
        self.query_then(name, make, None).await
    }

    /// Reads what is to be shown: where entries wait for replicas, it is answered once these have what was read, and
    /// not if they lack it, or the server could be a master that was replaced and does not know it yet. Where replicas
    /// have been away for longer than that can be, it is answered all the same. `write`: what changes nothing, but WAIT
    /// has something to wait for.
    pub(super) async fn query_shown(
        &self,
        name: &str,
        make: impl Fn(&Place) -> Cmd,
        write: Cmd,
    ) -> Result<Value, Unavailable> {
        let then = self.shared.wait.map(|(replicas, limit)| Confirmed { write, replicas, limit });
        self.query_then(name, make, then.as_ref()).await
    }

    async fn query_then(
        &self,
        name: &str,
        make: impl Fn(&Place) -> Cmd,
        then: Option<&Confirmed>,
    ) -> Result<Value, Unavailable> {
        let deadline = Instant::now() + self.shared.timeout;
        let mut keys = Keys::All;
        let mut asked: Option<String> = None;
        loop {
            let owner = self.node(name, deadline).await?;
            let node = match &asked {
                Some(place) => self.routing().at(place, &owner).map(Arc::clone),
                None => Some(Arc::clone(&owner)),
            };
            let mut redirect = None;
            if let Some(node) = node {
                let mut connection = node.server.checkout().await?;
                let announce = node.server.announce(&mut *connection).await?;
                let mut pipeline = Pipeline::with_capacity(5);
                let before = usize::from(asked.is_some());
                let mut count = 1;
                if asked.is_some() {
                    pipeline.cmd("ASKING");
                }
                pipeline.add_command(make(&Place { announce, keys }));
                if let Some(Confirmed { write, replicas, limit }) = then {
                    if asked.is_some() {
                        pipeline.cmd("ASKING");
                    }
                    pipeline.add_command(write.clone()).add_command(scripts::wait(*replicas, *limit));
                    count += before + 2;
                }
                let answer = connection.req_packed_commands(&pipeline, before, count).await;
                let answer = match answer {
                    Ok(mut answers) => {
                        let on_replicas = then.and_then(|_| answers.pop());
                        let answer = answers.into_iter().next().unwrap_or(Value::Nil);
                        if let Some(Confirmed { replicas, .. }) = then
                            && !matches!(answer, Value::ServerError(_))
                        {
                            let found = on_replicas.and_then(|found| redis::from_redis_value(found).ok()).unwrap_or(0);
                            if !node.server.confirms(found >= *replicas) {
                                let why = format!("{found} replicas have what was read, {replicas} are waited for");
                                return Err(Unavailable(why));
                            }
                        }
                        answer
                    }
                    Err(error) => {
                        drop(deadpool_redis::Connection::take(connection));
                        self.shared.refresh.notify_one();
                        return Err(unavailable(&error));
                    }
                };
                if is_demoted(&answer) {
                    drop(deadpool_redis::Connection::take(connection));
                    self.shared.refresh.notify_one();
                }
                redirect = Redirect::read(&answer);
                if redirect.is_none() {
                    return answer.extract_error().map_err(|error| unavailable(&error));
                }
            }
            let before = asked.take();
            match redirect {
                // At once: the server that it goes to says where else it may be.
                Some(Redirect::Ask(place)) if before.as_ref() != Some(&place) => {
                    asked = Some(place);
                    continue;
                }
                Some(Redirect::TryAgain) => keys = Keys::Needed,
                _ => {}
            }
            if !self.wait(deadline).await {
                return Err(Unavailable("the channel's slot is on its way between masters of redis".to_owned()));
            }
            if redirect == Some(Redirect::TryAgain) {
                asked = before;
            }
        }
    }

    /// The answers to one command for each of `channels`, all at one master in one pipeline; errors of single commands
    /// among them, those that it is elsewhere too.
    pub(super) async fn pipelined(
        &self,
        node: &Node,
        channels: &[&Channel],
        make: impl Fn(&Channel, bool) -> Cmd,
    ) -> Result<Vec<Value>, Unavailable> {
        let mut pipeline = Pipeline::with_capacity(channels.len());
        for (index, channel) in channels.iter().enumerate() {
            pipeline.add_command(make(channel, index == 0));
        }
        let mut connection = node.server.checkout().await?;
        let answers = connection.req_packed_commands(&pipeline, 0, channels.len()).await;
        if answers.as_ref().map_or(true, |answers| answers.iter().any(is_demoted)) {
            drop(deadpool_redis::Connection::take(connection));
            self.shared.refresh.notify_one();
        }
        answers.map_err(|error| unavailable(&error))
    }

    /// Publishes in order, answering in order.
    pub(super) async fn publish(&self, batch: Vec<Publish>) -> Vec<Result<Accepted, Unavailable>> {
        let deadline = Instant::now() + self.shared.timeout;
        let routing = self.routing();
        let (mut answers, mut left): (Vec<_>, Vec<_>);
        if let Some(node) = routing.only() {
            // What is told of no slot is never elsewhere.
            let done = |answer| match answer {
                Answer::Done(done) => done,
                Answer::Elsewhere(..) => Err(Unavailable("redis is a cluster: set redis.cluster".to_owned())),
            };
            return node.lane.publish(batch).await.into_iter().map(done).collect();
        }
        answers = batch.iter().map(|_| None).collect();
        left = batch.into_iter().enumerate().map(|(nth, publish)| (nth, publish, None)).collect::<Vec<_>>();
        loop {
            let routing = self.routing();
            let (straight, detours) = split(&self.shared.names, &routing, std::mem::take(&mut left));
            let (straight, detours) = tokio::join!(self.straight(straight), self.detours(&routing, detours));
            for (nth, answer) in straight.into_iter().chain(detours) {
                match answer {
                    Answer::Done(done) => answers[nth] = Some(done),
                    Answer::Elsewhere(publish, redirect) => left.push((nth, publish, Some(redirect))),
                }
            }
            if left.is_empty() {
                break;
            }
            left.sort_unstable_by_key(|(nth, ..)| *nth);
            let at_once = left.iter().all(|(_, _, redirect)| matches!(redirect, Some(Redirect::Ask(_))));
            let in_time = if at_once { Instant::now() < deadline } else { self.wait(deadline).await };
            if !in_time {
                for (nth, _, redirect) in left {
                    let why = match redirect {
                        None | Some(Redirect::Moved) => "no master of the redis cluster takes the channel's slot",
                        Some(_) => "the channel's slot is on its way between masters of redis",
                    };
                    answers[nth] = Some(Err(Unavailable(why.to_owned())));
                }
                break;
            }
        }
        let none = || Err(Unavailable("redis gave no answer".to_owned()));
        answers.into_iter().map(|answer| answer.unwrap_or_else(none)).collect()
    }

    /// By the lanes of the masters that have the channels, side by side.
    async fn straight(&self, groups: Groups) -> Vec<(usize, Answer)> {
        let Groups { by_node, homeless } = groups;
        let lanes = by_node.into_iter().map(|(node, events)| async move {
            let (numbers, batch): (Vec<_>, Vec<_>) = events.into_iter().unzip();
            numbers.into_iter().zip(node.lane.publish(batch).await).collect::<Vec<_>>()
        });
        let homeless = homeless.into_iter().map(|(nth, publish)| (nth, Answer::Elsewhere(publish, Redirect::Moved)));
        join_all(lanes).await.into_iter().flatten().chain(homeless).collect()
    }

    /// One attempt for each channel whose slot is on its way.
    async fn detours(&self, routing: &Routing, detours: Vec<Detour>) -> Vec<(usize, Answer)> {
        let each = detours.into_iter().map(|detour| async move {
            let Detour { channel, events, redirect } = detour;
            let (numbers, batch): (Vec<_>, Vec<_>) = events.into_iter().unzip();
            let answers = match self.detour(routing, &channel, &batch, &redirect).await {
                Ok(settled) => batch
                    .into_iter()
                    .zip(settled)
                    .map(|(publish, settled)| match settled {
                        Ok(done) => Answer::Done(done),
                        Err(redirect) => Answer::Elsewhere(publish, redirect),
                    })
                    .collect::<Vec<_>>(),
                Err(error) => batch.iter().map(|_| Answer::Done(Err(error.clone()))).collect(),
            };
            numbers.into_iter().zip(answers).collect::<Vec<_>>()
        });
        join_all(each).await.into_iter().flatten().collect()
    }

    async fn detour(
        &self,
        routing: &Routing,
        channel: &Channel,
        batch: &[Publish],
        redirect: &Redirect,
    ) -> Result<Vec<batch::Settled>, Unavailable> {
        let shared = &self.shared;
        let name = shared.names.pubsub(channel);
        let nobody = || batch.iter().map(|_| Err(Redirect::Moved)).collect();
        let Some(owner) = routing.of(&name) else { return Ok(nobody()) };
        if *redirect == Redirect::TryAgain {
            self.make_keys(channel, batch).await?;
        }
        let (node, asking) = match redirect {
            Redirect::Ask(place) => match routing.at(place, owner) {
                Some(node) => (node, true),
                // It has only just come to the cluster.
                None => return Ok(nobody()),
            },
            _ => (owner, false),
        };
        let mut connection = node.server.checkout().await?;
        let announce = node.server.announce(&mut *connection).await?;
        let manner = Manner { asking, keys: Keys::Needed, ..Manner::of(shared, announce) };
        // Which logs are gone is not remembered: the lane sees to it once the slot has arrived.
        match batch::publish(&mut *connection, &manner, &[batch], &mut Unlinked::none()).await {
            Ok(answered) => Ok(answered.events),
            Err(error) => {
                drop(deadpool_redis::Connection::take(connection));
                Err(unavailable(&error))
            }
        }
    }

    /// Creates the keys that publishing needs, each by itself, which a slot that moves allows: a script that is told of
    /// one that does not exist is refused until all of the slot has arrived.
    async fn make_keys(&self, channel: &Channel, batch: &[Publish]) -> Result<(), Unavailable> {
        let Shared { names, rules, .. } = &*self.shared;
        let (retention, lifetime) = (rules.retention(channel), rules.idempotency());
        if retention.is_some() {
            let join = |_: &Place| scripts::join(names, channel, retention, lifetime, true, Keys::Needed);
            self.query(&names.log(channel), join).await?;
        }
        if batch.iter().any(|publish| publish.idempotency_key.is_some()) {
            let key = names.idempotency(channel);
            let make = |_: &Place| scripts::touch(&key, lifetime * 2);
            self.query(&key, make).await?;
        }
        Ok(())
    }
}

/// An event, and its place in the batch.
type Numbered = (usize, Publish);
type Left = (usize, Publish, Option<Redirect>);

/// Events by the master that has their channel.
struct Groups {
    by_node: Vec<(Arc<Node>, Vec<Numbered>)>,
    /// Those whose slot nobody has.
    homeless: Vec<Numbered>,
}

/// Events of one channel whose slot is on its way.
struct Detour {
    channel: Channel,
    events: Vec<Numbered>,
    redirect: Redirect,
}

/// In their order, apart by where they go.
fn split(names: &Names, routing: &Routing, left: Vec<Left>) -> (Groups, Vec<Detour>) {
    let mut by_node: Vec<Vec<Numbered>> = routing.nodes().iter().map(|_| Vec::new()).collect();
    let (mut homeless, mut detours): (_, Vec<Detour>) = (Vec::new(), Vec::new());
    for (nth, publish, redirect) in left {
        match redirect {
            Some(redirect @ (Redirect::Ask(_) | Redirect::TryAgain)) => {
                match detours.iter_mut().find(|detour| detour.channel == publish.channel) {
                    Some(detour) => detour.events.push((nth, publish)),
                    None => {
                        let channel = publish.channel.clone();
                        detours.push(Detour { channel, events: vec![(nth, publish)], redirect });
                    }
                }
            }
            _ => match routing.owner(&names.pubsub(&publish.channel)) {
                Some(index) => by_node[index].push((nth, publish)),
                None => homeless.push((nth, publish)),
            },
        }
    }
    let groups = by_node.into_iter().zip(routing.nodes()).filter(|(events, _)| !events.is_empty());
    let by_node = groups.map(|(events, node)| (Arc::clone(node), events)).collect();
    (Groups { by_node, homeless }, detours)
}
