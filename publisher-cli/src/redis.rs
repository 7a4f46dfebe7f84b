//! `sluice redis`: what is done to or asked of Redis itself, whatever it is made of: one server, the master that sentinels
//! name, or the masters of a cluster.

mod check;
mod stats;

use crate::{args::RedisArgs, exit::Failure, output::Output};
use redis::aio::MultiplexedConnection;
use sluice_gateway::broker::redis::{
    function::{self, Installed},
    servers::{Masters, Place},
    target::TlsFiles,
};
use std::{path::PathBuf, time::Duration};

pub use check::check;
pub use stats::stats;

/// How long the masters, and a connection to one, are waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads a URL and the files of TLS beside it.
pub(crate) fn place(url: &str, args: &crate::args::RedisTls) -> Result<Place, String> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let ca = args.redis_ca.as_ref().map(read).transpose()?;
    let client = match (&args.redis_cert, &args.redis_key) {
        (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
        _ => None,
    };
    Place::new(url, &TlsFiles { ca, client }).map_err(|e| format!("--redis: {e}; an example is redis://127.0.0.1:6379"))
}

async fn masters(args: &RedisArgs) -> Result<Masters, String> {
    place(&args.redis, &args.tls)?.masters(CONNECT_TIMEOUT).await.map_err(|error| format!("Redis: {error}"))
}

/// Connects to one of them; an error names it.
async fn connect(masters: &Masters, nth: usize) -> Result<MultiplexedConnection, String> {
    masters.connect(nth, CONNECT_TIMEOUT).await.map_err(|error| format!("{}: {error}", masters.name(nth)))
}

/// Puts the function library into Redis, or brings it up to date. On a cluster every master has functions of its own.
///
/// # Errors
/// When some server did not get the library.
pub async fn install(args: RedisArgs) -> Result<(), Failure> {
    let failed = |error: String| Failure::Failed(format!("not installed: {error}"));
    let masters = masters(&args).await.map_err(failed)?;
    let mut output = Output::new();
    for nth in 0..masters.count() {
        let mut connection = connect(&masters, nth).await.map_err(failed)?;
        let cluster = masters.is_cluster();
        let done = function::install(&mut connection, &args.prefix, None, cluster).await;
        let done = match done {
            Ok(done) => told(done),
            Err(error) if cluster => return Err(failed(format!("{}: {error}", masters.name(nth)))),
            Err(error) => return Err(failed(error.to_string())),
        };
        let line = if cluster { format!("{}: {done}\n", masters.name(nth)) } else { format!("{done}\n") };
        output.write(line.as_bytes()).await?;
    }
    Ok(())
}

fn told(done: Installed) -> &'static str {
    match done {
        Installed::New => "installed",
        Installed::Updated => "updated",
        Installed::Unchanged => "already installed",
        Installed::NewerPresent => "a newer version is installed, and was left as it is",
    }
}
