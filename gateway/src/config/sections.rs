//! Every setting: its text, type, default and what is allowed.
//!
//! The text is written for operators: it stands in the reference as it stands here. What two settings must be to each
//! other is in [`super::checks`].

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    ApiKey, AuthKey, ByteSize, ChannelRule, Rate, Secret, SecretUrl,
    checks::{is_cookie_name, is_log_level, is_origin, is_prefix, is_web_address},
    settings::{Check, any, optional, settings, that, within},
};
use crate::edge::networks::Networks;

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

settings! {
    /// All settings of a gateway.
    pub struct Config {
        /// Where the public port listens: streams, publishing, the console. Port 0 takes a free one.
        pub listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080)), any();
        /// Where the admin port listens: health, metrics, drain. Keep it away from the outside.
        pub admin_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8081)), any();
        /// Networks that may use the admin port, e.g. ["10.0.0.0/8", "127.0.0.1"]; [] for all that reach it.
        pub admin_allow: Networks = Networks::default(), any();
        /// Whether the page at / is served. "auto": while no keys are configured.
        pub console: Option<bool> = None, any();
    }
    parts {
        pub auth: Auth,
        pub tls: Tls,
        pub proxy: Proxy,
        pub redis: Redis,
        pub http: Http,
        pub limits: Limits,
        pub stream: Stream,
        pub outbox: Outbox,
        pub hub: Hub,
        pub history: History,
        pub channel: Vec<ChannelRule>,
        pub memory: Memory,
        pub cors: Cors,
        pub drain: Drain,
        pub log: Log,
        pub traces: Traces,
    }
}

settings! {
    /// Who may do what.
    pub struct Auth {
        /// Let everyone subscribe and publish, on addresses that are not loopback too.
        pub open: bool = false, any();
        /// The cookie that a token may stand in.
        pub cookie: String = "sluice".to_owned(),
            that("of letters, digits, - and _", |name: &String| is_cookie_name(name));
        /// The claim that has what a token allows: a name, or, beginning with "/", a JSON pointer such as "/app/sluice".
        pub claim: String = "sluice".to_owned(), that("that is not empty", |claim: &String| !claim.is_empty());
        /// How far clocks may differ when it is looked whether a token is valid already, or still.
        pub leeway: Duration = secs(10), within(secs(0), mins(5));
        /// How long before its token expires a stream is told so.
        pub expiry_warning: Duration = secs(30), within(secs(0), hours(1));
        /// How often the keys at a jwks_url are fetched.
        pub jwks_refresh: Duration = mins(10), within(secs(1), days(1));
        /// After they were fetched, for how long a token with a key id that is not among them is refused at once.
        pub jwks_cooldown: Duration = secs(10), within(millis(100), hours(1));
    }
    parts {
        pub key: Vec<AuthKey>,
        pub api_key: Vec<ApiKey>,
    }
}

settings! {
    /// TLS on the public port. The files are PEM, and are read again within a second or two when they change.
    pub struct Tls {
        /// The gateway's certificate, then those that lead to the authority that clients know; "" for no TLS.
        pub certificate: Option<PathBuf> = None, any();
        /// The certificate's private key.
        pub key: Option<PathBuf> = None, any();
        /// Certificates of the authorities whose clients may present certificates; "" for none.
        pub client_ca: Option<PathBuf> = None, any();
        /// Whether whoever publishes or closes (POST and DELETE) must have presented a certificate.
        pub publish_needs_certificate: bool = false, any();
    }
}

settings! {
    /// Proxies in front of the public port, and what they are believed.
    pub struct Proxy {
        /// Whether every connection begins with a PROXY protocol header (version 1 or 2). Where networks are trusted, only
        /// from these; else see to it that only the proxy can connect.
        pub protocol: bool = false, any();
        /// Networks of the proxies, e.g. ["10.0.0.0/8", "127.0.0.1"]. Only these are believed what X-Forwarded-For says.
        pub trusted: Networks = Networks::default(), any();
        /// How many proxies a request comes through, where their networks are not known. Without trusted networks anyone
        /// who connects is taken for the last of them.
        pub hops: usize = 0, within(0, 16);
    }
}

