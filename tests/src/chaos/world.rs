//! Three replicas behind nginx and before one Redis, with a proxy on every way between two of them.

use super::plan::REPLICAS;
use crate::{
    client::Request,
    follower::Follower,
    gateway::{Gateway, Options, events_target},
    nginx::Nginx,
    proxy::Proxy,
    redis::Redis,
    wait::PATIENCE,
};
use std::{fmt::Write, net::SocketAddr};
use tokio::sync::Mutex;

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
    pub redis: Mutex<Redis>,
    pub followers: Vec<Follower>,
    addresses: Vec<SocketAddr>,
}

impl World {
    pub(super) async fn start(config: &str) -> Self {
        let redis = Redis::start_durable().await;
        let (mut to_redis, mut to_replica, mut gateways) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..REPLICAS {
            let link = Proxy::start(redis.address()).await;
            let url = format!("redis://{}", link.address);
            let gateway =
                Gateway::spawn(Options { config: format!("{CONFIG}{config}"), redis: Some(url), ..Default::default() });
            to_replica.push(Proxy::start(gateway.address).await);
            to_redis.push(link);
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
        Self { nginx, front, to_replica, to_redis, gateways, redis: Mutex::new(redis), followers, addresses }
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
