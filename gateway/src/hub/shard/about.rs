//! What is written to a stream about the stream itself: its first bytes, where the client stands, heartbeats, and when to
//! come back.

use super::{
    write::{offer, send},
    *,
};
use crate::{
    hub::connection::{Greeting, Heartbeat},
    sse::frame::Format,
};
use bytes::Bytes;

impl Shard {
    fn retry_ms(&self) -> u64 {
        let stream = &self.hub.config.stream;
        let (least, most) = (stream.retry_min.as_millis() as u64, stream.retry_max.as_millis() as u64);
        fastrand::u64(least..=most.max(least))
    }

    /// The first bytes: the answer's head, when to come back, where the client stands, and a greeting if it wants one.
    pub(super) fn write_greeting(&mut self, key: Key) {
        let retry = self.retry_ms();
        let Some(connection) = self.connections.get(key.index as usize) else { return };
        let (wire, format) = (connection.wire, connection.wire.format());
        let mut text = Vec::new();
        if format != Format::Ndjson {
            text.extend_from_slice(format!("retry: {retry}\n").as_bytes());
            if let Some(cursor) = self.cursor(connection) {
                text.extend_from_slice(format!("id: {cursor}\n").as_bytes());
            }
            text.push(b'\n');
        }
        if connection.greeting == Greeting::Cursor
            && let Some(cursor) = self.cursor(connection)
        {
            text.extend_from_slice(format!("{}\n", serde_json::json!({ "cursor": cursor })).as_bytes());
        }
        if connection.greeting == Greeting::Hello {
            let channels: Vec<_> = connection
                .links
                .iter()
                .map(|link| &self.channels[link.channel as usize].channel)
                .filter(|channel| !channel.is_reserved())
                .collect();
            let hello = serde_json::json!({
                "id": &*connection.id, "subject": connection.subject.as_deref(), "channels": channels, "retry": retry,
            });
            text.extend_from_slice(&special(format, &connection.id, "connected", &hello.to_string()));
        }
        let mut bytes = Vec::from(&connection.head[..]);
        self.open_stream(wire, &mut bytes);
        self.encode_text(key, wire, &text, &mut bytes);
        self.count_stream(wire, 1);
        let connection = &mut self.connections[key.index as usize];
        connection.head = Bytes::new();
        connection.unsent = bytes.into();
    }

    /// Where the client stands, now that more of it is known.
    pub(super) fn write_id(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key.index as usize) else { return };
        if connection.wire.format() == Format::Ndjson {
            return;
        }
        if let Some(cursor) = self.cursor(connection) {
            self.append_unsent(key, format!("id: {cursor}\n\n").as_bytes());
        }
    }

    fn append_unsent(&mut self, key: Key, text: &[u8]) {
        let Some(connection) = self.connection(key) else { return };
        let (wire, mut bytes) = (connection.wire, connection.unsent.to_vec());
        self.encode_text(key, wire, text, &mut bytes);
        self.connections[key.index as usize].unsent = bytes.into();
    }

    pub(super) fn write_heartbeat(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else { return };
        if connection.blocked.is_some() {
            // It has bytes to take, and does not.
            return;
        }
        let text = match (connection.wire.format(), connection.heartbeat) {
            // A blank before the next object is no line, and keeps proxies from giving up.
            (Format::Ndjson, _) => Bytes::from_static(b" "),
            (_, Heartbeat::Comment) => Bytes::from_static(b": hb\n\n"),
            (_, Heartbeat::Event) => Bytes::from_static(b"event: heartbeat\ndata: {}\n\n"),
        };
        self.append_unsent(key, &text);
        self.write_unsent(key);
    }

    /// When a client is told that its token expires at `at`.
    pub(super) fn warns_at(&self, at: Instant) -> Instant {
        at.checked_sub(self.hub.config.auth.expiry_warning).unwrap_or(at)
    }

    pub(super) fn warn_of_expiry(&mut self, key: Key) {
        let now = self.now;
        let Some(connection) = self.connection(key) else { return };
        let Some(expiry) = &mut connection.expiry else { return };
        expiry.warned = true;
        let seconds = expiry.at.saturating_duration_since(now).as_secs();
        let data = serde_json::json!({ "expires_in": seconds }).to_string();
        let text = special(connection.wire.format(), &connection.id, "token-expiring", &data);
        self.write_about(key, &text);
    }

    /// The connection's token is not valid any more: says so, and ends it.
    pub(super) fn expire(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else { return };
        if matches!(connection.stage, Stage::Open) {
            let text = special(connection.wire.format(), &connection.id, "token-expired", "{}");
            self.write_about(key, &text);
        }
        self.close(key, Reason::TokenExpired, true);
    }

    /// Writes an event of the gateway's own, unless the client has bytes to take and does not.
    fn write_about(&mut self, key: Key, text: &[u8]) {
        if self.connection(key).is_some_and(|connection| connection.blocked.is_none()) {
            self.append_unsent(key, text);
            self.write_unsent(key);
        }
    }

    /// When to come back, as the last thing on a stream that the gateway ends.
    pub(super) fn write_goodbye(&mut self, key: Key) {
        let retry = format!("retry: {}\n\n", self.retry_ms());
        let Some(connection) = self.connections.get(key.index as usize) else { return };
        let wire = connection.wire;
        let mut bytes = Vec::new();
        if matches!(connection.stage, Stage::Starting(_)) {
            bytes.extend_from_slice(&connection.head);
            self.open_stream(wire, &mut bytes);
            self.encode_text(key, wire, retry.as_bytes(), &mut bytes);
        } else if wire.format() != Format::Ndjson {
            self.encode_text(key, wire, retry.as_bytes(), &mut bytes);
        }
        self.close_stream(key, wire, &mut bytes);
        // Whether the client gets it or not, it comes back.
        let _ = match &self.sockets[key.index as usize] {
            Some(socket) => send(socket, &bytes),
            None => offer(&self.connections, key.index as usize, &bytes.into()),
        };
        if let Some(socket) = &self.sockets[key.index as usize] {
            // What was not read would turn the end into a reset, which may overtake the bytes just sent.
            let mut unread = [0u8; 4096];
            let _ = rustix::net::recv(socket, &mut unread, rustix::net::RecvFlags::DONTWAIT);
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
    }
}

/// An event of the gateway's own, about the stream and not in it.
fn special(format: Format, connection: &str, event: &str, data: &str) -> Vec<u8> {
    match format {
        Format::Ndjson => {
            let channel = format!("$conn.{connection}");
            let line = serde_json::json!({ "channel": channel, "event": event, "data": data, "id": null });
            format!("{line}\n").into_bytes()
        }
        Format::Sse | Format::Envelope => format!("event: {event}\ndata: {data}\n\n").into_bytes(),
    }
}