settings! {
    /// The Redis, or Valkey, that carries events between replicas. Without one, a gateway stands alone.
    pub struct Redis {
        /// Where it is, e.g. "redis://user:password@redis:6379/0", "redis+sentinel://s1:26379,s2:26379/mymaster" or
        /// "redis+cluster://r1:6379,r2:6379" (rediss for TLS); "" for the embedded broker, or for what stands below.
        pub url: Option<SecretUrl> = None, any();
        /// A file that holds the URL, so that the password need not stand here; "" for none.
        pub url_file: Option<PathBuf> = None, any();
        /// Sentinels that know the master, e.g. ["redis://sentinel-1:26379"]; [] for none.
        pub sentinels: Vec<SecretUrl> = Vec::new(), any();
        /// What the sentinels call the master.
        pub master: String = "mymaster".to_owned(),
            that("that is not empty", |name: &String| !name.is_empty());
        /// Some servers of a cluster, e.g. ["redis://redis-0:6379"]; the others are found through them. [] for none.
        pub cluster: Vec<SecretUrl> = Vec::new(), any();
        /// The user, where the URL names none.
        pub username: Option<String> = None, any();
        /// The password, where the URL has none.
        pub password: Option<Secret> = None, any();
        /// A file that holds the password; "" for none.
        pub password_file: Option<PathBuf> = None, any();
        /// The number of the database, where the URL says none. A cluster has only 0.
        pub database: Option<u64> = None, optional(within(0, 1_000_000));
        /// The user at the sentinels, where their URLs name none.
        pub sentinel_username: Option<String> = None, any();
        /// The password at the sentinels, where their URLs have none.
        pub sentinel_password: Option<Secret> = None, any();
        /// A file that holds the password at the sentinels; "" for none.
        pub sentinel_password_file: Option<PathBuf> = None, any();
        /// Certificates of the authorities that the servers' own are trusted by (PEM); "" for those of the system.
        pub ca: Option<PathBuf> = None, any();
        /// The gateway's certificate, where the servers ask for one (PEM); "" for none.
        pub certificate: Option<PathBuf> = None, any();
        /// That certificate's private key.
        pub key: Option<PathBuf> = None, any();
        /// What every name in Redis begins with. Gateways with another prefix share nothing.
        pub prefix: String = "sluice:".to_owned(),
            that("of at most 64 bytes, all of them characters that a channel's name may have",
                |text: &String| is_prefix(text));
        /// How long one command may take.
        pub timeout: Duration = secs(2), within(millis(10), secs(60));
        /// How long Redis may be away before the replica reports that it is not ready.
        pub grace: Duration = secs(5), within(secs(0), mins(10));
        /// How long a channel's subscription is kept after its last client has left.
        pub linger: Duration = secs(5), within(secs(0), mins(10));
        /// Connections for commands, to each master; subscriptions have their own.
        pub pool: usize = 16, within(1, 1024);
        /// How long an event may wait for others to go with, while many are published; "0s" never.
        pub gather: Duration = millis(1), within(secs(0), millis(100));
        /// On how many replicas of its master an event must be before it is answered for.
        pub wait_replicas: usize = 0, within(0, 16);
        /// How long that may take.
        pub wait_timeout: Duration = secs(1), within(millis(10), secs(30));
        /// Streams in Redis from which events are taken in, after the prefix (sluice:intake); [] for none.
        pub intake: Vec<String> = vec!["intake".to_owned()], that("of names of streams, each of 1 to 64 letters, \
            digits, - and _", |names: &Vec<String>| names.iter().all(|name| is_cookie_name(name)));
        /// How often Redis is looked at for what would break a promise: its settings, rights, memory and clock.
        pub check_every: Duration = mins(1), within(secs(1), days(1));
    }
}

