//! `sluice redis check`: what of a Redis would break a promise, and what to do about it.

use super::{CONNECT_TIMEOUT, masters};
use crate::{args::RedisArgs, exit::Failure, output::Output};
use sluice_gateway::broker::redis::{
    checks::{self, Needs},
    facts::Facts,
    servers::Masters,
};

/// As the gateways' default; what a replica is sent is known to the gateways alone.
const NEEDS: Needs = Needs { bytes_per_second: 0.0, max_event_bytes: 64 << 10, waits: false };

/// Runs the command.
///
/// # Errors
/// When a server does not answer, or something was found.
pub async fn check(args: RedisArgs) -> Result<(), Failure> {
    let masters = masters(&args).await.map_err(Failure::Failed)?;
    let mut output = Output::new();
    let (mut found, mut silent) = (0, 0);
    for nth in 0..masters.count() {
        let name = masters.name(nth);
        match looked_at(&masters, nth, &args.prefix).await {
            Ok((text, count)) => {
                found += count;
                output.write(format!("{name}: {text}").as_bytes()).await?;
            }
            // The others are looked at all the same.
            Err(why) => {
                silent += 1;
                output.write(format!("{name}: {why}\n").as_bytes()).await?;
            }
        }
    }
    match (found, silent) {
        (0, 0) => Ok(()),
        (found, 0) => Err(Failure::Failed(format!("{found} found"))),
        (found, silent) => Err(Failure::Failed(format!("{found} found, and {silent} servers could not be looked at"))),
    }
}

/// What is to be said of one of them, and how much was found.
async fn looked_at(masters: &Masters, nth: usize, prefix: &str) -> Result<(String, usize), String> {
    let mut connection = masters.connect(nth, CONNECT_TIMEOUT).await.map_err(|error| error.to_string())?;
    let told = |error: redis::RedisError| error.to_string();
    let facts = Facts::ask(&mut connection).await.map_err(told)?;
    let mut text = format!("{facts}\n");
    for lack in facts.lacks() {
        text.push_str(&format!("  lacks {lack}\n"));
    }
    let role: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await.map_err(told)?;
    let is_replica = role.lines().any(|line| line.trim() == "role:slave");
    if is_replica {
        text.push_str(
            "  role: it is a replica, which gateways leave\n    name its master, or the sentinels that know it\n",
        );
    }
    let findings = checks::look(&mut connection, prefix, NEEDS).await.map_err(told)?;
    for finding in &findings {
        text.push_str(&format!("  {}: {}\n    {}\n", finding.kind, finding.what, finding.advice));
    }
    if findings.is_empty() && !is_replica {
        text.push_str("  nothing found\n");
    }
    Ok((text, findings.len() + usize::from(is_replica)))
}
