//! One master, and everything that this replica has of it: connections for commands, the lane, and the link.

use super::{
    Shared,
    facts::{Announce, Facts},
    lane::Lane,
    link::{self, Want},
    target::Address,
    unavailable,
};
use crate::broker::Unavailable;
use deadpool_redis::{Manager, Pool, PoolError, Runtime};
use redis::{AsyncConnectionConfig, ConnectionInfo, aio::ConnectionLike};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

pub(super) struct Node {
    pub(super) address: Option<Address>,
    pub(super) server: Arc<Server>,
    pub(super) lane: Lane,
    wants: Mutex<Option<mpsc::UnboundedSender<Want>>>,
}

/// What is known of a master, and connections to it.
pub(super) struct Server {
    /// Empty for the only one.
    pub(super) name: String,
    pub(super) info: ConnectionInfo,
    pool: Pool,
    timeout: Duration,
    cluster: bool,
    facts: Mutex<Option<Facts>>,
    /// Since when its replicas have lacked what was read there.
    unconfirmed: Mutex<Option<Instant>>,
}

/// After this long with too few replicas a server is no master that has been replaced without knowing it: whoever asks
/// for the masters every second knows it by then.
const REPLACED_WITHIN: Duration = Duration::from_secs(5);

impl Node {
    /// Starts the link and the lane; neither waits for the server to be there.
    pub(super) fn start(
        shared: &Arc<Shared>,
        address: Option<Address>,
        cluster: bool,
    ) -> Result<Self, redis::RedisError> {
        let info = shared.target.server(address.as_ref());
        let timeout = shared.timeout;
        let server = Arc::new(Server {
            name: name(address.as_ref()),
            pool: pool(info.clone(), shared.pool, timeout)?,
            info,
            timeout,
            cluster,
            facts: Mutex::default(),
            unconfirmed: Mutex::default(),
        });
        let lane = Lane::start(Arc::clone(shared), Arc::clone(&server));
        let (wants, wanted) = mpsc::unbounded_channel();
        tokio::spawn(link::supervise(Arc::clone(shared), Arc::clone(&server), wanted));
        Ok(Self { address, server, lane, wants: Mutex::new(Some(wants)) })
    }

    pub(super) fn want(&self, want: Want) {
        if let Some(wants) = self.wants.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // The supervisor lives as long as this sender.
            let _ = wants.send(want);
        }
    }

    /// Ends the link. What is under way on other connections goes on.
    pub(super) fn leave(&self) {
        self.wants.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Server {
    /// A connection that was just seen to answer, within the timeout however many dead ones are found on the way.
    pub(super) async fn checkout(&self) -> Result<deadpool_redis::Connection, Unavailable> {
        match tokio::time::timeout(self.timeout, self.pool.get()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(PoolError::Backend(error))) => Err(unavailable(&error)),
            Ok(Err(PoolError::Timeout(_))) | Err(_) => {
                Err(Unavailable(format!("redis gave no connection in {:?}", self.timeout)))
            }
            Ok(Err(_)) => Err(Unavailable("the gateway is stopping".to_owned())),
        }
    }

    /// Whether another server may be given its place, by sentinels or a cluster.
    pub(super) fn may_be_replaced(&self) -> bool {
        !self.name.is_empty()
    }

    /// Whether it was found as one of a cluster.
    pub(super) fn is_of_cluster(&self) -> bool {
        self.cluster
    }

    pub(super) fn know(&self, facts: Facts) {
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts);
    }

    /// Whether what was read may be shown, now that it was found whether enough replicas have it.
    pub(super) fn confirms(&self, enough: bool) -> bool {
        let mut since = self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner);
        if enough {
            *since = None;
            return true;
        }
        since.get_or_insert_with(Instant::now).elapsed() > REPLACED_WITHIN
    }

    /// What it was found to be, once it was.
    pub(super) fn facts(&self) -> Option<Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How events are announced there; asked if it is not known yet.
    pub(super) async fn announce(
        &self,
        connection: &mut (impl ConnectionLike + Send),
    ) -> Result<Announce, Unavailable> {
        if !self.cluster {
            return Ok(Announce::Classic);
        }
        let known = self.facts.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Facts::announce);
        if let Some(announce) = known {
            return Ok(announce);
        }
        let facts = Facts::ask(connection).await.map_err(|error| unavailable(&error))?;
        let announce = facts.announce();
        self.know(facts);
        Ok(announce)
    }
}

/// Of a master, in the log, in metrics and in answers.
pub(super) fn name(address: Option<&Address>) -> String {
    address.map(ToString::to_string).unwrap_or_default()
}

fn pool(info: ConnectionInfo, size: usize, timeout: Duration) -> Result<Pool, redis::RedisError> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout));
    let manager = Manager::new_with_config(info, config)?;
    Pool::builder(manager)
        .max_size(size)
        .wait_timeout(Some(timeout))
        .create_timeout(Some(timeout))
        .recycle_timeout(Some(timeout))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|_| (redis::ErrorKind::InvalidClientConfig, "a pool of connections needs a runtime").into())
}
