//! The command line of `sluice bench`.

use super::examples;
use crate::{
    bench::{
        decoder::AcceptEncoding,
        floor::Call,
        payload::{self, DataKind},
        process::Process,
        stamp,
        target::{Header, Target},
    },
    duration,
};
use clap::{Args, Subcommand};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The most streams of one run: their numbers are 32 bits, and no machine has the ports.
const MAX_STREAMS: u64 = 10_000_000;

/// A bare `{n}` would be a line break to clap, so a style that changes nothing stands in it.
const URL_HELP: &str = "Where streams are opened; {channel} and {\x1b[0mn}, the stream's number, are filled in";

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Open streams on any SSE server, publish to them, and check and measure every delivery
    #[command(after_help = examples::BENCH_RUN)]
    Run(Box<RunArgs>),
    /// Have many clients resume missed events at once, and compare with the same events live
    #[command(after_help = examples::BENCH_RESUME)]
    Resume(Box<ResumeArgs>),
    /// Serve streams with one bare write() for each and nothing else: the least that a server can cost
    #[command(after_help = examples::BENCH_FLOOR)]
    Floor(FloorArgs),
}

/// Where streams are opened and events published, and as what.
#[derive(Debug, Args)]
pub struct ServerArgs {
    #[arg(long, help = URL_HELP, value_name = "TEMPLATE", default_value = "http://127.0.0.1:8080/events?channel={channel}")]
    #[arg(value_parser = Target::parse)]
    pub url: Target,
    /// A header of the streams' requests, such as 'Authorization: Bearer x'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = Header::parse)]
    pub headers: Vec<Header>,
    /// Where events are published, by default /channels/{channel}/events on the host of --url
    #[arg(long, value_name = "TEMPLATE", value_parser = Target::parse)]
    pub publish_url: Option<Target>,
    /// The method to publish with
    #[arg(long, value_name = "METHOD", default_value = "POST", value_parser = method)]
    pub publish_method: String,
    /// A header of the publishing requests; may be repeated
    #[arg(long = "publish-header", value_name = "HEADER", value_parser = Header::parse)]
    pub publish_headers: Vec<Header>,
    /// The body to publish with; {channel}, {data} and {json}, the data as a JSON string, are filled in
    #[arg(long, value_name = "TEMPLATE", default_value = "{data}")]
    pub publish_body: String,
    /// The most connections to publish over, by default as many as the load can use
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub publishers: Option<u32>,
    /// The size of an event's data in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = size)]
    pub size: usize,
    /// What the data is made of
    #[arg(long, value_name = "KIND", value_enum, default_value_t = DataKind::Text)]
    pub data: DataKind,
    /// What the channels' names begin with, by default bench- and something of the run's own
    #[arg(long, value_name = "PREFIX")]
    pub channel_prefix: Option<String>,
    /// A local address that streams come from; may be repeated. By default, where the server is on the loopback,
    /// as many addresses of it as the ports are enough for
    #[arg(long = "source", value_name = "ADDR")]
    pub sources: Vec<IpAddr>,
    /// The most streams to open per second, 0 for as many as the server takes
    #[arg(long, value_name = "R", default_value_t = 0.0, value_parser = rate)]
    pub connect_rate: f64,
    /// A process to measure, as PID or NAME=PID; may be repeated
    #[arg(long = "pid", value_name = "PID")]
    pub processes: Vec<Process>,
    /// Ask for compressed streams, and decode them
    #[arg(long, value_name = "ENCODING", value_enum)]
    pub accept_encoding: Option<AcceptEncoding>,
    /// How long to wait at the end for what is outstanding
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    pub settle: Duration,
    /// Print one JSON object and no table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// How many streams to open
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=MAX_STREAMS))]
    pub streams: u64,
    /// How many channels they follow, in turn
    #[arg(long, value_name = "C", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=0xff_ffff))]
    pub channels: u32,
    /// Publish so many events per second, over all channels
    #[arg(long, value_name = "R", conflicts_with_all = ["outstanding", "idle"], value_parser = positive_rate)]
    pub rate: Option<f64>,
    /// Publish the next event when fewer than W have not come to all their streams; without --rate, W is 1
    #[arg(long, value_name = "W", conflicts_with = "idle", value_parser = clap::value_parser!(u32).range(1..))]
    pub outstanding: Option<u32>,
    /// How long to measure, by default 10s unless --events is given
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub duration: Option<Duration>,
    /// End after so many measured events
    #[arg(long, value_name = "E", value_parser = clap::value_parser!(u64).range(1..))]
    pub events: Option<u64>,
    /// How long to publish before measuring begins
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    pub warmup: Duration,
    /// Publish nothing: open the streams, hold them for --duration, and measure memory
    #[arg(long, conflicts_with = "events")]
    pub idle: bool,
    /// Open so many more streams that are never read
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX_STREAMS))]
    pub stall: u64,
    /// Open the streams over HTTP/2, without TLS; publishing stays HTTP/1.1
    #[arg(long)]
    pub http2: bool,
    /// How many streams an HTTP/2 connection has
    #[arg(long, value_name = "S", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    #[arg(requires = "http2")]
    pub streams_per_connection: u32,
}

