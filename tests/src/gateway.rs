//! A gateway as a process of its own.

use crate::{
    client::{Client, Request},
    http::Http,
    ports,
    process::{Process, binary, directory},
    tls::{self, Authority},
    wait,
};
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// The settings file of a process, in its own directory.
const SETTINGS: &str = "sluice.toml";

/// How a gateway is started.
#[derive(Debug, Default, Clone)]
pub struct Options {
    /// The settings file, as TOML.
    pub config: String,
    pub redis: Option<String>,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Where it serves, if not on a free port.
    pub address: Option<SocketAddr>,
}

/// A gateway that is ready, or was.
#[derive(Debug)]
pub struct Gateway {
    pub process: Process,
    pub address: SocketAddr,
    pub admin_address: SocketAddr,
    /// Requests to the public port.
    pub http: Http,
    /// Requests to the admin port.
    pub admin: Http,
    options: Options,
    directory: TempDir,
}

/// The command line of a gateway, with nothing of this environment's settings.
#[must_use]
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(binary("sluice-gateway"));
    command.args(args).env_clear();
    command
}

impl Gateway {
    /// One with the embedded broker.
    pub async fn start(config: &str) -> Self {
        Self::start_with(Options { config: config.to_owned(), ..Options::default() }).await
    }

    pub async fn start_with(options: Options) -> Self {
        let gateway = Self::spawn(options);
        gateway.wait_ready(wait::PATIENCE).await;
        gateway
    }

    /// One with other files beside its settings file, which `make` puts into that directory.
    pub async fn start_beside(options: Options, make: impl FnOnce(&Path)) -> Self {
        let gateway = Self::spawn_beside(options, make);
        gateway.wait_ready(wait::PATIENCE).await;
        gateway
    }

    /// The same without waiting.
    #[must_use]
    pub fn spawn_beside(options: Options, make: impl FnOnce(&Path)) -> Self {
        let directory = directory();
        make(directory.path());
        Self::spawn_in(directory, options)
    }

    /// One that speaks TLS with a certificate of this authority. Its own requests do too, those to the admin port aside;
    /// streams as a test has them.
    pub async fn start_secure(config: &str, authority: &Authority) -> Self {
        let options = Options { config: format!("{config}{}", tls::SERVED), ..Options::default() };
        let mut gateway = Self::start_beside(options, |directory| authority.server().write(directory)).await;
        gateway.http = tls::http(gateway.address, authority, None);
        gateway
    }

    /// Where the files beside its settings file are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts it without waiting.
    ///
    /// # Panics
    /// When the binary is missing.
    #[must_use]
    pub fn spawn(options: Options) -> Self {
        Self::spawn_in(directory(), options)
    }

    fn spawn_in(directory: TempDir, options: Options) -> Self {
        settings_file(&directory, &options.config);
        let (address, admin_address) = (options.address.unwrap_or_else(ports::free), ports::free());
        let process = run(&directory, address, admin_address, &options);
        let (http, admin) = (Http::new(address), Http::new(admin_address));
        Self { process, address, admin_address, http, admin, options, directory }
    }

    /// Starts it anew on the same ports, without waiting; it must have ended.
    pub fn restart(&mut self) {
        self.process = run(&self.directory, self.address, self.admin_address, &self.options);
    }

    /// Waits until `/readyz` says so.
    pub async fn wait_ready(&self, limit: Duration) {
        wait::until_within("the gateway is ready", limit, async || (self.ready().await == Some(200)).then_some(()))
            .await;
    }

    /// The status of `/readyz`, if it is answered.
    pub async fn ready(&self) -> Option<u16> {
        self.admin.try_send("GET", "/readyz", &[], "").await.ok().map(|answer| answer.status)
    }

    /// A request for the stream of these channels.
    #[must_use]
    pub fn events(&self, channels: &[&str]) -> Request {
        Request::new(self.address, &events_target(channels))
    }

    /// A client on one connection.
    pub async fn subscribe(&self, channels: &[&str]) -> Client {
        Client::once(self.events(channels)).await
    }

    /// Publishes one event, which must be taken; answers where it stands.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn publish(&self, channel: &str, data: impl Into<reqwest::Body>) -> Value {
        let answer = self.http.post(&format!("/channels/{channel}/events"), data).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Connections that this replica says it has.
    pub async fn connections(&self) -> u64 {
        self.http.json("/connections").await["connections"]["replica"].as_u64().expect("a count")
    }

    /// The sum of a metric's series whose labels contain all of `labels` (such as `reason="slow"`).
    ///
    /// # Panics
    /// When there is no such series.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.admin.get("/metrics").await.text();
        let series: Vec<f64> = text
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter(|rest| rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label)))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse().ok())
            .collect();
        assert!(!series.is_empty(), "no metric {name} {labels:?} in:\n{text}");
        series.iter().sum()
    }

    /// Waits until a metric has a value.
    pub async fn wait_metric(&self, name: &str, labels: &[&str], value: f64) {
        let what = format!("{name} {labels:?} is {value}");
        wait::until(&what, async || (self.metric(name, labels).await == value).then_some(())).await;
    }
}

fn run(directory: &TempDir, address: SocketAddr, admin_address: SocketAddr, options: &Options) -> Process {
    let mut command = command(&["--listen", &address.to_string(), "--admin-listen", &admin_address.to_string()]);
    command.arg("--config").arg(directory.path().join(SETTINGS)).args(&options.args);
    command.envs(options.env.iter().map(|(name, value)| (name, value)));
    if let Some(url) = &options.redis {
        command.args(["--redis", url]);
    }
    Process::start("gateway", &mut command, directory.path())
}

/// Path and query of the stream of these channels.
#[must_use]
pub fn events_target(channels: &[&str]) -> String {
    let query: Vec<_> = channels.iter().map(|channel| format!("channel={channel}")).collect();
    format!("/events?{}", query.join("&"))
}

/// Writes a settings file.
///
/// # Panics
/// When it cannot.
pub fn settings_file(directory: &TempDir, config: &str) -> PathBuf {
    let file = directory.path().join(SETTINGS);
    std::fs::write(&file, config).expect("a settings file");
    file
}
