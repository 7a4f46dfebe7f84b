//! What carries events between replicas and keeps history: the trait, and its two implementations.
//!
//! A broker knows nothing of connections or HTTP. It is asked for subscriptions and answers through a [`Sink`], whose
//! calls never block and never wait: they come from the task that reads the broker's socket.

pub mod announcement;
pub mod log;
pub mod memory;
pub mod redis;

use crate::{channel::Channel, config::Config, event::Event, position::Position};
use announcement::Announced;
use bytes::Bytes;
use log::Page;
use sha2::{Digest, Sha256};
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One event on its way in.
#[derive(Clone, Debug)]
pub struct Publish {
    pub channel: Channel,
    pub event: Event,
    /// 1 to 128 bytes; a second publish with the same one on the same channel changes nothing.
    pub idempotency_key: Option<String>,
}

/// The broker has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Where it stands; `None` on a channel without history.
    pub position: Option<Position>,
    /// It had been accepted before, under the same idempotency key.
    pub repeated: bool,
    /// As many replicas of the broker have it as were asked for. If not, it is out, and may be lost with its master.
    pub replicated: bool,
}

/// The broker could not be reached in time, or refused.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the broker is not available: {0}")]
pub struct Unavailable(pub String);

/// How much of a channel is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Events at the most.
    pub size: u64,
    /// Their age at the most.
    pub age: Duration,
    /// How long an unused channel's last position outlives its events.
    pub memory: Duration,
}

/// Which channels have a history: the rules of the configuration.
#[derive(Clone, Debug)]
pub struct Rules(Arc<Config>);

impl Rules {
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self(config)
    }

    /// What is kept of `channel`; `None` if it has no history.
    #[must_use]
    pub fn retention(&self, channel: &Channel) -> Option<Retention> {
        let kept = self.0.history_of(channel.as_str())?;
        Some(Retention { size: kept.size, age: kept.age, memory: self.0.history.memory })
    }

    /// Tells these rules from others.
    #[must_use]
    pub fn digest(&self) -> String {
        let rules = format!("{:?}{:?}", self.0.history, self.0.channel);
        Sha256::digest(rules)[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// How long an idempotency key is remembered.
    #[must_use]
    pub fn idempotency(&self) -> Duration {
        self.0.history.idempotency
    }
}

/// The two ends of a channel's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The oldest event kept.
    pub first: Option<Position>,
    /// The last position ever given; its number is 0 before the first event.
    pub last: Position,
}

/// Where to begin for a client that has no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// With the first event published at this time or later, in microseconds since the epoch.
    Time(u64),
    /// With the first event published at most so many microseconds ago, by the broker's clock.
    Ago(u64),
    /// With the last so many.
    Last(u64),
    /// With the oldest event kept.
    Earliest,
}

/// A channel's last position, `None` without history; or why this one channel has no answer.
pub type Top = Result<Option<Position>, Unavailable>;

/// What a broker tells the replica. No call may block.
pub trait Sink: Send + Sync + 'static {
    /// The subscription is in force: whatever is published from now on will be announced.
    fn subscribed(&self, channel: &Channel);
    /// Something was published on a subscribed channel. It need not be written before a flush follows.
    fn announced(&self, channel: &str, announced: Announced);
    /// What was announced is to be written now. Called with none of the broker's locks held.
    fn flush(&self) {}
    /// The same, as soon as the caller's task pauses: more may follow at once, and is then written together.
    fn flush_soon(&self) {}
    /// Announcements may have been missed on these channels; each will be `subscribed` again.
    fn cut(&self, channels: &mut dyn Iterator<Item = &Channel>);
    /// A message from a replica (perhaps this one) to all of them.
    fn control(&self, message: Bytes);
    /// Whether the broker can be reached, and why not.
    fn reachable(&self, state: Result<(), String>);
    /// What part of a broker that can be reached cannot, in words; `None` if all of it can.
    fn partly(&self, _note: Option<String>) {}
}

/// What carries events between replicas and keeps history.
pub trait Broker: Send + Sync + 'static {
    /// Publishes in order, answering in order. An event that is accepted here was taken by the broker.
    fn publish(&self, batch: Vec<Publish>) -> BoxFuture<'_, Vec<Result<Accepted, Unavailable>>>;

    /// Asks for a channel's announcements; answered by [`Sink::subscribed`], now and after every cut.
    fn subscribe(&self, channel: &Channel);

    fn unsubscribe(&self, channel: &Channel);

    /// The top of each of `channels`, in order, creating what a channel with history needs to have an identity and
    /// renewing its expiry. What a channel without history had is forgotten.
    fn join(&self, channels: Vec<Channel>) -> BoxFuture<'_, Result<Vec<Top>, Unavailable>>;

    /// Up to `count` entries after `after`, and up to `before` entries that end with it.
    fn read<'a>(
        &'a self,
        channel: &'a Channel,
        after: Position,
        before: usize,
        count: usize,
    ) -> BoxFuture<'a, Result<Page, Unavailable>>;

    /// The position before the first event that `since` means.
    fn place<'a>(&'a self, channel: &'a Channel, since: Since) -> BoxFuture<'a, Result<Position, Unavailable>>;

    /// Both ends of a channel's history, creating nothing; `None` if there is none.
    fn ends<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Option<Ends>, Unavailable>>;

    /// Forgets a channel's events; its positions go on.
    fn forget<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), Unavailable>>;

    /// Writes down that the history after `common` is another one than some have seen, once, so that whoever crosses
    /// it is told.
    fn mark_fork<'a>(&'a self, channel: &'a Channel, common: Position) -> BoxFuture<'a, Result<(), Unavailable>>;

    /// Sends `message` to every replica, this one too; answers how many there are, if the broker can tell.
    fn control(&self, message: Bytes) -> BoxFuture<'_, Result<usize, Unavailable>>;

    /// Writes down that the token with this id is denied until then, in milliseconds since 1970.
    fn deny<'a>(&'a self, token_id: &'a str, until_ms: u64) -> BoxFuture<'a, Result<(), Unavailable>>;

    /// The ids of all denied tokens, each with its time.
    fn denied(&self) -> BoxFuture<'_, Result<Vec<(String, u64)>, Unavailable>>;

    /// Hands over to other replicas what only one of them does.
    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Stops links and background work.
    fn stop(&self);
}
