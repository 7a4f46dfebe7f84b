//! `sluice redis install`: puts the function library into Redis, or brings it up to date.
//!
//! On a cluster every master has functions of its own, so each of them is visited.

use crate::{args::InstallArgs, exit::Failure, output::Output, publish};
use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisResult, aio::MultiplexedConnection, cmd};
use sluice_gateway::broker::redis::function::{self, Installed};
use std::collections::BTreeSet;

/// Runs the command.
///
/// # Errors
/// When some server did not get the library.
pub async fn install(args: InstallArgs) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(format!("not installed: {error}"));
    let client = publish::open_redis(&args.redis).map_err(Failure::Failed)?;
    let mut connection = publish::connect_to_redis(&client).await.map_err(|error| failed(&error))?;
    let mut output = Output::new();
    if !function::is_cluster(&mut connection).await {
        let done = function::install(&mut connection, &args.prefix, None, false).await.map_err(|e| failed(&e))?;
        return output.write(format!("{}\n", told(done)).as_bytes()).await;
    }
    for (host, port) in masters(&mut connection).await.map_err(|error| failed(&error))? {
        let at = |error: &dyn std::fmt::Display| failed(&format!("{host}:{port}: {error}"));
        let client = beside(&client, &host, port).map_err(|error| at(&error))?;
        let mut connection = publish::connect_to_redis(&client).await.map_err(|error| at(&error))?;
        let done = function::install(&mut connection, &args.prefix, None, true).await.map_err(|error| at(&error))?;
        output.write(format!("{host}:{port}: {}\n", told(done)).as_bytes()).await?;
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

/// The masters that serve slots.
async fn masters(connection: &mut MultiplexedConnection) -> RedisResult<BTreeSet<(String, u16)>> {
    // A line is `<id> <host>:<port>@<bus>[,hostname] <flags> …`.
    let nodes: String = cmd("CLUSTER").arg("NODES").query_async(connection).await?;
    let master = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (address, flags) = (fields.next()?.split('@').next()?, fields.next()?);
        let (host, port) = address.rsplit_once(':')?;
        // Past the flags: its master, two times, the epoch, the link; then its slots.
        let serves = fields.nth(5).is_some();
        let is_master = flags.split(',').any(|flag| flag == "master");
        (is_master && serves).then_some(Some((host.to_owned(), port.parse().ok()?)))?
    };
    Ok(nodes.lines().filter_map(master).collect())
}

/// The same credentials and security at another address.
fn beside(client: &Client, host: &str, port: u16) -> RedisResult<Client> {
    let info = client.get_connection_info().clone();
    let address = match info.addr() {
        // A lone node does not know its own name.
        ConnectionAddr::Tcp(own, _) | ConnectionAddr::TcpTls { host: own, .. } if host.is_empty() => own.clone(),
        _ => host.to_owned(),
    };
    let address = match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: address, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(address, port),
    };
    Client::open(info.into_connection_info()?.set_addr(address))
}
