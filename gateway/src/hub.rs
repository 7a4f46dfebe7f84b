//! The fan-out engine of a replica: feeds put each channel's events into order, shards write them to connections.
//!
//! Frames flow one way: broker → [`feed`] → [`queue`] → [`shard`] → socket, and nothing on that way waits for anything.
//! What takes time (reading history, comparing tops) is done by tasks beside it. A feed exists while a shard has
//! subscribers of its channel and for `redis.linger` after; the hub alone subscribes and unsubscribes.

mod admission;
pub mod cluster;
pub mod connection;
mod feed;
#[cfg(any(test, fuzzing))]
pub(crate) mod promises;
mod queue;
mod recent;
mod replay;
mod shard;
mod sink;
mod upkeep;
mod wheel;

use crate::{
    auth::denied::Denied,
    broker::{Broker, Sink, Unavailable},
    channel::Channel,
    config::Config,
    metrics::Metrics,
    position::Position,
    sse::compress::{Chains, Pool},
    traces::Traces,
};
use cluster::Cluster;
use connection::Open;
use feed::{Feed, Outlets};
use queue::{Command, Queue};
use recent::Keeping;
use replay::Replayer;
use shard::Shard;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};

pub use admission::{Guest, Permit, Refused, counted_address};
pub use queue::Target;
pub(crate) use replay::{Answer, NoAnswer, Share};

type Feeds = HashMap<Channel, Arc<Mutex<Feed>>>;

/// See the module's documentation.
pub struct Hub {
    this: Weak<Hub>,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    /// What channels compress with, unless streams are not to be compressed.
    compressors: Option<Arc<Pool>>,
    runtime: tokio::runtime::Handle,
    queues: Vec<Arc<Queue>>,
    loads: Vec<Arc<AtomicUsize>>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    feeds: RwLock<Feeds>,
    /// How many of them keep recent frames.
    keeping: Keeping,
    /// Per shard, the channels of which it missed a frame.
    overflowed: Vec<Mutex<HashSet<Channel>>>,
    joins: mpsc::UnboundedSender<Channel>,
    /// Subscriptions wanted (`true`) and no longer wanted, in the order in which the map of feeds changed.
    subscriptions: mpsc::UnboundedSender<(Channel, bool)>,
    broker: OnceLock<Arc<dyn Broker>>,
    replayer: OnceLock<Arc<Replayer>>,
    traces: Arc<Traces>,
    cluster: Cluster,
    denied: Arc<Denied>,
    guests: admission::Guests,
    connections: AtomicUsize,
    draining: std::sync::atomic::AtomicBool,
    reachable: Mutex<Result<(), Away>>,
    away_in_part: Mutex<Option<String>>,
    started: Instant,
    /// Per shard: when it last turned, in milliseconds since `started`.
    turned: Vec<AtomicU64>,
    /// The shards themselves, for threads that have little to write (see [`shard`]).
    shards: Vec<OnceLock<Weak<Mutex<Shard>>>>,
    /// Shards that sleep and have frames to write: bits, as in [`feed::ShardSet`].
    asleep: AtomicU64,
    flushing: Notify,
}

/// The broker cannot be reached.
#[derive(Clone, Debug)]
pub struct Away {
    pub since: Instant,
    pub why: String,
    /// It was reached before.
    pub was_reached: bool,
}

