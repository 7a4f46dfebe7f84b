//! The Redis broker: for each master a subscription link with a supervisor of its own, a lane for publishing, and a pool
//! for the rest; and a router that knows which master has what.
//!
//! One Redis, one that sentinels watch over, and a cluster are the same code over a list of masters ([`topology`]). Every
//! channel's log, limits and announcements stand in one hash slot. What is written is written by scripts, each in
//! one step; see `docs/redis.md` for the names and `core.lua` for the heart of it. The same is in
//! Redis as a function, which [`function`] installs, for publishers that go straight to it ([`direct`]).

mod batch;
mod calls;
pub mod checks;
pub mod direct;
pub mod facts;
pub mod function;
mod gather;
mod intake;
mod lane;
mod library;
mod link;
pub mod names;
mod node;
#[cfg(any(test, fuzzing))]
pub(crate) mod promises;
mod reach;
mod redirect;
mod router;
mod scripts;
pub mod servers;
pub mod target;
mod topology;
mod watch;

use super::{Accepted, BoxFuture, Broker, Ends, Publish, Rules, Since, Sink, Top, Unavailable, log::Page};
use crate::{auth::denied::now_ms, channel::Channel, config, metrics::Metrics, position::Position};
use bytes::Bytes;
use calls::Calls;
use futures_util::future::join_all;
use gather::Comparison;
use link::{Want, Wanted};
use names::Names;
use reach::Reach;
use redis::Value;
use router::Routing;
use scripts::Keys;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64},
    },
    time::{Duration, Instant},
};
use target::Target;
use tokio::sync::{Notify, mpsc, watch as latest};
use topology::Refresh;

/// Channels in one pipeline of joins.
const JOIN_BATCH: usize = 512;
/// Replicas whose rules differ find that out once a minute for every channel.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// See the module's documentation.
pub struct RedisBroker {
    shared: Arc<Shared>,
    calls: Calls,
    wants: Mutex<Option<mpsc::UnboundedSender<Want>>>,
    stopping: latest::Sender<bool>,
    intakes: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

/// What every part of the broker has a use for.
struct Shared {
    target: Target,
    names: Names,
    rules: Rules,
    replica: String,
    timeout: Duration,
    pool: usize,
    /// How long a publish may wait for others to go with.
    gather: Duration,
    comparison: Arc<Mutex<Comparison>>,
    max_event_bytes: usize,
    /// On how many replicas an entry must be before it is answered for, and how long that may take.
    wait: Option<(usize, Duration)>,
    conflicts: Conflicts,
    sink: Arc<dyn Sink>,
    metrics: Arc<Metrics>,
    reach: Reach,
    refresh: Refresh,
    /// Whether it was said that the function library cannot be installed: once is enough.
    warned: AtomicBool,
    /// Of all announcements that came.
    announced_bytes: AtomicU64,
}

/// Redis cannot be used as it was configured.
#[derive(Debug, thiserror::Error)]
#[error("{key} cannot be used: {why}")]
pub struct InvalidRedis {
    pub key: &'static str,
    pub why: String,
}

impl RedisBroker {
    /// Starts links and lanes; nothing waits for Redis to be there. Needs a tokio runtime.
    #[must_use]
    pub fn start(
        settings: &config::Redis,
        target: Target,
        rules: Rules,
        replica: &str,
        max_event_bytes: usize,
        sink: Arc<dyn Sink>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let refresh = Arc::new(Notify::new());
        let shared = Arc::new(Shared {
            target,
            names: Names::new(&settings.prefix),
            rules,
            replica: replica.to_owned(),
            timeout: settings.timeout,
            pool: settings.pool,
            gather: settings.gather,
            comparison: Arc::new(Mutex::new(Comparison::new())),
            max_event_bytes,
            wait: (settings.wait_replicas > 0).then_some((settings.wait_replicas, settings.wait_timeout)),
            conflicts: Conflicts { metrics: Arc::clone(&metrics), complained: Mutex::default() },
            reach: Reach::new(Arc::clone(&sink), Arc::clone(&metrics)),
            sink,
            metrics,
            refresh,
            warned: AtomicBool::new(false),
            announced_bytes: AtomicU64::new(0),
        });
        let layouts = topology::watch(&shared.target, settings.timeout, Arc::clone(&shared.refresh));
        let (routes, routing) = latest::channel(Arc::<Routing>::default());
        let (wants, wanted) = mpsc::unbounded_channel();
        tokio::spawn(router::run(Arc::clone(&shared), layouts, wanted, routes));
        let calls = Calls { shared: Arc::clone(&shared), routing };
        let (stopping, stopped) = latest::channel(false);
        let take_in = |name: &String| {
            let stream = shared.names.intake(name);
            tokio::spawn(intake::run(calls.clone(), stream, stopped.clone()))
        };
        let rules = shared.rules.digest();
        tokio::spawn(watch::run(calls.clone(), rules, settings.check_every, stopped.clone()));
        let intakes = Mutex::new(settings.intake.iter().map(take_in).collect());
        Self { shared, calls, wants: Mutex::new(Some(wants)), stopping, intakes }
    }

