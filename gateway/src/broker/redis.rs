//! The Redis broker: a subscription link with a supervisor of its own, a lane for publishing, and a pool for the rest.
//!
//! Every channel's log, limits and announcements stand in one hash slot. What is written is written by scripts, each in
//! one step; see `docs/redis.md` for the names and `core.lua` for the heart of it. The same is in
//! Redis as a function, which [`function`] installs, for publishers that go straight to it ([`direct`]).

mod batch;
pub mod direct;
pub mod function;
mod lane;
mod library;
mod link;
pub mod names;
#[cfg(any(test, fuzzing))]
pub(crate) mod promises;
mod scripts;

use super::{Accepted, BoxFuture, Broker, Ends, Publish, Rules, Since, Sink, Top, Unavailable, log::Page};
use crate::{auth::denied::now_ms, channel::Channel, config, metrics::Metrics, position::Position};
use bytes::Bytes;
use deadpool_redis::{Manager, Pool, PoolError, Runtime};
use lane::Lane;
use names::Names;
use redis::{AsyncConnectionConfig, Cmd, IntoConnectionInfo, Pipeline, ProtocolVersion, Value, aio::ConnectionLike};
use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Channels in one pipeline of joins.
const JOIN_BATCH: usize = 512;
/// Replicas whose rules differ find that out once a minute for every channel.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// See the module's documentation.
pub struct RedisBroker {
    pool: Pool,
    lane: Lane,
    names: Names,
    rules: Rules,
    timeout: Duration,
    conflicts: Arc<Conflicts>,
    wants: Mutex<Option<mpsc::UnboundedSender<link::Want>>>,
}

/// Redis cannot be used as it was configured.
#[derive(Debug, thiserror::Error)]
#[error("redis.url cannot be used: {0}")]
pub struct InvalidRedis(String);

impl RedisBroker {
    /// Starts the link and the lane; neither waits for Redis to be there. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn start(
        settings: &config::Redis,
        url: &str,
        rules: Rules,
        replica: &str,
        max_event_bytes: usize,
        sink: Arc<dyn Sink>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, InvalidRedis> {
        let names = Names::new(&settings.prefix);
        let pool = pool(url, settings.pool, settings.timeout)?;
        let conflicts = Arc::new(Conflicts { metrics: Arc::clone(&metrics), complained: Mutex::default() });
        let lane = Lane::start(pool.clone(), names.clone(), rules.clone(), settings.timeout, Arc::clone(&conflicts));
        let (wants, wanted) = mpsc::unbounded_channel();
        let link = link::Settings {
            client: client(url)?,
            names: names.clone(),
            replica: replica.to_owned(),
            timeout: settings.timeout,
            max_event_bytes,
            warned: AtomicBool::new(false),
        };
        tokio::spawn(link::supervise(link, sink, metrics, wanted));
        let (timeout, wants) = (settings.timeout, Mutex::new(Some(wants)));
        Ok(Self { pool, lane, names, rules, timeout, conflicts, wants })
    }

    fn want(&self, want: link::Want) {
        if let Some(wants) = self.wants.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // The supervisor lives as long as this sender.
            let _ = wants.send(want);
        }
    }

    fn joined(&self, channel: &Channel, answer: Value) -> Top {
        let scripts::Joined { top, other_limits } = scripts::joined(answer).map_err(|error| unavailable(&error))?;
        if let Some(found) = other_limits {
            self.conflicts.found(channel, &found);
        }
        Ok(top)
    }

    async fn query(&self, command: Cmd) -> Result<Value, Unavailable> {
        let mut connection = checkout(&self.pool, self.timeout).await?;
        match connection.req_packed_command(&command).await {
            Ok(answer) => {
                if is_demoted(&answer) {
                    drop(deadpool_redis::Connection::take(connection));
                }
                answer.extract_error().map_err(|error| unavailable(&error))
            }
            Err(error) => {
                drop(deadpool_redis::Connection::take(connection));
                Err(unavailable(&error))
            }
        }
    }

    /// The answers to a pipeline, errors of single commands among them.
    async fn pipelined(&self, pipeline: Pipeline, commands: usize) -> Result<Vec<Value>, Unavailable> {
        let mut connection = checkout(&self.pool, self.timeout).await?;
        let answers = connection.req_packed_commands(&pipeline, 0, commands).await;
        if answers.as_ref().map_or(true, |answers| answers.iter().any(is_demoted)) {
            drop(deadpool_redis::Connection::take(connection));
        }
        answers.map_err(|error| unavailable(&error))
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

/// A connection that was just seen to answer, within `timeout` however many dead ones are found on the way.
async fn checkout(pool: &Pool, timeout: Duration) -> Result<deadpool_redis::Connection, Unavailable> {
    match tokio::time::timeout(timeout, pool.get()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(PoolError::Backend(error))) => Err(unavailable(&error)),
        Ok(Err(PoolError::Timeout(_))) | Err(_) => Err(Unavailable(format!("redis gave no connection in {timeout:?}"))),
        Ok(Err(_)) => Err(Unavailable("the gateway is stopping".to_owned())),
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

/// A client that speaks RESP3, which the link needs for messages beside answers.
fn client(url: &str) -> Result<redis::Client, InvalidRedis> {
    let info = url.into_connection_info().map_err(|error| InvalidRedis(error.to_string()))?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    redis::Client::open(info.set_redis_settings(settings)).map_err(|error| InvalidRedis(error.to_string()))
}

fn pool(url: &str, size: usize, timeout: Duration) -> Result<Pool, InvalidRedis> {
    let invalid = |error: &dyn std::fmt::Display| InvalidRedis(error.to_string());
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout));
    let manager = Manager::new_with_config(url, config).map_err(|error| invalid(&error))?;
    Pool::builder(manager)
        .max_size(size)
        .wait_timeout(Some(timeout))
        .create_timeout(Some(timeout))
        .recycle_timeout(Some(timeout))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| invalid(&error))
}

