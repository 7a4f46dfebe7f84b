//! Where Redis is and how to be let in: read from URLs and files, before anything is connected.
//!
//! `redis://`, `rediss://` and `unix://` name one server. `redis+sentinel://s1,s2/name` names sentinels and their master,
//! `redis+cluster://r1,r2` some servers of a cluster; with `rediss` these are spoken to by TLS. User and password of a URL
//! are those of the servers that hold the data; sentinels have their own.

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::fmt;

const DEFAULT_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// What a URL may begin with, in words.
pub const SCHEMES: &str = "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// (rediss+… for TLS)";

/// Why a text does not say where Redis is. Says nothing of what stands in the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTarget(String);

/// Who says that it is who, at one kind of server.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub username: Option<String>,
    pub password: Option<String>,
}

/// PEM: whom to believe, and what to be believed by.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    pub ca: Option<Vec<u8>>,
    /// Certificate and key.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

/// Which servers there are.
#[derive(Clone, Debug)]
pub(super) enum Topology {
    One,
    Sentinels { at: Vec<ConnectionInfo>, master: String },
    Cluster { seeds: Vec<Address> },
}

/// Host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Target {
    pub(super) topology: Topology,
    /// Of a server that holds data: the only one, or what all of them have in common.
    server: ConnectionInfo,
}

impl Target {
    /// What one URL says.
    ///
    /// # Errors
    /// When it cannot be understood. The error does not repeat it.
    pub fn parse(url: &str) -> Result<Self, InvalidTarget> {
        let Some(parts) = Several::split(url)? else {
            let server = info(url)?;
            return Ok(Self { topology: Topology::One, server });
        };
        match parts.kind {
            Kind::Cluster => {
                if !parts.path.is_empty() {
                    return Err(invalid("a cluster has no databases: nothing stands after its servers"));
                }
                parts.no_query()?;
                let servers = parts.servers(DEFAULT_PORT)?;
                let seeds = servers.iter().filter_map(|server| address(server.addr())).collect();
                let server = servers.into_iter().next().ok_or(invalid("it names no server"))?;
                Ok(Self { topology: Topology::Cluster { seeds }, server })
            }
            Kind::Sentinel => {
                let (master, database) = parts.path.split_once('/').unwrap_or((parts.path, ""));
                if master.is_empty() {
                    return Err(invalid(
                        "the name of the master stands after the sentinels: redis+sentinel://s1,s2/name",
                    ));
                }
                let mut server = parts.servers(DEFAULT_PORT)?.swap_remove(0);
                if !database.is_empty() {
                    let number = database.parse().map_err(|_| invalid("the database is a number"))?;
                    let settings = server.redis_settings().clone().set_db(number);
                    server = server.set_redis_settings(settings);
                }
                let own = parts.sentinel_credentials()?;
                let bare = Several { user_info: "", ..parts };
                let at = bare.servers(SENTINEL_PORT)?.into_iter().map(|sentinel| with(sentinel, &own)).collect();
                Ok(Self { topology: Topology::Sentinels { at, master: master.to_owned() }, server })
            }
        }
    }

