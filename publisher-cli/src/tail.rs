//! `sluice tail`: a stream, reconnected as EventSource does → lines on stdout.
//!
//! A lost connection, a gateway that is away and a stream that ends are all waited out, for ever; only an answer that
//! no later one would differ from ends the command. What has been printed has been flushed before the cursor file says
//! so: a run that is killed may print an event again, and never leaves one out.

mod cursor_file;
mod line;
mod stream;

use crate::{
    args::TailArgs,
    backoff::Backoff,
    exit::Failure,
    gateway::{Gateway, RequestError},
    output::{self, Output},
    sse,
};
use cursor_file::CursorFile;
use line::{Kind, Printer};
use std::{sync::Arc, time::Duration};
use stream::Stream;

/// What EventSource waits for before reconnecting, until the stream says otherwise (`retry:`).
const DEFAULT_RECONNECTION_TIME: Duration = Duration::from_secs(1);
/// The longest wait between attempts, unless the gateway asks for more.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Runs the command.
///
/// # Errors
/// When the gateway refuses for good, `--timeout` comes before `--count` or any connection, or nobody reads stdout.
pub async fn run(args: TailArgs) -> Result<(), Failure> {
    let (timeout, wants_count) = (args.timeout, args.count.is_some());
    let mut tail = Tail::new(args)?;
    let Some(timeout) = timeout else { return tail.follow().await };
    match tokio::time::timeout(timeout, tail.follow()).await {
        Ok(result) => result,
        Err(_) if wants_count => Err(Failure::Failed(format!("{} events came in {timeout:?}", tail.printed))),
        Err(_) if !tail.was_connected => Err(Failure::Failed(format!("no connection in {timeout:?}"))),
        Err(_) => Ok(()),
    }
}

struct Tail {
    args: TailArgs,
    gateway: Gateway,
    printer: Printer,
    output: Output,
    cursor_file: Option<CursorFile>,
    /// A stream was there at some time.
    was_connected: bool,
    /// How many events have been printed; a gap is none.
    printed: u64,
    last_event_id: Arc<str>,
    reconnection_time: Duration,
}

/// How a connection ended.
enum End {
    /// All that was asked for has been printed.
    Enough,
    /// The stream was there, and is over or broken: reconnect after the time that it named.
    Lost(Option<RequestError>),
}

impl Tail {
    fn new(args: TailArgs) -> Result<Self, Failure> {
        let gateway = Gateway::new(&args.gateway).map_err(Failure::Failed)?;
        let cursor_file = args.cursor_file.clone().map(CursorFile::new);
        let recorded = cursor_file.as_ref().map(CursorFile::read).transpose()?.flatten();
        if args.last_event_id.as_deref().is_some_and(|id| id.contains(char::is_control)) {
            return Err(Failure::Failed("--last-event-id is one line without control characters".to_owned()));
        }
        let last_event_id = recorded.or_else(|| args.last_event_id.clone()).unwrap_or_default().into();
        Ok(Self {
            printer: Printer::new(args.json),
            output: Output::new(),
            was_connected: false,
            printed: 0,
            reconnection_time: DEFAULT_RECONNECTION_TIME,
            args,
            gateway,
            cursor_file,
            last_event_id,
        })
    }

    async fn follow(&mut self) -> Result<(), Failure> {
        let mut backoff = Backoff::new(LONGEST_WAIT);
        let mut complained = None;
        loop {
            let (trouble, wait) = match Stream::open(&self.gateway, &self.args, &self.last_event_id).await {
                Ok(stream) => {
                    backoff = Backoff::new(LONGEST_WAIT);
                    self.was_connected = true;
                    if complained.take().is_some() {
                        output::say("connected again");
                    }
                    match self.print_stream(stream).await? {
                        End::Enough => return Ok(()),
                        End::Lost(trouble) => (trouble, self.jittered_reconnection_time()),
                    }
                }
                Err(error) if may_pass(&error) => {
                    let wait = backoff
                        .next()
                        .max(self.jittered_reconnection_time())
                        .max(error.retry_after().unwrap_or_default());
                    (Some(error), wait)
                }
                Err(error) => return Err(Failure::Failed(error.to_string())),
            };
            // Once for each kind of trouble, and not once for each attempt.
            let trouble = trouble.map(|error| error.to_string());
            if trouble.is_some() && trouble != complained {
                output::say(&format!("{}; trying again", trouble.as_deref().unwrap_or_default()));
                complained = trouble;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// What the stream asked for and up to a quarter more: many clients may have been cut together, and are not to come
    /// back together.
    fn jittered_reconnection_time(&self) -> Duration {
        self.reconnection_time.mul_f64(1.0 + fastrand::f64() / 4.0)
    }

    async fn print_stream(&mut self, mut stream: Stream) -> Result<End, Failure> {
        let mut parser = sse::Parser::resuming(&self.last_event_id);
        let mut events = Vec::new();
        loop {
            let chunk = match stream.next().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(End::Lost(None)),
                Err(error) => return Ok(End::Lost(Some(error))),
            };
            let parsed = parser.push(&chunk, &mut events);
            if let Some(ms) = parser.reconnection_time_ms() {
                self.reconnection_time = Duration::from_millis(ms).min(Duration::from_secs(3600));
            }
            if self.print_events(events.drain(..)).await? {
                return Ok(End::Enough);
            }
            self.record(parser.last_event_id().into()).await?;
            // What an event that is too large would be followed by is unknown, and it would come again.
            parsed.map_err(|error| Failure::Failed(error.to_string()))?;
        }
    }

    /// Prints events; answers whether they were the last that were asked for.
    async fn print_events(&mut self, events: impl Iterator<Item = sse::Event>) -> Result<bool, Failure> {
        let mut lines = String::new();
        let mut enough_at = None;
        for event in events {
            if self.printer.print(&event, &mut lines) == Kind::Event {
                self.printed += 1;
                if self.args.count == Some(self.printed) {
                    enough_at = Some(event.id);
                    break;
                }
            }
        }
        self.output.write(lines.as_bytes()).await?;
        let is_enough = enough_at.is_some();
        if let Some(id) = enough_at {
            self.record(id).await?;
        }
        Ok(is_enough)
    }

    /// Takes note of how far printing has got.
    async fn record(&mut self, last_event_id: Arc<str>) -> Result<(), Failure> {
        if last_event_id == self.last_event_id {
            return Ok(());
        }
        self.last_event_id = last_event_id;
        match &self.cursor_file {
            Some(file) => file.write(&self.last_event_id).await,
            None => Ok(()),
        }
    }
}

/// Whether to go on trying. To ask again does nothing twice, so every fault of the server's is worth it.
fn may_pass(error: &RequestError) -> bool {
    let is_servers_fault = matches!(error, RequestError::Refused(refusal) if refusal.status.is_server_error());
    is_servers_fault || error.is_retryable()
}