    fn want(&self, want: Want) {
        if let Some(wants) = self.wants.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // The router lives as long as this sender.
            let _ = wants.send(want);
        }
    }

    fn joined(&self, channel: &Channel, answer: Value) -> Top {
        let scripts::Joined { top, other_limits } = scripts::joined(answer).map_err(|error| unavailable(&error))?;
        if let Some(found) = other_limits {
            self.shared.conflicts.found(channel, &found);
        }
        Ok(top)
    }

    fn join_command(&self, channel: &Channel, whole: bool, keys: Keys) -> redis::Cmd {
        let Shared { names, rules, .. } = &*self.shared;
        scripts::join(names, channel, rules.retention(channel), rules.idempotency(), whole, keys)
    }

    /// Entries of a log up to and with an id, and after it, so many each. Where it is to be shown, `renew` is what is
    /// written so that replicas can be waited for.
    async fn page(
        &self,
        channel: &Channel,
        (after, before, count): (Position, usize, usize),
        renew: Option<redis::Cmd>,
    ) -> Result<Page, Unavailable> {
        let names = &self.shared.names;
        let log = names.log(channel);
        let read = |_: &calls::Place| scripts::read(names, channel, after, before, count);
        let answer = match renew {
            Some(renew) => self.calls.query_shown(&log, read, renew).await?,
            None => self.calls.query(&log, read).await?,
        };
        scripts::page(answer).map_err(|error| unavailable(&error))
    }

    /// The tops of channels that are all at one master.
    async fn join_at(&self, node: &node::Node, channels: &[&Channel]) -> Vec<Top> {
        let mut tops = Vec::with_capacity(channels.len());
        for batch in channels.chunks(JOIN_BATCH) {
            let make = |channel: &Channel, whole| self.join_command(channel, whole, Keys::All);
            let answers = match self.calls.pipelined(node, batch, make).await {
                Ok(answers) => answers,
                Err(error) => {
                    tops.extend(batch.iter().map(|_| Err(error.clone())));
                    continue;
                }
            };
            for (channel, answer) in batch.iter().zip(answers) {
                let answer = match redirect::Redirect::read(&answer) {
                    None => Ok(answer),
                    Some(_) => {
                        let make = |place: &calls::Place| self.join_command(channel, true, place.keys);
                        self.calls.query(&self.shared.names.pubsub(channel), make).await
                    }
                };
                tops.push(answer.and_then(|answer| self.joined(channel, answer)));
            }
        }
        tops
    }
}

/// Says that replicas have different rules: each time in a metric, now and then in the log.
struct Conflicts {
    metrics: Arc<Metrics>,
    complained: Mutex<Option<Instant>>,
}

impl Conflicts {
    fn found(&self, channel: &Channel, limits: &str) {
        self.metrics.rule_conflicts.inc();
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|when| when.elapsed() > COMPLAIN_EVERY) {
            *complained = Some(Instant::now());
            tracing::warn!(
                %channel, %limits,
                "the rules of another replica, or older ones, gave this channel other limits; now they are ours"
            );
        }
    }
}

/// Whether a server answered that it is no master any more: others may be found at the same address by now, on a new
/// connection.
fn is_demoted(answer: &Value) -> bool {
    let Value::ServerError(error) = answer else { return false };
    matches!(error.code(), "READONLY" | "MASTERDOWN" | "LOADING" | "UNBLOCKED")
        || error.details().is_some_and(|details| details.contains("READONLY"))
}

/// In words for whoever published or subscribed: what the server said, or what became of the connection.
fn unavailable(error: &redis::RedisError) -> Unavailable {
    let why = match (error.detail(), error.code()) {
        (Some(detail), Some(code)) => format!("redis answered {code} {detail}"),
        _ if error.is_timeout() => "redis did not answer in time".to_owned(),
        _ if error.is_connection_refusal() => "redis refuses connections".to_owned(),
        _ if error.is_io_error() => "the connection to redis broke".to_owned(),
        _ => error.to_string(),
    };
    Unavailable(why)
}

