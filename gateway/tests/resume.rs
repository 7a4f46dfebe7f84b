//! Exact resume with a broker that does everything a broker may do: it cuts subscriptions, loses announcements, is slow
//! to answer, and fails. The hub, its shards and its threads are the real ones; only the sockets are not there.
//!
//! Every run has a seed, printed when it fails; the threads' timing is not part of it.

use bytes::Bytes;
use http_body_util::BodyExt;
use sluice_gateway::{
    broker::{
        Accepted, BoxFuture, Broker, Ends, Publish, Rules, Since, Sink, Top, Unavailable, announcement::Announced,
        log::Page, memory::MemoryBroker,
    },
    channel::Channel,
    config::{ByteSize, Config},
    event::Event,
    hub::{
        Hub,
        connection::{Greeting, Heartbeat, Open, Outlet, Start},
    },
    metrics::Metrics,
    position::Position,
    sse::{
        cursor::{Cursor, CursorWriter, Found},
        frame::Format,
        outbox::{OutboxBody, outbox},
    },
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, OnceLock, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Between the real broker and the hub: loses announcements while the link is cut, and now and then without a cut.
struct Relay {
    hub: Arc<Hub>,
    cut: AtomicBool,
    calm: AtomicBool,
}

impl Sink for Relay {
    fn subscribed(&self, channel: &Channel) {
        if !self.cut.load(Ordering::SeqCst) {
            self.hub.subscribed(channel);
        }
    }

    fn announced(&self, channel: &str, announced: Announced) {
        let lost = self.cut.load(Ordering::SeqCst) || (!self.calm.load(Ordering::SeqCst) && fastrand::u32(..50) == 0);
        if !lost {
            self.hub.announced(channel, announced.clone());
            if fastrand::u32(..50) == 0 {
                self.hub.announced(channel, announced);
            }
        }
    }

    fn cut(&self) {}

    fn control(&self, message: Bytes) {
        self.hub.control(message);
    }

    fn reachable(&self, state: Result<(), String>) {
        Sink::reachable(&*self.hub, state);
    }
}

struct Flaky {
    inner: RwLock<Arc<MemoryBroker>>,
    rules: Rules,
    relay: Arc<Relay>,
    subscribed: Mutex<Vec<Channel>>,
}

impl Flaky {
    fn inner(&self) -> Arc<MemoryBroker> {
        Arc::clone(&self.inner.read().expect("not poisoned"))
    }

    /// Loses all history, as a Redis that is restarted without persistence.
    async fn wipe(&self) {
        self.relay.cut.store(true, Ordering::SeqCst);
        let fresh = MemoryBroker::new(self.rules.clone(), 1 << 30, Arc::clone(&self.relay) as Arc<dyn Sink>);
        for channel in self.subscribed.lock().expect("not poisoned").iter() {
            fresh.subscribe(channel);
        }
        *self.inner.write().expect("not poisoned") = Arc::new(fresh);
        self.cut().await;
    }

    async fn mood(&self) -> Result<(), Unavailable> {
        if self.relay.calm.load(Ordering::SeqCst) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..8))).await;
        if self.relay.cut.load(Ordering::SeqCst) || fastrand::u32(..8) == 0 {
            return Err(Unavailable("a bad moment".to_owned()));
        }
        Ok(())
    }

    /// Loses the link for a moment, as a killed or stopped Redis would.
    async fn cut(&self) {
        self.relay.cut.store(true, Ordering::SeqCst);
        self.relay.hub.cut();
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..120))).await;
        self.relay.cut.store(false, Ordering::SeqCst);
        let channels = self.subscribed.lock().expect("not poisoned").clone();
        for channel in channels {
            self.relay.hub.subscribed(&channel);
        }
    }
}

