//! Slots on their way between masters, all at once or step by step.

use super::{Member, RedisCluster};
use crate::wait;
use std::collections::BTreeMap;

impl RedisCluster {
    /// Moves a slot with its keys, as `redis-cli --cluster reshard` does.
    ///
    /// # Panics
    /// When a server refuses.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_to_move(slot, from, to).await;
        self.move_keys(slot, from, to).await;
        self.end_move(slot, from, to).await;
    }

    async fn ids(&self, servers: [usize; 2]) -> [String; 2] {
        let [one, other] = servers.map(|nth| &self.servers[nth]);
        [one.run(&["CLUSTER", "MYID"]).await, other.run(&["CLUSTER", "MYID"]).await]
    }

    /// From here on the slot is on its way, and keys that are not there any more are asked for at `to`.
    ///
    /// # Panics
    /// When a server refuses.
    pub async fn begin_to_move(&self, slot: u16, from: usize, to: usize) {
        let number = slot.to_string();
        let [source, target] = self.ids([from, to]).await;
        let _: String = self.servers[to].run(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &source]).await;
        let _: String = self.servers[from].run(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &target]).await;
    }

    /// Moves the keys that there are now.
    ///
    /// # Panics
    /// When a server refuses.
    pub async fn move_keys(&self, slot: u16, from: usize, to: usize) {
        loop {
            let keys: Vec<String> =
                self.servers[from].run(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "10"]).await;
            if keys.is_empty() {
                break;
            }
            self.migrate(&keys, from, to).await;
        }
    }

    /// Moves one key, whose slot is on its way.
    ///
    /// # Panics
    /// When a server refuses.
    pub async fn move_key(&self, key: &str, from: usize, to: usize) {
        self.migrate(&[key.to_owned()], from, to).await;
    }

    async fn migrate(&self, keys: &[String], from: usize, to: usize) {
        let (source, target) = (&self.servers[from], self.servers[to].address());
        let mut command = redis::cmd("MIGRATE");
        command.arg(target.ip().to_string()).arg(target.port()).arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
        // One that was away a moment ago takes none for two seconds.
        let migrated = async || {
            let mut connection = source.try_connection().await?;
            command.query_async::<String>(&mut connection).await.ok()
        };
        wait::until("keys migrate", migrated).await;
    }

    /// The slot has arrived.
    ///
    /// # Panics
    /// When a server refuses.
    pub async fn end_move(&self, slot: u16, from: usize, to: usize) {
        let [_, id] = self.ids([from, to]).await;
        // The others hear of it from these.
        for nth in [to, from] {
            let _: String = self.servers[nth].run(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &id]).await;
        }
    }

    /// Waits until all servers, replicas too, say the same of who has which slots. One that is promoted before it has
    /// heard of a move claims what its master had before, and the cluster can lose the slot for good.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn wait_agreed(&self) {
        let agreed = async || {
            let mut first = None;
            for server in &self.servers {
                let mut connection = server.try_connection().await?;
                let nodes: String = redis::cmd("CLUSTER").arg("NODES").query_async(&mut connection).await.ok()?;
                let members = nodes.lines().map(Member::read);
                let owners: BTreeMap<_, _> = members
                    .filter(|member| member.master && !member.slots.is_empty())
                    .map(|member| (member.id, member.slots))
                    .collect();
                if *first.get_or_insert_with(|| owners.clone()) != owners {
                    return None;
                }
            }
            Some(())
        };
        wait::until("the servers agree on who has which slots", agreed).await;
    }
}
