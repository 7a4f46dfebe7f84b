//! The masters behind a URL, for programs that go straight to Redis: one, the one that sentinels name, or a cluster's.

use super::{
    facts::Facts,
    node::name,
    target::{Address, InvalidTarget, Target, TlsFiles, Topology},
    topology::{self, Layout, slot},
};
use redis::{AsyncConnectionConfig, Client, RedisResult, aio::MultiplexedConnection};
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// How long one command may take, of which some read much.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where Redis is, before it was asked for its masters.
#[derive(Clone, Debug)]
pub struct Place(Target);

/// The masters, and which channel is at which.
#[derive(Debug)]
pub struct Masters {
    target: Target,
    layout: Layout,
}

impl Place {
    /// Reads a URL, as the setting `redis.url` has it.
    ///
    /// # Errors
    /// When it cannot be understood, or the files of TLS are of no use.
    pub fn new(url: &str, files: &TlsFiles) -> Result<Self, InvalidTarget> {
        Target::parse(url)?.with_tls(files).map(Self)
    }

    /// Asks which masters there are, for at most this long.
    ///
    /// # Errors
    /// Why nobody says it, in words.
    pub async fn masters(&self, within: Duration) -> Result<Masters, String> {
        let mut target = self.0.clone();
        if matches!(target.topology, Topology::One) {
            let mut connection = connect(&target, None, within).await.map_err(|error| error.to_string())?;
            // Any server of a cluster stands for all of it.
            let is_cluster = Facts::ask(&mut connection).await.is_ok_and(|facts| facts.cluster);
            if let (true, Some(seed)) = (is_cluster, target.address()) {
                target.topology = Topology::Cluster { seeds: vec![seed] };
            }
        }
        let refresh = Arc::new(Notify::new());
        let mut known = topology::watch(&target, within, refresh);
        // In vain or not, what is known by then says it.
        let _ = tokio::time::timeout(within, known.wait_for(Result::is_ok)).await.is_ok();
        let layout = known.borrow().clone()?;
        Ok(Masters { target, layout })
    }
}

impl Masters {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.layout.masters.len()
    }

    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.layout.cluster
    }

    /// The name of a master: its address; that of the only one as it is configured.
    #[must_use]
    pub fn name(&self, nth: usize) -> String {
        match self.layout.masters.get(nth).and_then(|master| master.address.as_ref()) {
            Some(address) => name(Some(address)),
            None => self.target.server(None).addr().to_string(),
        }
    }

    /// The master that has the slot of a pub/sub channel or key; the only one has all.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<usize> {
        let slot = slot(name.as_bytes());
        let has = |master: &topology::Master| master.slots.iter().any(|range| range.contains(&slot));
        self.layout.masters.iter().position(has)
    }

    /// Connects to a master.
    ///
    /// # Errors
    /// When it does not answer, or lets nobody in.
    pub async fn connect(&self, nth: usize, within: Duration) -> RedisResult<MultiplexedConnection> {
        let address = self.layout.masters.get(nth).and_then(|master| master.address.as_ref());
        connect(&self.target, address, within).await
    }
}

async fn connect(target: &Target, at: Option<&Address>, within: Duration) -> RedisResult<MultiplexedConnection> {
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(within)).set_response_timeout(Some(ANSWER_TIMEOUT));
    Client::open(target.server(at))?.get_multiplexed_async_connection_with_config(&config).await
}