impl Broker for Flaky {
    fn publish(&self, batch: Vec<Publish>) -> BoxFuture<'_, Vec<Result<Accepted, Unavailable>>> {
        Box::pin(async move { self.inner().publish(batch).await })
    }

    fn subscribe(&self, channel: &Channel) {
        self.subscribed.lock().expect("not poisoned").push(channel.clone());
        self.inner().subscribe(channel);
    }

    fn unsubscribe(&self, channel: &Channel) {
        self.subscribed.lock().expect("not poisoned").retain(|known| known != channel);
        self.inner().unsubscribe(channel);
    }

    fn join(&self, channels: Vec<Channel>) -> BoxFuture<'_, Result<Vec<Top>, Unavailable>> {
        Box::pin(async move {
            self.mood().await?;
            let tops = self.inner().join(channels).await;
            self.mood().await?;
            tops
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
            self.mood().await?;
            // Small pages, so that most replays take several.
            let page = self.inner().read(channel, after, before, count.min(7)).await;
            self.mood().await?;
            page
        })
    }

    fn place<'a>(&'a self, channel: &'a Channel, since: Since) -> BoxFuture<'a, Result<Position, Unavailable>> {
        Box::pin(async move { self.inner().place(channel, since).await })
    }

    fn ends<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Option<Ends>, Unavailable>> {
        Box::pin(async move { self.inner().ends(channel).await })
    }

    fn forget<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async move { self.inner().forget(channel).await })
    }

    fn mark_fork<'a>(&'a self, channel: &'a Channel, common: Position) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async move {
            self.mood().await?;
            self.inner().mark_fork(channel, common).await
        })
    }

    fn control(&self, message: Bytes) -> BoxFuture<'_, Result<usize, Unavailable>> {
        Box::pin(async move { self.inner().control(message).await })
    }

    fn stop(&self) {
        self.inner().stop();
    }
}

/// What one client has been sent, as an application would keep it.
#[derive(Default, Debug)]
struct Seen {
    id: Option<String>,
    /// Per channel, the numbers that came.
    numbers: HashMap<String, Vec<u64>>,
    gaps: Vec<String>,
}

impl Seen {
    /// Takes whole blocks out of `text`.
    fn take(&mut self, text: &mut String) {
        while let Some(end) = text.find("\n\n") {
            let block: String = text.drain(..end + 2).collect();
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let Some(id) = field("id: ") {
                self.id = Some(id);
            }
            let Some(data) = field("data: ") else { continue };
            if field("event: ").is_some_and(|kind| kind == "gap") {
                self.gaps.push(data);
            } else if let Some((channel, number)) = data.split_once(' ') {
                let number = number.parse().expect("a number");
                self.numbers.entry(channel.to_owned()).or_default().push(number);
            }
        }
    }

    /// Where a channel's numbers do not follow each other, and the last one.
    fn breaks(&self, channel: &str) -> String {
        let numbers = self.numbers.get(channel).map(Vec::as_slice).unwrap_or_default();
        let breaks: Vec<_> = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
        format!("from {:?} to {:?} with breaks {breaks:?}", numbers.first(), numbers.last())
    }

    /// Whether the client saw every event of `channel` from its first one to `last`, once and in order.
    fn is_whole(&self, channel: &str, last: u64) -> bool {
        let numbers = self.numbers.get(channel).map(Vec::as_slice).unwrap_or_default();
        numbers.last() == Some(&last) && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1)
    }
}

struct World {
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    broker: Arc<Flaky>,
    channels: Vec<Channel>,
    published: Vec<AtomicU64>,
    connections: AtomicU64,
    /// Everything was published: clients stay until they have it.
    ending: AtomicBool,
}

