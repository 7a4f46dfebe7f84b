//! A redis-server that can be killed and started again with its data; alone, or one of a [`cluster`] or of those that
//! [`sentinel`]s watch.

pub mod cluster;
pub mod sentinel;

use crate::{
    ports,
    process::{Process, directory},
    tls::Authority,
    wait,
};
use redis::aio::MultiplexedConnection;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};
use tempfile::TempDir;

/// A running redis-server, or one that was killed.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    address: SocketAddr,
    kind: Kind,
    directory: TempDir,
}

/// Which server, and how it is started.
#[derive(Debug, Clone)]
pub struct Kind {
    /// The program.
    pub server: PathBuf,
    pub durable: bool,
    /// Beside what every one of them has.
    pub args: Vec<String>,
    /// Whether the port and 10,000 is taken too.
    pub with_bus: bool,
    /// Beside `redis://host:port`: user and password, with the `@`.
    pub credentials: String,
    /// Whoever signed the certificates of all: TLS and nothing else, and a certificate of everybody.
    pub tls: Option<Arc<Authority>>,
}

impl Default for Kind {
    fn default() -> Self {
        let server = "redis-server".into();
        Self { server, durable: false, args: Vec::new(), with_bus: false, credentials: String::new(), tls: None }
    }
}

/// Another server than Debian's, which `tests/run` has put there: `redis-6.2`, `valkey-8.1` or `valkey-9.1`.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn server(name: &str) -> PathBuf {
    let target = crate::process::binary("sluice-gateway");
    let target = target.ancestors().nth(2).expect("a target directory");
    let path = target.join("servers").join(name);
    assert!(path.is_file(), "{} is missing: tests/run puts it there", path.display());
    path
}

impl Redis {
    /// One that keeps nothing on disk.
    pub async fn start() -> Self {
        Self::start_as(Kind::default()).await
    }

    /// One whose every answered write survives `kill -9`.
    pub async fn start_durable() -> Self {
        Self::start_as(Kind { durable: true, ..Kind::default() }).await
    }

    pub async fn start_as(kind: Kind) -> Self {
        let redis = Self::spawn(kind, |_| {});
        redis.wait_ready().await;
        redis
    }

    /// Starts it without waiting, in a directory that `make` has put files into.
    ///
    /// # Panics
    /// When the program is missing.
    #[must_use]
    pub fn spawn(kind: Kind, make: impl FnOnce(&Path)) -> Self {
        let address = if kind.with_bus { ports::free_with_bus() } else { ports::free() };
        let directory = directory();
        if let Some(authority) = &kind.tls {
            authority.write_both(directory.path());
        }
        make(directory.path());
        let process = run(&directory, address, &kind);
        Self { process, address, kind, directory }
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Sends a signal: STOP and CONT freeze and thaw it.
    pub fn signal(&mut self, signal: rustix::process::Signal) {
        self.process.signal(signal);
    }

    /// An orderly end, as by `SHUTDOWN`.
    pub async fn stop(&mut self) {
        self.process.signal(rustix::process::Signal::TERM);
        self.process.end(wait::PATIENCE).await;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again where it was, with what it kept.
    pub async fn restart(&mut self) {
        self.process = run(&self.directory, self.address, &self.kind);
        self.wait_ready().await;
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs one command.
    ///
    /// # Panics
    /// When Redis does not answer, or refuses it.
    pub async fn run<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.connection().await;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.kind.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{}{}", self.kind.credentials, self.address)
    }

    /// # Panics
    /// When it does not answer.
    pub async fn connection(&self) -> MultiplexedConnection {
        self.try_connection().await.expect("redis answers")
    }

    /// A raw `PUBLISH`, as any program would send it; answers how many subscribers took it.
    ///
    /// # Panics
    /// When Redis does not answer.
    pub async fn publish(&self, name: &str, payload: &str) -> i64 {
        let mut connection = self.connection().await;
        redis::cmd("PUBLISH").arg(name).arg(payload).query_async(&mut connection).await.expect("published")
    }

    /// All pub/sub channels that have a subscriber and match, sorted.
    ///
    /// # Panics
    /// When Redis does not answer.
    pub async fn subscribed(&self, pattern: &str) -> Vec<String> {
        let mut connection = self.connection().await;
        let mut names: Vec<String> =
            redis::cmd("PUBSUB").arg("CHANNELS").arg(pattern).query_async(&mut connection).await.expect("an answer");
        names.sort();
        names
    }

    /// How many subscriptions a pub/sub channel has.
    ///
    /// # Panics
    /// When Redis does not answer.
    pub async fn subscribers(&self, name: &str) -> i64 {
        let mut connection = self.connection().await;
        let (_, count): (String, i64) =
            redis::cmd("PUBSUB").arg("NUMSUB").arg(name).query_async(&mut connection).await.expect("an answer");
        count
    }

    pub async fn try_connection(&self) -> Option<MultiplexedConnection> {
        let client = client(&self.url(), self.kind.tls.as_deref());
        let limit = Some(std::time::Duration::from_secs(1));
        let config = redis::AsyncConnectionConfig::new().set_connection_timeout(limit).set_response_timeout(limit);
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.ok()?;
        // It answers with LOADING while it reads its file.
        redis::cmd("PING").query_async::<String>(&mut connection).await.ok()?;
        Some(connection)
    }

    pub async fn wait_ready(&self) {
        wait::until("redis-server answers", async || self.try_connection().await).await;
    }
}

/// Settings of servers and sentinels that speak TLS, and what they are in their directory.
const TLS_FILES: [(&str, &str); 3] =
    [("tls-cert-file", "server.crt"), ("tls-key-file", "server.key"), ("tls-ca-cert-file", "ca.crt")];

/// One that has a certificate, where servers ask for it.
fn client(url: &str, tls: Option<&Authority>) -> redis::Client {
    let Some(authority) = tls else { return redis::Client::open(url).expect("a URL") };
    let own = authority.client("a test");
    let (client_cert, client_key) = (own.certificate.into_bytes(), own.key.into_bytes());
    let certificates = redis::TlsCertificates {
        client_tls: Some(redis::ClientTlsConfig { client_cert, client_key }),
        root_cert: Some(authority.pem.clone().into_bytes()),
    };
    redis::Client::build_with_tls(url, certificates).expect("a URL")
}

fn run(directory: &TempDir, address: SocketAddr, kind: &Kind) -> Process {
    let mut command = Command::new(&kind.server);
    let port = address.port().to_string();
    command.args(["--bind", &address.ip().to_string(), "--save", ""]);
    if kind.tls.is_some() {
        command.args(["--port", "0", "--tls-port", &port, "--tls-replication", "yes", "--tls-cluster", "yes"]);
        for (setting, file) in TLS_FILES {
            command.arg(format!("--{setting}")).arg(file);
        }
    } else {
        command.args(["--port", &port]);
    }
    command.args(["--appendonly", if kind.durable { "yes" } else { "no" }, "--appendfsync", "always"]);
    // A replica is served at once, and not after waiting for others.
    command.args(["--repl-diskless-sync-delay", "0"]);
    command.arg("--dir").arg(directory.path()).current_dir(directory.path()).args(&kind.args);
    Process::start("redis", &mut command, directory.path())
}
