//! A Redis Cluster of masters with a replica each, whose slots can be moved and whose masters can be lost.

mod moving;

use super::{Kind, Redis};
use crate::{ports, wait};
use futures_util::future::join_all;
use std::{collections::HashMap, ops::RangeInclusive};

const SLOTS: u16 = 16384;

/// A running cluster. The first half of `servers` were the masters when it was made, the others their replicas.
#[derive(Debug)]
pub struct RedisCluster {
    pub servers: Vec<Redis>,
    kind: Kind,
}

/// A line of `CLUSTER NODES`.
#[derive(Debug, Clone)]
pub struct Member {
    pub id: String,
    pub address: String,
    pub master: bool,
    pub failed: bool,
    /// The id of its master.
    pub of: String,
    pub slots: Vec<RangeInclusive<u16>>,
}

/// Before 7.0 the servers' own port is the other one and 10,000, and replicas move as they like.
fn is_old(kind: &Kind) -> bool {
    kind.server.ends_with("redis-6.2")
}

fn kind(kind: &Kind) -> Kind {
    let mut args = kind.args.clone();
    args.extend(["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"].map(str::to_owned));
    if !is_old(kind) {
        let bus = ports::free().port().to_string();
        args.extend(["--cluster-port", &bus, "--cluster-allow-replica-migration", "no"].map(str::to_owned));
    }
    // One whose link was down for a while may stand in for its master all the same.
    args.extend(["--cluster-replica-validity-factor", "0"].map(str::to_owned));
    // A part that is down stops only itself.
    args.extend(["--cluster-require-full-coverage", "no"].map(str::to_owned));
    Kind { args, with_bus: is_old(kind), ..kind.clone() }
}

