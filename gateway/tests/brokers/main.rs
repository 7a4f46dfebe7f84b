//! What the brokers promise, asked of the embedded one, and of Redis on a real server that each test has for itself.

mod ear;
mod history;
mod only_embedded;
mod only_redis;
mod publishing;
mod server;
mod stage;
