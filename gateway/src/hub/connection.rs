//! What a shard is given to own a connection.

use crate::{
    channel::Channel,
    position::Position,
    sse::{compress::Wire, outbox::Outbox},
};
use bytes::Bytes;
use std::{
    net::TcpStream,
    sync::{Arc, OnceLock},
    time::Instant,
};

/// Where a connection's bytes go.
pub enum Outlet {
    /// A plain HTTP/1.1 connection, taken over from hyper; non-blocking.
    Socket(TcpStream),
    /// A stream that hyper writes; the shard puts into `ticket` which connection it made of it.
    Body { outbox: Outbox, ticket: Arc<OnceLock<(u32, u32)>> },
}

/// Where a channel begins for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the next event.
    Live,
    /// After this position, which the client says it has been sent.
    After(Position),
    /// As `since=` says.
    Since(crate::broker::Since),
    /// With the next event, and a gap before it: the client's cursor cannot be read.
    Unreadable,
}

/// What a heartbeat looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// A comment, or in NDJSON a blank before the next line.
    Comment,
    /// `event: heartbeat`.
    Event,
}

/// What is said first, beside where the client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    Plain,
    /// `event: connected`.
    Hello,
    /// In NDJSON, a line with the cursor alone.
    Cursor,
}

/// A connection that was let in.
pub struct Open {
    /// Unique in the cluster.
    pub id: Arc<str>,
    pub subject: Option<Arc<str>>,
    /// The id of the token that let it in.
    pub token_id: Option<Arc<str>>,
    pub outlet: Outlet,
    /// The HTTP answer's head, for a socket.
    pub head: Bytes,
    pub wire: Wire,
    pub heartbeat: Heartbeat,
    pub greeting: Greeting,
    /// Distinct channels; reserved ones last.
    pub channels: Vec<(Channel, Start)>,
    /// When the stream ends by itself.
    pub ends: Option<Instant>,
    /// When its token expires, and the stream with it.
    pub expires: Option<Instant>,
    /// Told when the subscriptions are in force, so that an answer's head can wait for it.
    pub started: Option<tokio::sync::oneshot::Sender<()>>,
    /// What is logged of the connection is logged in here.
    pub span: tracing::Span,
    /// Counts the connection as long as it lives.
    pub permit: super::Permit,
}
