//! What there is to publish: an argument, a file or stdin, as one event or one a line, read into batches.
//!
//! What is held in memory is bounded: two batches and one line. A line that cannot be an event does not end the
//! reading: it is passed on as such, with its reason.

use super::Outgoing;
use crate::{args::PublishArgs, exit::Failure, output};
use bytes::Bytes;
use sluice_gateway::{channel::Channel, event::Event};
use std::{io, io::IsTerminal, mem, path::Path};
use tokio::{
    io::{AsyncRead, AsyncReadExt, BufReader},
    sync::mpsc,
    task::JoinHandle,
};

mod lines;
mod ndjson;

use lines::{Line, Lines};

/// As many events as a gateway is sure to take in one request.
const MAX_BATCH_EVENTS: usize = 1000;
/// About what a gateway is sure to take in one request; the target cuts exactly.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// The largest single event: far more than a gateway takes, far less than memory.
const MAX_EVENT_BYTES: usize = 16 << 20;
const READ_BUFFER_BYTES: usize = 256 << 10;

/// What was read while the last batch was on its way.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) events: Vec<Outgoing>,
    /// What is no event, by its line, and why.
    pub(super) unusable: Vec<(Option<u64>, String)>,
    /// How much of the input this is, for the progress bar.
    pub(super) bytes: u64,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.unusable.is_empty()
    }

    fn is_full(&self) -> bool {
        self.events.len() + self.unusable.len() >= MAX_BATCH_EVENTS || self.bytes >= MAX_BATCH_BYTES as u64
    }
}

/// How the input's bytes are events.
#[derive(Debug)]
pub(super) struct Form {
    channel: Option<Channel>,
    event_type: Option<String>,
    key: Option<String>,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    Whole { exact: bool },
    Lines,
    Ndjson,
}

impl Form {
    pub(super) fn of(args: &PublishArgs) -> Self {
        let layout = match (args.lines, args.ndjson) {
            (true, _) => Layout::Lines,
            (_, true) => Layout::Ndjson,
            _ => Layout::Whole { exact: args.exact || args.data.is_some() },
        };
        let (channel, event_type, key) = (args.channel.clone(), args.event.clone(), args.idempotency_key.clone());
        Self { channel, event_type, key, layout }
    }

    /// The event that a line is, nothing for a line that means nothing, or why it is none.
    fn read_line(&self, number: u64, line: &[u8]) -> Result<Option<Outgoing>, String> {
        let key = self.key.as_ref().map(|key| format!("{key}-{number}"));
        if matches!(self.layout, Layout::Ndjson) {
            if line.trim_ascii().is_empty() {
                return Ok(None);
            }
            let defaults = ndjson::Defaults { channel: self.channel.as_ref(), event_type: self.event_type.as_deref() };
            let mut outgoing = ndjson::read(line, &defaults)?;
            outgoing.line = Some(number);
            outgoing.idempotency_key = outgoing.idempotency_key.or(key);
            return Ok(Some(outgoing));
        }
        self.event(Some(number), Bytes::copy_from_slice(line), key).map(Some)
    }

    fn event(&self, line: Option<u64>, data: Bytes, idempotency_key: Option<String>) -> Result<Outgoing, String> {
        let channel = self.channel.clone().ok_or("no channel")?;
        let event = Event::new(self.event_type.as_deref(), data).map_err(|e| e.to_string())?;
        Ok(Outgoing { line, channel, event, idempotency_key })
    }
}

/// Where the input comes from, opened.
pub(super) struct Source {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    name: String,
    total_bytes: Option<u64>,
}