impl Broker for RedisBroker {
    fn publish(&self, batch: Vec<Publish>) -> BoxFuture<'_, Vec<Result<Accepted, Unavailable>>> {
        Box::pin(self.calls.publish(batch))
    }

    fn subscribe(&self, channel: &Channel) {
        self.want(Want::Subscribe(Wanted::Channel(channel.clone())));
    }

    fn unsubscribe(&self, channel: &Channel) {
        self.want(Want::Unsubscribe(Wanted::Channel(channel.clone())));
    }

    fn join(&self, channels: Vec<Channel>) -> BoxFuture<'_, Result<Vec<Top>, Unavailable>> {
        Box::pin(async move {
            let routing = self.calls.known_routing().await;
            let nowhere = || Err(Unavailable("no master of redis has the channel's slot".to_owned()));
            let mut tops: Vec<Top> = channels.iter().map(|_| nowhere()).collect();
            let mut of_node: Vec<Vec<usize>> = routing.nodes().iter().map(|_| Vec::new()).collect();
            for (nth, channel) in channels.iter().enumerate() {
                if let Some(index) = routing.owner(&self.shared.names.pubsub(channel)) {
                    of_node[index].push(nth);
                }
            }
            let each = routing.nodes().iter().zip(&of_node).filter(|(_, numbers)| !numbers.is_empty());
            let joins = each.map(|(node, numbers)| {
                let channels: Vec<_> = numbers.iter().map(|&nth| &channels[nth]).collect();
                async move { (numbers, self.join_at(node, &channels).await) }
            });
            for (numbers, answers) in join_all(joins).await {
                for (&nth, top) in numbers.iter().zip(answers) {
                    tops[nth] = top;
                }
            }
            // Nothing at all is about the broker, and not about a channel.
            match tops.iter().all(Result::is_err).then(|| tops.first().cloned()).flatten() {
                Some(Err(error)) => Err(error),
                _ => Ok(tops),
            }
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
            // Without history there is nothing that replicas could lack.
            let renew = self.shared.rules.retention(channel).map(|kept| {
                let mut renew = redis::cmd("EXPIRE");
                renew.arg(self.shared.names.log(channel)).arg(kept.memory.as_secs().max(1));
                renew
            });
            self.page(channel, (after, before, count), renew).await
        })
    }

    fn place<'a>(&'a self, channel: &'a Channel, since: Since) -> BoxFuture<'a, Result<Position, Unavailable>> {
        Box::pin(async move {
            let names = &self.shared.names;
            let place = |_: &calls::Place| scripts::place(names, channel, since);
            let answer = self.calls.query(&names.log(channel), place).await?;
            scripts::placed(answer).map_err(|error| unavailable(&error))
        })
    }

    fn ends<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Option<Ends>, Unavailable>> {
        Box::pin(async move {
            // A page from before everything: the first entry and the top in one step.
            let page = self.page(channel, (Position::default(), 0, 1), None).await?;
            let exists = page.last != Position::default();
            Ok(exists.then(|| Ends { first: page.entries.first().map(|entry| entry.at), last: page.last }))
        })
    }

    fn forget<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async move {
            let log = self.shared.names.log(channel);
            let trim = |_: &calls::Place| {
                let mut trim = redis::cmd("XTRIM");
                trim.arg(&log).arg("MAXLEN").arg("=").arg(0);
                trim
            };
            self.calls.query(&log, trim).await.map(drop)
        })
    }

    fn mark_fork<'a>(&'a self, channel: &'a Channel, common: Position) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async move {
            let Shared { names, rules, .. } = &*self.shared;
            let Some(retention) = rules.retention(channel) else { return Ok(()) };
            let mark = |place: &calls::Place| scripts::mark_fork(names, channel, common, retention, place.announce);
            self.calls.query(&names.log(channel), mark).await.map(drop)
        })
    }

    fn control(&self, message: Bytes) -> BoxFuture<'_, Result<usize, Unavailable>> {
        Box::pin(async move {
            let control = self.shared.names.control();
            let publish = |place: &calls::Place| {
                let mut publish = redis::cmd(place.announce.command());
                publish.arg(&control).arg(&message[..]);
                publish
            };
            let receivers = self.calls.query(&control, publish).await?;
            redis::from_redis_value(receivers).map_err(|error| unavailable(&error.into()))
        })
    }

    fn deny<'a>(&'a self, token_id: &'a str, until_ms: u64) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async move {
            let denied = self.shared.names.denied();
            let over = |_: &calls::Place| {
                let mut over = redis::cmd("ZREMRANGEBYSCORE");
                over.arg(&denied).arg("-inf").arg(now_ms());
                over
            };
            self.calls.query(&denied, over).await?;
            let add = |_: &calls::Place| {
                let mut add = redis::cmd("ZADD");
                // The later of two times holds.
                add.arg(&denied).arg("GT").arg(until_ms).arg(token_id);
                add
            };
            self.calls.query(&denied, add).await.map(drop)
        })
    }

    fn denied(&self) -> BoxFuture<'_, Result<Vec<(String, u64)>, Unavailable>> {
        Box::pin(async move {
            let denied = self.shared.names.denied();
            let list = |_: &calls::Place| {
                let mut list = redis::cmd("ZRANGEBYSCORE");
                list.arg(&denied).arg(now_ms()).arg("+inf").arg("WITHSCORES");
                list
            };
            let listed: Vec<(String, f64)> = redis::from_redis_value(self.calls.query(&denied, list).await?)
                .map_err(|error| unavailable(&error.into()))?;
            // Milliseconds since 1970 are whole numbers that a double holds.
            Ok(listed.into_iter().map(|(id, until_ms)| (id, until_ms as u64)).collect())
        })
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        self.stopping.send_replace(true);
        let intakes = std::mem::take(&mut *self.intakes.lock().unwrap_or_else(PoisonError::into_inner));
        Box::pin(async move { drop(join_all(intakes).await) })
    }

    fn stop(&self) {
        self.stopping.send_replace(true);
        self.wants.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
