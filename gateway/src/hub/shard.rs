//! A shard: one thread that owns its sockets, their subscriptions and one timer wheel, and shares nothing.
//!
//! Each turn takes what was queued, then writes: all that has arrived for a socket by then goes out in one write. A
//! connection that keeps up costs nothing but that write; see [`channel`] for why.
//!
//! A turn holds the shard's lock, which its thread has to itself, with one exception: a thread that has just published
//! to a few connections, or let one in, does that itself ([`do_few`]) if the shard sleeps. To wake a thread for one write
//! costs more than the write.

mod about;
mod alone;
mod batch;
mod channel;
mod connection;
mod encode;
mod join;
mod pass;
mod relief;
mod timers;
mod write;

use super::{
    Hub,
    connection::{Open, Outlet},
    queue::{Command, Queue, Tail, Target},
    wheel::{Key, Wheel},
};
use crate::{
    broker::memory::now_micros,
    channel::Channel,
    metrics::Reason,
    sse::{
        compress::Scratch,
        frame::{Content, Frame, GapReason},
        outbox::Signal,
    },
};
use channel::{ShardChannel, Subscriber};
use connection::{Connection, Link, Progress, Stage};
use encode::Stream;
use mio::{Events, Interest, Poll, Registry, Token, Waker, unix::SourceFd};
use slab::Slab;
use std::{
    collections::{HashMap, VecDeque},
    net::TcpStream,
    os::fd::AsRawFd,
    sync::{Arc, Mutex, PoisonError, TryLockError},
    time::{Duration, Instant},
};

const WAKER: Token = Token(usize::MAX);
/// What is taken from the queue before everything is written.
const COMMANDS_A_TURN: usize = 1024;
const FRAME_BYTES_A_TURN: usize = 1 << 20;
/// Writes that a thread other than the shard's may make at a time.
const FEW_WRITES: usize = 16;
/// How long a new connection waits for its subscriptions before it is answered without them.
const START_WITHIN: Duration = Duration::from_secs(1);
/// Bytes that a client may send on its stream before it is taken for a hostile one.
const STRAY_BYTES: usize = 64 * 1024;

/// A shard's poller and the queue that wakes it, which holds up to `max_frames` frames.
pub(super) fn poller(max_frames: usize) -> std::io::Result<(Poll, Arc<Queue>)> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKER)?;
    Ok((poll, Arc::new(Queue::new(waker, max_frames))))
}

/// Runs a shard on this thread until it is stopped.
pub(super) fn run(shard: &Mutex<Shard>, mut poll: Poll) {
    let mut events = Events::with_capacity(1024);
    let mut sleep = Duration::ZERO;
    loop {
        if let Err(error) = poll.poll(&mut events, Some(sleep))
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "a shard cannot poll its sockets");
            return;
        }
        match shard.lock().unwrap_or_else(PoisonError::into_inner).turn(&events) {
            Some(duration) => sleep = duration,
            None => return,
        }
    }
}

/// Does what waits if that is about a few connections only, and the shard's own thread is not at it; answers whether
/// nothing is left to do. Not to be called with any lock of the hub held.
pub(super) fn do_few(shard: &Mutex<Shard>) -> bool {
    let mut shard = match shard.try_lock() {
        Ok(shard) => shard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return false,
    };
    if shard.commands.is_empty() {
        let shard = &mut *shard;
        shard.queue.take(&mut shard.commands, FEW_WRITES);
    }
    if shard.has_little_to_do() {
        shard.now = Instant::now();
        shard.carry_out();
        shard.write_all();
    }
    shard.is_idle()
}

pub(super) struct Shard {
    index: usize,
    hub: Arc<Hub>,
    queue: Arc<Queue>,
    registry: Registry,
    /// Taken from the queue and not carried out yet.
    commands: Vec<Command>,
    connections: Slab<Connection>,
    /// By connection, beside the slab so that the shared pass touches nothing else.
    sockets: Vec<Option<TcpStream>>,
    /// By connection: the last turn in which it was seen in a channel with something new.
    seen: Vec<u32>,
    /// By connection: how far the stream is compressed.
    streams: Vec<Stream>,
    turn: u32,
    next_generation: u32,
    /// Counts frames as they come, over all channels.
    stamp: u64,
    channels: Slab<ShardChannel>,
    by_name: HashMap<Channel, u32>,
    /// Channels with frames that nobody was sent yet.
    dirty: Vec<u32>,
    /// Connections to be served one by one.
    ready: VecDeque<Key>,
    /// Those of them that read history, whose turn is bounded.
    catching_up: VecDeque<Key>,
    wheel: Wheel,
    /// Connections whose time has come, to be looked at a few at a time.
    due: VecDeque<Key>,
    now: Instant,
    scratch: Vec<u8>,
    compressors: Scratch,
    next_tidy: Instant,
    /// This shard's part of `sse_outbox_bytes`.
    reported_outbox_bytes: i64,
    stopping: bool,
}

