//! A hub with the embedded broker and one shard, and many subscribers that have no sockets: the shard writes to their
//! outboxes. For tests, and for measuring what a delivery costs beside the kernel's part.

use bytes::Bytes;
use hyper::body::Body;
use sluice_gateway::{
    broker::{Broker, Publish, Rules, Sink, memory::MemoryBroker},
    channel::Channel,
    config::Config,
    event::Event,
    hub::{
        Guest, Hub,
        connection::{Greeting, Heartbeat, Open, Outlet, Start},
    },
    metrics::Metrics,
    sse::{
        compress::Wire,
        frame::Format,
        outbox::{OutboxBody, outbox},
    },
};
use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
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
        let hub = Hub::start(Arc::clone(&config), Arc::new(Metrics::new()), "crowd").expect("a hub");
        let rules = Rules::new(Arc::clone(&config));
        let sink = Arc::clone(&hub) as Arc<dyn Sink>;
        let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(rules, config.memory.max_bytes.get(), sink));
        hub.attach_broker(Arc::clone(&broker));
        Self { hub, broker }
    }

    /// A subscriber of this channel, once it is one.
    pub(crate) async fn subscribe(&self, channel: &str) -> OutboxBody {
        let ticket = Arc::new(OnceLock::new());
        let (outbox, mut body) = outbox(self.hub.outbox_signals(0, Arc::clone(&ticket)));
        let (started, has_started) = tokio::sync::oneshot::channel();
        let guest = Guest { address: std::net::Ipv4Addr::LOCALHOST.into(), subject: None };
        let permit = self.hub.admit(guest, std::iter::empty()).expect("room");
        self.hub.open(
            0,
            Open {
                id: "crowd".into(),
                subject: None,
                token_id: None,
                outlet: Outlet::Body { outbox, ticket },
                head: Bytes::new(),
                wire: Wire::from(Format::Sse),
                heartbeat: Heartbeat::Comment,
                greeting: Greeting::Plain,
                channels: vec![(Channel::new(channel).expect("a name"), Start::Live)],
                ends: None,
                expires: None,
                started: Some(started),
                span: tracing::Span::none(),
                permit,
            },
        );
        has_started.await.expect("it is let in");
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
