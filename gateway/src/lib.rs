//! Sluice, a horizontally scaled gateway for Server-Sent Events.
//!
//! # Layout
//!
//! - [`server`]: the whole, made of its parts, run and stopped; [`lifecycle`] says where it stands.
//! - [`http`]: everything that ends in an HTTP answer.
//! - [`edge`]: what stands between the socket and HTTP: TLS, and proxies before us.
//! - [`hub`]: the fan-out engine: feeds that put a channel's events into order, shards that own sockets.
//! - [`sse`]: frames, cursors and outboxes: what goes over the wire.
//! - [`broker`]: what carries events between replicas and keeps history: Redis, or the embedded one.
//! - [`config`], [`metrics`], [`traces`], and the words that all of them use: [`channel`], [`event`], [`position`],
//!   [`traceparent`].
//!
//! Dependencies point one way: `http → hub → sse`, `hub → broker`. The broker knows nothing of HTTP, the encoder nothing
//! of Redis.

pub mod auth;
pub mod broker;
pub mod channel;
pub mod config;
pub mod edge;
pub mod event;
pub mod files;
pub mod http;
pub mod hub;
pub mod lifecycle;
pub mod metrics;
pub mod position;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod promises;
pub mod server;
pub mod sse;
pub mod traceparent;
pub mod traces;