impl Source {
    pub(super) async fn open(args: &PublishArgs) -> Result<Self, Failure> {
        if let Some(data) = &args.data {
            let reader = Box::new(io::Cursor::new(data.clone().into_bytes()));
            return Ok(Self { reader, name: "the argument".into(), total_bytes: Some(data.len() as u64) });
        }
        match args.file.as_deref().filter(|path| *path != Path::new("-")) {
            Some(path) => {
                let name = path.display().to_string();
                let cannot = |error: io::Error| Failure::Failed(format!("cannot read {name}: {error}"));
                let file = tokio::fs::File::open(path).await.map_err(cannot)?;
                let metadata = file.metadata().await.map_err(cannot)?;
                let total_bytes = metadata.is_file().then_some(metadata.len());
                Ok(Self { reader: Box::new(file), name, total_bytes })
            }
            None => {
                if io::stdin().is_terminal() {
                    output::say("reading from the terminal; end with Ctrl-D");
                }
                Ok(Self { reader: Box::new(tokio::io::stdin()), name: "stdin".into(), total_bytes: None })
            }
        }
    }

    pub(super) fn total_bytes(&self) -> Option<u64> {
        self.total_bytes
    }
}

/// An input that is being read.
pub(super) struct Input {
    pub(super) batches: mpsc::Receiver<Batch>,
    reading: JoinHandle<Result<(), Failure>>,
}

impl Input {
    /// Whether the input could be read to its end.
    pub(super) async fn finished(self) -> Result<(), Failure> {
        drop(self.batches);
        self.reading.await.unwrap_or_else(|error| Err(Failure::Failed(format!("reading stopped: {error}"))))
    }
}

/// Begins to read.
pub(super) fn start(source: Source, form: Form) -> Input {
    let (to, batches) = mpsc::channel(1);
    let reading = tokio::spawn(async move {
        let name = source.name.clone();
        let read = match form.layout {
            Layout::Whole { exact } => read_whole(source, &form, exact, &to).await,
            Layout::Lines | Layout::Ndjson => read_lines(source, &form, &to).await,
        };
        read.map_err(|error| Failure::Failed(format!("cannot read {name}: {error}")))
    });
    Input { batches, reading }
}

async fn read_whole(source: Source, form: &Form, exact: bool, to: &mpsc::Sender<Batch>) -> io::Result<()> {
    let mut data = Vec::new();
    source.reader.take(MAX_EVENT_BYTES as u64 + 1).read_to_end(&mut data).await?;
    let mut batch = Batch::default();
    let event = if data.len() > MAX_EVENT_BYTES {
        Err(format!("an event has at most {MAX_EVENT_BYTES} bytes"))
    } else {
        if !exact {
            data.truncate(lines::without_break(&data).len());
        }
        form.event(None, Bytes::from(data), form.key.clone())
    };
    match event {
        Ok(event) => batch.events.push(event),
        Err(reason) => batch.unusable.push((None, reason)),
    }
    // Nobody receives only after a failure, which has been told.
    let _ = to.send(batch).await;
    Ok(())
}

async fn read_lines(source: Source, form: &Form, to: &mpsc::Sender<Batch>) -> io::Result<()> {
    let mut lines = Lines::new(BufReader::with_capacity(READ_BUFFER_BYTES, source.reader), MAX_EVENT_BYTES);
    let mut batch = Batch::default();
    loop {
        tokio::select! {
            // What is there to be read joins the batch; only when that would mean waiting does the batch go.
            biased;
            line = lines.next(), if !batch.is_full() => match line? {
                Some(Line { number, bytes, text }) => {
                    batch.bytes += bytes;
                    match text.ok_or_else(|| format!("a line has at most {MAX_EVENT_BYTES} bytes"))
                        .and_then(|text| form.read_line(number, text))
                    {
                        Ok(Some(event)) => batch.events.push(event),
                        Ok(None) => {}
                        Err(reason) => batch.unusable.push((Some(number), reason)),
                    }
                }
                None => break,
            },
            slot = to.reserve(), if !batch.is_empty() => match slot {
                Ok(slot) => slot.send(mem::take(&mut batch)),
                Err(_) => return Ok(()),
            },
        }
    }
    if !batch.is_empty() {
        let _ = to.send(batch).await;
    }
    Ok(())
}