impl Hub {
    /// Starts the shards; events flow once a broker was given to [`Hub::attach_broker`].
    ///
    /// # Errors
    /// When a thread or its poller cannot be made.
    pub fn start(
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        traces: Arc<Traces>,
        replica: &str,
    ) -> std::io::Result<Arc<Self>> {
        let shards = match config.hub.shards {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(64),
            configured => configured.min(64),
        };
        let turned = (0..shards).map(|_| AtomicU64::new(0)).collect();
        let (joins, wanted_joins) = mpsc::unbounded_channel();
        let (subscriptions, wanted_subscriptions) = mpsc::unbounded_channel();
        let pollers =
            (0..shards).map(|_| shard::poller(config.hub.queue_events)).collect::<std::io::Result<Vec<_>>>()?;
        let (polls, queues): (Vec<_>, Vec<_>) = pollers.into_iter().unzip();
        let loads: Vec<_> = (0..shards).map(|_| Arc::new(AtomicUsize::new(0))).collect();
        let compressors = config.stream.compression.then(|| Arc::new(Pool::new(Arc::clone(&metrics))));
        let hub = Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            compressors,
            config,
            metrics,
            runtime: tokio::runtime::Handle::current(),
            overflowed: queues.iter().map(|_| Mutex::default()).collect(),
            queues,
            loads,
            threads: Mutex::default(),
            tasks: Mutex::default(),
            feeds: RwLock::default(),
            keeping: Keeping::default(),
            joins,
            subscriptions,
            broker: OnceLock::new(),
            replayer: OnceLock::new(),
            traces,
            cluster: Cluster::new(replica),
            denied: Arc::default(),
            guests: admission::Guests::default(),
            connections: AtomicUsize::new(0),
            draining: std::sync::atomic::AtomicBool::new(false),
            reachable: Mutex::new(Err(Away {
                since: Instant::now(),
                why: "it was not reached yet".to_owned(),
                was_reached: false,
            })),
            away_in_part: Mutex::default(),
            started: Instant::now(),
            turned,
            shards: (0..shards).map(|_| OnceLock::new()).collect(),
            asleep: AtomicU64::new(0),
            flushing: Notify::new(),
        });
        let mut threads = lock(&hub.threads);
        for (index, poll) in polls.into_iter().enumerate() {
            let shard = Arc::new(Mutex::new(Shard::new(index, poll.registry().try_clone()?, &hub)));
            let _ = hub.shards[index].set(Arc::downgrade(&shard));
            threads.push(
                std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || shard::run(&shard, poll))?,
            );
        }
        drop(threads);
        let mut tasks = lock(&hub.tasks);
        tasks.push(tokio::spawn(Arc::clone(&hub).join_channels(wanted_joins)));
        tasks.push(tokio::spawn(Arc::clone(&hub).keep_subscriptions(wanted_subscriptions)));
        tasks.push(tokio::spawn(Arc::clone(&hub).tidy()));
        tasks.push(tokio::spawn(Arc::clone(&hub).flush_whenever_asked()));
        tasks.push(tokio::spawn(Arc::clone(&hub).keep_denied()));
        drop(tasks);
        Ok(hub)
    }

    /// Gives the hub its broker, whose sink it already is.
    pub fn attach_broker(&self, broker: Arc<dyn Broker>) {
        let (queues, metrics, limits) = (self.queues.clone(), Arc::clone(&self.metrics), &self.config.limits);
        let replayer =
            Replayer::new(Arc::clone(&broker), queues, metrics, limits, self.joins.clone(), self.runtime.clone());
        let _ = self.replayer.set(Arc::new(replayer));
        let _ = self.broker.set(broker);
    }

    /// The broker, once there is one.
    #[must_use]
    pub fn broker(&self) -> Option<&Arc<dyn Broker>> {
        self.broker.get()
    }

    #[must_use]
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Gives a connection to the shard that has the fewest.
    pub fn open(&self, shard: usize, open: Open) {
        self.loads[shard].fetch_add(1, Ordering::Relaxed);
        if self.queues[shard].push_quietly(Command::Open(Box::new(open))) {
            self.see_to_few(shard);
        }
    }

    /// The shard that has the fewest connections.
    #[must_use]
    pub fn least_loaded(&self) -> usize {
        (0..self.loads.len()).min_by_key(|&shard| self.loads[shard].load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// A function that tells `shard` what became of an outbox whose connection it will be given as `ticket`.
    #[must_use]
    pub fn outbox_signals(
        &self,
        shard: usize,
        slot: Arc<OnceLock<(u32, u32)>>,
    ) -> Box<dyn Fn(crate::sse::outbox::Signal) + Send + Sync> {
        let queue = Arc::clone(&self.queues[shard]);
        Box::new(move |signal| {
            // Before the shard has taken the connection over there is nothing to tell: it looks for itself then.
            if let Some(&(index, generation)) = slot.get() {
                queue.push(Command::Outbox { connection: wheel::Key { index, generation }, signal });
            }
        })
    }

    /// The tokens that are denied, kept as the broker has them.
    #[must_use]
    pub fn denied(&self) -> &Arc<Denied> {
        &self.denied
    }

    /// Streams open on this replica.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Channels that this replica is subscribed to.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.read_feeds().len()
    }

    /// Subscribers of `channel` on this replica.
    pub async fn subscribers(&self, channel: &Channel) -> usize {
        let answers: Vec<_> = self
            .queues
            .iter()
            .map(|queue| {
                let (answer, answered) = tokio::sync::oneshot::channel();
                queue.push(Command::Count { channel: channel.clone(), answer });
                answered
            })
            .collect();
        let mut subscribers = 0;
        for answered in answers {
            subscribers += answered.await.unwrap_or(0);
        }
        subscribers
    }

    /// Tasks of the runtime that serves everything but the admin port.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }

    /// Shards that have not turned for `long`.
    #[must_use]
    pub fn stuck_shards(&self, long: Duration) -> Vec<usize> {
        let now = self.started.elapsed();
        let stuck = |turned: &AtomicU64| now > Duration::from_millis(turned.load(Ordering::Relaxed)) + long;
        (0..self.turned.len()).filter(|&shard| stuck(&self.turned[shard])).collect()
    }

    fn turned(&self, shard: usize) {
        let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.turned[shard].store(since, Ordering::Relaxed);
    }

    /// Whether the broker can be reached.
    ///
    /// # Errors
    /// When it cannot: since when, and why.
    pub fn reachable(&self) -> Result<(), Away> {
        lock(&self.reachable).clone()
    }

    /// What part of a broker that can be reached cannot, in words.
    #[must_use]
    pub fn away_in_part(&self) -> Option<String> {
        lock(&self.away_in_part).clone()
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Lets no stream in any more.
    pub fn close_doors(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Closes every stream, spread evenly over `window`.
    pub fn drain(&self, window: Duration) {
        self.close_doors();
        let start = Instant::now();
        for (offset, queue) in self.queues.iter().enumerate() {
            queue.push(Command::Drain { start, window, offset, of: self.queues.len() });
        }
    }

    /// Stops shards and tasks, cutting whatever is still open.
    pub fn stop(&self) {
        if let Some(broker) = self.broker.get() {
            broker.stop();
        }
        for queue in &self.queues {
            queue.push(Command::Stop);
        }
        for thread in lock(&self.threads).drain(..) {
            let _ = thread.join();
        }
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
    }

    fn close_here(&self, target: &Target) {
        for queue in &self.queues {
            queue.push(Command::Close(target.clone()));
        }
    }

    /// Forgets the recent events of a channel whose history was deleted. Who is live notices nothing.
    fn forget(&self, channel: &Channel) {
        if let Some(feed) = self.feed(channel.as_str()) {
            self.with_feed(&feed, |feed, _| feed.forget());
        }
        if let Some(replayer) = self.replayer.get() {
            replayer.forget(channel);
        }
        for queue in &self.queues {
            queue.push(Command::Forget(channel.clone()));
        }
    }

    fn read_feeds(&self) -> std::sync::RwLockReadGuard<'_, Feeds> {
        self.feeds.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_feeds(&self) -> std::sync::RwLockWriteGuard<'_, Feeds> {
        self.feeds.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn feed(&self, channel: &str) -> Option<Arc<Mutex<Feed>>> {
        self.read_feeds().get(channel).cloned()
    }

    /// Runs `change` on a feed with what it needs to pass frames on, and wakes the shards that it gave frames to.
    fn with_feed<T>(&self, feed: &Mutex<Feed>, change: impl FnOnce(&mut Feed, &Outlets<'_>) -> T) -> T {
        let changed = self.with_feed_asleep(feed, change);
        self.for_each_asleep(|shard| self.queues[shard].wake());
        changed
    }

    /// The same, leaving shards asleep until a flush.
    fn with_feed_asleep<T>(&self, feed: &Mutex<Feed>, change: impl FnOnce(&mut Feed, &Outlets<'_>) -> T) -> T {
        let overflowed = |shard: usize, channel: &Channel| {
            self.metrics.queue_overflows.inc();
            let mut missed = lock(&self.overflowed[shard]);
            if missed.is_empty() {
                // Behind what is queued, so that the shard asks once it has caught up with that.
                self.queues[shard].push(Command::Resync);
            }
            missed.insert(channel.clone());
        };
        let asleep = |shard: usize| {
            self.asleep.fetch_or(1 << shard, Ordering::AcqRel);
        };
        let tail_bytes = self.tail_bytes();
        let outlets = Outlets { queues: &self.queues, overflowed: &overflowed, asleep: &asleep, tail_bytes };
        change(&mut lock(feed), &outlets)
    }

    /// Memory for recent frames that each channel may take: as configured, or its share of the total if many have some.
    fn tail_bytes(&self) -> usize {
        self.config.hub.tail_bytes.get().min(self.keeping.share(self.config.hub.tail_total_bytes.get()))
    }

    fn for_each_asleep(&self, see_to: impl Fn(usize)) {
        if self.asleep.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut left = self.asleep.swap(0, Ordering::AcqRel);
        while left != 0 {
            see_to(left.trailing_zeros() as usize);
            left &= left - 1;
        }
    }

    /// Does what a shard has to do if it is little, and else wakes it. Not under any lock of the hub.
    fn see_to_few(&self, shard: usize) {
        let done = self.shards[shard].get().and_then(Weak::upgrade).is_some_and(|shard| shard::do_few(&shard));
        if !done {
            self.queues[shard].wake();
        }
    }

    async fn flush_whenever_asked(self: Arc<Self>) {
        loop {
            self.flushing.notified().await;
            self.flush();
        }
    }

    /// A shard has its first subscriber of `channel`; answered by [`Command::Attached`].
    fn attach(&self, shard: usize, channel: &Channel) {
        // All of it under the map's lock, so that the feed cannot be tidied away in between, and the broker hears of
        // subscriptions in the order in which they came and went.
        let mut feeds = self.write_feeds();
        let feed = self.feed_in(&mut feeds, channel);
        self.with_feed(feed, |feed, outlets| feed.attach(shard, outlets));
    }

    /// The feed of a channel, made and subscribed to if there is none.
    fn feed_in<'a>(&self, feeds: &'a mut Feeds, channel: &Channel) -> &'a Arc<Mutex<Feed>> {
        feeds.entry(channel.clone()).or_insert_with(|| {
            self.metrics.channels_active.inc();
            let _ = self.subscriptions.send((channel.clone(), true));
            let chains = self.compressors.as_ref().map(|pool| Arc::new(Chains::new(Arc::clone(pool))));
            Arc::new(Mutex::new(Feed::new(channel.clone(), chains, self.keeping.clone())))
        })
    }

    /// A shard has no subscriber of `channel` any more.
    fn detach(&self, shard: usize, channel: &Channel) {
        if let Some(feed) = self.feed(channel.as_str()) {
            self.with_feed(&feed, |feed, _| feed.detach(shard));
        }
    }

    /// A shard has worked off a queue that had turned frames away: tells it anew where those channels stand.
    fn resync(&self, shard: usize) {
        // Out of the lock first: a feed that overflows takes the two locks the other way round.
        let channels = std::mem::take(&mut *lock(&self.overflowed[shard]));
        for channel in channels {
            if let Some(feed) = self.feed(channel.as_str()) {
                self.with_feed(&feed, |feed, outlets| feed.resync(shard, outlets));
            }
        }
    }

    /// Up to `most` entries of a channel's history after a position.
    pub(crate) async fn history(&self, channel: &Channel, after: Position, most: usize) -> Result<Answer, NoAnswer> {
        match self.replayer() {
            Some(replayer) => replayer.history(channel, after, most).await,
            None => Err(NoAnswer::Unavailable(Unavailable("there is no broker yet".to_owned()))),
        }
    }

    fn replayer(&self) -> Option<&Arc<Replayer>> {
        self.replayer.get()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