impl World {
    fn new(shards: usize, queue_events: usize) -> Arc<Self> {
        let mut config = Config::default();
        config.hub.shards = shards;
        config.hub.queue_events = queue_events;
        // So little that most resumes have to read history.
        config.hub.tail_bytes = ByteSize::new(3000);
        config.history.size = 100_000;
        config.redis.linger = Duration::from_millis(50);
        let config = Arc::new(config);
        let metrics = Arc::new(Metrics::new());
        let hub = Hub::start(Arc::clone(&config), Arc::clone(&metrics), "test").expect("a hub");
        let (cut, calm) = (AtomicBool::new(false), AtomicBool::new(false));
        let relay = Arc::new(Relay { hub: Arc::clone(&hub), cut, calm });
        let sink = Arc::clone(&relay) as Arc<dyn Sink>;
        let rules = Rules::new(config);
        let inner = RwLock::new(Arc::new(MemoryBroker::new(rules.clone(), 1 << 30, sink)));
        let broker = Arc::new(Flaky { inner, rules, relay, subscribed: Mutex::default() });
        hub.attach_broker(Arc::clone(&broker) as Arc<dyn Broker>);
        let channels: Vec<_> = (0..6).map(|n| Channel::new(&format!("c{n}")).expect("a name")).collect();
        let published = channels.iter().map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            hub,
            metrics,
            broker,
            channels,
            published,
            connections: AtomicU64::new(0),
            ending: AtomicBool::new(false),
        })
    }

    async fn publish(&self, nth: usize) -> Position {
        let number = self.published[nth].fetch_add(1, Ordering::SeqCst) + 1;
        let data = format!("{} {number}", self.channels[nth]);
        let event = Event::new(None, data.into()).expect("valid");
        let publish = Publish { channel: self.channels[nth].clone(), event, idempotency_key: None };
        let accepted = self.broker.publish(vec![publish]).await.remove(0).expect("accepted");
        accepted.position.expect("a position")
    }

    async fn connect(&self, channels: &[usize], id: Option<&str>) -> Option<OutboxBody> {
        let permit = self.hub.admit().ok()?;
        let cursor = id.map(Cursor::parse);
        let start = |channel: &Channel| match cursor.as_ref().map(|cursor| cursor.find(channel)) {
            Some(Found::At(position)) => Start::After(position),
            Some(Found::Unreadable) => Start::Unreadable,
            Some(Found::New) | None => Start::Live,
        };
        let channels = channels.iter().map(|&nth| (self.channels[nth].clone(), start(&self.channels[nth]))).collect();
        let (ticket, shard) = (Arc::new(OnceLock::new()), self.hub.least_loaded());
        let (writer, body) = outbox(self.hub.outbox_signals(shard, Arc::clone(&ticket)));
        let (started, has_started) = tokio::sync::oneshot::channel();
        let open = Open {
            id: format!("test-{}", self.connections.fetch_add(1, Ordering::SeqCst)).into(),
            subject: None,
            outlet: Outlet::Body { outbox: writer, ticket },
            head: Bytes::new(),
            format: Format::Sse,
            heartbeat: Heartbeat::Comment,
            greeting: Greeting::Plain,
            channels,
            ends: None,
            started: Some(started),
            span: tracing::Span::none(),
            permit,
        };
        self.hub.open(shard, open);
        has_started.await.ok()?;
        Some(body)
    }

    /// A client that comes and goes, and at the end stays until it has everything.
    async fn client(self: Arc<Self>, channels: Vec<usize>) -> Seen {
        let mut seen = Seen::default();
        loop {
            let ending = self.ending.load(Ordering::SeqCst);
            let stay = if ending { Duration::from_secs(20) } else { Duration::from_millis(fastrand::u64(1..150)) };
            let Some(mut body) = self.connect(&channels, seen.id.as_deref()).await else { continue };
            let mut text = String::new();
            let until = tokio::time::Instant::now() + stay;
            while let Ok(Some(Ok(frame))) = tokio::time::timeout_at(until, body.frame()).await {
                text.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("UTF-8"));
                seen.take(&mut text);
                if ending && self.has_all(&seen, &channels) {
                    break;
                }
                if fastrand::u32(..200) == 0 {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
            }
            if ending {
                return seen;
            }
            drop(body);
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..60))).await;
        }
    }

    fn has_all(&self, seen: &Seen, channels: &[usize]) -> bool {
        channels.iter().all(|&nth| {
            let last = seen.numbers.get(self.channels[nth].as_str()).and_then(|numbers| numbers.last());
            last == Some(&self.published[nth].load(Ordering::SeqCst))
        })
    }
}

