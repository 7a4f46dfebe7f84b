//! The command line as types, with the help that it prints. What parses makes sense; a contradiction ends with clap's
//! message and exit code 2 before anything is sent.

use crate::duration;
use clap::{ArgMatches, Args, CommandFactory, Parser, Subcommand, error::ErrorKind, parser::ValueSource};
use reqwest::{Url, header::HeaderValue};
use sluice_gateway::channel::Channel;
use sluice_gateway::traceparent::Traceparent;
use std::{path::PathBuf, time::Duration};

mod bench;
mod examples;
mod token;

pub use bench::{BenchCommand, FloorArgs, ResumeArgs, RunArgs, ServerArgs};
pub use token::{ExplainArgs, MintArgs, TokenCommand};

const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Publish to Sluice channels and follow them
#[derive(Debug, Parser)]
#[command(name = "sluice", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = examples::ALL)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Publish events to a channel: one, or one for each line of the input
    #[command(after_help = examples::PUBLISH)]
    Publish(PublishArgs),
    /// Print the events of channels as they come
    #[command(after_help = examples::TAIL)]
    Tail(TailArgs),
    /// Print how many connections and subscribers there are
    #[command(after_help = examples::STATS)]
    Stats(StatsArgs),
    /// Ask a gateway's admin port whether it is ready, or lives
    #[command(after_help = examples::HEALTH)]
    Health(HealthArgs),
    /// Make tokens, and say what one allows
    #[command(after_help = examples::TOKEN)]
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Measure an SSE server, Sluice or any other
    #[command(after_help = examples::BENCH)]
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Prepare a Redis, look for what is wrong with it, and count what is in it
    #[command(after_help = examples::REDIS)]
    Redis {
        #[command(subcommand)]
        command: RedisCommand,
    },
    /// Print a script that completes this command's arguments in a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions { shell: clap_complete::Shell },
}

/// Which gateway to talk to, and as whom.
#[derive(Debug, Args)]
pub struct GatewayArgs {
    /// The gateway's address
    #[arg(long, env = "SLUICE_URL", hide_env_values = true, default_value = DEFAULT_URL, value_parser = gateway_url)]
    pub url: Url,
    /// The token to send, as `Authorization: Bearer TOKEN`
    // Option<Option<_>> in spirit: an empty variable is how a shell script says that there is none.
    #[arg(long, env = "SLUICE_TOKEN", hide_env_values = true, value_parser = bearer)]
    pub token: Option<Bearer>,
}

#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Its address and path, /readyz or /livez
    #[arg(default_value = "http://127.0.0.1:8081/readyz", value_parser = gateway_url)]
    pub url: Url,
    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration::parse)]
    pub timeout: Duration,
}

/// The value of an `Authorization` header, kept out of debug output; `None` for an empty token.
#[derive(Clone, Debug)]
pub struct Bearer(pub Option<HeaderValue>);

#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The channel to publish to; with --ndjson, the one for lines that name none
    #[arg(required_unless_present = "ndjson", value_parser = Channel::new)]
    pub channel: Option<Channel>,
    /// The event's data; without it and without --file it is read from stdin
    #[arg(conflicts_with_all = ["file", "lines", "ndjson", "exact"], allow_negative_numbers = true)]
    pub data: Option<String>,
    /// The event's type; with --ndjson, the one for lines that name none
    #[arg(short, long, value_name = "TYPE", value_parser = event_type)]
    pub event: Option<String>,
    /// Read from this file (`-` is stdin)
    #[arg(short, long)]
    pub file: Option<PathBuf>,
    /// Publish each line of the input as an event
    #[arg(long, conflicts_with = "ndjson")]
    pub lines: bool,
    /// Publish each line of the input, {"channel"?, "event"?, "data", "idempotency_key"?}, as an event
    #[arg(long)]
    pub ndjson: bool,
    /// Keep the line break that ends the input, which is otherwise not part of the data
    #[arg(long, conflicts_with_all = ["lines", "ndjson"])]
    pub exact: bool,
    /// Publish what has this key at most once, also if it is run again; with --lines and --ndjson, line N has KEY-N
    #[arg(long, value_name = "KEY", value_parser = idempotency_key)]
    pub idempotency_key: Option<String>,
    /// The trace that goes on with what is published through a gateway (W3C Trace Context)
    #[arg(long, value_name = "SPAN", env = "TRACEPARENT", value_parser = traceparent)]
    pub traceparent: Option<String>,
    #[command(flatten)]
    pub gateway: GatewayArgs,
    /// Publish straight to Redis and not through a gateway
    #[arg(long, value_name = "URL", env = "SLUICE_REDIS_URL", hide_env_values = true)]
    pub redis: Option<String>,
    #[command(flatten)]
    pub redis_tls: RedisTls,
    /// What the names in Redis begin with
    #[arg(long, default_value = "sluice:")]
    pub prefix: String,
    /// How long to try again when the gateway or Redis is away
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    pub retry_for: Duration,
    /// Print no positions and no progress
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct TailArgs {
    /// The channels to follow
    #[arg(required = true, value_name = "CHANNEL", value_parser = Channel::new)]
    pub channels: Vec<Channel>,
    /// Print one line of JSON for each event: {"channel","event","data","id"}
    #[arg(long)]
    pub json: bool,
    /// Begin with what was published since: 10m, a timestamp, last:50 or earliest
    #[arg(long)]
    pub since: Option<String>,
    /// Begin after this event, whose "id" an earlier run printed
    #[arg(long, value_name = "ID", conflicts_with = "cursor_file")]
    pub last_event_id: Option<String>,
    /// Begin where this file says, and record there how far printing has got
    #[arg(long, value_name = "FILE")]
    pub cursor_file: Option<PathBuf>,
    /// End after this many events
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after this long; with --count, that is a failure
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub timeout: Option<Duration>,
    /// Reconnect when nothing, not even a heartbeat, has come for this long
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    pub idle_timeout: Duration,
    #[command(flatten)]
    pub gateway: GatewayArgs,
}

