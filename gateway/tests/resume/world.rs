//! A hub on a broker that misbehaves, clients of it, and what each of them has seen.

use crate::{
    flaky::{Flaky, Relay},
    open::open,
    reader::Reader,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use sluice_gateway::{
    broker::{Broker, Publish, Rules, Sink, memory::MemoryBroker},
    channel::Channel,
    config::{ByteSize, Config},
    event::Event,
    hub::{Hub, connection::Start},
    metrics::Metrics,
    position::Position,
    sse::{
        compress::{Encoding, Wire},
        cursor::{Cursor, Found},
        frame::Format,
        outbox::OutboxBody,
    },
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// One open stream, in an encoding that is left to chance.
pub(crate) struct Stream {
    pub(crate) body: OutboxBody,
    reader: Reader,
}

impl Stream {
    /// The text of what comes next, whole blocks always; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        let frame = self.body.frame().await?.expect("no error");
        Some(String::from_utf8(self.reader.read(frame.data_ref().expect("data"))).expect("UTF-8"))
    }
}

/// What one client has been sent, as an application would keep it.
#[derive(Default, Debug)]
pub(crate) struct Seen {
    pub(crate) id: Option<String>,
    /// Per channel, the numbers that came.
    pub(crate) numbers: HashMap<String, Vec<u64>>,
    pub(crate) gaps: Vec<String>,
}

impl Seen {
    /// Takes whole blocks out of `text`.
    pub(crate) fn take(&mut self, text: &mut String) {
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
    pub(crate) fn breaks(&self, channel: &str) -> String {
        let numbers = self.numbers.get(channel).map(Vec::as_slice).unwrap_or_default();
        let breaks: Vec<_> = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
        format!("from {:?} to {:?} with breaks {breaks:?}", numbers.first(), numbers.last())
    }

    /// Whether the client saw every event of `channel` from its first one to `last`, once and in order.
    pub(crate) fn is_whole(&self, channel: &str, last: u64) -> bool {
        let numbers = self.numbers.get(channel).map(Vec::as_slice).unwrap_or_default();
        numbers.last() == Some(&last) && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1)
    }
}

pub(crate) struct World {
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) broker: Arc<Flaky>,
    pub(crate) channels: Vec<Channel>,
    pub(crate) published: Vec<AtomicU64>,
    pub(crate) connections: AtomicU64,
    /// Everything was published: clients stay until they have it.
    pub(crate) ending: AtomicBool,
}

impl World {
    pub(crate) fn new(shards: usize, queue_events: usize) -> Arc<Self> {
        let mut config = Config::default();
        config.hub.shards = shards;
        config.hub.queue_events = queue_events;
        // So little that most resumes have to read history.
        config.hub.tail_bytes = ByteSize::new(3000);
        config.history.size = 100_000;
        config.redis.linger = Duration::from_millis(50);
        // A heartbeat takes a compressed stream out of step with the others.
        config.stream.heartbeat = Duration::from_millis(100);
        let config = Arc::new(config);
        let metrics = Arc::new(Metrics::new());
        let hub = Hub::start(Arc::clone(&config), Arc::clone(&metrics), Arc::default(), "test").expect("a hub");
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

    pub(crate) async fn publish(&self, nth: usize) -> Position {
        let number = self.published[nth].fetch_add(1, Ordering::SeqCst) + 1;
        let data = format!("{} {number}", self.channels[nth]);
        let event = Event::new(None, data.into()).expect("valid");
        let publish = Publish { channel: self.channels[nth].clone(), event, idempotency_key: None };
        let accepted = self.broker.publish(vec![publish]).await.remove(0).expect("accepted");
        accepted.position.expect("a position")
    }

    pub(crate) async fn connect(&self, channels: &[usize], id: Option<&str>) -> Option<Stream> {
        let encoding = [Encoding::Identity, Encoding::Gzip, Encoding::Zstd][fastrand::usize(..3)];
        let cursor = id.map(Cursor::parse);
        let start = |channel: &Channel| match cursor.as_ref().map(|cursor| cursor.find(channel)) {
            Some(Found::At(position)) => Start::After(position),
            Some(Found::Unreadable) => Start::Unreadable,
            Some(Found::New) | None => Start::Live,
        };
        let channels = channels.iter().map(|&nth| (self.channels[nth].clone(), start(&self.channels[nth]))).collect();
        let id = format!("test-{}", self.connections.fetch_add(1, Ordering::SeqCst));
        let wire = Wire::new(Format::Sse, encoding);
        let body = open(&self.hub, self.hub.least_loaded(), &id, (Bytes::new(), wire), channels).await?;
        Some(Stream { body, reader: Reader::new(encoding.as_str()) })
    }

    /// A client that comes and goes, and at the end stays until it has everything.
    pub(crate) async fn client(self: Arc<Self>, channels: Vec<usize>) -> Seen {
        let mut seen = Seen::default();
        loop {
            let ending = self.ending.load(Ordering::SeqCst);
            let stay = if ending { Duration::from_secs(20) } else { Duration::from_millis(fastrand::u64(1..150)) };
            let Some(mut body) = self.connect(&channels, seen.id.as_deref()).await else { continue };
            let mut text = String::new();
            let until = tokio::time::Instant::now() + stay;
            while let Ok(Some(more)) = tokio::time::timeout_at(until, body.next()).await {
                text.push_str(&more);
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

    pub(crate) fn has_all(&self, seen: &Seen, channels: &[usize]) -> bool {
        channels.iter().all(|&nth| {
            let last = seen.numbers.get(self.channels[nth].as_str()).and_then(|numbers| numbers.last());
            last == Some(&self.published[nth].load(Ordering::SeqCst))
        })
    }
}

pub(crate) async fn read_until(body: &mut Stream, seen: &mut Seen, done: impl Fn(&Seen) -> bool) {
    let mut text = String::new();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !done(seen) {
        let more = tokio::time::timeout_at(deadline, body.next()).await;
        let Ok(Some(more)) = more else { panic!("not seen in time: {seen:?}") };
        text.push_str(&more);
        seen.take(&mut text);
    }
}