    /// Sentinels by a URL each, and the name of the master.
    ///
    /// # Errors
    /// When a URL is none of one server.
    pub fn by_sentinels(urls: &[&str], master: &str) -> Result<Self, InvalidTarget> {
        let at = urls
            .iter()
            .map(|url| {
                let sentinel = info(url)?;
                let has_port = redis::parse_redis_url(url).is_some_and(|url| url.port().is_some());
                Ok(match (address(sentinel.addr()), has_port) {
                    (Some(address), false) => at_address(&sentinel, Address { port: SENTINEL_PORT, ..address }),
                    _ => sentinel,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let first = at.first().ok_or(invalid("there is no sentinel"))?;
        let server = first.clone().set_redis_settings(RedisConnectionInfo::default());
        Ok(Self { topology: Topology::Sentinels { at, master: master.to_owned() }, server })
    }

    /// A cluster by the URLs of some of its servers.
    ///
    /// # Errors
    /// When a URL is none of one server, or names a database.
    pub fn by_cluster(urls: &[&str]) -> Result<Self, InvalidTarget> {
        let servers = urls.iter().map(|url| info(url)).collect::<Result<Vec<_>, _>>()?;
        let seeds: Vec<_> = servers.iter().filter_map(|server| address(server.addr())).collect();
        if seeds.len() != servers.len() {
            return Err(invalid("a server of a cluster has a host and a port"));
        }
        if servers.iter().any(|server| server.redis_settings().db() != 0) {
            return Err(invalid("a cluster has no databases but 0"));
        }
        let has_password = |server: &&ConnectionInfo| server.redis_settings().password().is_some();
        let server =
            servers.iter().find(has_password).or(servers.first()).ok_or(invalid("there is no server"))?.clone();
        Ok(Self { topology: Topology::Cluster { seeds }, server })
    }

    /// The same with these where the URL says nothing of them.
    ///
    /// # Errors
    /// When a cluster is to have a database.
    pub fn with_credentials(mut self, own: &Credentials, database: Option<u64>) -> Result<Self, InvalidTarget> {
        if matches!(self.topology, Topology::Cluster { .. }) && database.is_some_and(|number| number != 0) {
            return Err(invalid("a cluster has no databases but 0"));
        }
        self.server = with(self.server, own);
        if let Some(number) = database.and_then(|number| i64::try_from(number).ok())
            && self.server.redis_settings().db() == 0
        {
            let settings = self.server.redis_settings().clone().set_db(number);
            self.server = self.server.set_redis_settings(settings);
        }
        Ok(self)
    }

    /// The same with the sentinels' own, where their URLs have none.
    #[must_use]
    pub fn with_sentinel_credentials(mut self, own: &Credentials) -> Self {
        if let Topology::Sentinels { at, .. } = &mut self.topology {
            *at = std::mem::take(at).into_iter().map(|sentinel| with(sentinel, own)).collect();
        }
        self
    }

    /// The same with these for connections that are TLS.
    ///
    /// # Errors
    /// When nothing is TLS, or a file holds no certificate or key.
    pub fn with_tls(mut self, files: &TlsFiles) -> Result<Self, InvalidTarget> {
        if *files == TlsFiles::default() {
            return Ok(self);
        }
        if !self.is_tls() {
            return Err(invalid("certificates are of use where the URL begins with rediss"));
        }
        let pem = [files.ca.as_ref(), files.client.as_ref().map(|(certificate, _)| certificate)];
        if pem.into_iter().flatten().any(|pem| !has_certificate(pem)) {
            return Err(invalid("the file holds no certificate (PEM)"));
        }
        self.server = secured(self.server, files)?;
        if let Topology::Sentinels { at, .. } = &mut self.topology {
            *at = std::mem::take(at).into_iter().map(|one| secured(one, files)).collect::<Result<_, _>>()?;
        }
        Ok(self)
    }

    /// Whether anything is spoken to by TLS.
    fn is_tls(&self) -> bool {
        let is_tls = |info: &ConnectionInfo| matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        is_tls(&self.server) || matches!(&self.topology, Topology::Sentinels { at, .. } if at.iter().any(is_tls))
    }

    /// Host and port of the server that is configured, if it has them.
    pub(super) fn address(&self) -> Option<Address> {
        address(self.server.addr())
    }

    /// Whether names are preferred to addresses, as certificates have names.
    pub(super) fn prefers_names(&self) -> bool {
        matches!(self.server.addr(), ConnectionAddr::TcpTls { .. })
    }

    /// How to connect to a server that holds data; to the one that is configured if none is given.
    pub(super) fn server(&self, at: Option<&Address>) -> ConnectionInfo {
        match at {
            Some(address) => at_address(&self.server, address.clone()),
            None => self.server.clone(),
        }
    }
}

/// Of a URL that names several servers.
#[derive(Clone, Copy)]
struct Several<'a> {
    kind: Kind,
    secure: bool,
    /// As in the URL, without the `@`.
    user_info: &'a str,
    hosts: &'a str,
    path: &'a str,
    query: &'a str,
}

#[derive(Clone, Copy)]
enum Kind {
    Sentinel,
    Cluster,
}

impl<'a> Several<'a> {
    /// The parts of a URL, `None` if it is one of another kind.
    fn split(url: &'a str) -> Result<Option<Self>, InvalidTarget> {
        let Some((scheme, rest)) = url.split_once("://") else { return Ok(None) };
        let (kind, secure) = match scheme {
            "redis+sentinel" => (Kind::Sentinel, false),
            "rediss+sentinel" => (Kind::Sentinel, true),
            "redis+cluster" => (Kind::Cluster, false),
            "rediss+cluster" => (Kind::Cluster, true),
            _ => return Ok(None),
        };
        if rest.contains('#') {
            return Err(invalid("it has a #, which in a password is written %23"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user_info, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        if path.contains('@') {
            return Err(invalid("it has a / before an @, which in a password is written %2F"));
        }
        Ok(Some(Self { kind, secure, user_info, hosts, path, query }))
    }

    /// Each of the servers, with the user and password of the URL.
    fn servers(&self, default_port: u16) -> Result<Vec<ConnectionInfo>, InvalidTarget> {
        let scheme = if self.secure { "rediss" } else { "redis" };
        let at = if self.user_info.is_empty() { "" } else { "@" };
        let server = |host: &str| {
            let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
            let port = if has_port { String::new() } else { format!(":{default_port}") };
            info(&format!("{scheme}://{}{at}{host}{port}", self.user_info))
        };
        self.hosts.split(',').map(server).collect()
    }

    fn no_query(&self) -> Result<(), InvalidTarget> {
        if self.query.is_empty() { Ok(()) } else { Err(invalid("nothing stands after a ?")) }
    }

    fn sentinel_credentials(&self) -> Result<Credentials, InvalidTarget> {
        let mut own = Credentials::default();
        for (name, value) in form_urlencoded::parse(self.query.as_bytes()) {
            match &*name {
                "sentinel_username" => own.username = Some(value.into_owned()),
                "sentinel_password" => own.password = Some(value.into_owned()),
                _ => return Err(invalid("after the ? stand sentinel_username and sentinel_password only")),
            }
        }
        Ok(own)
    }
}

/// A URL with several servers without its secrets, as it may be shown; `None` if it is one of another kind, and nothing
/// that can be shown if it is not understood.
pub(crate) fn shown(url: &str) -> Option<String> {
    let (scheme, _) = url.split_once("://")?;
    if !scheme.ends_with("+sentinel") && !scheme.ends_with("+cluster") {
        return None;
    }
    let hidden = "(hidden)".to_owned();
    let Ok(Some(parts)) = Several::split(url) else { return Some(hidden) };
    if Target::parse(url).is_err() {
        return Some(hidden);
    }
    let user = match parts.user_info.split_once(':') {
        Some((user, _)) => format!("{user}:***@"),
        None if parts.user_info.is_empty() => String::new(),
        None => format!("{}@", parts.user_info),
    };
    let path = if parts.path.is_empty() { String::new() } else { format!("/{}", parts.path) };
    let query = if parts.query.is_empty() { "" } else { "?***" };
    Some(format!("{scheme}://{user}{}{path}{query}", parts.hosts))
}

/// Whether a URL names one server by host and port.
pub(crate) fn is_of_one(url: &str) -> bool {
    ["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme))
}

fn invalid(why: &str) -> InvalidTarget {
    InvalidTarget(why.to_owned())
}

/// One server by its URL.
fn info(url: &str) -> Result<ConnectionInfo, InvalidTarget> {
    let is_known = ["redis", "rediss", "unix", "redis+unix", "valkey", "valkeys", "valkey+unix"]
        .iter()
        .any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| rest.starts_with("://")));
    let parsed = redis::parse_redis_url(url).ok_or_else(|| match is_known {
        true => invalid("its host or port cannot be read"),
        false => InvalidTarget(format!("it does not begin with {SCHEMES}")),
    })?;
    if matches!(parsed.scheme(), "redis" | "rediss") && parsed.host().is_none() {
        return Err(invalid("it names no host"));
    }
    if parsed.fragment().is_some() {
        return Err(invalid("it has a #, which in a password is written %23"));
    }
    let info = parsed.into_connection_info().map_err(|error| InvalidTarget(error.to_string()))?;
    if info.redis_settings().db() < 0 {
        return Err(invalid("the number of a database is 0 or more"));
    }
    Ok(info)
}

fn address(addr: &ConnectionAddr) -> Option<Address> {
    match addr {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some(Address { host: host.clone(), port: *port })
        }
        _ => None,
    }
}

/// The same credentials and security at another address.
fn at_address(info: &ConnectionInfo, Address { host, port }: Address) -> ConnectionInfo {
    let address = match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(address)
}

/// With a user and a password where there are none.
fn with(info: ConnectionInfo, own: &Credentials) -> ConnectionInfo {
    let mut settings = info.redis_settings().clone();
    if let (None, Some(username)) = (settings.username(), &own.username) {
        settings = settings.set_username(username);
    }
    if let (None, Some(password)) = (settings.password(), &own.password) {
        settings = settings.set_password(password);
    }
    info.set_redis_settings(settings)
}

fn has_certificate(pem: &[u8]) -> bool {
    let mut certificates = CertificateDer::pem_slice_iter(pem);
    certificates.next().is_some_and(|first| first.is_ok()) && certificates.all(|one| one.is_ok())
}

fn secured(info: ConnectionInfo, files: &TlsFiles) -> Result<ConnectionInfo, InvalidTarget> {
    if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        return Ok(info);
    }
    let client_tls = files.client.clone().map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
    let certificates = TlsCertificates { client_tls, root_cert: files.ca.clone() };
    let client = Client::build_with_tls(info, certificates).map_err(|error| InvalidTarget(error.to_string()))?;
    Ok(client.get_connection_info().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Target {
        Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn one_server_by_its_url() {
        for (url, shown) in [
            ("redis://db:6380/2", "db:6380"),
            ("rediss://db", "db:6379"),
            ("redis://[::1]:6380", "::1:6380"),
            ("unix:///run/redis.sock?db=1", "/run/redis.sock"),
        ] {
            let target = parsed(url);
            assert!(matches!(target.topology, Topology::One), "{url}");
            assert_eq!(target.server(None).addr().to_string(), shown, "{url}");
        }
    }

    #[test]
    fn sentinels_and_their_master() {
        let url = "rediss+sentinel://me:s%2Fx@s1,[::1]:7,s3:26380/orders/3?sentinel_password=p%26q";
        let target = parsed(url);
        let Topology::Sentinels { at, master } = &target.topology else { panic!("{target:?}") };
        assert_eq!(master, "orders");
        let addresses: Vec<_> = at.iter().map(|one| one.addr().to_string()).collect();
        assert_eq!(addresses, ["s1:26379", "::1:7", "s3:26380"]);
        assert!(at.iter().all(|one| one.redis_settings().password() == Some("p&q")), "their own password");
        assert!(at.iter().all(|one| one.redis_settings().username().is_none() && one.redis_settings().db() == 0));
        let server = target.server(Some(&Address { host: "m".to_owned(), port: 1 }));
        let settings = server.redis_settings();
        assert_eq!((settings.username(), settings.password(), settings.db()), (Some("me"), Some("s/x"), 3));
        assert!(matches!(server.addr(), ConnectionAddr::TcpTls { .. }));
    }

    #[test]
    fn a_cluster_by_some_of_its_servers() {
        let target = parsed("redis+cluster://:secret@r1,r2:7000");
        let Topology::Cluster { seeds } = &target.topology else { panic!("{target:?}") };
        assert_eq!(seeds.iter().map(Address::to_string).collect::<Vec<_>>(), ["r1:6379", "r2:7000"]);
        assert_eq!(target.server(None).redis_settings().password(), Some("secret"));
        let target = Target::by_cluster(&["redis://r1", "redis://u:p@[::1]:7"]).expect("two servers");
        assert_eq!(target.server(None).redis_settings().username(), Some("u"));
    }

    #[test]
    fn what_stands_beside_the_url_counts_where_it_says_nothing() {
        let own = Credentials { username: Some("u".to_owned()), password: Some("p".to_owned()) };
        let with = |url: &str, database| {
            let target = parsed(url).with_credentials(&own, database).expect("valid").server(None);
            let settings = target.redis_settings().clone();
            (settings.username().map(str::to_owned), settings.password().map(str::to_owned), settings.db())
        };
        let texts = |user: &str, password: &str, db| (Some(user.to_owned()), Some(password.to_owned()), db);
        assert_eq!(with("redis://db", Some(4)), texts("u", "p", 4));
        assert_eq!(with("redis://me:mine@db/2", Some(4)), texts("me", "mine", 2));
        assert!(parsed("redis+cluster://r1").with_credentials(&own, Some(1)).is_err());
        let sentinels = Target::by_sentinels(&["redis://s1", "redis://:own@s2:7"], "m").expect("valid");
        let Topology::Sentinels { at, .. } = sentinels.with_sentinel_credentials(&own).topology else { panic!() };
        let passwords: Vec<_> = at.iter().map(|one| one.redis_settings().password().map(str::to_owned)).collect();
        assert_eq!(passwords, [Some("p".to_owned()), Some("own".to_owned())]);
        assert_eq!(at[0].addr().to_string(), "s1:26379");
    }

    #[test]
    fn what_is_wrong_is_said_without_its_secrets() {
        for url in [
            "hunter2",
            "http://:hunter2@db",
            "redis://:hunter2@db/x",
            "redis+sentinel://:hunter2@s1",
            "redis+sentinel://:hunter2@s1/m/x",
            "redis+sentinel://s1/m?password=hunter2",
            "redis+cluster://:hunter2@r1/1",
            "redis+cluster://:hunter2@r1:x",
            "redis+cluster://:hunter2@",
            "redis+cluster://:hunter2@r1,,r2",
            "redis+cluster://:a/hunter2@r1",
            "redis+cluster://:a#hunter2@r1",
        ] {
            let error = Target::parse(url).expect_err(url).to_string();
            assert!(!error.contains("hunter2"), "{error}");
            assert!(!shown(url).unwrap_or_default().contains("hunter2"), "{url}");
        }
        let url = "redis+sentinel://me:hunter2@s1,s2/m?sentinel_password=hunter2";
        assert_eq!(shown(url).as_deref(), Some("redis+sentinel://me:***@s1,s2/m?***"));
        assert_eq!(shown("redis://:hunter2@db"), None);
        let files = TlsFiles { ca: Some(b"nothing".to_vec()), client: None };
        assert!(parsed("redis://db").with_tls(&files).is_err());
        assert!(parsed("rediss://db").with_tls(&files).is_err());
    }
}
