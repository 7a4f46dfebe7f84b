//! Three replicas behind nginx and before one Redis, with a proxy on every way between two of them.

use super::plan::REPLICAS;
use crate::{
    client::Request,
    follower::Follower,
    gateway::{Gateway, Options, events_target},
    nginx::Nginx,
    proxy::Proxy,
    redis::{Kind, Redis, cluster::RedisCluster, sentinel::Sentinels},
    wait::PATIENCE,
};
use std::{fmt::Write, net::SocketAddr};
use tokio::sync::{Mutex, RwLock};

/// Clients come back soon, replicas leave soon, and so little is kept in memory that many resumes read Redis.
const CONFIG: &str = r#"
[stream]
retry_min = "50ms"
retry_max = "300ms"
heartbeat = "1s"
[drain]
delay = "200ms"
window = "1s"
[redis]
grace = "1s"
[hub]
tail_bytes = "8KiB"
[history]
size = 20000
"#;

/// The Redis of a run.
#[derive(Debug)]
pub enum Store {
    One(Mutex<Redis>),
    Sentinels(Mutex<Sentinels>),
    Cluster(Mutex<RedisCluster>),
}

/// Which Redis a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    One,
    Sentinels,
    Cluster,
}

impl Store {
    async fn start(topology: Topology) -> Self {
        let durable = Kind { durable: true, ..Kind::default() };
        match topology {
            Topology::One => Self::One(Mutex::new(Redis::start_as(durable).await)),
            Topology::Sentinels => Self::Sentinels(Mutex::new(Sentinels::start(durable, "").await)),
            Topology::Cluster => Self::Cluster(Mutex::new(RedisCluster::start(durable, 3, true).await)),
        }
    }

    /// Between a replica and Redis, where there is but one.
    async fn link(&self) -> (Option<Proxy>, String) {
        match self {
            Self::One(redis) => {
                let link = Proxy::start(redis.lock().await.address()).await;
                let url = format!("redis://{}", link.address);
                (Some(link), url)
            }
            Self::Sentinels(sentinels) => (None, sentinels.lock().await.url()),
            Self::Cluster(cluster) => (None, cluster.lock().await.url()),
        }
    }
}

/// All processes of a run.
#[derive(Debug)]
pub struct World {
    pub nginx: Nginx,
    /// Between the clients and nginx.
    pub front: Proxy,
    /// Between nginx and each replica.
    pub to_replica: Vec<Proxy>,
    /// Between each replica and Redis.
    pub to_redis: Vec<Proxy>,
    pub gateways: Vec<Mutex<Gateway>>,
    pub store: Store,
    pub followers: Vec<Follower>,
    /// Held alone by a fault that others must not meet.
    pub faults: RwLock<()>,
    addresses: Vec<SocketAddr>,
}

impl World {
    pub(super) async fn start(topology: Topology, config: &str) -> Self {
        let store = Store::start(topology).await;
        // Where a replica may take over, what is answered for is on it.
        let wait = if topology == Topology::One { "" } else { "wait_replicas = 1\n" };
        let config = format!("{}{config}", CONFIG.replace("[redis]\n", &format!("[redis]\n{wait}")));
        let (mut to_redis, mut to_replica, mut gateways) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..REPLICAS {
            let (link, url) = store.link().await;
            let gateway = Gateway::spawn(Options { config: config.clone(), redis: Some(url), ..Default::default() });
            to_replica.push(Proxy::start(gateway.address).await);
            to_redis.extend(link);
            gateways.push(gateway);
        }
        for gateway in &gateways {
            gateway.wait_ready(PATIENCE).await;
        }
        let replicas: Vec<_> = to_replica.iter().map(|proxy| proxy.address).collect();
        let nginx = Nginx::start(&replicas).await;
        let front = Proxy::start(nginx.address).await;
        let addresses = gateways.iter().map(|gateway| gateway.address).collect();
        let gateways = gateways.into_iter().map(Mutex::new).collect();
        let followers = Vec::new();
        Self { nginx, front, to_replica, to_redis, gateways, store, followers, faults: RwLock::default(), addresses }
    }

    /// A request for these channels by the long way: proxy, nginx, proxy, replica.
    #[must_use]
    pub fn events(&self, channels: &[&str]) -> Request {
        Request::new(self.front.address, &events_target(channels))
    }

    /// Where the replicas take events, with nothing between.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    /// Waits until every replica is there and ready.
    pub(super) async fn wait_calm(&self) {
        for gateway in &self.gateways {
            gateway.lock().await.wait_ready(PATIENCE).await;
        }
    }

    /// What the replicas say of resumes, gaps and repairs.
    pub(super) async fn metrics(&self) -> String {
        let wanted = ["sse_resumes_total", "sse_gaps_total", "sse_repairs_total", "sse_history_read_seconds_count"];
        let mut text = String::new();
        for (nth, gateway) in self.gateways.iter().enumerate() {
            let metrics = gateway.lock().await.admin.get("/metrics").await.text();
            let lines = metrics.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
            for line in lines.filter(|line| !line.ends_with(" 0")) {
                let _ = writeln!(text, "replica {nth}: {line}");
            }
        }
        text
    }
}
