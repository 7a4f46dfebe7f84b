//! A broker with who listens to it, and what is asked of both kinds.

use crate::{ear::Ear, server::Server};
use bytes::Bytes;
use sluice_gateway::{
    broker::{
        Broker, Publish, Rules, Sink,
        memory::MemoryBroker,
        redis::{RedisBroker, target::Target},
    },
    channel::Channel,
    config::{Config, Sources},
    event::Event,
    metrics::Metrics,
    position::Position,
};
use std::sync::Arc;

pub(crate) struct Stage {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) ear: Arc<Ear>,
    server: Option<Server>,
}

pub(crate) fn config() -> Arc<Config> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = "[[channel]]\nmatch = \"five.*\"\nhistory = { size = 5 }\n\
                [[channel]]\nmatch = \"brief.*\"\nhistory = { age = \"1s\" }\n\
                [[channel]]\nmatch = \"off.*\"\nhistory = \"off\"\n";
    std::fs::write(file.path(), text).expect("written");
    let sources = Sources { file: Some(file.path().to_owned()), env: Vec::new(), flags: Vec::new() };
    Arc::new(Config::load(&sources).expect("valid").config)
}

pub(crate) async fn embedded() -> Stage {
    let ear = Arc::new(Ear::default());
    let broker = MemoryBroker::new(Rules::new(config()), 1 << 30, Arc::clone(&ear) as Arc<dyn Sink>);
    Stage { broker: Arc::new(broker), ear, server: None }
}

pub(crate) async fn on_redis() -> Stage {
    let server = Server::start().await;
    let ear = Arc::new(Ear::default());
    let config = config();
    let (sink, metrics) = (Arc::clone(&ear) as Arc<dyn Sink>, Arc::new(Metrics::new()));
    let broker = RedisBroker::start(
        &config.redis,
        Target::parse(&server.url()).expect("an address"),
        Rules::new(Arc::clone(&config)),
        "test",
        1 << 16,
        sink,
        metrics,
    );
    ear.until("the link stands", |heard| heard.reachable.clone()?.ok()).await;
    Stage { broker: Arc::new(broker), ear, server: Some(server) }
}

pub(crate) fn channel(name: &str) -> Channel {
    Channel::new(name).expect("a name")
}

pub(crate) fn publish(name: &str, data: &str, key: Option<&str>) -> Publish {
    let event = Event::new(Some("t"), Bytes::copy_from_slice(data.as_bytes())).expect("valid");
    Publish { channel: channel(name), event, idempotency_key: key.map(str::to_owned) }
}

impl Stage {
    pub(crate) async fn publish(&self, name: &str, data: &str) -> Position {
        let accepted = self.broker.publish(vec![publish(name, data, None)]).await.remove(0).expect("accepted");
        accepted.position.expect("a position")
    }

    pub(crate) async fn subscribe(&self, name: &str) -> Option<Position> {
        self.broker.subscribe(&channel(name));
        self.ear.until("subscribed", |heard| heard.subscribed.contains(&channel(name)).then_some(())).await;
        self.broker.join(vec![channel(name)]).await.expect("joined").remove(0).expect("answered")
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("it is on Redis")
    }
}

/// Tests that both brokers have to pass, written once and run with each.
macro_rules! of_both {
    ($(async fn $name:ident($stage:ident) $body:block)*) => {
        $(async fn $name($stage: $crate::stage::Stage) $body)*
        mod embedded_broker {
            $(#[tokio::test] async fn $name() { super::$name($crate::stage::embedded().await).await; })*
        }
        mod redis_broker {
            $(#[tokio::test] async fn $name() { super::$name($crate::stage::on_redis().await).await; })*
        }
    };
}
pub(crate) use of_both;
