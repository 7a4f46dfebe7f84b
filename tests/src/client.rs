//! An event-stream client on a bare TCP connection, or on TLS, light enough to run by the thousand in one process.
//!
//! [`Client::once`] keeps to one connection and records how it ends. [`Client::event_source`] does what browsers do (HTML
//! standard, section 9.2.3): it reconnects with `Last-Event-ID` after the time that `retry:` names, and gives up for
//! ever on any status but 200. What came is in a [`Log`], and tests wait for what they want to find in it. An encoding
//! that a test asks for is decoded.

use crate::{chunked::Chunked, decoder::Decoder, wait::PATIENCE};
use rustls::{ClientConfig, pki_types::ServerName};
use sluice_cli::sse::{Event, Parser};
use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

/// Until a `retry:` has come.
const DEFAULT_RETRY: Duration = Duration::from_millis(500);
const READ_BYTES: usize = 8 * 1024;
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What to ask for, and where.
#[derive(Debug, Clone)]
pub struct Request {
    pub address: SocketAddr,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    /// Whether to keep the body's bytes, for tests that look at them.
    pub keep_body: bool,
    /// What a proxy sends before everything else.
    pub announcement: Vec<u8>,
    /// Over TLS, as a client that trusts and presents these.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Request {
    #[must_use]
    pub fn new(address: SocketAddr, target: &str) -> Self {
        let target = target.to_owned();
        Self { address, target, headers: Vec::new(), keep_body: false, announcement: Vec::new(), tls: None }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Accepts this encoding and no other.
    #[must_use]
    pub fn encoded(self, encoding: &str) -> Self {
        self.header("Accept-Encoding", encoding)
    }

    #[must_use]
    pub fn keeping_body(mut self) -> Self {
        self.keep_body = true;
        self
    }

    #[must_use]
    pub fn announced(mut self, announcement: Vec<u8>) -> Self {
        self.announcement = announcement;
        self
    }

    #[must_use]
    pub fn over_tls(mut self, config: impl Into<Arc<ClientConfig>>) -> Self {
        self.tls = Some(config.into());
        self
    }

    /// A connection on which the request can be sent.
    ///
    /// # Errors
    /// When it cannot be made, or the handshake fails.
    pub async fn connect(&self) -> io::Result<Box<dyn Connected>> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.write_all(&self.announcement).await?;
        Ok(match &self.tls {
            Some(config) => {
                let name = ServerName::from(self.address.ip());
                Box::new(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?)
            }
            None => Box::new(stream),
        })
    }

