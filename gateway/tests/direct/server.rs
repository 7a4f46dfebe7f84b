//! A redis-server of the test's own, and the ways to publish to it.

use redis::{Cmd, RedisResult, Value, aio::MultiplexedConnection, cmd};
use sluice_gateway::{
    broker::{
        Accepted, Broker, Publish, Rules, Sink, Unavailable,
        announcement::Announced,
        redis::{
            RedisBroker,
            direct::{self, Direct},
            function,
            target::Target,
        },
    },
    channel::Channel,
    config::{self, Config},
    event::Event,
    metrics::Metrics,
};
use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

/// Far longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Redis {
    process: Child,
    pub(crate) port: u16,
    pub(crate) connection: MultiplexedConnection,
}

impl Redis {
    /// A server without functions.
    pub(crate) async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let binary = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let process = Command::new(binary)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let connection = eventually("Redis answers", async || connect(port, None).await.ok()).await;
        Self { process, port, connection }
    }

    /// A server with the library, as `sluice redis install` leaves it.
    pub(crate) async fn with_library() -> Self {
        let mut redis = Self::start().await;
        function::install(&mut redis.connection, "sluice:", None, false).await.expect("installs");
        redis
    }

    pub(crate) async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub(crate) async fn try_ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        command(words).query_async(&mut self.connection.clone()).await
    }

    /// All keys but the one in which gateways say that they are there.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let keys: Vec<String> = self.ask(&["KEYS", "*"]).await;
        keys.into_iter().filter(|key| key != "sluice:$replicas").collect()
    }

    /// `FCALL sluice_publish 1 <name> <arguments>`
    pub(crate) async fn fcall(&self, name: &str, arguments: &[&str]) -> RedisResult<Option<String>> {
        self.try_ask(&[&["FCALL", "sluice_publish", "1", name], arguments].concat()).await
    }

    /// As a user with these rights.
    pub(crate) async fn as_user(&self, rights: &[&str]) -> MultiplexedConnection {
        let () = self.ask(&[&["ACL", "SETUSER", "limited", "reset", "on", ">pw"], rights].concat()).await;
        connect(self.port, Some("limited:pw@")).await.expect("connects")
    }

    /// Publishes by the script, as is done where there are no functions.
    pub(crate) async fn script(&self, channel: &str, data: &str, key: Option<&str>) -> RedisResult<Option<String>> {
        // Nobody but this user is refused the function.
        let mut limited = self.as_user(&["~*", "&*", "+@all", "-fcall"]).await;
        let direct = Direct::find(&mut limited, "sluice:").await?;
        assert!(!direct.by_function());
        let answer: Value = direct.command(&publish(channel, data, key), true).query_async(&mut limited).await?;
        Ok(direct::position(answer)?.map(|position| position.to_string()))
    }

    pub(crate) fn gateway(&self, config: Config) -> RedisBroker {
        let url = format!("redis://127.0.0.1:{}", self.port);
        self.gateway_at(&url, config)
    }

    pub(crate) fn gateway_at(&self, url: &str, config: Config) -> RedisBroker {
        // What stands in Redis is then what publishing left there.
        let config = Arc::new(Config { redis: config::Redis { intake: Vec::new(), ..config.redis.clone() }, ..config });
        let (rules, metrics) = (Rules::new(Arc::clone(&config)), Arc::new(Metrics::new()));
        let target = Target::parse(url).expect("an address");
        RedisBroker::start(&config.redis, target, rules, "r1", 65536, Arc::new(Deaf), metrics)
    }

    /// What a channel's log holds: position, `prev` and data.
    pub(crate) async fn log(&self, channel: &str) -> Vec<(String, String, String)> {
        let key = format!("sluice:log:{{sluice:{channel}}}");
        let entries: Vec<(String, Vec<String>)> = self.ask(&["XRANGE", &key, "-", "+"]).await;
        let field = |fields: &[String], name: &str| {
            fields.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone()).unwrap_or_default()
        };
        entries.into_iter().map(|(id, fields)| (id, field(&fields, "prev"), field(&fields, "data"))).collect()
    }

    /// The server's clock in microseconds.
    pub(crate) async fn now(&self) -> u64 {
        let (seconds, micros): (u64, u64) = self.ask(&["TIME"]).await;
        seconds * 1_000_000 + micros
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn command(words: &[&str]) -> Cmd {
    let mut command = cmd(words[0]);
    command.arg(&words[1..]);
    command
}

async fn connect(port: u16, credentials: Option<&str>) -> RedisResult<MultiplexedConnection> {
    let url = format!("redis://{}127.0.0.1:{port}", credentials.unwrap_or_default());
    redis::Client::open(url)?.get_multiplexed_async_connection().await
}

pub(crate) async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let trying = async {
        loop {
            if let Some(done) = attempt().await {
                return done;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, trying).await.unwrap_or_else(|_| panic!("never: {what}"))
}

pub(crate) fn publish(channel: &str, data: &str, key: Option<&str>) -> Publish {
    let event = Event::new(None, data.to_owned().into()).expect("an event");
    Publish { channel: Channel::new(channel).expect("a name"), event, idempotency_key: key.map(str::to_owned) }
}

/// One publish through a gateway's broker.
pub(crate) async fn through(
    gateway: &RedisBroker,
    channel: &str,
    data: &str,
    key: Option<&str>,
) -> Result<Accepted, Unavailable> {
    gateway.publish(vec![publish(channel, data, key)]).await.remove(0)
}

pub(crate) fn text(accepted: Result<Accepted, Unavailable>) -> String {
    accepted.expect("accepted").position.expect("a position").to_string()
}

struct Deaf;

impl Sink for Deaf {
    fn subscribed(&self, _: &Channel) {}
    fn announced(&self, _: &str, _: Announced) {}
    fn cut(&self, _: &mut dyn Iterator<Item = &Channel>) {}
    fn control(&self, _: bytes::Bytes) {}
    fn reachable(&self, _: Result<(), String>) {}
}
