//! `sluice publish`: input → batches → a target → positions and complaints.
//!
//! One request is under way at a time, which keeps the input's order, while the next batch is read: a batch is what
//! has been read by the time the last one is answered, so a slow input is sent at once and a fast one in full batches.

mod http;
mod input;
mod keys;
mod progress;
mod redis;
mod report;

use crate::{args::PublishArgs, exit::Failure, output, output::Output};
use http::HttpTarget;
use input::{Batch, Form, Source};
use progress::Progress;
use redis::RedisTarget;
use report::Report;
use sluice_gateway::{channel::Channel, event::Event};

/// One event on its way.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// The line of the input that it came from, from 1; `None` if the whole input is this one event.
    line: Option<u64>,
    channel: Channel,
    event: Event,
    /// The key that the user gave; the targets make one where there is none.
    idempotency_key: Option<String>,
}

/// The event's position if it has one, or why it was not published.
type Outcome = Result<Option<String>, Refused>;

#[derive(Clone, Debug)]
struct Refused {
    reason: String,
    /// Whether the next event would fare no better, so that publishing ends here.
    is_final: bool,
}

/// Where events go.
enum Target {
    Http(HttpTarget),
    Redis(Box<RedisTarget>),
}

impl Target {
    fn new(args: &PublishArgs) -> Result<Self, Failure> {
        match &args.redis {
            Some(url) => crate::redis::place(url, &args.redis_tls)
                .map(|place| Self::Redis(Box::new(RedisTarget::new(place, &args.prefix, args.retry_for)))),
            None => HttpTarget::new(&args.gateway, args.retry_for, args.traceparent.clone()).map(Self::Http),
        }
        .map_err(Failure::Failed)
    }

    /// Publishes events in order and answers with as many outcomes, in the same order.
    async fn publish(&mut self, events: &[Outgoing]) -> Vec<Outcome> {
        match self {
            Self::Http(target) => target.publish(events).await,
            Self::Redis(target) => target.publish(events).await,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When the input cannot be read or some event was not published.
pub async fn run(args: PublishArgs) -> Result<(), Failure> {
    let mut target = Target::new(&args)?;
    let is_bulk = args.lines || args.ndjson;
    let source = Source::open(&args).await?;
    let progress = if is_bulk && !args.quiet { Progress::new(source.total_bytes()) } else { Progress::none() };
    let mut output = Output::new();
    let mut report = Report::default();

    let mut input = input::start(source, Form::of(&args));
    while let Some(batch) = input.batches.recv().await {
        let Batch { events, unusable, bytes } = batch;
        let outcomes = target.publish(&events).await;
        let positions = report.add(&events, outcomes);
        for (line, reason) in unusable {
            report.add_unusable(line, reason);
        }
        progress.add(events.len(), bytes);
        progress.suspended(|| report.flush());
        if !args.quiet {
            progress.print(&mut output, &positions).await.map_err(|failure| match failure {
                Failure::NobodyReads if is_bulk => Failure::CutShort,
                other => other,
            })?;
        }
        if report.is_over() {
            break;
        }
    }
    progress.finish();
    if report.is_over() {
        output::say("stopped there; the rest of the input was not published");
    } else {
        input.finished().await?;
    }
    report.conclude(is_bulk)
}
