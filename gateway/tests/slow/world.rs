//! A hub with the embedded broker and one shard, whose clients may have little waiting for them.

use crate::open::open;
use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::Frame;
use serde_json::Value;
use sluice_gateway::{
    broker::{Broker, Publish, Rules, Sink, memory::MemoryBroker},
    channel::{Channel, Pattern},
    config::{ByteSize, ChannelRule, Config, RuleHistory, SlowPolicy},
    event::Event,
    hub::{Hub, connection::Start},
    metrics::Metrics,
    sse::{
        compress::Wire,
        frame::Format,
        outbox::{HIGH_WATER, OutboxBody},
    },
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Far longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const OUTBOX_BYTES: usize = 8 * 1024;

/// One line of a client's stream.
pub(crate) struct Line {
    pub(crate) channel: String,
    pub(crate) is_gap: bool,
    number: Option<usize>,
}

pub(crate) struct World {
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
    broker: Arc<dyn Broker>,
    /// How many events each channel has had.
    published: Mutex<HashMap<String, usize>>,
}

impl World {
    /// With a queue to the shard of so many events.
    pub(crate) fn new(queue_events: usize) -> Self {
        let mut config = Config::default();
        config.hub.shards = 1;
        config.hub.queue_events = queue_events;
        config.hub.tail_bytes = ByteSize::new(2048);
        config.outbox.max_bytes = ByteSize::new(OUTBOX_BYTES);
        let rule = |name, history, slow| ChannelRule {
            match_: Pattern::new(name).expect("a pattern"),
            history,
            slow,
            ..ChannelRule::default()
        };
        config.channel = vec![
            rule("oldest", None, Some(SlowPolicy::DropOldest)),
            rule("latest", None, Some(SlowPolicy::Latest)),
            rule("live.*", Some(RuleHistory::Off), None),
        ];
        let (config, metrics) = (Arc::new(config), Arc::new(Metrics::new()));
        let hub = Hub::start(Arc::clone(&config), Arc::clone(&metrics), Arc::default(), "slow").expect("a hub");
        let sink = Arc::clone(&hub) as Arc<dyn Sink>;
        let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Rules::new(config), 1 << 30, sink));
        hub.attach_broker(Arc::clone(&broker));
        Self { hub, metrics, broker, published: Mutex::default() }
    }

    /// A client of these channels, with NDJSON, whose lines name them.
    pub(crate) async fn subscribe(&self, channels: &[&str]) -> OutboxBody {
        let start = |name: &&str| (Channel::new(name).expect("a name"), Start::Live);
        let head = (Bytes::from_static(b"{}\n"), Wire::from(Format::Ndjson));
        let body = open(&self.hub, 0, "slow", head, channels.iter().map(start).collect()).await;
        let mut body = body.expect("it is let in");
        // The first bytes: from here on everything is live.
        body.frame().await.expect("bytes").expect("no error");
        body
    }

    /// Publishes the next event of each of these channels, in one go, its number filled up to `bytes`.
    pub(crate) async fn publish(&self, channels: &[&str], bytes: usize) {
        let publish = |name: &&str| {
            let mut published = self.published.lock().expect("not poisoned");
            let number = published.entry((*name).to_owned()).or_default();
            *number += 1;
            let event = Event::new(None, format!("{number:>bytes$}").into()).expect("valid");
            Publish { channel: Channel::new(name).expect("a name"), event, idempotency_key: None }
        };
        let batch = channels.iter().map(publish).collect();
        let answers = self.broker.publish(batch).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }

    /// Fills the way to those who do not read, so that whatever comes next waits for them.
    pub(crate) async fn stall(&self, channel: &str) {
        for bytes in [HIGH_WATER, 1] {
            self.publish(&[channel], bytes).await;
            self.settle().await;
        }
    }

    /// Waits until the shard has been through with all that was published.
    pub(crate) async fn settle(&self) {
        // It answers in the turn that takes the question, and writes at that turn's end.
        for _ in 0..2 {
            self.hub.subscribers(&Channel::new("keep").expect("a name")).await;
        }
    }

    /// All lines until the stream ends or the shard has nothing more for it.
    pub(crate) async fn read_all(&self, body: &mut OutboxBody) -> Vec<Line> {
        let mut text = String::new();
        loop {
            let frame = match body.frame().now_or_never() {
                Some(frame) => frame,
                None => {
                    self.settle().await;
                    let Some(frame) = body.frame().now_or_never() else { break };
                    frame
                }
            };
            let Some(frame) = frame else { break };
            text.push_str(&text_of(frame));
        }
        lines(&text)
    }

    /// All lines up to the last event of `channel`, which may have to be read from history first.
    pub(crate) async fn read_to_last(&self, body: &mut OutboxBody, channel: &str) -> Vec<Line> {
        let last = self.published.lock().expect("not poisoned").get(channel).copied();
        let is_last = |line: &Line| line.channel == channel && line.number == last;
        let mut text = String::new();
        loop {
            let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("it comes");
            text.push_str(&text_of(frame.expect("not the end")));
            if text.ends_with('\n') && lines(&text).iter().any(is_last) {
                return lines(&text);
            }
        }
    }

    /// Streams ended because more waited than may.
    pub(crate) fn ended_slow(&self) -> u64 {
        self.metrics.disconnects.with_label_values(&["slow"]).get()
    }
}

fn text_of(frame: Result<Frame<Bytes>, std::convert::Infallible>) -> String {
    let Ok(frame) = frame;
    String::from_utf8(frame.into_data().expect("data").into()).expect("UTF-8")
}

fn lines(text: &str) -> Vec<Line> {
    assert!(text.ends_with('\n'), "half a line at the end: {:?}", &text[text.len().saturating_sub(80)..]);
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a whole line");
        let is_gap = line["event"] == "gap";
        let number = line["data"].as_str().and_then(|data| data.trim().parse().ok());
        Line { channel: line["channel"].as_str().unwrap_or_default().to_owned(), is_gap, number }
    };
    text.lines().map(line).collect()
}

/// The numbers of a channel that a client was not sent.
pub(crate) fn missing(lines: &[Line], channel: &str, world: &World) -> Vec<usize> {
    let came: Vec<_> = lines.iter().filter(|line| line.channel == channel).filter_map(|line| line.number).collect();
    let last = world.published.lock().expect("not poisoned").get(channel).copied().unwrap_or_default();
    (1..=last).filter(|number| !came.contains(number)).collect()
}
