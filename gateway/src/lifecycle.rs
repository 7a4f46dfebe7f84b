//! The life of the process: serving, leaving, draining, closing, stopped; and how it gets from one to the next.
//!
//! ```text
//! Serving ──SIGTERM, POST /drain──▶ Leaving ──drain.delay──▶ Draining ──no stream left, or drain.window──▶
//!         Closing ──last answers out──▶ Stopped
//! ```
//!
//! Publishing is served until the end. A drain that was asked for over HTTP stops at having drained, and waits for the
//! signal.

use std::fmt;
use tokio::sync::{Notify, watch};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// Not ready any more, but everything goes on, until load balancers have noticed.
    Leaving,
    /// Streams are being closed, and none is let in.
    Draining,
    /// No connection is taken in, and those without a request are let go of.
    Closing,
    Stopped,
}

impl Phase {
    pub const ALL: [Self; 5] = [Self::Serving, Self::Leaving, Self::Draining, Self::Closing, Self::Stopped];

    /// Its name as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Leaving => "leaving",
            Self::Draining => "draining",
            Self::Closing => "closing",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaving => "about to drain",
            other => other.as_str(),
        })
    }
}

/// Where the process stands, and what was asked of it.
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
    drain_asked: Notify,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving), drain_asked: Notify::new() }
    }
}

impl Lifecycle {
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on; never back.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let goes_on = phase > *current;
            if goes_on {
                tracing::info!(from = %*current, to = %phase, "phase");
                *current = phase;
            }
            goes_on
        });
    }

    /// Returns once the process has got to `phase`, or past it.
    pub async fn reached(&self, phase: Phase) {
        // The sender is ours, so that it cannot be gone.
        let _ = self.phase.subscribe().wait_for(|current| *current >= phase).await;
    }

    /// Asks for a drain. Readiness is false from this moment.
    pub fn drain(&self) {
        self.enter(Phase::Leaving);
        self.drain_asked.notify_one();
    }

    /// Returns when a drain was asked for.
    pub async fn drain_asked(&self) {
        self.drain_asked.notified().await;
    }
}
