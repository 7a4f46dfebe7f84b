//! What a shard is told, and the queue that it comes through.
//!
//! Pushing never waits. Frames are bounded: one that finds the queue full is not taken, which the feed notes and
//! repairs; everything else is taken always, since it is bounded elsewhere.

use super::{connection::Open, replay::PageAnswer};
use crate::{channel::Channel, position::Position, sse::frame::Frame, sse::outbox::Signal};
use mio::Waker;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Bytes of frames that may wait for one shard.
const MAX_BYTES: usize = 64 << 20;

/// What a shard needs to know of a channel to go on from.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The shard's queue had turned frames away.
    pub(crate) missed: bool,
    /// The channel's last position; `None` if it has no history.
    pub(crate) last: Option<Position>,
    /// Where a client stands that needs all of `frames`.
    pub(crate) base: Position,
    pub(crate) frames: Vec<Arc<Frame>>,
}

/// Which connections to close.
#[derive(Clone, Debug)]
pub enum Target {
    Connection(String),
    User(String),
    /// Those that a token let in, which is denied until then, in milliseconds since 1970.
    Token {
        id: String,
        until_ms: u64,
    },
}

pub(crate) enum Command {
    Open(Box<Open>),
    /// Frames were turned away: ask the hub which channels missed some.
    Resync,
    Attached {
        channel: Channel,
        tail: Tail,
    },
    Frame(Arc<Frame>),
    Page(PageAnswer),
    /// Memory is wanted for pages of history.
    LetGo,
    /// Where a `since=` begins, for one connection's channel.
    Placed {
        connection: super::wheel::Key,
        channel: Channel,
        place: Position,
    },
    Outbox {
        connection: super::wheel::Key,
        signal: Signal,
    },
    Close(Target),
    /// A channel's history was deleted.
    Forget(Channel),
    Count {
        channel: Channel,
        answer: tokio::sync::oneshot::Sender<usize>,
    },
    /// Close every stream, spread over `window` from `start` on; this shard's are every `of`th, from the `offset`th.
    Drain {
        start: Instant,
        window: Duration,
        offset: usize,
        of: usize,
    },
    Stop,
}

#[derive(Default)]
struct State {
    commands: VecDeque<Command>,
    frames: usize,
    bytes: usize,
    awake: bool,
}

/// What became of a frame that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// The queue is full.
    TurnedAway,
    Taken,
    /// Taken, and the shard sleeps: whoever pushed sees to it that it is written.
    TakenAsleep,
}

/// One shard's queue.
pub(crate) struct Queue {
    state: Mutex<State>,
    waker: Waker,
    max_frames: usize,
}

impl Queue {
    pub(crate) fn new(waker: Waker, max_frames: usize) -> Self {
        Self { state: Mutex::new(State::default()), waker, max_frames }
    }

    /// Takes a frame unless the queue is full. Does not wake the shard.
    pub(crate) fn push_frame(&self, frame: &Arc<Frame>) -> Pushed {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.frames >= self.max_frames || state.bytes >= MAX_BYTES {
            return Pushed::TurnedAway;
        }
        state.frames += 1;
        state.bytes += frame.weight();
        state.commands.push_back(Command::Frame(Arc::clone(frame)));
        if std::mem::replace(&mut state.awake, true) { Pushed::Taken } else { Pushed::TakenAsleep }
    }

    pub(crate) fn push(&self, command: Command) {
        if self.push_quietly(command) {
            self.wake();
        }
    }

    /// Does not wake the shard; answers whether it sleeps, and whoever pushed has to see to it.
    pub(crate) fn push_quietly(&self, command: Command) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.commands.push_back(command);
        !std::mem::replace(&mut state.awake, true)
    }

    pub(crate) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a shard could not be woken");
        }
    }

    /// Moves up to `most` commands to `into`, which is empty.
    pub(crate) fn take(&self, into: &mut Vec<Command>, most: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let count = state.commands.len().min(most);
        for command in state.commands.drain(..count) {
            into.push(command);
        }
        let (frames, bytes) = into.iter().fold((0, 0), |(frames, bytes), command| match command {
            Command::Frame(frame) => (frames + 1, bytes + frame.weight()),
            _ => (frames, bytes),
        });
        state.frames -= frames;
        state.bytes -= bytes;
        // With something left the shard comes back by itself.
        state.awake = !state.commands.is_empty();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).commands.is_empty()
    }
}