impl Broker for RedisBroker {
    fn publish(&self, batch: Vec<Publish>) -> BoxFuture<'_, Vec<Result<Accepted, Unavailable>>> {
        Box::pin(self.lane.publish(batch))
    }

    fn subscribe(&self, channel: &Channel) {
        self.want(link::Want::Subscribe(channel.clone()));
    }

    fn unsubscribe(&self, channel: &Channel) {
        self.want(link::Want::Unsubscribe(channel.clone()));
    }

    fn join(&self, channels: Vec<Channel>) -> BoxFuture<'_, Result<Vec<Top>, Unavailable>> {
        Box::pin(async move {
            let mut tops = Vec::with_capacity(channels.len());
            for batch in channels.chunks(JOIN_BATCH) {
                let mut pipeline = Pipeline::with_capacity(batch.len());
                for (index, channel) in batch.iter().enumerate() {
                    let retention = self.rules.retention(channel);
                    let idempotency = self.rules.idempotency();
                    pipeline.add_command(scripts::join(&self.names, channel, retention, idempotency, index == 0));
                }
                let answers = self.pipelined(pipeline, batch.len()).await?;
                for (channel, answer) in batch.iter().zip(answers) {
                    tops.push(self.joined(channel, answer));
                }
            }
            Ok(tops)
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
            let answer = self.query(scripts::read(&self.names, channel, after, before, count)).await?;
            scripts::page(answer).map_err(|error| unavailable(&error))
        })
    }

    fn place<'a>(&'a self, channel: &'a Channel, since: Since) -> BoxFuture<'a, Result<Position, Unavailable>> {
        Box::pin(async move {
            let answer = self.query(scripts::place(&self.names, channel, since)).await?;
            scripts::placed(answer).map_err(|error| unavailable(&error))
        })
    }

    fn ends<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Option<Ends>, Unavailable>> {
        Box::pin(async move {
            // A page from before everything: the first entry and the top in one step.
            let page = self.read(channel, Position::default(), 0, 1).await?;
            let exists = page.last != Position::default();
            Ok(exists.then(|| Ends { first: page.entries.first().map(|entry| entry.at), last: page.last }))
        })
    }

    fn forget<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async move {
            let mut trim = redis::cmd("XTRIM");
            trim.arg(self.names.log(channel)).arg("MAXLEN").arg("=").arg(0);
            self.query(trim).await.map(drop)
        })
    }

    fn mark_fork<'a>(&'a self, channel: &'a Channel, common: Position) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async move {
            let Some(retention) = self.rules.retention(channel) else { return Ok(()) };
            let mark = scripts::mark_fork(&self.names, channel, common, retention);
            self.query(mark).await.map(drop)
        })
    }

    fn control(&self, message: Bytes) -> BoxFuture<'_, Result<usize, Unavailable>> {
        Box::pin(async move {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(self.names.control()).arg(&message[..]);
            let receivers = self.query(publish).await?;
            redis::from_redis_value(receivers).map_err(|error| unavailable(&error.into()))
        })
    }

    fn deny<'a>(&'a self, token_id: &'a str, until_ms: u64) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async move {
            let mut over = redis::cmd("ZREMRANGEBYSCORE");
            over.arg(self.names.denied()).arg("-inf").arg(now_ms());
            self.query(over).await?;
            let mut add = redis::cmd("ZADD");
            // The later of two times holds.
            add.arg(self.names.denied()).arg("GT").arg(until_ms).arg(token_id);
            self.query(add).await.map(drop)
        })
    }

    fn denied(&self) -> BoxFuture<'_, Result<Vec<(String, u64)>, Unavailable>> {
        Box::pin(async move {
            let mut list = redis::cmd("ZRANGEBYSCORE");
            list.arg(self.names.denied()).arg(now_ms()).arg("+inf").arg("WITHSCORES");
            let listed: Vec<(String, f64)> =
                redis::from_redis_value(self.query(list).await?).map_err(|error| unavailable(&error.into()))?;
            // Milliseconds since 1970 are whole numbers that a double holds.
            Ok(listed.into_iter().map(|(id, until_ms)| (id, until_ms as u64)).collect())
        })
    }

    fn stop(&self) {
        self.wants.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
