//! The event loop: one thread, one poller, all sockets.
//!
//! Everything happens in [`Engine::turn`]: streams are opened and events published as they fall due, then what the
//! poller reports is read. There is no task, timer or queue per connection, so that a core can drive many more streams
//! than the server on another one can serve.

mod connect;
mod publish;
mod streams;
mod timer;
mod traffic;

use super::{
    clock::Clock,
    http2::{self, Http2},
    ledger::Ledger,
    payload::Payload,
    reader::{Ended, Reader, Scratch},
    target::{self, Target},
    template::Template,
};
use hyper::HeaderMap;
use mio::{Events, Poll, Token, Waker, net::TcpStream};
use publish::Publishers;
use std::{io, net::SocketAddr};
use timer::Timer;

pub(super) use connect::Sources;
pub(super) use publish::PublishFigures;
pub(super) use traffic::{Pace, Schedule, Traffic};

/// Much larger than any burst, as it is shared by all streams.
const READ_BUFFER_BYTES: usize = 256 * 1024;
const EVENTS_A_TURN: usize = 1024;
/// Streams are the tokens below this.
const FIRST_PUBLISHER: usize = 1 << 32;
const TIMER: Token = Token(usize::MAX);
const HTTP2: Token = Token(usize::MAX - 1);

/// Where streams are opened, and how.
#[derive(Debug)]
pub(super) struct StreamTarget {
    pub(super) target: Target,
    pub(super) address: SocketAddr,
    pub(super) headers: HeaderMap,
    pub(super) sources: Sources,
    /// Per second; 0 for as fast as the window of those that are not open yet allows.
    pub(super) connect_rate: f64,
    /// Over HTTP/2, so many to a connection.
    pub(super) streams_per_connection: Option<u32>,
}

/// Where events are published, and how.
#[derive(Debug)]
pub(super) struct PublishTarget {
    pub(super) target: Target,
    pub(super) address: SocketAddr,
    pub(super) method: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Template,
    pub(super) payload: Payload,
    /// The most connections.
    pub(super) connections: usize,
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Follow,
    /// It begins where [`Engine::resume_from`] says.
    Resume,
    /// It is opened and never read.
    Stall,
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Connecting,
    /// Connected, and the request is held back.
    Held,
    Asked,
    Open,
    Ended,
}

/// One stream.
#[derive(Debug)]
struct Stream {
    /// None over HTTP/2, where the connection is not its own.
    socket: Option<TcpStream>,
    reader: Reader,
    stage: Stage,
    role: Role,
}

/// How the streams are.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamCounts {
    pub(super) open: usize,
    pub(super) stalled: usize,
    /// Ended without having been open.
    pub(super) refused: usize,
    /// Ended after having been open.
    pub(super) cut: usize,
    pub(super) first_reason: Option<String>,
}

impl StreamCounts {
    pub(super) fn connected(&self) -> usize {
        self.open + self.stalled
    }
}

/// A channel's name as it is, and as a part of a URL.
#[derive(Debug)]
struct Name {
    plain: String,
    in_url: String,
}

pub(super) struct Engine {
    poll: Poll,
    events: Events,
    timer: Timer,
    clock: Clock,
    streams: Vec<Stream>,
    /// The next stream to be opened, and when the opening began.
    opening: connect::Opening,
    target: StreamTarget,
    publishers: Publishers,
    pub(super) ledger: Ledger,
    pub(super) counts: StreamCounts,
    pub(super) traffic: Vec<Traffic>,
    names: Vec<Name>,
    http2: Option<Http2>,
    /// What the streams that resume send as `Last-Event-ID`.
    pub(super) resume_from: Vec<u8>,
    buffer: Vec<u8>,
    scratch: Scratch,
    request: Vec<u8>,
    last_bytes: u64,
}