settings! {
    /// Requests, before one becomes a stream.
    pub struct Http {
        /// How long a client may take to send a request's head.
        pub header_timeout: Duration = secs(10), within(millis(100), mins(5));
        /// How long a kept-alive connection may be without a request: longer than the proxy in front keeps one, else a
        /// request can meet the end of its connection.
        pub idle_timeout: Duration = secs(75), within(secs(1), hours(1));
        /// How long a client may take to send a request's body.
        pub body_timeout: Duration = secs(30), within(millis(100), mins(10));
        /// The largest request head.
        pub max_header_bytes: ByteSize = ByteSize::kib(64), within(ByteSize::kib(8), ByteSize::mib(1));
    }
}

settings! {
    /// Bounds that keep one replica healthy, whatever its clients do.
    pub struct Limits {
        /// Open streams of a replica.
        pub connections: usize = 19_000, within(1, 10_000_000);
        /// Open streams of one address (of IPv6: of one /64). Behind a proxy everyone has the proxy's.
        pub connections_per_address: Option<usize> = None, optional(within(1, 10_000_000));
        /// Open streams of one subject.
        pub connections_per_subject: Option<usize> = None, optional(within(1, 10_000_000));
        /// How often one address may ask for a stream.
        pub connect_rate_per_address: Option<Rate> = None, any();
        /// How often one subject may ask for a stream.
        pub connect_rate_per_subject: Option<Rate> = None, any();
        /// How often one address may publish: requests, of one event or many.
        pub publish_rate_per_address: Option<Rate> = None, any();
        /// How often one subject, or one API key, may publish: requests.
        pub publish_rate_per_subject: Option<Rate> = None, any();
        /// How many events may be published to one channel through this replica.
        pub publish_rate_per_channel: Option<Rate> = None, any();
        /// Channels that one connection may ask for.
        pub channels_per_connection: usize = 64, within(1, 1024);
        /// The data of one event.
        pub event_bytes: ByteSize = ByteSize::kib(64), within(ByteSize::new(1), ByteSize::mib(16));
        /// Events in one request that publishes many.
        pub batch_events: usize = 1000, within(1, 100_000);
        /// The body of a request that publishes many.
        pub batch_bytes: ByteSize = ByteSize::mib(1), within(ByteSize::kib(1), ByteSize::mib(256));
        /// Distinct channels that a replica's clients are subscribed to.
        pub channels: usize = 100_000, within(1, 10_000_000);
        /// Reads of history under way at a time; the others wait.
        pub replays: usize = 64, within(1, 10_000);
        /// Memory for pages of history that clients are reading; further pages wait until some have been read.
        pub replay_bytes: ByteSize = ByteSize::mib(256), within(ByteSize::mib(1), ByteSize::mib(1024 * 1024));
        /// Memory for requests' bodies that are being received; who sends more is told to come back.
        pub body_bytes: ByteSize = ByteSize::mib(256), within(ByteSize::mib(1), ByteSize::mib(1024 * 1024));
        /// Connections that have sent no whole request yet, or wait for their next. Of more, the oldest are closed.
        pub pending: usize = 1000, within(1, 1_000_000);
    }
}

settings! {
    /// Event streams.
    pub struct Stream {
        /// How long a stream may be silent before a heartbeat is sent.
        pub heartbeat: Duration = secs(20), within(secs(1), mins(10));
        /// Clients are told to wait a random time before they reconnect: at least this long ...
        pub retry_min: Duration = secs(1), within(millis(10), mins(10));
        /// ... and at most this long.
        pub retry_max: Duration = secs(3), within(millis(10), mins(10));
        /// A client that takes no byte for this long is cut.
        pub write_timeout: Duration = secs(30), within(secs(1), hours(1));
        /// Whether streams are compressed, with zstd or gzip, for clients that accept it.
        pub compression: bool = true, any();
        /// How long a stream may last before the client is asked to reconnect, so that load spreads again.
        pub max_age: Option<Duration> = None, optional(within(secs(1), days(30)));
    }
}

settings! {
    /// What waits in memory for clients that read more slowly than events come.
    pub struct Outbox {
        /// Of one connection.
        pub max_bytes: ByteSize = ByteSize::kib(256), within(ByteSize::kib(4), ByteSize::mib(64));
        /// Of all connections of a replica together.
        pub total_bytes: ByteSize = ByteSize::mib(256), within(ByteSize::mib(1), ByteSize::mib(1024 * 1024));
    }
}

