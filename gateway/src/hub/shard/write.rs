//! Handing bytes to a socket, what is left over when it takes no more, and who may be served by the shared pass.

use super::{connection::Outlet, *};
use crate::{position::Position, sse::cursor::CursorWriter};
use bytes::Bytes;

/// The client is gone.
pub(super) struct Gone;

/// Sends what the socket takes; 0 if it takes nothing now.
pub(super) fn send(socket: &TcpStream, bytes: &[u8]) -> Result<usize, Gone> {
    let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
    loop {
        match rustix::net::send(socket, bytes, flags) {
            Ok(sent) => return Ok(sent),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(0),
            Err(_) => return Err(Gone),
        }
    }
}

impl Shard {
    /// What has come for a connection since its socket was full. The write that filled it does not count: one event,
    /// however large, is never too much.
    pub(super) fn behind_bytes(&self, connection: &Connection) -> u64 {
        connection.links.iter().map(|link| self.behind_bytes_of(link)).sum()
    }

    pub(super) fn behind_bytes_of(&self, link: &Link) -> u64 {
        let channel = &self.channels[link.channel as usize];
        let next = channel.subscribers[link.subscriber as usize].next;
        let held = link.held.as_ref().map_or(0, |held| held.bytes());
        match link.progress {
            Progress::Live | Progress::Floor(_) => held + channel.behind(next.min(channel.head())),
            Progress::Waiting(_) | Progress::Replay(_) => 0,
        }
    }

    /// What a connection has not been sent yet.
    pub(super) fn waiting_bytes(&self, connection: &Connection) -> u64 {
        connection.unsent.len() as u64 + self.behind_bytes(connection)
    }
    /// Writes what is left over; answers whether the socket took all of it.
    pub(super) fn write_unsent(&mut self, key: Key) -> bool {
        let Some(connection) = self.connections.get_mut(key.index as usize).filter(|c| c.key == key) else {
            return false;
        };
        let had = connection.unsent.len();
        if had == 0 {
            connection.blocked = None;
            return true;
        }
        let sent = match &self.sockets[key.index as usize] {
            Some(socket) => send(socket, &connection.unsent),
            None => offer(&self.connections, key.index as usize, &self.connections[key.index as usize].unsent),
        };
        let Ok(sent) = sent else {
            self.close(key, Reason::Client, false);
            return false;
        };
        self.hub.metrics.bytes_sent.inc_by(sent as u64);
        let connection = &mut self.connections[key.index as usize];
        if sent == had {
            connection.unsent = Bytes::new();
            connection.blocked = None;
            return true;
        }
        if sent > 0 {
            connection.unsent = connection.unsent.slice(sent..);
            connection.blocked = None;
        }
        self.block(key);
        self.set_aside(key);
        false
    }

    /// Notes that a connection's socket takes nothing more for now.
    pub(super) fn block(&mut self, key: Key) {
        let (now, patience) = (self.now, self.hub.config.stream.write_timeout);
        let Some(connection) = self.connection(key) else { return };
        if connection.blocked.is_none() {
            connection.blocked = Some(now);
            let watched = std::mem::replace(&mut connection.watched, true);
            self.wheel.add(key, now + patience);
            if !watched {
                self.watch_for_room(key);
            }
        }
    }

    /// Has the poller tell when a socket takes bytes again; at once if it does already.
    fn watch_for_room(&mut self, key: Key) {
        let Some(Some(socket)) = self.sockets.get(key.index as usize) else { return };
        let (token, interest) = (Token(key.index as usize), Interest::READABLE | Interest::WRITABLE);
        if let Err(error) = self.registry.reregister(&mut SourceFd(&socket.as_raw_fd()), token, interest) {
            // It is cut by the write timeout then.
            tracing::warn!(%error, "a full socket cannot be watched");
        }
    }

    /// Works out which of a connection's links the shared pass may serve, and notes where those stand that it may not.
    pub(super) fn set_aside(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key.index as usize).filter(|c| c.key == key) else { return };
        let own_id = self.has_own_id(connection);
        // The pass must never overtake what waits for this connection alone.
        let hindered = matches!(connection.stage, Stage::Starting(_))
            || connection.blocked.is_some()
            || connection.queued
            || !connection.unsent.is_empty();
        let Some(connection) = self.connections.get_mut(key.index as usize) else { return };
        for link in &mut connection.links {
            let channel = &mut self.channels[link.channel as usize];
            let mut subscriber = channel.subscribers[link.subscriber as usize];
            let live = matches!(link.progress, Progress::Live) && link.held.is_none();
            if matches!(link.progress, Progress::Live | Progress::Floor(_)) {
                if channel.positioned
                    && let Some(stands) = channel.stands(subscriber.next)
                    && live
                {
                    link.at = stands;
                }
            } else {
                subscriber.next = u64::MAX;
            }
            subscriber.aside = hindered || !live || (own_id && channel.positioned);
            channel.subscribers[link.subscriber as usize] = subscriber;
        }
    }

    /// Whether a connection's id is not that of one channel alone.
    pub(super) fn has_own_id(&self, connection: &Connection) -> bool {
        let parts = connection.links.iter().filter(|link| {
            let channel = &self.channels[link.channel as usize];
            if channel.attached { channel.positioned } else { !channel.channel.is_reserved() }
        });
        parts.count() > 1
    }

    /// The connection's cursor: where it stands in every channel with history.
    pub(super) fn cursor(&self, connection: &Connection) -> Option<String> {
        let mut cursor = CursorWriter::default();
        for link in &connection.links {
            let channel = &self.channels[link.channel as usize];
            match &link.progress {
                // What the client said itself, as long as nothing better is known.
                Progress::Waiting(crate::hub::connection::Start::After(at)) if !channel.attached => {
                    cursor.add(&channel.channel, *at, link.by_name);
                }
                _ if channel.attached && !channel.positioned => {}
                Progress::Waiting(_) if channel.channel.is_reserved() => {}
                Progress::Waiting(_) => cursor.leave_out(),
                Progress::Replay(reading) if reading.gap.is_some() && reading.page.is_none() => cursor.leave_out(),
                Progress::Live if link.held.is_none() => {
                    let next = channel.subscribers[link.subscriber as usize].next;
                    let at: Position = channel.stands(next).unwrap_or(link.at);
                    cursor.add(&channel.channel, at, link.by_name);
                }
                Progress::Live | Progress::Floor(_) | Progress::Replay(_) => {
                    cursor.add(&channel.channel, link.at, link.by_name);
                }
            }
        }
        cursor.finish()
    }
}

/// [`send`] for a stream that hyper writes.
pub(super) fn offer(connections: &Slab<Connection>, index: usize, bytes: &Bytes) -> Result<usize, Gone> {
    let Some(Connection { outlet: Outlet::Body(outbox), .. }) = connections.get(index) else { return Err(Gone) };
    match outbox.offer(bytes) {
        Ok(true) => Ok(bytes.len()),
        Ok(false) => Ok(0),
        Err(_) => Err(Gone),
    }
}
