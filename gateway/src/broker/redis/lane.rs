//! The lane that publishes go through: one connection, a pipeline of all that waits, one after the other.
//!
//! One lane keeps the order in which a replica's publishers published. While one pipeline is on its way the next one
//! fills, and where events come close together it waits for a few ([`Gather`]), so the more is published, the less each
//! event costs. What cannot be sent by its deadline is answered so, and not sent later.

use super::{
    Shared,
    batch::{self, Manner, Settled, Unlinked},
    gather::Gather,
    node::Server,
    redirect::Redirect,
    unavailable,
};
use crate::broker::{Accepted, Publish, Unavailable};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// The most that goes into one pipeline.
const MAX_EVENTS: usize = 512;
const MAX_BYTES: usize = 4 << 20;
/// Requests that may wait; beyond them a publisher is told at once that the broker does not keep up.
const QUEUE: usize = 4096;
/// A connection that was not used for this long is looked at before it is used again.
const CHECK_AFTER: Duration = Duration::from_millis(100);

/// What became of one event; those that this master does not take come back.
pub(super) enum Answer {
    Done(Result<Accepted, Unavailable>),
    Elsewhere(Publish, Redirect),
}

pub(super) type Answers = Vec<Answer>;

struct Request {
    batch: Vec<Publish>,
    came: Instant,
    answer: oneshot::Sender<Answers>,
}

#[derive(Clone)]
pub(super) struct Lane {
    requests: mpsc::Sender<Request>,
}

impl Lane {
    /// Starts the lane's task, which ends when the last handle is gone.
    pub(super) fn start(shared: Arc<Shared>, server: Arc<Server>) -> Self {
        let (requests, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(run(shared, server, waiting));
        Self { requests }
    }

    pub(super) async fn publish(&self, batch: Vec<Publish>) -> Answers {
        let events = batch.len();
        let (answer, answered) = oneshot::channel();
        let request = Request { batch, came: Instant::now(), answer };
        if self.requests.try_send(request).is_err() {
            return refuse(events, "too many publishes wait for it");
        }
        answered.await.unwrap_or_else(|_| refuse(events, "the gateway is stopping"))
    }
}

fn refuse(events: usize, why: &str) -> Answers {
    (0..events).map(|_| Answer::Done(Err(Unavailable(why.to_owned())))).collect()
}

/// Gives the events that were not taken back with what was said of them.
fn answers(batch: Vec<Publish>, settled: impl Iterator<Item = Settled>) -> Answers {
    let answer = |(publish, settled): (Publish, Settled)| match settled {
        Ok(done) => Answer::Done(done),
        Err(redirect) => Answer::Elsewhere(publish, redirect),
    };
    batch.into_iter().zip(settled).map(answer).collect()
}

async fn run(shared: Arc<Shared>, server: Arc<Server>, mut waiting: mpsc::Receiver<Request>) {
    let mut connection = None;
    let mut used = Instant::now();
    let mut unlinked = Unlinked::default();
    let mut requests = Vec::new();
    // Far from the time that a publish may take.
    let within = shared.gather.min(shared.timeout / 4);
    let mut gather = Gather::new(within, Arc::clone(&shared.comparison));
    while let Some(first) = waiting.recv().await {
        collect(first, &mut waiting, &mut gather, &mut requests).await;
        if used.elapsed() > CHECK_AFTER {
            // It may have died meanwhile: back to the pool, which looks before it gives one out.
            connection = None;
        }
        if connection.is_none() {
            match server.checkout().await {
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
            let late = request.came + shared.timeout <= now || request.answer.is_closed();
            if late {
                let (closed, _) = oneshot::channel();
                let answer = std::mem::replace(&mut request.answer, closed);
                let _ = answer.send(refuse(request.batch.len(), "it did not answer in time"));
            }
            !late
        });
        let Some(open) = connection.as_mut() else { continue };
        if requests.is_empty() {
            continue;
        }
        let announce = match server.announce(&mut **open).await {
            Ok(announce) => announce,
            Err(Unavailable(why)) => {
                drop(connection.take().map(deadpool_redis::Connection::take));
                for request in requests.drain(..) {
                    let _ = request.answer.send(refuse(request.batch.len(), &why));
                }
                continue;
            }
        };
        let manner = Manner::of(&shared, announce);
        let batches: Vec<_> = requests.iter().map(|request| request.batch.as_slice()).collect();
        match batch::publish(&mut **open, &manner, &batches, &mut unlinked).await {
            Ok(answered) => {
                used = Instant::now();
                if answered.demoted {
                    drop(connection.take().map(deadpool_redis::Connection::take));
                    shared.refresh.notify_one();
                }
                let mut settled = answered.events.into_iter();
                for request in requests.drain(..) {
                    let of_this = settled.by_ref().take(request.batch.len());
                    let _ = request.answer.send(answers(request.batch, of_this));
                }
            }
            Err(error) => {
                // Whether the events were taken is unknown; the connection's state is too.
                drop(connection.take().map(deadpool_redis::Connection::take));
                shared.refresh.notify_one();
                let Unavailable(why) = unavailable(&error);
                unlinked.clear();
                for request in requests.drain(..) {
                    let _ = request.answer.send(refuse(request.batch.len(), &why));
                }
            }
        }
    }
}

/// What goes into one pipeline after `first`.
async fn collect(
    first: Request,
    waiting: &mut mpsc::Receiver<Request>,
    gather: &mut Gather,
    requests: &mut Vec<Request>,
) {
    let mut last = first.came;
    let (mut events, mut bytes) = (first.batch.len(), size(&first));
    requests.push(first);
    let filling = gather.begin(last, Instant::now());
    while events < MAX_EVENTS && bytes < MAX_BYTES {
        let next = match waiting.try_recv() {
            Ok(next) => next,
            Err(_) if requests.len() >= filling.wanted => break,
            // The timer's ticks are of a millisecond: it may ring as much later.
            Err(_) => match tokio::time::timeout_at(filling.until, waiting.recv()).await {
                Ok(Some(next)) => next,
                _ => break,
            },
        };
        (events, bytes, last) = (events + next.batch.len(), bytes + size(&next), next.came);
        requests.push(next);
    }
    gather.end(&filling, requests.len(), last, Instant::now());
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
