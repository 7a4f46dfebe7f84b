//! The `sluice` command from outside: the real binary against a small HTTP server that plays the gateway, and a real
//! Redis. Each test starts its own.

mod bench;
mod command;
mod health;
mod liar;
mod publish;
mod publish_bulk;
mod redis;
mod server;
mod stats;
mod tail;
mod tail_reconnect;
mod token;
mod usage;
