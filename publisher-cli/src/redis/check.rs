//! `sluice redis check`: what of a Redis would break a promise, and what to do about it.

use super::{connect, masters};
use crate::{args::RedisArgs, exit::Failure, output::Output};
use sluice_gateway::broker::redis::{
    checks::{self, Needs},
    facts::Facts,
};

/// As the gateways' default; what a replica is sent is known to the gateways alone.
const NEEDS: Needs = Needs { bytes_per_second: 0.0, max_event_bytes: 64 << 10 };

/// Runs the command.
///
/// # Errors
/// When a server does not answer, or something was found.
pub async fn check(args: RedisArgs) -> Result<(), Failure> {
    let masters = masters(&args).await.map_err(Failure::Failed)?;
    let mut output = Output::new();
    let mut found = 0;
    for nth in 0..masters.count() {
        let name = masters.name(nth);
        let at = |error: redis::RedisError| Failure::Failed(format!("{name}: {error}"));
        let mut connection = connect(&masters, nth).await.map_err(Failure::Failed)?;
        let facts = Facts::ask(&mut connection).await.map_err(at)?;
        let mut text = format!("{name}: {facts}\n");
        for lack in facts.lacks() {
            text.push_str(&format!("  lacks {lack}\n"));
        }
        let findings = checks::look(&mut connection, &args.prefix, NEEDS).await.map_err(at)?;
        for finding in &findings {
            text.push_str(&format!("  {}: {}\n    {}\n", finding.kind, finding.what, finding.advice));
        }
        if findings.is_empty() {
            text.push_str("  nothing found\n");
        }
        found += findings.len();
        output.write(text.as_bytes()).await?;
    }
    match found {
        0 => Ok(()),
        1 => Err(Failure::Failed("1 finding".to_owned())),
        _ => Err(Failure::Failed(format!("{found} findings"))),
    }
}
