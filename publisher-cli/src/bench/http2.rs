//! Streams over HTTP/2, many to a connection, without TLS (RFC 9113, section 3.3).
//!
//! The protocol is hyper's, on a runtime and a thread of its own; what it carries is handed to the engine, which checks
//! and counts as it does for its own sockets.

use super::{
    engine::Sources,
    reader::Ended,
    response::{Encoding, Head, is_event_stream},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{HeaderMap, Request, client::conn::http2, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mio::Waker;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    task::{Context, Poll, ready},
    time::Instant,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    sync::{OnceCell, mpsc::UnboundedReceiver, mpsc::UnboundedSender},
};

/// A stream that is read needs no more, and a hundred thousand that are not read must fit into memory.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

type Sender = http2::SendRequest<Empty<Bytes>>;

/// What came, for the stream of this number.
#[derive(Debug)]
pub(super) enum Arrival {
    Head(Head),
    Body(Bytes, Instant),
    Ended(Ended),
}

/// A stream to open.
#[derive(Debug)]
struct Opening {
    stream: u32,
    uri: String,
    stalls: bool,
}

/// How connections are made.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) address: SocketAddr,
    pub(super) headers: HeaderMap,
    pub(super) sources: Sources,
    pub(super) streams_per_connection: u32,
}

/// The engine's end.
#[derive(Debug)]
pub(super) struct Http2 {
    openings: UnboundedSender<Opening>,
    arrivals: mpsc::Receiver<(u32, Arrival)>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    waker: Waker,
    /// The engine has been woken and has not looked yet.
    is_woken: AtomicBool,
    wire_bytes: AtomicU64,
}

impl Http2 {
    /// Starts the thread, which ends when this is dropped. `waker` is woken when something has arrived.
    pub(super) fn start(settings: Settings, waker: Waker) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (openings, to_open) = tokio::sync::mpsc::unbounded_channel();
        let (report, arrivals) = mpsc::channel();
        let (is_woken, wire_bytes) = (AtomicBool::new(false), AtomicU64::new(0));
        let shared = Arc::new(Shared { settings, waker, is_woken, wire_bytes });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("http2".into());
        thread.spawn(move || runtime.block_on(serve(to_open, report, theirs)))?;
        Ok(Self { openings, arrivals, shared })
    }

    pub(super) fn open(&self, stream: u32, uri: String, stalls: bool) -> io::Result<()> {
        self.openings.send(Opening { stream, uri, stalls }).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// What has arrived. Call it until there is nothing after being woken.
    pub(super) fn next(&self) -> Option<(u32, Arrival)> {
        self.arrivals.try_recv().ok()
    }

    /// To be called before [`Http2::next`]: whatever comes from now on wakes again.
    pub(super) fn looked(&self) {
        self.shared.is_woken.store(false, Ordering::SeqCst);
    }

    /// Bytes read from sockets since the last call.
    pub(super) fn take_wire_bytes(&self) -> u64 {
        self.shared.wire_bytes.swap(0, Ordering::Relaxed)
    }
}

async fn serve(mut to_open: UnboundedReceiver<Opening>, report: mpsc::Sender<(u32, Arrival)>, shared: Arc<Shared>) {
    let mut connections: Vec<Arc<OnceCell<Sender>>> = Vec::new();
    while let Some(opening) = to_open.recv().await {
        let index = (opening.stream / shared.settings.streams_per_connection) as usize;
        connections.resize_with(connections.len().max(index + 1), Arc::default);
        let (connection, report) = (Arc::clone(&connections[index]), report.clone());
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let Opening { stream, uri, stalls } = opening;
            let tell = |arrival| {
                // Whoever does not listen any more does not want to know.
                let _ = report.send((stream, arrival));
                if !shared.is_woken.swap(true, Ordering::SeqCst) {
                    let _ = shared.waker.wake();
                }
            };
            let sender = connection.get_or_try_init(|| connect(&shared, index)).await;
            let followed = match sender.cloned() {
                Ok(sender) => follow(uri, stalls, sender, &shared, tell).await,
                Err(error) => Err(Ended::Socket(error.kind())),
            };
            if let Err(ended) = followed {
                tell(Arrival::Ended(ended));
            }
        });
    }
}

/// Follows one stream to its end.
async fn follow(
    uri: String,
    stalls: bool,
    mut sender: Sender,
    shared: &Shared,
    tell: impl Fn(Arrival),
) -> Result<(), Ended> {
    let mut request = Request::get(uri).body(Empty::new()).map_err(|_| Ended::Malformed)?;
    request.headers_mut().clone_from(&shared.settings.headers);
    let (head, mut body) = sender.send_request(request).await.map_err(|_| Ended::Closed)?.into_parts();
    let value = |name| head.headers.get(name).map_or(&b""[..], |value| value.as_bytes());
    tell(Arrival::Head(Head {
        status: head.status.as_u16(),
        is_event_stream: is_event_stream(value(header::CONTENT_TYPE)),
        encoding: Encoding::named(value(header::CONTENT_ENCODING)),
        closes: false,
    }));
    if stalls {
        std::future::pending::<()>().await;
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Ended::Closed)?;
        if let Ok(bytes) = frame.into_data() {
            tell(Arrival::Body(bytes, Instant::now()));
        }
    }
    Err(Ended::Closed)
}

/// Makes the connection of this number.
async fn connect(shared: &Arc<Shared>, index: usize) -> io::Result<Sender> {
    let address = shared.settings.address;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_nodelay(true)?;
    if let Some(source) = shared.settings.sources.of(index) {
        socket.bind(source)?;
    }
    let stream = socket.connect(address).await?;
    let io = TokioIo::new(Counted { stream, shared: Arc::clone(shared) });
    let window = STREAM_WINDOW_BYTES.saturating_mul(shared.settings.streams_per_connection).min((1 << 31) - 1);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(STREAM_WINDOW_BYTES).initial_connection_window_size(window);
    let (sender, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
    // How it ends, each of its streams is told.
    tokio::spawn(connection);
    Ok(sender)
}

/// A socket whose received bytes are counted.
struct Counted {
    stream: TcpStream,
    shared: Arc<Shared>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.shared.wire_bytes.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
