//! Does what a step says. Two faults of one process that overlap come one after the other.

use super::{
    plan::{Kind, Step},
    world::World,
};
use crate::{proxy::Proxy, wait::PATIENCE};
use fastrand::Rng;
use futures_util::future::join_all;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// One in this many clients is concerned where not all are.
const SHARE: u32 = 3;

/// The proxy, once something goes through it, or after some seconds in which nothing does.
async fn in_use(proxy: &Proxy) -> &Proxy {
    let begun = Instant::now();
    while proxy.open() == 0 && begun.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy
}

impl World {
    /// Inflicts one fault and answers when it is over: how many connections, processes or clients it concerned.
    ///
    /// # Panics
    /// When a process does not come back.
    pub(super) async fn inflict(&self, step: &Step) -> usize {
        let Step { target, lasts, cut, .. } = *step;
        let mut rng = Rng::with_seed(step.seed);
        match step.kind {
            Kind::KillGateway | Kind::StopGateway => {
                let mut gateway = self.gateways[target].lock().await;
                if step.kind == Kind::KillGateway {
                    gateway.process.kill();
                } else {
                    gateway.process.signal(Signal::TERM);
                    let status = gateway.process.end(Duration::from_secs(10)).await;
                    assert_eq!(status.code(), Some(0), "after SIGTERM: {status}");
                }
                tokio::time::sleep(lasts).await;
                gateway.restart();
                gateway.wait_ready(PATIENCE).await;
                1
            }
            Kind::CutClients => self.front.cut(cut, || rng.u32(..SHARE) == 0),
            Kind::CutReplica => in_use(&self.to_replica[target]).await.cut_all(cut),
            Kind::CutRedisLink => in_use(&self.to_redis[target]).await.cut_all(cut),
            Kind::StallClients => self.front.stall(lasts).await,
            Kind::StallReplica => in_use(&self.to_replica[target]).await.stall(lasts).await,
            Kind::StallRedisLink => in_use(&self.to_redis[target]).await.stall(lasts).await,
            Kind::KillSubscriptions => {
                in_use(&self.to_redis[target]).await;
                let killed: usize = self.redis.lock().await.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
                killed
            }
            Kind::FreezeRedis => {
                let mut redis = self.redis.lock().await;
                redis.signal(Signal::STOP);
                tokio::time::sleep(lasts).await;
                redis.signal(Signal::CONT);
                1
            }
            Kind::KillRedis | Kind::StopRedis => {
                let mut redis = self.redis.lock().await;
                if step.kind == Kind::KillRedis {
                    redis.kill();
                } else {
                    redis.stop().await;
                }
                tokio::time::sleep(lasts).await;
                redis.restart().await;
                1
            }
            Kind::PauseClients => {
                let chosen: Vec<_> = self.followers.iter().filter(|_| rng.u32(..SHARE) == 0).collect();
                join_all(chosen.iter().map(|follower| follower.pause(lasts))).await;
                chosen.len()
            }
        }
    }
}
