//! Does what a step says. Two faults of one process that overlap come one after the other.

use super::{
    plan::{Kind, Step},
    world::{Store, World},
};
use crate::{
    proxy::Proxy,
    redis::{Redis, cluster::RedisCluster, sentinel::Sentinels},
    wait::PATIENCE,
};
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
        let loses_master = matches!(step.kind, Kind::KillMaster | Kind::FreezeMaster | Kind::HandOver);
        // Who reads history can see an event that waits for a replica, and is told if it is lost with the master then
        // (docs/delivery.md): so nothing that has anybody read history happens while one is lost, or just before.
        let _together = if loses_master { None } else { Some(self.faults.read().await) };
        let _alone = if loses_master { Some(self.faults.write().await) } else { None };
        if loses_master {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
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
                if let Some(link) = self.to_redis.get(target) {
                    in_use(link).await;
                }
                let kill = async |redis: &Redis| -> usize { redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await };
                match &self.store {
                    Store::One(redis) => kill(&*redis.lock().await).await,
                    Store::Sentinels(all) => {
                        let all = all.lock().await;
                        kill(&all.servers[all.master().await]).await
                    }
                    Store::Cluster(all) => {
                        let all = all.lock().await;
                        let masters = all.masters().await;
                        kill(&all.servers[masters[target % masters.len()]]).await
                    }
                }
            }
            Kind::FreezeRedis => {
                let Store::One(redis) = &self.store else { panic!("there is more than one") };
                let mut redis = redis.lock().await;
                redis.signal(Signal::STOP);
                tokio::time::sleep(lasts).await;
                redis.signal(Signal::CONT);
                1
            }
            Kind::KillRedis | Kind::StopRedis => {
                let Store::One(redis) = &self.store else { panic!("there is more than one") };
                let mut redis = redis.lock().await;
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
            Kind::KillMaster | Kind::FreezeMaster | Kind::HandOver => match &self.store {
                Store::Sentinels(all) => lose_master_of_sentinels(&mut *all.lock().await, step.kind).await,
                Store::Cluster(all) => lose_master_of_cluster(&mut *all.lock().await, target, step.kind).await,
                Store::One(_) => panic!("there is no replica"),
            },
            Kind::KillSentinel => {
                let Store::Sentinels(all) = &self.store else { panic!("there are no sentinels") };
                let mut all = all.lock().await;
                all.sentinels[target].process.kill();
                tokio::time::sleep(lasts).await;
                all.sentinels[target].restart();
                1
            }
            Kind::MoveSlots => {
                let Store::Cluster(all) = &self.store else { panic!("there is no cluster") };
                let all = all.lock().await;
                let masters = all.masters().await;
                let from = masters[target % masters.len()];
                let to = masters[(target + 1) % masters.len()];
                // Those that have channels: an empty slot is moved by one command.
                let mut slots = all.slots_with_keys(from).await;
                slots.truncate(12);
                for &slot in &slots {
                    all.move_slot(slot, from, to).await;
                }
                for &slot in &slots {
                    all.move_slot(slot, to, from).await;
                }
                all.wait_agreed().await;
                slots.len()
            }
            Kind::AddMaster => {
                let Store::Cluster(all) = &self.store else { panic!("there is no cluster") };
                let mut all = all.lock().await;
                let from = all.masters().await[0];
                let to = all.add_master().await;
                let mut slots = all.slots_with_keys(from).await;
                slots.truncate(4);
                for &slot in &slots {
                    all.move_slot(slot, from, to).await;
                }
                all.wait_agreed().await;
                slots.len()
            }
        }
    }
}

async fn lose_master_of_sentinels(all: &mut Sentinels, kind: Kind) -> usize {
    let master = all.master().await;
    all.wait_followed().await;
    match kind {
        Kind::KillMaster => all.servers[master].kill(),
        Kind::FreezeMaster => all.servers[master].signal(Signal::STOP),
        _ => {
            // Sentinels do not wait for the replica to have everything, so nothing is written meanwhile.
            let _: String = all.servers[master].run(&["CLIENT", "PAUSE", "5000", "WRITE"]).await;
            all.failover().await;
        }
    }
    all.promoted(master).await;
    match kind {
        Kind::KillMaster => all.servers[master].restart().await,
        Kind::FreezeMaster => all.servers[master].signal(Signal::CONT),
        _ => {}
    }
    all.wait_followed().await;
    1
}

async fn lose_master_of_cluster(all: &mut RedisCluster, target: usize, kind: Kind) -> usize {
    all.wait_replicated().await;
    let members = all.members().await;
    let has_replica = |id: &str| members.iter().any(|member| member.of == id && !member.failed);
    let masters: Vec<_> = members
        .iter()
        .filter(|member| member.master && !member.failed && !member.slots.is_empty() && has_replica(&member.id))
        .collect();
    let master = masters[target % masters.len()];
    let number = all.at(&master.address);
    match kind {
        Kind::KillMaster => all.servers[number].kill(),
        Kind::FreezeMaster => all.servers[number].signal(Signal::STOP),
        _ => {
            let replica = members.iter().find(|member| member.of == master.id && !member.failed).expect("a replica");
            all.hand_over(all.at(&replica.address)).await;
        }
    }
    all.promoted(&master.id, *master.slots[0].start()).await;
    match kind {
        Kind::KillMaster => all.servers[number].restart().await,
        Kind::FreezeMaster => all.servers[number].signal(Signal::CONT),
        _ => {}
    }
    all.wait_whole().await;
    all.wait_agreed().await;
    all.wait_replicated().await;
    1
}
