//! A hub with the embedded broker and one shard, and many subscribers that have no sockets: the shard writes to their
//! outboxes. For tests, and for measuring what a delivery costs beside the kernel's part.

#[path = "open.rs"]
mod open;

use bytes::Bytes;
use hyper::body::Body;
use open::open;
use sluice_gateway::{
    broker::{Broker, Publish, Rules, Sink, memory::MemoryBroker},
    channel::Channel,
    config::Config,
    event::Event,
    hub::{Hub, connection::Start},
    metrics::Metrics,
    sse::{compress::Wire, frame::Format, outbox::OutboxBody},
};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

pub(crate) struct Crowd {
    pub(crate) hub: Arc<Hub>,
    broker: Arc<dyn Broker>,
}

impl Crowd {
    /// Needs a tokio runtime.
    pub(crate) fn new() -> Self {
        let mut config = Config::default();
        config.hub.shards = 1;
        let config = Arc::new(config);
        let hub = Hub::start(Arc::clone(&config), Arc::new(Metrics::new()), Arc::default(), "crowd").expect("a hub");
        let rules = Rules::new(Arc::clone(&config));
        let sink = Arc::clone(&hub) as Arc<dyn Sink>;
        let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(rules, config.memory.max_bytes.get(), sink));
        hub.attach_broker(Arc::clone(&broker));
        Self { hub, broker }
    }

    /// A subscriber of this channel, once it is one.
    pub(crate) async fn subscribe(&self, channel: &str) -> OutboxBody {
        let channels = vec![(Channel::new(channel).expect("a name"), Start::Live)];
        let body = open(&self.hub, 0, "crowd", (Bytes::new(), Wire::from(Format::Sse)), channels).await;
        let mut body = body.expect("it is let in");
        // The greeting.
        std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        body
    }

    /// Publishes one event to each of these channels, in one go.
    pub(crate) async fn publish(&self, channels: &[&str], data: &'static [u8]) {
        let publish = |channel: &&str| Publish {
            channel: Channel::new(channel).expect("a name"),
            event: Event::new(None, Bytes::from_static(data)).expect("an event"),
            idempotency_key: None,
        };
        let answers = self.broker.publish(channels.iter().map(publish).collect()).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }
}

/// What is there for a subscriber now.
pub(crate) fn take(body: &mut OutboxBody, context: &mut Context<'_>) -> Option<Bytes> {
    match Pin::new(body).poll_frame(context) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
        _ => None,
    }
}
