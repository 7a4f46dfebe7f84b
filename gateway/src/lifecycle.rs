//! The life of the process: serving, leaving, draining, stopped; and how it gets from one to the next.
//!
//! ```text
//! Serving ──SIGTERM, POST /drain──▶ Leaving ──drain.delay──▶ Draining ──no stream left, or drain.window──▶ Stopped
//! ```
//!
//! Publishing is served until the end. A drain that was asked for over HTTP stops at having drained, and waits for the
//! signal.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// Not ready any more, but everything goes on, until load balancers have noticed.
    Leaving,
    /// Streams are being closed, and none is let in.
    Draining,
    Stopped,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serving => "serving",
            Self::Leaving => "about to drain",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        })
    }
}

/// Where the process stands, and what was asked of it.
pub struct Lifecycle {
    phase: Mutex<Phase>,
    drain_asked: Notify,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { phase: Mutex::new(Phase::Serving), drain_asked: Notify::new() }
    }
}

impl Lifecycle {
    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.lock()
    }

    /// Moves on; never back.
    pub fn enter(&self, phase: Phase) {
        let mut current = self.lock();
        if phase > *current {
            tracing::info!(from = %*current, to = %phase, "phase");
            *current = phase;
        }
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