impl Shard {
    pub(super) fn new(index: usize, registry: Registry, hub: &Arc<Hub>) -> Self {
        let now = Instant::now();
        Self {
            index,
            hub: Arc::clone(hub),
            queue: Arc::clone(&hub.queues[index]),
            registry,
            commands: Vec::with_capacity(COMMANDS_A_TURN),
            connections: Slab::new(),
            sockets: Vec::new(),
            seen: Vec::new(),
            streams: Vec::new(),
            turn: 0,
            next_generation: 0,
            stamp: 0,
            channels: Slab::new(),
            by_name: HashMap::new(),
            dirty: Vec::new(),
            ready: VecDeque::new(),
            catching_up: VecDeque::new(),
            wheel: Wheel::new(now),
            due: VecDeque::new(),
            now,
            scratch: Vec::new(),
            compressors: Scratch::new(Arc::clone(&hub.metrics)),
            next_tidy: now,
            reported_outbox_bytes: 0,
            stopping: false,
        }
    }

    /// One turn of the shard's own thread; answers how long it may then sleep, `None` when it is to end.
    fn turn(&mut self, events: &Events) -> Option<Duration> {
        self.now = Instant::now();
        for event in events {
            if event.token() != WAKER {
                self.socket_event(event);
            }
        }
        if self.commands.is_empty() {
            self.queue.take(&mut self.commands, COMMANDS_A_TURN);
        }
        self.carry_out();
        self.write_all();
        self.timers();
        self.hub.turned(self.index);
        if self.stopping {
            let open: Vec<_> = self.connections.iter().map(|(_, connection)| connection.key).collect();
            for key in open {
                self.close(key, Reason::Drain, true);
            }
            return None;
        }
        Some(if self.is_idle() { self.wheel.until_tick(Instant::now()) } else { Duration::ZERO })
    }

    fn is_idle(&self) -> bool {
        self.ready.is_empty()
            && self.catching_up.is_empty()
            && self.dirty.is_empty()
            && self.due.is_empty()
            && self.commands.is_empty()
            && self.queue.is_empty()
    }

    /// Whether all that is to do is to write frames to a few connections, and to let a few in.
    fn has_little_to_do(&self) -> bool {
        if !self.ready.is_empty() || !self.catching_up.is_empty() || !self.dirty.is_empty() {
            return false;
        }
        let writes = self.commands.iter().map(|command| match command {
            Command::Frame(frame) => {
                let channel = self.by_name.get(frame.channel()).and_then(|&index| self.channels.get(index as usize));
                channel.map_or(0, |channel| channel.subscribers.len())
            }
            Command::Open(_) => 1,
            _ => FEW_WRITES + 1,
        });
        writes.sum::<usize>() <= FEW_WRITES
    }