#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Count these channels' subscribers, instead of all connections
    #[arg(value_name = "CHANNEL", value_parser = Channel::new)]
    pub channels: Vec<Channel>,
    /// Print the gateway's answers as they are, one line each
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub gateway: GatewayArgs,
}

#[derive(Debug, Subcommand)]
pub enum RedisCommand {
    /// Install the function sluice_publish, or bring it up to date: with it any Redis client publishes durably
    #[command(after_help = examples::REDIS)]
    Install(RedisArgs),
    /// Look for what would break a promise: eviction, persistence, rights, memory, clock; fails if anything is found
    #[command(after_help = examples::REDIS_CHECK)]
    Check(RedisArgs),
    /// Count channels, events and bytes of history, and name the largest and busiest channels
    #[command(after_help = examples::REDIS_STATS)]
    Stats(RedisStatsArgs),
}

/// Which Redis.
#[derive(Debug, Args)]
pub struct RedisArgs {
    /// The Redis: redis://, rediss://, redis+sentinel://s1,s2/name, redis+cluster://r1,r2 or any server of a cluster
    #[arg(long, value_name = "URL", env = "SLUICE_REDIS_URL", hide_env_values = true)]
    #[arg(default_value = "redis://127.0.0.1:6379")]
    pub redis: String,
    /// What the names in Redis begin with
    #[arg(long, default_value = "sluice:")]
    pub prefix: String,
    #[command(flatten)]
    pub tls: RedisTls,
}

/// Files for rediss://, all PEM.
#[derive(Debug, Default, Args)]
pub struct RedisTls {
    /// Certificates of the authorities that Redis is trusted by
    #[arg(long, value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,
    /// The certificate to present to Redis
    #[arg(long, value_name = "FILE", requires = "redis_key")]
    pub redis_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "redis_cert")]
    pub redis_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RedisStatsArgs {
    #[command(flatten)]
    pub redis: RedisArgs,
    /// How many of the largest and busiest channels to name
    #[arg(long, default_value_t = 10)]
    pub top: usize,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

impl Cli {
    /// Decides between what the arguments and what the environment says: an argument beats a variable, so that a
    /// shell with both variables set can still choose.
    ///
    /// # Errors
    /// When the arguments name both a gateway and Redis, or contradict each other.
    pub fn settle(mut self, matches: &ArgMatches) -> Result<Self, clap::Error> {
        if let (Command::Publish(publish), Some(("publish", given))) = (&mut self.command, matches.subcommand()) {
            let by_hand = |name| given.value_source(name) == Some(ValueSource::CommandLine);
            match (by_hand("url"), by_hand("redis")) {
                (true, true) => {
                    let message = "--url and --redis are two places to publish to: choose one\n";
                    return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
                }
                (true, false) => publish.redis = None,
                (false, _) => publish.redis = publish.redis.take().filter(|url| !url.is_empty()),
            }
        }
        if let Command::Bench { command } = &self.command
            && let Some(message) = command.contradiction()
        {
            return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
        }
        Ok(self)
    }
}

fn gateway_url(text: &str) -> Result<Url, String> {
    let text = if text.is_empty() { DEFAULT_URL } else { text };
    let url = Url::parse(text).map_err(|e| format!("{e}; an example of an address is {DEFAULT_URL}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("an address begins with http:// or https://, such as {DEFAULT_URL}"));
    }
    Ok(url)
}

fn bearer(token: &str) -> Result<Bearer, &'static str> {
    if token.is_empty() {
        return Ok(Bearer(None));
    }
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| "a token is visible ASCII")?;
    value.set_sensitive(true);
    Ok(Bearer(Some(value)))
}

fn event_type(text: &str) -> Result<String, String> {
    sluice_gateway::event::Event::new(Some(text), bytes::Bytes::new()).map_err(|e| e.to_string())?;
    Ok(text.to_owned())
}

/// An empty one, as a shell may have it in its environment, is none.
fn traceparent(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || Traceparent::parse(text).is_some() {
        Ok(text.to_owned())
    } else {
        Err("a traceparent is such as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    }
}

fn idempotency_key(text: &str) -> Result<String, &'static str> {
    if (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("a key is 1 to 128 characters of visible ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_token_is_not_in_debug_output() {
        assert!(!format!("{:?}", bearer("s3cret").expect("a token")).contains("s3cret"));
    }
}
