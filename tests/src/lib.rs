//! What the end-to-end tests stand on: real processes, clients that can be run by the thousand, and a judge.
//!
//! Every process that is started here ends with the value that stands for it, whether its test passes or panics. Nothing
//! is skipped: a program that is missing is a failure that says how to get it. Nothing waits for time where there is a
//! condition to wait for ([`wait`]).
//!
//! It knows nothing of the gateway's code: only its command line, its ports and its HTTP surface.

pub mod announce;
pub mod browser;
pub mod chaos;
pub mod check;
pub mod chunked;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod curl;
pub mod dashboard;
pub mod decoder;
pub mod figures;
pub mod follower;
pub mod gateway;
pub mod http;
pub mod http2;
pub mod nginx;
pub mod numbered;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod publisher;
pub mod redis;
pub mod tls;
pub mod token;
pub mod wait;