    /// The request's bytes; `last_event_id` as the standard has it, only if it is not empty.
    #[must_use]
    pub fn bytes(&self, last_event_id: &str) -> Vec<u8> {
        let mut text = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", self.target, self.address);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("accept")) {
            text.push_str("Accept: text/event-stream\r\n");
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !last_event_id.is_empty() {
            text.push_str(&format!("Last-Event-ID: {last_event_id}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// A connection, with or without TLS.
pub trait Connected: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connected for T {}

/// An answer's head.
#[derive(Debug, Clone, Default)]
pub struct Head {
    pub status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    /// A header's value; several of one name are joined, as HTTP allows.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> =
            self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| &**value).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub(crate) fn parse(text: &str) -> io::Result<Self> {
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let status = status.ok_or_else(|| io::Error::other(format!("no HTTP answer: {text:?}")))?;
        Ok(Self { status, headers })
    }
}

/// How one connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The body was whole: a close after the last byte, or the last chunk, and the end of its encoding.
    Clean,
    /// Cut: a reset, or a close in the middle of a chunked body or of its encoding.
    Broken,
}

/// What came, over all of a client's connections.
#[derive(Debug, Default)]
pub struct Log {
    pub heads: Vec<Head>,
    pub ends: Vec<End>,
    pub events: Vec<Event>,
    /// Every byte after the head, decoded, if they are kept.
    pub body: Vec<u8>,
    /// Bytes after the heads as they came.
    pub encoded_bytes: u64,
    pub last_event_id: String,
    pub retry_ms: Option<u64>,
    /// When the last byte came.
    pub last_byte: Option<Instant>,
    /// No more attempts: the status was not 200.
    pub gave_up: bool,
}

impl Log {
    /// The data of all events, in order.
    pub fn data(&self) -> impl Iterator<Item = &str> {
        self.events.iter().map(|event| event.data.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[must_use]
    pub fn head(&self) -> &Head {
        self.heads.last().expect("an answer")
    }

    /// Whether the answer is complete enough that what is published now must arrive.
    fn is_open(&self) -> bool {
        let streams = |head: &Head| {
            head.header("content-type").is_some_and(|value| value.starts_with("text/event-stream"))
                && head.status == 200
        };
        self.heads.last().is_some_and(|head| !streams(head) || self.retry_ms.is_some())
    }
}

/// A running client; dropping it closes its connection.
#[derive(Debug)]
pub struct Client {
    log: watch::Receiver<Log>,
    task: JoinHandle<()>,
}

impl Client {
    /// One connection; returns when the first bytes have come (or all there will be).
    pub async fn once(request: Request) -> Self {
        Self::start(request, false).await
    }

    /// Reconnects as browsers do; returns when the first bytes have come.
    pub async fn event_source(request: Request) -> Self {
        Self::start(request, true).await
    }

    async fn start(request: Request, reconnects: bool) -> Self {
        let what = format!("the first bytes of {}", request.target);
        let (sender, log) = watch::channel(Log::default());
        let task = tokio::spawn(run(request, reconnects, sender));
        let client = Self { log, task };
        client.wait(&what, |log| log.is_open() || (!reconnects && !log.ends.is_empty())).await;
        client
    }

    /// Reads the log.
    pub fn read<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.log.borrow())
    }

    /// Waits until the log is as wanted.
    ///
    /// # Panics
    /// When it is not within [`PATIENCE`], or can no longer become so.
    pub async fn wait(&self, what: &str, wanted: impl FnMut(&Log) -> bool) {
        self.wait_within(what, PATIENCE, wanted).await;
    }

    /// The same, for promises that name a time.
    ///
    /// # Panics
    /// When the log is not as wanted within `limit`, or can no longer become so.
    pub async fn wait_within(&self, what: &str, limit: Duration, wanted: impl FnMut(&Log) -> bool) {
        let mut log = self.log.clone();
        let answer = tokio::time::timeout(limit, log.wait_for(wanted)).await;
        if !matches!(answer, Ok(Ok(_))) {
            drop(answer);
            let why = if self.task.is_finished() { "the stream ended before" } else { "not in time" };
            let log = self.log.borrow();
            let last = &log.events[log.events.len().saturating_sub(3)..];
            panic!(
                "{why} ({limit:?}): {what}; {} events, the last {last:?}, heads {:?}, ends {:?}",
                log.events.len(),
                log.heads.iter().map(|head| head.status).collect::<Vec<_>>(),
                log.ends
            );
        }
    }

    /// Waits for this many events.
    pub async fn wait_events(&self, count: usize) {
        self.wait(&format!("{count} events"), |log| log.events.len() >= count).await;
    }

    /// Waits for the event with this data.
    pub async fn wait_data(&self, data: &str) {
        self.wait(&format!("data {data:?}"), |log| log.data().any(|one| one == data)).await;
    }

    /// Waits for the connection's end.
    pub async fn wait_end(&self) -> End {
        self.wait("the end of the stream", |log| !log.ends.is_empty()).await;
        self.read(|log| log.ends[0])
    }

    /// The data of all events, in order.
    #[must_use]
    pub fn data(&self) -> Vec<String> {
        self.read(|log| log.data().map(str::to_owned).collect())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(request: Request, reconnects: bool, log: watch::Sender<Log>) {
    loop {
        let connection = Connection { request: &request, log: &log };
        let end = connection.run().await.unwrap_or(End::Broken);
        log.send_modify(|log| log.ends.push(end));
        if !reconnects {
            return;
        }
        if log.borrow().heads.last().is_some_and(|head| head.status != 200) {
            return log.send_modify(|log| log.gave_up = true);
        }
        let retry = log.borrow().retry_ms.map_or(DEFAULT_RETRY, Duration::from_millis);
        tokio::time::sleep(retry).await;
    }
}

struct Connection<'a> {
    request: &'a Request,
    log: &'a watch::Sender<Log>,
}

impl Connection<'_> {
    async fn run(&self) -> io::Result<End> {
        let mut stream = self.request.connect().await?;
        let last_event_id = self.log.borrow().last_event_id.clone();
        stream.write_all(&self.request.bytes(&last_event_id)).await?;
        let mut buffer = Vec::with_capacity(READ_BYTES);
        let head_end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            if stream.read_buf(&mut buffer).await? == 0 || buffer.len() > MAX_HEAD_BYTES {
                return Err(io::Error::other("no whole head"));
            }
        };
        let head = Head::parse(&String::from_utf8_lossy(&buffer[..head_end]))?;
        let mut chunked = (head.header("transfer-encoding").as_deref() == Some("chunked")).then(Chunked::default);
        let length: Option<usize> = head.header("content-length").and_then(|value| value.parse().ok());
        let mut decoder = Decoder::new(&head)?;
        self.log.send_modify(|log| log.heads.push(head));
        buffer.drain(..head_end + 4);

        let mut parser = Parser::resuming(&last_event_id);
        let (mut content, mut taken) = (Vec::new(), 0);
        loop {
            match &mut chunked {
                Some(chunked) => chunked.push(&buffer, &mut content).map_err(io::Error::other)?,
                None => content.append(&mut buffer),
            }
            taken += content.len();
            self.take(&mut parser, &mut decoder, &content)?;
            content.clear();
            buffer.clear();
            let is_whole =
                chunked.as_ref().is_some_and(Chunked::is_whole) || length.is_some_and(|length| taken >= length);
            if is_whole || stream.read_buf(&mut buffer).await? == 0 {
                let is_whole = (is_whole || (chunked.is_none() && length.is_none())) && decoder.is_whole();
                return Ok(if is_whole { End::Clean } else { End::Broken });
            }
        }
    }

    fn take(&self, parser: &mut Parser, decoder: &mut Decoder, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let decoded = decoder.push(bytes)?;
        self.log.send_modify(|log| {
            log.last_byte = Some(Instant::now());
            log.encoded_bytes += bytes.len() as u64;
            if self.request.keep_body {
                log.body.extend_from_slice(&decoded);
            }
            let pushed = parser.push(&decoded, &mut log.events);
            debug_assert!(pushed.is_ok(), "{pushed:?}");
            if parser.last_event_id() != log.last_event_id {
                parser.last_event_id().clone_into(&mut log.last_event_id);
            }
            log.retry_ms = parser.reconnection_time_ms().or(log.retry_ms);
        });
        Ok(())
    }
}
