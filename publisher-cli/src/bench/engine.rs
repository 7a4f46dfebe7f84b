//! The event loop: one thread, one poller, all sockets.
//!
//! Everything happens in [`Engine::turn`]: streams are opened and events published as they fall due, then what the
//! poller reports is read. There is no task, timer or queue per connection, so that a core can drive many more streams
//! than the server on another one can serve.

mod connect;
mod publish;
mod streams;
mod timer;

use super::{
    ledger::Ledger,
    payload::Payload,
    reader::{Ended, Partial, Reader},
    target::{Header, Target},
    template::Template,
};
use mio::{Events, Poll, Token, net::TcpStream};
use publish::Publishers;
use std::{io, net::SocketAddr, time::Instant};
use timer::Timer;

pub(super) use connect::Sources;
pub(super) use publish::{Pace, PublishFigures, Traffic};

/// Much larger than any burst, as it is shared by all streams.
const READ_BUFFER_BYTES: usize = 256 * 1024;
const EVENTS_A_TURN: usize = 1024;
/// Streams are the tokens below this.
const FIRST_PUBLISHER: usize = 1 << 32;
const TIMER: Token = Token(usize::MAX);

/// Where streams are opened, and how.
#[derive(Debug)]
pub(super) struct StreamTarget {
    pub(super) target: Target,
    pub(super) address: SocketAddr,
    pub(super) headers: Vec<Header>,
    pub(super) sources: Sources,
    /// Per second; 0 for as fast as the window of those that are not open yet allows.
    pub(super) connect_rate: f64,
}

/// Where events are published, and how.
#[derive(Debug)]
pub(super) struct PublishTarget {
    pub(super) target: Target,
    pub(super) address: SocketAddr,
    pub(super) method: String,
    pub(super) headers: Vec<Header>,
    pub(super) body: Template,
    pub(super) payload: Payload,
    /// The most connections.
    pub(super) connections: usize,
}

/// One stream.
#[derive(Debug)]
struct Stream {
    socket: Option<TcpStream>,
    reader: Reader,
    asked: bool,
    /// It is opened and never read.
    stalls: bool,
}

/// How the streams are.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamCounts {
    pub(super) open: usize,
    /// Ended without having been open.
    pub(super) refused: usize,
    /// Ended after having been open.
    pub(super) cut: usize,
    pub(super) first_reason: Option<String>,
}

pub(super) struct Engine {
    poll: Poll,
    events: Events,
    timer: Timer,
    epoch: Instant,
    streams: Vec<Stream>,
    /// The next stream to be opened, and when the opening began.
    opening: connect::Opening,
    target: StreamTarget,
    publishers: Publishers,
    pub(super) ledger: Ledger,
    pub(super) counts: StreamCounts,
    pub(super) traffic: Vec<Traffic>,
    names: Vec<String>,
    buffer: Vec<u8>,
    spare: Box<Partial>,
    request: Vec<u8>,
    last_bytes: u64,
}

impl Engine {
    /// # Errors
    /// When the system has no poller or timer left.
    pub(super) fn new(target: StreamTarget, publish: PublishTarget, run: u32) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = Timer::new(poll.registry(), TIMER)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_A_TURN),
            timer,
            epoch: Instant::now(),
            streams: Vec::new(),
            opening: connect::Opening::default(),
            target,
            publishers: Publishers::new(publish)?,
            ledger: Ledger::new(run),
            counts: StreamCounts::default(),
            traffic: Vec::new(),
            names: Vec::new(),
            buffer: vec![0; READ_BUFFER_BYTES],
            spare: Box::default(),
            request: Vec::new(),
            last_bytes: 0,
        })
    }

    /// Nanoseconds of the run's clock.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Adds a channel that so many streams of a group will follow, and gives its index.
    pub(super) fn add_channel(&mut self, name: String, group: u8, streams: u32) -> u32 {
        self.names.push(name);
        self.ledger.add_channel(group, streams)
    }

    /// Adds a stream, to be opened when its turn comes.
    pub(super) fn add_stream(&mut self, channel: u32, stalls: bool) {
        self.streams.push(Stream { socket: None, reader: Reader::new(channel), asked: false, stalls });
    }

    /// When the last bytes came on a stream.
    pub(super) fn last_bytes(&self) -> u64 {
        self.last_bytes
    }

    pub(super) fn publish_figures(&mut self) -> &mut PublishFigures {
        &mut self.publishers.figures
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
                Token(index) if index >= FIRST_PUBLISHER => self.publisher_ready(index - FIRST_PUBLISHER, event)?,
                Token(index) => self.stream_ready(index, event),
            }
        }
        self.events = events;
        Ok(())
    }

    fn ended(&mut self, index: usize, reason: &Ended) {
        let stream = &mut self.streams[index];
        if stream.socket.take().is_none() {
            return;
        }
        let (channel, next) = (stream.reader.channel(), stream.reader.next());
        if stream.reader.is_open() || (stream.stalls && stream.asked) {
            self.counts.open -= 1;
            self.counts.cut += usize::from(!stream.stalls);
        } else {
            self.counts.refused += 1;
            self.opening.pending -= 1;
        }
        if !stream.stalls {
            self.ledger.left(index as u32, channel, next);
        }
        self.counts.first_reason.get_or_insert_with(|| reason.to_string());
    }
}
