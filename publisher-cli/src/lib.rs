//! The `sluice` command: publish to Sluice channels, follow them and count who listens, from a shell.
//!
//! # Layout
//!
//! - [`args`]: the command line as types, with its help and examples.
//! - [`exit`]: how a command can end, and the exit codes.
//! - [`sse`]: a parser of `text/event-stream`; it does no input or output, and other crates' tests use it too.
//! - [`gateway`]: requests to a gateway and what its refusals mean. `backoff`, `output` and `duration` are its and the
//!   commands' small tools.
//! - [`publish`]: input → batches → a target, which is a gateway or Redis.
//! - [`mod@redis`]: what is done to or asked of Redis itself.
//! - [`tail`]: a stream, reconnected as EventSource does → lines.
//! - [`stats`]: counts → a table.
//! - [`health`]: what a gateway says of itself → an exit code.
//! - [`token`]: keys and rights → a token, and back.
//! - [`bench`]: load for any SSE server, checked and measured.
//!
//! Results go to stdout, everything about them to stderr. Nothing is written to stdout by a command that failed before
//! it had a result, and whoever closes our stdout early is not complained to.

pub mod args;
mod backoff;
pub mod bench;
mod duration;
pub mod exit;
pub mod gateway;
pub mod health;
mod output;
pub mod publish;
pub mod redis;
pub mod sse;
pub mod stats;
pub mod tail;
pub mod token;

use args::{Cli, Command, RedisCommand};
use clap::CommandFactory;
use exit::Failure;
use output::Output;

/// Runs the command that the arguments name, to its end.
///
/// # Errors
/// As [`exit`] tells; what can be said to the user about it is in the error or has been said.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Publish(publish) => publish::run(publish).await,
        Command::Tail(tail) => tail::run(tail).await,
        Command::Token { command } => token::run(command).await,
        Command::Health(health) => health::run(health).await,
        Command::Stats(stats) => stats::run(stats).await,
        Command::Bench { command } => bench::run(command).await,
        Command::Redis { command } => match command {
            RedisCommand::Install(install) => redis::install(install).await,
            RedisCommand::Check(check) => redis::check(check).await,
            RedisCommand::Stats(stats) => redis::stats(stats).await,
        },
        Command::Completions { shell } => {
            // Into memory first: `generate` panics where its writer fails, and a closed pipe is no reason to.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut script);
            Output::new().write(&script).await
        }
    }
}