settings! {
    /// The fan-out engine.
    pub struct Hub {
        /// Threads that own the streams; 0 for one per core.
        pub shards: usize = 0, within(0, 64);
        /// Events that may wait for one of those threads. More are read from history once it has caught up.
        pub queue_events: usize = 65536, within(1, 16_777_216);
        /// Recent events kept in memory per channel, for clients that reconnect soon.
        pub tail_bytes: ByteSize = ByteSize::kib(64), within(ByteSize::new(0), ByteSize::mib(64));
        /// The same, of all channels of a replica together.
        pub tail_total_bytes: ByteSize = ByteSize::mib(256), within(ByteSize::new(0), ByteSize::mib(1024 * 1024));
    }
}

settings! {
    /// What is kept of every channel that no [[channel]] rule matches, so that clients can resume.
    pub struct History {
        /// Events kept per channel.
        pub size: u64 = 1000, history_size();
        /// How long an event is kept.
        pub age: Duration = mins(10), history_age();
        /// How long a silent channel is remembered, so that its clients are told that they missed nothing.
        pub memory: Duration = days(7), within(mins(1), days(365));
        /// How long the Idempotency-Key of an event is remembered.
        pub idempotency: Duration = mins(10), within(secs(1), days(7));
    }
}

settings! {
    /// The embedded broker, which serves while no Redis is configured.
    pub struct Memory {
        /// History of all channels together; the oldest events make room.
        pub max_bytes: ByteSize = ByteSize::mib(256), within(ByteSize::mib(1), ByteSize::mib(1024 * 1024));
    }
}

settings! {
    /// Pages of other origins.
    pub struct Cors {
        /// Origins whose pages may use the gateway, e.g. ["https://app.example.com"]; [] or "*" for all.
        pub origins: Vec<String> = Vec::new(),
            that("of origins as browsers send them (scheme://host or scheme://host:port, in lower case and without \
                  the scheme's own port), or \"*\"", |origins: &Vec<String>| origins.iter().all(|one| is_origin(one)));
    }
}

settings! {
    /// How a replica leaves after SIGTERM.
    pub struct Drain {
        /// How long it goes on as before while load balancers take notice.
        pub delay: Duration = secs(5), within(secs(0), mins(10));
        /// Over how long it then closes its streams, evenly.
        pub window: Duration = secs(30), within(secs(0), hours(1));
    }
}

settings! {
    /// The log, on standard error.
    pub struct Log {
        /// Lines for people, or JSON for machines.
        pub format: LogFormat = LogFormat::Text, any();
        /// What is logged: a level (error, warn, info, debug, trace, off), or levels by module.
        pub level: String = "info".to_owned(),
            that("such as \"info\" or \"warn,sluice_gateway=debug\"", |text: &String| is_log_level(text));
    }
}

settings! {
    /// Traces of publishing and connecting, sent to an OpenTelemetry collector by OTLP over HTTP.
    pub struct Traces {
        /// The collector's address, e.g. "http://collector:4318"; what has no path gets /v1/traces. Headers that it wants are
        /// taken from OTEL_EXPORTER_OTLP_HEADERS. "" for no traces at all.
        pub otlp: Option<String> = None, optional(
            that("that is a URL with http:// or https://, and without a password", |url: &String| is_web_address(url)));
        /// Of how many requests one is traced, where the request does not say itself with a traceparent.
        pub one_in: u64 = 10, within(1, 1_000_000_000);
        /// The name that traces have the gateway under.
        pub service: String = "sluice".to_owned(), that("that is not empty", |name: &String| !name.is_empty());
    }
}

/// What `history.size` may be, here and in rules.
pub(super) fn history_size() -> Check<u64> {
    within(1, 10_000_000)
}

/// What `history.age` may be, here and in rules.
pub(super) fn history_age() -> Check<Duration> {
    within(secs(1), days(365))
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn mins(mins: u64) -> Duration {
    secs(mins * 60)
}

const fn hours(hours: u64) -> Duration {
    mins(hours * 60)
}

const fn days(days: u64) -> Duration {
    hours(days * 24)
}