impl RedisCluster {
    /// Masters with all slots between them, and a replica for each if wanted.
    ///
    /// # Panics
    /// When it does not come about.
    pub async fn start(of: Kind, masters: usize, replicas: bool) -> Self {
        let count = if replicas { 2 * masters } else { masters };
        let servers: Vec<_> = (0..count).map(|_| Redis::spawn(kind(&of), |_| {})).collect();
        join_all(servers.iter().map(Redis::wait_ready)).await;
        let cluster = Self { servers, kind: of };
        for (nth, server) in cluster.servers.iter().enumerate() {
            let _: String = server.run(&["CLUSTER", "SET-CONFIG-EPOCH", &(nth + 1).to_string()]).await;
        }
        for (nth, server) in cluster.servers[..masters].iter().enumerate() {
            let share = |nth: usize| usize::from(SLOTS) * nth / masters;
            let slots: Vec<_> = (share(nth)..share(nth + 1)).map(|slot| slot.to_string()).collect();
            let words = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str));
            let _: String = server.run(&words.collect::<Vec<_>>()).await;
        }
        for server in &cluster.servers[1..] {
            cluster.meet(server).await;
        }
        cluster.wait_known().await;
        for (master, replica) in cluster.servers.iter().zip(&cluster.servers[masters..]) {
            let id: String = master.run(&["CLUSTER", "MYID"]).await;
            let _: String = replica.run(&["CLUSTER", "REPLICATE", &id]).await;
        }
        if replicas {
            for replica in &cluster.servers[masters..] {
                let linked = async || {
                    let info: String = replica.run(&["INFO", "replication"]).await;
                    info.contains("master_link_status:up").then_some(())
                };
                wait::until("a replica follows its master", linked).await;
            }
        }
        cluster.wait_whole().await;
        cluster
    }

    async fn meet(&self, server: &Redis) {
        let first = &self.servers[0];
        let (host, port) = (first.address().ip().to_string(), first.address().port().to_string());
        let mut words = vec!["CLUSTER", "MEET", &host, &port];
        let bus: Vec<String> = first.run(&["CONFIG", "GET", "cluster-port"]).await;
        words.extend(bus.get(1).map(String::as_str));
        let _: String = server.run(&words).await;
    }

    async fn wait_known(&self) {
        for server in &self.servers {
            let knows = async || {
                let info: String = server.run(&["CLUSTER", "INFO"]).await;
                let all = format!("cluster_known_nodes:{}\r", self.servers.len());
                info.contains(&all).then_some(())
            };
            wait::until("every server knows all", knows).await;
        }
    }

    /// Waits until every server that runs says that all slots are served.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn wait_whole(&self) {
        for server in &self.servers {
            let whole = async || {
                let mut connection = server.try_connection().await?;
                let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection).await.ok()?;
                let whole = info.contains("cluster_state:ok\r") && info.contains("cluster_slots_ok:16384\r");
                whole.then_some(())
            };
            // On a busy machine one that was replaced for no good reason takes its place again first.
            wait::until_within("the cluster is whole", 3 * wait::PATIENCE, whole).await;
        }
    }

    /// The URL of all servers that there are.
    #[must_use]
    pub fn url(&self) -> String {
        let places: Vec<_> = self.servers.iter().map(|server| server.address().to_string()).collect();
        format!("redis+cluster://{}{}", self.kind.credentials, places.join(","))
    }

    /// A master without slots, and its replica; answers the number of the master.
    ///
    /// # Panics
    /// When they do not come into the cluster.
    pub async fn add_master(&mut self) -> usize {
        let master = self.servers.len();
        for _ in 0..2 {
            let server = Redis::spawn(kind(&self.kind), |_| {});
            server.wait_ready().await;
            self.meet(&server).await;
            self.servers.push(server);
        }
        self.wait_known().await;
        let id: String = self.servers[master].run(&["CLUSTER", "MYID"]).await;
        let _: String = self.servers[master + 1].run(&["CLUSTER", "REPLICATE", &id]).await;
        self.wait_replicated().await;
        master
    }

    /// What a server that answers says of all of them.
    ///
    /// # Panics
    /// When none answers.
    pub async fn members(&self) -> Vec<Member> {
        for server in &self.servers {
            let Some(mut connection) = server.try_connection().await else { continue };
            let nodes: String =
                redis::cmd("CLUSTER").arg("NODES").query_async(&mut connection).await.expect("it is a cluster");
            return nodes.lines().map(Member::read).collect();
        }
        panic!("no server of the cluster answers");
    }

    /// The server at that address.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn at(&self, address: &str) -> usize {
        let is_it = |server: &Redis| server.address().to_string() == address;
        self.servers.iter().position(is_it).unwrap_or_else(|| panic!("no server at {address}"))
    }

    /// The masters that serve slots, as numbers of `servers`.
    pub async fn masters(&self) -> Vec<usize> {
        let members = self.members().await;
        let serves = |member: &&Member| member.master && !member.failed && !member.slots.is_empty();
        members.iter().filter(serves).map(|member| self.at(&member.address)).collect()
    }

    /// The replica of a master, once the others have heard that it is one.
    ///
    /// # Panics
    /// When it has none.
    pub async fn replica_of(&self, master: usize) -> usize {
        let address = self.servers[master].address().to_string();
        let known = async || {
            let members = self.members().await;
            let id = &members.iter().find(|member| member.address == address)?.id;
            members.iter().find(|member| member.of == *id).map(|member| self.at(&member.address))
        };
        wait::until("the master has a replica", known).await
    }

    /// Names `<prefix><number>` of channels that this master has.
    ///
    /// # Panics
    /// When nobody has a slot.
    pub async fn channels_of<const COUNT: usize>(&self, master: usize, prefix: &str) -> [String; COUNT] {
        let mut names = Vec::new();
        for nth in 0.. {
            let name = format!("{prefix}{nth}");
            if self.master_of(&name).await == master {
                names.push(name);
            }
            if names.len() == COUNT {
                break;
            }
        }
        names.try_into().expect("as many as were asked for")
    }

    /// The master that has a channel, by the prefix `sluice:`.
    ///
    /// # Panics
    /// When nobody has it.
    pub async fn master_of(&self, channel: &str) -> usize {
        self.owner_of_key(&format!("sluice:{channel}")).await
    }

    /// The master that has a key.
    ///
    /// # Panics
    /// When nobody has it.
    pub async fn owner_of_key(&self, key: &str) -> usize {
        let slot: u16 = self.servers[0].run(&["CLUSTER", "KEYSLOT", key]).await;
        let members = self.members().await;
        let has = |member: &&Member| member.master && member.slots.iter().any(|range| range.contains(&slot));
        let owner = members.iter().find(has).unwrap_or_else(|| panic!("nobody has {slot}: {members:?}"));
        self.at(&owner.address)
    }

    /// Slots of a master that have keys.
    pub async fn slots_with_keys(&self, master: usize) -> Vec<u16> {
        let server = &self.servers[master];
        let address = server.address().to_string();
        let members = self.members().await;
        let slots = members.iter().filter(|member| member.address == address).flat_map(|member| member.slots.clone());
        let slots: Vec<u16> = slots.flatten().collect();
        let mut pipeline = redis::pipe();
        for slot in &slots {
            pipeline.cmd("CLUSTER").arg("COUNTKEYSINSLOT").arg(slot);
        }
        let counts: Vec<i64> = pipeline.query_async(&mut server.connection().await).await.expect("counts");
        slots.into_iter().zip(counts).filter(|(_, count)| *count > 0).map(|(slot, _)| slot).collect()
    }

    /// Waits until every replica that there is follows its master.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn wait_replicated(&self) {
        for server in &self.servers {
            let follows = async || {
                let mut connection = server.try_connection().await?;
                let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await.ok()?;
                (info.contains("role:master") || info.contains("master_link_status:up")).then_some(())
            };
            wait::until("every replica follows its master", follows).await;
        }
    }

    /// Has a replica take its master's place, in agreement with it.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn hand_over(&self, replica: usize) {
        let server = &self.servers[replica];
        let done = async || {
            let info: String = server.run(&["INFO", "replication"]).await;
            if info.contains("role:master") {
                return Some(());
            }
            // It is refused, and to be asked for again, while the others have not heard of the latest epochs.
            if info.contains("master_link_status:up") {
                let mut connection = server.connection().await;
                let _ = redis::cmd("CLUSTER").arg("FAILOVER").query_async::<String>(&mut connection).await;
                for _ in 0..30 {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    let info: String = server.run(&["INFO", "replication"]).await;
                    if info.contains("role:master") {
                        return Some(());
                    }
                }
            }
            None
        };
        wait::until("a replica takes its master's place", done).await;
    }

    /// Waits until another master than the one with this id has its slot, and answers which.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn promoted(&self, id: &str, slot: u16) -> usize {
        let promoted = async || {
            let members = self.members().await;
            let has_it = |member: &Member| member.slots.iter().any(|range| range.contains(&slot));
            let heir = members.iter().find(|member| member.master && member.id != id && has_it(member))?;
            Some(self.at(&heir.address))
        };
        wait::until("a replica is promoted", promoted).await
    }

    /// How many subscriptions the servers count, by pub/sub channel: sharded ones and others.
    pub async fn subscriptions(&self) -> HashMap<String, i64> {
        let mut all = HashMap::new();
        for server in &self.servers {
            let mut connection = server.connection().await;
            let kinds = [("SHARDCHANNELS", "SHARDNUMSUB"), ("CHANNELS", "NUMSUB")];
            for (channels, numbers) in kinds.into_iter().skip(usize::from(is_old(&self.kind))) {
                let names: Vec<String> =
                    redis::cmd("PUBSUB").arg(channels).query_async(&mut connection).await.expect("an answer");
                let counts: Vec<(String, i64)> =
                    redis::cmd("PUBSUB").arg(numbers).arg(names).query_async(&mut connection).await.expect("an answer");
                for (name, count) in counts {
                    *all.entry(name).or_default() += count;
                }
            }
        }
        all
    }
}

impl Member {
    fn read(line: &str) -> Self {
        let fields: Vec<_> = line.split(' ').collect();
        let flags: Vec<_> = fields[2].split(',').collect();
        let slots = fields[8.min(fields.len())..].iter().filter(|slot| !slot.starts_with('['));
        let range = |slot: &&str| {
            let (first, last) = slot.split_once('-').unwrap_or((slot, slot));
            first.parse().expect("a slot")..=last.parse().expect("a slot")
        };
        Self {
            id: fields[0].to_owned(),
            address: fields[1].split('@').next().unwrap_or_default().to_owned(),
            master: flags.contains(&"master"),
            failed: flags.contains(&"fail"),
            of: fields[3].to_owned(),
            slots: slots.map(range).collect(),
        }
    }
}