async fn storm(seed: u64, shards: usize, queue_events: usize) {
    fastrand::seed(seed);
    let world = World::new(shards, queue_events);
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let mine: BTreeSet<_> = (0..fastrand::usize(1..4)).map(|_| fastrand::usize(..6)).collect();
            let mine: Vec<_> = mine.into_iter().collect();
            (mine.clone(), tokio::spawn(Arc::clone(&world).client(mine)))
        })
        .collect();
    let cuts = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(50..400))).await;
                world.broker.cut().await;
            }
        })
    };
    for _ in 0..3000 {
        world.publish(fastrand::usize(..6)).await;
        if fastrand::u32(..3) == 0 {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..4))).await;
        }
    }
    cuts.abort();
    let _ = cuts.await;
    world.broker.relay.calm.store(true, Ordering::SeqCst);
    // In case the last cut was ended by the abort: the link comes back.
    world.broker.cut().await;
    for nth in 0..6 {
        world.publish(nth).await;
    }
    world.ending.store(true, Ordering::SeqCst);
    for (mine, client) in clients {
        let seen = client.await.expect("the client ran");
        assert!(seen.gaps.is_empty(), "seed {seed}: gaps without a loss: {:?}", seen.gaps);
        let all = mine.clone();
        for nth in mine {
            let (channel, last) = (world.channels[nth].as_str(), world.published[nth].load(Ordering::SeqCst));
            assert!(
                seen.is_whole(channel, last),
                "seed {seed}: {channel} of {all:?} up to {last}: {}",
                seen.breaks(channel)
            );
        }
    }
    let hub = Arc::clone(&world.hub);
    tokio::task::spawn_blocking(move || hub.stop()).await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_broker_does_every_client_sees_every_event_once_and_in_order() {
    let seed =
        std::env::var("SLUICE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    for (nth, shards) in [1, 2].into_iter().enumerate() {
        storm(seed.wrapping_add(nth as u64), shards, 65_536).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_shard_queue_is_repaired_without_waiting_for_another_event() {
    let world = World::new(1, 16);
    world.broker.relay.calm.store(true, Ordering::SeqCst);
    let mut bodies = Vec::new();
    for _ in 0..20 {
        bodies.push(world.connect(&[0, 1], None).await.expect("let in"));
    }
    for round in 1..=40 {
        // More at once than the queue takes, and then silence.
        let batch = |nth: usize| {
            let number = world.published[nth].fetch_add(1, Ordering::SeqCst) + 1;
            let event = Event::new(None, format!("{} {number}", world.channels[nth]).into()).expect("valid");
            Publish { channel: world.channels[nth].clone(), event, idempotency_key: None }
        };
        world.broker.publish((0..50).map(|n| batch(n % 2)).collect()).await;
        if round % 8 == 0 {
            let mut seen = Seen::default();
            read_until(&mut bodies.remove(0), &mut seen, |seen| {
                seen.is_whole("c0", round * 25) && seen.is_whole("c1", round * 25)
            })
            .await;
            assert!(seen.gaps.is_empty());
        }
    }
    assert!(world.metrics.queue_overflows.get() > 0, "the queue was never full");
}

/// Runs until `done`, or fails.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_history_is_one_gap_for_each_who_had_seen_it_and_nothing_is_missed_afterwards() {
    let world = World::new(2, 65_536);
    world.broker.relay.calm.store(true, Ordering::SeqCst);
    let mut staying = world.connect(&[0, 1], None).await.expect("let in");
    let mut leaving = world.connect(&[0], None).await.expect("let in");
    for _ in 0..30 {
        world.publish(0).await;
        world.publish(1).await;
    }
    let (mut stayed, mut left) = (Seen::default(), Seen::default());
    read_until(&mut staying, &mut stayed, |seen| seen.is_whole("c0", 30) && seen.is_whole("c1", 30)).await;
    read_until(&mut leaving, &mut left, |seen| seen.is_whole("c0", 30)).await;
    drop(leaving);

    world.broker.wipe().await;
    for _ in 0..20 {
        world.publish(0).await;
    }
    read_until(&mut staying, &mut stayed, |seen| seen.gaps.len() == 2 && seen.is_whole("c0", 50)).await;
    // Who was away during the loss, and reads what was published since.
    let mut back = world.connect(&[0], left.id.as_deref()).await.expect("let in");
    read_until(&mut back, &mut left, |seen| seen.is_whole("c0", 50) && !seen.gaps.is_empty()).await;
    // And who never saw the lost history hears of no loss beyond the mark that it crosses live.
    let mut fresh = world.connect(&[0], None).await.expect("let in");
    for _ in 0..10 {
        world.publish(0).await;
    }
    let mut new = Seen::default();
    read_until(&mut fresh, &mut new, |seen| seen.is_whole("c0", 60)).await;
    read_until(&mut staying, &mut stayed, |seen| seen.is_whole("c0", 60)).await;
    read_until(&mut back, &mut left, |seen| seen.is_whole("c0", 60)).await;
    assert_eq!((stayed.gaps.len(), left.gaps.len(), new.gaps.len()), (2, 1, 0), "{stayed:?} {left:?} {new:?}");
    assert!(left.gaps[0].contains("\"reset\"") && left.gaps[0].contains("\"c0\""), "{:?}", left.gaps);

    // A resume right after the gap does not tell of it again.
    let mut again = world.connect(&[0], left.id.as_deref()).await.expect("let in");
    world.publish(0).await;
    read_until(&mut again, &mut left, |seen| seen.is_whole("c0", 61)).await;
    assert_eq!(left.gaps.len(), 1);
    until("all connections are counted out", || world.hub.connections() == 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_ahead_of_its_replica_gets_nothing_up_to_where_it_stands_and_no_gap() {
    let world = World::new(1, 65_536);
    world.broker.relay.calm.store(true, Ordering::SeqCst);
    let mut live = world.connect(&[0], None).await.expect("let in");
    for _ in 0..5 {
        world.publish(0).await;
    }
    let mut behind = Seen::default();
    read_until(&mut live, &mut behind, |seen| seen.is_whole("c0", 5)).await;

    // This replica hears nothing of 6 to 10; the client got up to 8 from another one.
    world.broker.relay.cut.store(true, Ordering::SeqCst);
    let mut places = Vec::new();
    for _ in 6..=10 {
        places.push(world.publish(0).await);
    }
    let mut cursor = CursorWriter::default();
    cursor.add(&world.channels[0], places[2], false);
    let mut ahead = world.connect(&[0], cursor.finish().as_deref()).await.expect("let in");
    let mut seen = Seen::default();
    read_until(&mut ahead, &mut seen, |seen| seen.is_whole("c0", 10)).await;
    // Then it catches up, and passes on what the client has had.
    world.broker.cut().await;
    world.publish(0).await;
    read_until(&mut ahead, &mut seen, |seen| seen.is_whole("c0", 11)).await;
    read_until(&mut live, &mut behind, |seen| seen.is_whole("c0", 11)).await;
    assert_eq!((seen.numbers["c0"].as_slice(), seen.gaps.len()), (&[9, 10, 11][..], 0));
    assert_eq!(behind.gaps.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_cursors_hold_nobody_up() {
    let world = World::new(1, 65_536);
    world.broker.relay.calm.store(true, Ordering::SeqCst);
    let mut first = world.connect(&[0], None).await.expect("let in");
    let mut seen = Seen::default();
    read_until(&mut first, &mut seen, |seen| seen.id.is_some()).await;
    drop(first);
    for _ in 0..300 {
        world.publish(0).await;
    }
    let mut made_up = Vec::new();
    for n in 1..=30 {
        let mut cursor = CursorWriter::default();
        cursor.add(&world.channels[0], Position::new(1_000_000 + n, 100 + n), false);
        made_up.push(world.connect(&[0], cursor.finish().as_deref()).await.expect("let in"));
    }
    // Someone with a real cursor, far back, has everything while the others are still in doubt.
    let begun = tokio::time::Instant::now();
    let mut real = world.connect(&[0], seen.id.as_deref()).await.expect("let in");
    read_until(&mut real, &mut seen, |seen| seen.is_whole("c0", 300)).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "held up for {:?}", begun.elapsed());
    // And those are told together, each once.
    for mut body in made_up {
        let mut seen = Seen::default();
        read_until(&mut body, &mut seen, |seen| !seen.gaps.is_empty()).await;
        assert_eq!(seen.gaps.len(), 1);
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "one after the other: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_forgotten_is_not_replayed_from_memory() {
    let world = World::new(1, 65_536);
    world.broker.relay.calm.store(true, Ordering::SeqCst);
    let mut live = world.connect(&[0], None).await.expect("let in");
    let mut seen = Seen::default();
    let early = world.publish(0).await;
    for _ in 0..4 {
        world.publish(0).await;
    }
    read_until(&mut live, &mut seen, |seen| seen.is_whole("c0", 5)).await;
    world.broker.forget(&world.channels[0]).await.expect("forgotten");
    world.hub.cluster().forget(&world.hub, &world.channels[0]).await.expect("told to all");

    let mut cursor = CursorWriter::default();
    cursor.add(&world.channels[0], early, false);
    let mut back = world.connect(&[0], cursor.finish().as_deref()).await.expect("let in");
    world.publish(0).await;
    let mut again = Seen::default();
    read_until(&mut back, &mut again, |seen| seen.numbers.contains_key("c0")).await;
    assert_eq!((again.numbers["c0"].as_slice(), again.gaps.len()), (&[6][..], 1), "{again:?}");
    // Who had seen everything notices nothing.
    read_until(&mut live, &mut seen, |seen| seen.is_whole("c0", 6)).await;
    assert_eq!(seen.gaps.len(), 0);
}

async fn read_until(body: &mut OutboxBody, seen: &mut Seen, done: impl Fn(&Seen) -> bool) {
    let mut text = String::new();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !done(seen) {
        let frame = tokio::time::timeout_at(deadline, body.frame()).await;
        let Ok(Some(Ok(frame))) = frame else { panic!("not seen in time: {seen:?}") };
        text.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("UTF-8"));
        seen.take(&mut text);
    }
}

#[test]
fn the_checker_sees_what_is_lost_doubled_or_out_of_order() {
    let seen =
        |numbers: &[u64]| Seen { numbers: HashMap::from([("c0".to_owned(), numbers.to_vec())]), ..Seen::default() };
    assert!(seen(&[3, 4, 5]).is_whole("c0", 5));
    for broken in [&[3, 5][..], &[3, 4, 4, 5], &[4, 3, 5], &[3, 4], &[]] {
        assert!(!seen(broken).is_whole("c0", 5), "{broken:?}");
    }
}
