//! Several gateways, one Redis, and nginx in front, without sticky sessions.

use crate::{
    client::{Client, Request},
    gateway::{Gateway, Options, events_target},
    nginx::Nginx,
    redis::Redis,
};
use futures_util::{StreamExt, stream};

/// Clients that connect at the same time.
const CONNECTING: usize = 32;

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    pub nginx: Nginx,
    pub gateways: Vec<Gateway>,
    pub redis: Redis,
}

impl Cluster {
    /// Starts all of it on this Redis.
    ///
    /// # Panics
    /// When something does not start.
    pub async fn start(redis: Redis, replicas: usize, config: &str) -> Self {
        let options = Options { config: config.to_owned(), redis: Some(redis.url()), ..Options::default() };
        let gateways: Vec<_> = (0..replicas).map(|_| Gateway::spawn(options.clone())).collect();
        for gateway in &gateways {
            gateway.wait_ready(crate::wait::PATIENCE).await;
        }
        let addresses: Vec<_> = gateways.iter().map(|gateway| gateway.address).collect();
        Self { nginx: Nginx::start(&addresses).await, gateways, redis }
    }

    /// Another replica, that nginx does not know.
    pub async fn another(&self, config: &str) -> Gateway {
        let options = Options { config: config.to_owned(), redis: Some(self.redis.url()), ..Options::default() };
        Gateway::start_with(options).await
    }

    /// A request through nginx.
    #[must_use]
    pub fn events(&self, channels: &[&str]) -> Request {
        Request::new(self.nginx.address, &events_target(channels))
    }

    /// This many clients through nginx that reconnect as browsers do.
    pub async fn event_sources(&self, count: usize, channels: &[&str]) -> Vec<Client> {
        connect(count, |_| Client::event_source(self.events(channels))).await
    }
}

/// Connects this many clients, some at a time; answers them in order.
pub async fn connect<F: Future<Output = Client>>(count: usize, client: impl FnMut(usize) -> F) -> Vec<Client> {
    stream::iter((0..count).map(client)).buffered(CONNECTING).collect().await
}