    fn carry_out(&mut self) {
        let mut commands = std::mem::take(&mut self.commands);
        let mut frame_bytes = 0;
        let mut done = 0;
        for command in &mut commands {
            done += 1;
            let command = std::mem::replace(command, Command::Stop);
            if let Command::Frame(frame) = &command {
                frame_bytes += frame.weight();
            }
            self.command(command);
            if frame_bytes >= FRAME_BYTES_A_TURN {
                break;
            }
        }
        commands.drain(..done);
        self.commands = commands;
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Frame(frame) => self.frame(frame),
            Command::Open(open) => self.open(*open),
            Command::Resync => self.hub.resync(self.index),
            Command::Attached { channel, tail } => self.attached(&channel, tail),
            Command::Page(answer) => self.page(answer),
            Command::LetGo => self.let_go(),
            Command::Placed { connection, channel, place } => self.placed(connection, &channel, place),
            Command::Outbox { connection, signal: Signal::Drained } => self.unblocked(connection),
            Command::Outbox { connection, signal: Signal::Closed } => self.close(connection, Reason::Client, false),
            Command::Close(target) => self.close_targets(&target),
            Command::Forget(channel) => {
                if let Some(&index) = self.by_name.get(&channel) {
                    self.channels[index as usize].forget();
                }
            }
            Command::Count { channel, answer } => {
                let found = self.by_name.get(&channel).and_then(|&index| self.channels.get(index as usize));
                let _ = answer.send(found.map_or(0, |channel| channel.subscribers.len()));
            }
            Command::Drain { start, window, offset, of } => self.drain(start, window, offset, of),
            Command::Stop => self.stopping = true,
        }
    }

    fn connection(&mut self, key: Key) -> Option<&mut Connection> {
        self.connections.get_mut(key.index as usize).filter(|connection| connection.key == key)
    }

    fn open(&mut self, open: Open) {
        let Open {
            id,
            subject,
            token_id,
            outlet,
            head,
            wire,
            heartbeat,
            greeting,
            channels,
            ends,
            expires,
            started,
            span,
            permit,
        } = open;
        let index = self.connections.vacant_key();
        self.next_generation = self.next_generation.wrapping_add(1);
        let key = Key { index: u32::try_from(index).unwrap_or(u32::MAX), generation: self.next_generation };
        if self.sockets.len() <= index {
            self.sockets.resize_with(index + 1, || None);
            self.seen.resize(index + 1, 0);
            self.streams.resize(index + 1, Stream::default());
        }
        self.streams[index] = Stream::default();
        let outlet = match outlet {
            Outlet::Socket(socket) => {
                // A new socket is writable, which would only wake the shard to tell it so.
                let interest = Interest::READABLE;
                let registered = self.registry.register(&mut SourceFd(&socket.as_raw_fd()), Token(index), interest);
                if let Err(error) = registered {
                    tracing::warn!(%error, "a socket cannot be watched");
                    self.hub.loads[self.index].fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                    return;
                }
                self.sockets[index] = Some(socket);
                connection::Outlet::Socket
            }
            Outlet::Body { outbox, ticket } => {
                let _ = ticket.set((key.index, key.generation));
                connection::Outlet::Body(outbox)
            }
        };
        let next_heartbeat = self.now + self.hub.config.stream.heartbeat;
        self.connections.insert(Connection {
            key,
            id,
            subject,
            token_id,
            outlet,
            head,
            wire,
            heartbeat,
            greeting,
            links: smallvec::SmallVec::new(),
            stage: Stage::Starting(self.now + START_WITHIN),
            unsent: bytes::Bytes::new(),
            blocked: None,
            watched: false,
            next_heartbeat,
            ends: ends.map(|when| (when, Reason::MaxAge)),
            expiry: expires.map(|at| Box::new(connection::Expiry { at, warned: false })),
            started,
            stray_bytes: 0,
            queued: false,
            span,
            _permit: permit,
        });
        self.wheel.add(key, self.now + START_WITHIN);
        if let Some(when) = ends {
            self.wheel.add(key, when);
        }
        if let Some(at) = expires {
            self.wheel.add(key, at);
        }
        self.join(key, channels);
    }

    /// A number for what comes now, later than all before.
    fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    fn frame(&mut self, frame: Arc<Frame>) {
        self.stamp += 1;
        let Some(&index) = self.by_name.get(frame.channel()) else { return };
        let channel = &mut self.channels[index as usize];
        if !channel.attached {
            return;
        }
        channel.push(frame, self.stamp);
        channel.news_at = Some(self.now);
        if !std::mem::replace(&mut channel.dirty, true) {
            self.dirty.push(index);
        }
    }

    /// Readiness of a connection's socket.
    fn socket_event(&mut self, event: &mio::event::Event) {
        let index = event.token().0;
        let Some(connection) = self.connections.get(index) else { return };
        let key = connection.key;
        if event.is_error() || (event.is_write_closed() && event.is_read_closed()) {
            return self.close(key, Reason::Client, false);
        }
        if event.is_readable() && !self.read_stray(key) {
            return self.close(key, Reason::Client, false);
        }
        if event.is_writable() {
            self.unblocked(key);
        }
    }

    /// Reads and forgets what a client sends on its stream; answers whether it is still there, and sane.
    fn read_stray(&mut self, key: Key) -> bool {
        let Some(Some(socket)) = self.sockets.get(key.index as usize) else { return false };
        let mut buffer = [0u8; 4096];
        let mut stray = 0;
        let alive = loop {
            match rustix::net::recv(socket, &mut buffer, rustix::net::RecvFlags::DONTWAIT) {
                Ok((_, 0)) => break false,
                Ok((_, bytes)) => stray += bytes,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break true,
                Err(_) => break false,
            }
            if stray > STRAY_BYTES {
                break false;
            }
        };
        let Some(connection) = self.connection(key) else { return false };
        connection.stray_bytes += stray;
        alive && connection.stray_bytes <= STRAY_BYTES
    }

    /// The socket takes bytes again, or may.
    fn unblocked(&mut self, key: Key) {
        if let Some(connection) = self.connection(key)
            && connection.blocked.is_some()
        {
            self.serve_alone(key);
        }
    }

    /// Has a connection served by itself at the end of this turn, and by nothing else before.
    fn serve_alone(&mut self, key: Key) {
        if let Some(connection) = self.connection(key)
            && !std::mem::replace(&mut connection.queued, true)
        {
            self.ready.push_back(key);
            self.set_aside(key);
        }
    }

    fn close_targets(&mut self, target: &Target) {
        let meant = |connection: &Connection| match target {
            Target::Connection(id) => *connection.id == **id,
            Target::User(subject) => connection.subject.as_deref() == Some(subject),
            Target::Token { id, .. } => connection.token_id.as_deref() == Some(id),
        };
        let keys: Vec<_> =
            self.connections.iter().filter(|(_, connection)| meant(connection)).map(|(_, c)| c.key).collect();
        for key in keys {
            self.close(key, Reason::Closed, true);
        }
    }

    fn drain(&mut self, start: Instant, window: Duration, offset: usize, of: usize) {
        let open = self.connections.len().max(1);
        let keys: Vec<_> = self.connections.iter().map(|(_, connection)| connection.key).collect();
        for (nth, key) in keys.into_iter().enumerate() {
            // Shards take turns, so that all of them together close evenly.
            let share = (nth * of + offset) as f64 / (open * of) as f64;
            let when = start + window.mul_f64(share.min(1.0));
            if let Some(connection) = self.connection(key) {
                connection.ends = Some((when, Reason::Drain));
            }
            self.wheel.add(key, when);
        }
    }

    /// Ends a connection. `politely` tells the client when to come back, if its socket takes it.
    fn close(&mut self, key: Key, reason: Reason, politely: bool) {
        let Some(connection) = self.connection(key) else { return };
        if politely && connection.unsent.is_empty() {
            self.write_goodbye(key);
        }
        let Some(connection) = self.connections.try_remove(key.index as usize) else { return };
        for link in &connection.links {
            self.unsubscribe(link);
        }
        self.sockets[key.index as usize] = None;
        if matches!(connection.stage, Stage::Open) {
            self.count_stream(connection.wire, -1);
        }
        self.hub.loads[self.index].fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        self.hub.metrics.disconnects.with_label_values(&[reason.as_str()]).inc();
        connection.span.in_scope(|| tracing::debug!(reason = reason.as_str(), "stream ended"));
    }

    /// Takes a link's subscriber out of its channel, and the channel out of the shard with its last one.
    fn unsubscribe(&mut self, link: &Link) {
        let channel = &mut self.channels[link.channel as usize];
        let index = link.subscriber as usize;
        channel.subscribers.swap_remove(index);
        channel.pass.again |= index < channel.pass.at;
        if let Some(moved) = channel.subscribers.get(index).copied()
            && let Some(owner) = self.connections.get_mut(moved.connection as usize)
        {
            owner.links[usize::from(moved.link)].subscriber = link.subscriber;
        }
        // A quarter's slack is kept for those who come back.
        if channel.subscribers.capacity() > 64 && channel.subscribers.len() < channel.subscribers.capacity() / 4 {
            channel.subscribers.shrink_to(channel.subscribers.len() * 2);
        }
        if channel.subscribers.is_empty() {
            let channel = self.channels.remove(link.channel as usize);
            self.by_name.remove(&channel.channel);
            self.dirty.retain(|&dirty| dirty != link.channel);
            self.hub.detach(self.index, &channel.channel);
        }
    }
}