impl Engine {
    /// # Errors
    /// When the system has no poller or timer left.
    pub(super) fn new(target: StreamTarget, publish: PublishTarget, run: u32) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = Timer::new(poll.registry(), TIMER)?;
        let http2 = match target.streams_per_connection {
            None => None,
            Some(streams_per_connection) => {
                let (address, headers) = (target.address, target.headers.clone());
                let sources = target.sources.clone();
                let settings = http2::Settings { address, headers, sources, streams_per_connection };
                Some(Http2::start(settings, Waker::new(poll.registry(), HTTP2)?)?)
            }
        };
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_A_TURN),
            timer,
            clock: Clock::start(),
            streams: Vec::new(),
            opening: connect::Opening::default(),
            target,
            publishers: Publishers::new(publish)?,
            ledger: Ledger::new(run),
            counts: StreamCounts::default(),
            traffic: Vec::new(),
            names: Vec::new(),
            http2,
            resume_from: Vec::new(),
            buffer: vec![0; READ_BUFFER_BYTES],
            scratch: Scratch::default(),
            request: Vec::new(),
            last_bytes: 0,
        })
    }

    /// Nanoseconds of the run's clock.
    pub(super) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Adds a channel that so many streams of a group will follow, and gives its index.
    pub(super) fn add_channel(&mut self, name: String, group: u8, streams: u32) -> u32 {
        self.names.push(Name { in_url: target::in_url(&name), plain: name });
        self.ledger.add_channel(group, streams)
    }

    /// Adds a stream, to be opened when its turn comes.
    pub(super) fn add_stream(&mut self, channel: u32, role: Role) {
        self.streams.push(Stream { socket: None, reader: Reader::new(channel), stage: Stage::Waiting, role });
    }

    /// When the last bytes came on a stream.
    pub(super) fn last_bytes(&self) -> u64 {
        self.last_bytes
    }

    pub(super) fn publish_figures(&mut self) -> &mut PublishFigures {
        &mut self.publishers.figures
    }

    /// From now on latencies count, and figures of publishing.
    pub(super) fn begin_measuring(&mut self) {
        let now = self.now();
        self.publishers.figures.clear();
        for group in &mut self.ledger.groups {
            group.latency.clear();
            group.record_from = now;
        }
    }

    /// Does what is due and what has come, and waits for something until `deadline` at the latest.
    ///
    /// # Errors
    /// When the poller fails or no socket can be made.
    pub(super) fn turn(&mut self, deadline: u64) -> io::Result<()> {
        let next_opening = self.open_due()?;
        let next_publishing = self.publish_due()?;
        let wake = deadline.min(next_opening).min(next_publishing);
        let timeout = self.timer.set(wake, self.now())?;
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        // Taken out so that the parts of this can be borrowed one by one.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                TIMER => self.timer.rang(),
                HTTP2 => self.http2_ready(),
                Token(index) if index >= FIRST_PUBLISHER => self.publisher_ready(index - FIRST_PUBLISHER, event)?,
                Token(index) => self.stream_ready(index, event),
            }
        }
        self.events = events;
        Ok(())
    }

    fn opened(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        if matches!(stream.stage, Stage::Connecting | Stage::Asked) {
            stream.stage = Stage::Open;
            self.opening.pending -= 1;
            self.opening.latest = self.clock.now();
            match stream.role {
                Role::Stall => self.counts.stalled += 1,
                Role::Follow | Role::Resume => self.counts.open += 1,
            }
        }
    }

    fn ended(&mut self, index: usize, reason: &Ended) {
        let stream = &mut self.streams[index];
        let stage = std::mem::replace(&mut stream.stage, Stage::Ended);
        stream.socket = None;
        let (channel, next) = (stream.reader.channel(), stream.reader.next());
        match (stage, stream.role) {
            (Stage::Ended, _) => return,
            // It is what a server does to those that never read.
            (Stage::Open, Role::Stall) => {
                self.counts.stalled -= 1;
                return;
            }
            (Stage::Open, _) => {
                self.counts.open -= 1;
                self.counts.cut += 1;
            }
            (Stage::Held, _) => self.counts.refused += 1,
            (Stage::Waiting | Stage::Connecting | Stage::Asked, _) => {
                self.counts.refused += 1;
                self.opening.pending -= 1;
            }
        }
        if stream.role != Role::Stall {
            self.ledger.left(index as u32, channel, next);
        }
        self.counts.first_reason.get_or_insert_with(|| reason.to_string());
    }
}
