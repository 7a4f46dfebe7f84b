//! A master, its replicas, and three sentinels that watch over them.

use super::{Kind, Redis, TLS_FILES, client};
use crate::{
    ports,
    process::{Process, directory},
    tls::Authority,
    wait,
};
use std::{net::SocketAddr, process::Command};
use tempfile::TempDir;

/// What the sentinels call the master.
pub const MASTER: &str = "orders";

/// All of them.
#[derive(Debug)]
pub struct Sentinels {
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Sentinel>,
    /// Of the servers, and the sentinels' own credentials.
    kind: Kind,
    own: String,
}

#[derive(Debug)]
pub struct Sentinel {
    pub process: Process,
    pub address: SocketAddr,
    directory: TempDir,
}

impl Sentinel {
    fn start(master: SocketAddr, tls: Option<&Authority>, lines: &str) -> Self {
        let (directory, address) = (directory(), ports::free());
        // On a busy machine a hasty sentinel takes a master for lost that it has only just made one.
        let port = if let Some(authority) = tls {
            authority.write_both(directory.path());
            let files: String = TLS_FILES.iter().map(|(setting, file)| format!("{setting} {file}\n")).collect();
            format!("port 0\ntls-port {}\ntls-replication yes\n{files}", address.port())
        } else {
            format!("port {}\n", address.port())
        };
        let config = format!(
            "{port}bind 127.0.0.1\nsentinel monitor {MASTER} {} {} 2\n\
             sentinel down-after-milliseconds {MASTER} 3000\nsentinel failover-timeout {MASTER} 3000\n{lines}",
            master.ip(),
            master.port(),
        );
        std::fs::write(directory.path().join("sentinel.conf"), config).expect("written");
        Self { process: run(&directory), address, directory }
    }

    /// Starts it again with what it knew.
    pub fn restart(&mut self) {
        self.process = run(&self.directory);
    }
}

fn run(directory: &TempDir) -> Process {
    let mut command = Command::new("redis-sentinel");
    command.arg(directory.path().join("sentinel.conf")).current_dir(directory.path());
    Process::start("sentinel", &mut command, directory.path())
}

impl Sentinels {
    /// A master and a replica, watched. `lines` are added to each sentinel's settings.
    ///
    /// # Panics
    /// When it does not come about.
    pub async fn start(kind: Kind, lines: &str) -> Self {
        let servers = vec![Redis::start_as(kind.clone()).await, Redis::start_as(kind.clone()).await];
        follow(&servers[1], &servers[0]).await;
        let master = servers[0].address();
        let sentinels = (0..3).map(|_| Sentinel::start(master, kind.tls.as_deref(), lines)).collect();
        let own = lines.lines().find_map(|line| line.strip_prefix("requirepass "));
        let own = own.map(|password| format!(":{password}@")).unwrap_or_default();
        let all = Self { servers, sentinels, kind, own };
        for sentinel in &all.sentinels {
            let knows = async || {
                let fields = all.ask(sentinel.address, &["SENTINEL", "MASTER", MASTER]).await?;
                let fields: std::collections::HashMap<String, String> = redis::from_redis_value(fields).ok()?;
                let number = |name: &str| fields.get(name).map(String::as_str);
                (number("num-other-sentinels") == Some("2") && number("num-slaves") == Some("1")).then_some(())
            };
            wait::until("the sentinels know each other and the replica", knows).await;
        }
        all
    }

    /// One more, that was cut off and hears of nothing: with these settings it is let in nowhere.
    pub fn add_deaf(&mut self, lines: &str) {
        self.sentinels.push(Sentinel::start(self.servers[0].address(), self.kind.tls.as_deref(), lines));
    }

    async fn ask(&self, at: SocketAddr, words: &[&str]) -> Option<redis::Value> {
        let tls = self.kind.tls.as_deref();
        let client = client(&format!("{}://{}{at}", self.scheme(), self.own), tls);
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query_async(&mut connection).await.ok()
    }

    fn scheme(&self) -> &str {
        if self.kind.tls.is_some() { "rediss" } else { "redis" }
    }

    /// The URL of the sentinels.
    #[must_use]
    pub fn url(&self) -> String {
        let places: Vec<_> = self.sentinels.iter().map(|sentinel| sentinel.address.to_string()).collect();
        format!("{}+sentinel://{}{}/{MASTER}", self.scheme(), self.kind.credentials, places.join(","))
    }

    /// The master, as a number of `servers`, as most sentinels see it.
    ///
    /// # Panics
    /// When none answers.
    pub async fn master(&self) -> usize {
        let found = async || {
            for sentinel in &self.sentinels {
                let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
                let Some(answer) = self.ask(sentinel.address, &words).await else { continue };
                let (_, port): (String, u16) = redis::from_redis_value(answer).ok()?;
                return self.servers.iter().position(|server| server.address().port() == port);
            }
            None
        };
        wait::until("a sentinel says where the master is", found).await
    }

    /// Waits until another server than `before` is the master, says so itself, and answers which.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn promoted(&self, before: usize) -> usize {
        let promoted = async || {
            let now = self.master().await;
            if now == before {
                return None;
            }
            let mut connection = self.servers[now].try_connection().await?;
            let role: redis::Value = redis::cmd("ROLE").query_async(&mut connection).await.ok()?;
            format!("{role:?}").contains("master").then_some(now)
        };
        wait::until("the replica is promoted", promoted).await
    }

    /// Waits until the other server follows the master.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn wait_followed(&self) {
        let followed = async || {
            let master = self.master().await;
            let mut connection = self.servers[1 - master].try_connection().await?;
            let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await.ok()?;
            let port = format!("master_port:{}\r", self.servers[master].address().port());
            (info.contains("master_link_status:up") && info.contains(&port)).then_some(())
        };
        wait::until("the other server follows the master", followed).await;
    }

    /// `SENTINEL FAILOVER`, until it is under way.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn failover(&self) {
        let begun = async || self.ask(self.sentinels[0].address, &["SENTINEL", "FAILOVER", MASTER]).await.map(drop);
        wait::until("a failover is begun", begun).await;
    }
}

/// Makes a server the replica of another, and waits until it is.
///
/// # Panics
/// When that takes too long.
pub async fn follow(replica: &Redis, master: &Redis) {
    let (host, port) = (master.address().ip().to_string(), master.address().port().to_string());
    let _: String = replica.run(&["REPLICAOF", &host, &port]).await;
    let linked = async || {
        let info: String = replica.run(&["INFO", "replication"]).await;
        info.contains("master_link_status:up").then_some(())
    };
    wait::until("the replica follows", linked).await;
}

/// Has a replica lose its master, which it cannot come back to, while everybody else sees both: what is written from now
/// on is on the master alone. The same again with `false` mends it.
pub async fn part(replica: &Redis, master: &Redis, parted: bool) {
    let password = if parted { "not the master's" } else { "" };
    let _: String = replica.run(&["CONFIG", "SET", "masterauth", password]).await;
    if parted {
        let _: i64 = master.run(&["CLIENT", "KILL", "TYPE", "replica"]).await;
        let alone = async || {
            let info: String = master.run(&["INFO", "replication"]).await;
            info.contains("connected_slaves:0\r").then_some(())
        };
        wait::until("the master has no replica", alone).await;
    }
}
