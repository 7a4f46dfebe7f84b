//! What kind of server this is, and what it therefore can and cannot do.

use redis::{RedisResult, aio::ConnectionLike, cmd};
use std::fmt;

/// Of one server, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `redis`, `valkey`, or what else it calls itself.
    pub software: String,
    pub version: String,
    /// The version of Redis whose commands it has.
    compatible: (u32, u32),
    pub cluster: bool,
}

impl Facts {
    /// Asks a server.
    ///
    /// # Errors
    /// When the connection fails, or the user may not ask.
    pub async fn ask(connection: &mut (impl ConnectionLike + Send)) -> RedisResult<Self> {
        let info: String = cmd("INFO").arg("server").query_async(connection).await?;
        Ok(Self::read(&info))
    }

    fn read(info: &str) -> Self {
        let field = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).map(str::to_owned)
        };
        let redis = field("redis_version").unwrap_or_default();
        let mut numbers = redis.split('.').map(|number| number.parse().unwrap_or(0));
        let compatible = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let valkey = field("valkey_version");
        let software = field("server_name").unwrap_or_else(|| "redis".to_owned());
        let cluster = field("redis_mode").or(field("server_mode")).is_some_and(|mode| mode == "cluster");
        Self { software, version: valkey.unwrap_or(redis), compatible, cluster }
    }

    /// Sharded pub/sub, which came with Redis 7.0.
    #[must_use]
    pub fn has_sharded_pubsub(&self) -> bool {
        self.compatible >= (7, 0)
    }

    /// Functions, which came with Redis 7.0.
    #[must_use]
    pub fn has_functions(&self) -> bool {
        self.compatible >= (7, 0)
    }

    /// The oldest whose commands suffice.
    #[must_use]
    pub fn is_too_old(&self) -> bool {
        self.compatible < (6, 2)
    }

    /// How events are announced: on a cluster to those who listen at the slot's owner, where it can.
    #[must_use]
    pub(super) fn announce(&self) -> Announce {
        if self.cluster && self.has_sharded_pubsub() { Announce::Sharded } else { Announce::Classic }
    }

    /// What it lacks of what could be used, in words.
    #[must_use]
    pub fn lacks(&self) -> Vec<&'static str> {
        let mut lacks = Vec::new();
        if self.is_too_old() {
            lacks.push("what came with Redis 6.2, without which nothing works");
        }
        if !self.has_functions() {
            lacks.push("functions: FCALL sluice_publish is not available");
            lacks.push("a check of rights within scripts: where a publisher may not announce, subscribers wait for the next look at the log");
        }
        if self.cluster && !self.has_sharded_pubsub() {
            lacks.push("sharded pub/sub: every announcement goes through all servers of the cluster");
        }
        lacks
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.software, self.version)
    }
}

/// The two kinds of pub/sub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announce {
    Classic,
    Sharded,
}

impl Announce {
    pub(super) const fn command(self) -> &'static str {
        match self {
            Self::Classic => "PUBLISH",
            Self::Sharded => "SPUBLISH",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_apart() {
        let old = Facts::read("# Server\r\nredis_version:6.2.5\r\nredis_mode:standalone\r\n");
        assert_eq!((old.to_string().as_str(), old.has_functions(), old.cluster), ("redis 6.2.5", false, false));
        assert!(old.lacks().iter().any(|lack| lack.contains("FCALL")) && !old.is_too_old());
        let seven = Facts::read("redis_version:7.0.15\r\nredis_mode:cluster\r\n");
        assert_eq!((seven.announce(), seven.lacks().len()), (Announce::Sharded, 0));
        let valkey =
            Facts::read("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\nserver_mode:cluster\r\n");
        assert_eq!((valkey.to_string().as_str(), valkey.cluster), ("valkey 9.1.2", true));
        assert!(Facts::read("").is_too_old());
    }
}
