//! A stream without a socket: its shard writes to an outbox.

use bytes::Bytes;
use sluice_gateway::{
    channel::Channel,
    hub::{
        Guest, Hub,
        connection::{Greeting, Heartbeat, Open, Outlet, Start},
    },
    sse::{
        compress::Wire,
        outbox::{OutboxBody, outbox},
    },
};
use std::sync::{Arc, OnceLock};

/// Opens a stream of these channels on this shard, that begins with `head`; `None` if it is not let in.
pub(crate) async fn open(
    hub: &Hub,
    shard: usize,
    id: &str,
    (head, wire): (Bytes, Wire),
    channels: Vec<(Channel, Start)>,
) -> Option<OutboxBody> {
    let guest = Guest { address: std::net::Ipv4Addr::LOCALHOST.into(), subject: None };
    let permit = hub.admit(guest, std::iter::empty()).ok()?;
    let ticket = Arc::new(OnceLock::new());
    let (outbox, body) = outbox(hub.outbox_signals(shard, Arc::clone(&ticket)));
    let (started, has_started) = tokio::sync::oneshot::channel();
    let open = Open {
        id: id.into(),
        subject: None,
        token_id: None,
        outlet: Outlet::Body { outbox, ticket },
        head,
        wire,
        heartbeat: Heartbeat::Comment,
        greeting: Greeting::Plain,
        channels,
        ends: None,
        expires: None,
        started: Some(started),
        span: tracing::Span::none(),
        permit,
    };
    hub.open(shard, open);
    has_started.await.ok()?;
    Some(body)
}