#[derive(Debug, Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// How many clients resume
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=MAX_STREAMS))]
    pub streams: u64,
    /// How many events each has missed; the server must keep as many
    #[arg(long, value_name = "E", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub events: u64,
    /// Connect all clients first, and measure from when they send their requests, all at once; the server has to bear
    /// so many connections without a request
    #[arg(long)]
    pub connected: bool,
    /// How many streams watch another channel meanwhile
    #[arg(long, value_name = "W", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=MAX_STREAMS))]
    pub watch: u64,
    /// How many events per second they get
    #[arg(long, value_name = "R", default_value_t = 50.0, value_parser = positive_rate)]
    pub watch_rate: f64,
    /// How long to watch before the clients resume
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration::parse)]
    pub quiet: Duration,
    /// How long the resuming, and the live traffic after it, may take
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    pub patience: Duration,
}

#[derive(Debug, Args)]
pub struct FloorArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8090")]
    pub listen: SocketAddr,
    /// The system call that hands an event to a stream
    #[arg(long, value_name = "CALL", value_enum, default_value_t = Call::Write)]
    pub call: Call,
}

fn method(text: &str) -> Result<String, String> {
    reqwest::Method::from_bytes(text.as_bytes()).map(|method| method.to_string()).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("a number per second, not {text:?}"))?;
    if (0.0..=1e7).contains(&rate) { Ok(rate) } else { Err("a rate is from 0 to 10,000,000 per second".into()) }
}

fn positive_rate(text: &str) -> Result<f64, String> {
    rate(text).and_then(|rate| if rate > 0.0 { Ok(rate) } else { Err("a rate is more than 0 per second".into()) })
}

fn size(text: &str) -> Result<usize, String> {
    let size: usize = text.parse().map_err(|_| format!("a number of bytes, not {text:?}"))?;
    let (least, most) = (stamp::LENGTH_BYTES, 8 << 20);
    if (least..=most).contains(&size) { Ok(size) } else { Err(format!("{least} to {most} bytes")) }
}

impl BenchCommand {
    /// What is wrong with the arguments together.
    pub(super) fn contradiction(&self) -> Option<String> {
        match self {
            Self::Run(run) if u64::from(run.channels) > run.streams => {
                let RunArgs { channels, streams, .. } = &**run;
                Some(format!("--channels {channels} need as many --streams to follow them, and not {streams}\n"))
            }
            Self::Run(run) => run.server.contradiction(),
            Self::Resume(resume) => resume.server.contradiction(),
            Self::Floor(_) => None,
        }
    }
}

impl ServerArgs {
    fn contradiction(&self) -> Option<String> {
        let is_too_small = self.data == DataKind::Json && self.size < payload::MIN_JSON_BYTES;
        is_too_small.then(|| format!("--data json needs --size {} at least\n", payload::MIN_JSON_BYTES))
    }
}
