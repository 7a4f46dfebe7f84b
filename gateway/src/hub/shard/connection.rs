//! A connection as its shard keeps it.

use super::{Key, relief::Held};
use crate::{
    hub::{
        Permit,
        connection::{Greeting, Heartbeat, Start},
        replay::ReplayPage,
    },
    metrics::Reason,
    position::Position,
    sse::{compress::Wire, frame::Frame, outbox::Outbox},
};
use bytes::Bytes;
use smallvec::SmallVec;
use std::{sync::Arc, time::Instant};

/// Where a connection stands in one of its channels.
#[derive(Debug)]
pub(super) enum Progress {
    /// Not begun: the channel's feed has not said yet where it stands, or `since=` is being looked up.
    Waiting(Start),
    /// A place in the channel's ring.
    Live,
    /// A place in the channel's ring, but nothing up to this position, which another replica has sent already.
    Floor(Position),
    /// Reading history.
    Replay(Box<Reading>),
}

/// History on its way to a connection.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// A page was asked for and has not come.
    pub(super) asked: bool,
    pub(super) gap: Option<Arc<Frame>>,
    pub(super) page: Option<Arc<ReplayPage>>,
    pub(super) next: usize,
    /// There was nothing after the page when it was read.
    pub(super) complete: bool,
    /// The page had nothing at all for this link.
    pub(super) empty: bool,
}

impl Reading {
    /// The next frame, if it is here.
    pub(super) fn peek(&self) -> Option<&Arc<Frame>> {
        self.gap.as_ref().or_else(|| self.page.as_ref()?.frames.get(self.next))
    }

    pub(super) fn advance(&mut self) {
        if self.gap.take().is_none() {
            self.next += 1;
        }
    }
}

/// One of a connection's channels.
#[derive(Debug)]
pub(super) struct Link {
    /// The shard's channel, and the index among its subscribers.
    pub(super) channel: u32,
    pub(super) subscriber: u32,
    /// Another channel of the connection has the same cursor key.
    pub(super) by_name: bool,
    pub(super) progress: Progress,
    /// A resume that was not counted yet.
    pub(super) resuming: bool,
    /// The place in the channel's ring from which on events are news. What stands before it is a replay from memory.
    pub(super) live_from: u64,
    /// What comes before that, because the client was too slow.
    pub(super) held: Option<Box<Held>>,
    /// Where the client stands, while the ring does not say it: unless the connection is in step.
    pub(super) at: Position,
}

pub(super) enum Outlet {
    Socket,
    Body(Outbox),
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Nothing was written: some channels' subscriptions are not in force yet. Until then.
    Starting(Instant),
    Open,
}

/// The end of a connection's token.
#[derive(Debug)]
pub(super) struct Expiry {
    pub(super) at: Instant,
    /// The client was told that it is near.
    pub(super) warned: bool,
}

pub(super) struct Connection {
    pub(super) key: Key,
    pub(super) id: Arc<str>,
    pub(super) subject: Option<Arc<str>>,
    pub(super) token_id: Option<Arc<str>>,
    pub(super) outlet: Outlet,
    pub(super) head: Bytes,
    pub(super) wire: Wire,
    pub(super) heartbeat: Heartbeat,
    pub(super) greeting: Greeting,
    pub(super) links: SmallVec<[Link; 2]>,
    pub(super) stage: Stage,
    /// What the socket did not take.
    pub(super) unsent: Bytes,
    /// Since when the socket takes nothing.
    pub(super) blocked: Option<Instant>,
    /// The poller tells when the socket takes bytes again: it has been full before.
    pub(super) watched: bool,
    pub(super) next_heartbeat: Instant,
    pub(super) ends: Option<(Instant, Reason)>,
    pub(super) expiry: Option<Box<Expiry>>,
    pub(super) started: Option<tokio::sync::oneshot::Sender<()>>,
    /// Bytes that the client sent after its request, which mean nothing.
    pub(super) stray_bytes: usize,
    /// In the list of those to be served one by one.
    pub(super) queued: bool,
    pub(super) span: tracing::Span,
    pub(super) _permit: Permit,
}

impl Connection {
    /// Whether it reads history on one of its channels.
    pub(super) fn is_reading(&self) -> bool {
        self.links.iter().any(|link| matches!(link.progress, Progress::Replay(_)))
    }
}
