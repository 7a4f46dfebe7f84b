//! `sluice bench`: load for any SSE server, every delivery checked and measured.
//!
//! # Layout
//!
//! - `run` goes through the phases of a measurement; `report` is what comes of it.
//! - `engine` is the event loop: it opens streams and publishes. What a stream gets goes through its `reader`, which is
//!   made of `response` (HTTP, with `chunked`), `lines` (SSE) and `stamp` (which event it is), to the one `ledger`,
//!   where `checker` finds what was lost, doubled or out of order, and `latency` counts.
//! - `target`, `template` and `payload` are what requests are made of.
//! - `process` looks at the CPU time and memory of the processes that are measured.
//! - `floor` is a server that does the least a server can.
//!
//! It must cost much less than what it measures, so it has no task, timer or queue per stream, and runs on a thread
//! beside the one that waits for signals.

mod checker;
mod chunked;
mod clock;
pub(crate) mod decoder;
mod engine;
pub(crate) mod floor;
mod http2;
mod latency;
mod ledger;
mod limits;
mod lines;
pub(crate) mod payload;
mod probe;
pub(crate) mod process;
mod progress;
mod reader;
mod report;
mod response;
mod resume;
mod run;
mod session;
pub(crate) mod stamp;
pub(crate) mod target;
mod template;

use crate::{args::BenchCommand, exit::Failure};

/// Runs one of the commands.
///
/// # Errors
/// When it could not be carried out, or the server lost, doubled or disordered something.
pub async fn run(command: BenchCommand) -> Result<(), Failure> {
    match command {
        BenchCommand::Run(args) => on_thread(move || run::run(&args)).await,
        BenchCommand::Resume(args) => on_thread(move || resume::run(&args)).await,
        BenchCommand::Floor(args) => floor::run(&args).await,
    }
}

/// Runs what never yields on a thread of its own.
async fn on_thread(work: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Result<(), Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Failure::Failed(format!("the measurement broke off: {error}"))))
}
