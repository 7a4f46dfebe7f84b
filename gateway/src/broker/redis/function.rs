//! Installing the function library, so that `FCALL sluice_publish 1 sluice:news update '{"a":1}'` publishes durably from
//! any Redis client.
//!
//! An older library never replaces a newer one, and one that is already as it should be is left alone. The prefixes of
//! all who installed it stay known. On a cluster every master has functions of its own: install on each.

pub use super::library::DEFAULT_MAX_BYTES;
use super::library::{self, Prefixes};
use crate::channel::FORBIDDEN;
use redis::{RedisError, RedisResult, Value, aio::ConnectionLike, cmd};
use std::collections::HashMap;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// There was none.
    New,
    /// An older one, or one that lacked the prefix, was replaced.
    Updated,
    /// It was there as it should be.
    Unchanged,
    /// A newer one is there, and was left alone.
    NewerPresent,
}

/// Why nothing was installed.
#[derive(Debug, thiserror::Error)]
pub enum NotInstalled {
    #[error(
        "the server does not know the command FUNCTION: functions exist from Redis 7.0 on (without them, \
         `sluice publish --redis` runs the same code as a script)"
    )]
    NoFunctions,
    #[error("the user may not install functions, which takes +function|list and +function|load: {0}")]
    NotPermitted(String),
    #[error("the server has a library `sluice` that is not this project's; remove it with FUNCTION DELETE sluice")]
    Foreign,
    #[error("a prefix is at most 64 bytes of visible ASCII without {FORBIDDEN}, not {0:?}")]
    InvalidPrefix(String),
    #[error("others keep replacing the library at the same time: try again")]
    Contended,
    #[error("Redis: {0}")]
    Redis(RedisError),
}

impl From<RedisError> for NotInstalled {
    fn from(error: RedisError) -> Self {
        match error.code() {
            Some("NOPERM") => Self::NotPermitted(error.detail().unwrap_or_default().to_owned()),
            _ if error.to_string().to_ascii_lowercase().contains("unknown command") => Self::NoFunctions,
            _ => Self::Redis(error),
        }
    }
}

/// Whether the server is part of a cluster, where announcements are sharded (`SPUBLISH`). One that does not say is not.
pub async fn is_cluster(connection: &mut (impl ConnectionLike + Send)) -> bool {
    // HELLO needs no rights that an ordinary user lacks, as INFO and CLUSTER do.
    let hello: RedisResult<HashMap<String, Value>> = cmd("HELLO").query_async(connection).await;
    let mode = hello.ok().and_then(|mut hello| hello.remove("mode"));
    matches!(mode.map(redis::from_redis_value::<String>), Some(Ok(mode)) if mode == "cluster")
}

/// Installs the library or brings it up to date. `max_bytes` bounds an event's data under this prefix; `None` leaves
/// what was said before, or [`DEFAULT_MAX_BYTES`].
///
/// # Errors
/// When the server has no functions, the user no right to install them, or the connection fails.
pub async fn install(
    connection: &mut (impl ConnectionLike + Send),
    prefix: &str,
    max_bytes: Option<usize>,
    cluster: bool,
) -> Result<Installed, NotInstalled> {
    if prefix.len() > 64 || prefix.chars().any(|c| !c.is_ascii_graphic() || FORBIDDEN.contains(c)) {
        return Err(NotInstalled::InvalidPrefix(prefix.to_owned()));
    }
    let mut done = None;
    // What was loaded is looked at again: who read the list before us may have replaced it without our prefix.
    for _ in 0..5 {
        let installed = installed(connection).await?;
        let before = match installed.as_deref().map(|text| library::read(text).ok_or(NotInstalled::Foreign)) {
            Some(read) => Some(read?),
            None => None,
        };
        if matches!(before, Some((version, _)) if version > library::VERSION) {
            return Ok(done.unwrap_or(Installed::NewerPresent));
        }
        let exists = before.is_some();
        let mut prefixes = before.map_or_else(Prefixes::new, |(_, prefixes)| prefixes);
        let known = prefixes.entry(prefix.to_owned()).or_insert(DEFAULT_MAX_BYTES);
        *known = max_bytes.unwrap_or(*known);
        let text = library::text(&prefixes, cluster);
        if installed.as_deref() == Some(text.as_str()) {
            return Ok(done.unwrap_or(Installed::Unchanged));
        }
        let mut load = cmd("FUNCTION");
        load.arg("LOAD");
        if exists {
            load.arg("REPLACE");
        }
        match load.arg(text).query_async::<Value>(connection).await {
            Ok(_) => _ = done.get_or_insert(if exists { Installed::Updated } else { Installed::New }),
            // Somebody was faster.
            Err(error) if error.to_string().contains("already exists") => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(NotInstalled::Contended)
}

/// The text of the library that is there.
async fn installed(connection: &mut (impl ConnectionLike + Send)) -> RedisResult<Option<String>> {
    let mut list = cmd("FUNCTION");
    list.arg("LIST").arg("LIBRARYNAME").arg("sluice").arg("WITHCODE");
    let libraries: Vec<HashMap<String, Value>> = list.query_async(connection).await?;
    let code = libraries.into_iter().next().and_then(|mut library| library.remove("library_code"));
    Ok(code.map(redis::from_redis_value).transpose()?)
}
