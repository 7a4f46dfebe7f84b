//! Letting streams in, as many as the replica has room for.

use super::Hub;
use std::sync::{Weak, atomic::Ordering};

/// Counts one open stream for as long as it lives.
pub struct Permit {
    hub: Weak<Hub>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.upgrade() {
            hub.connections.fetch_sub(1, Ordering::AcqRel);
            hub.metrics.connections_active.dec();
        }
    }
}

/// Why a stream is not let in just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("this replica has as many connections as `limits.connections` allows")]
    Connections,
    #[error("this replica has as many channels as `limits.channels` allows")]
    Channels,
    #[error("this replica is being stopped")]
    Draining,
}

impl Refused {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Channels => "channels",
            Self::Draining => "draining",
        }
    }
}

impl Hub {
    /// Counts a stream in, or says why it must wait.
    ///
    /// # Errors
    /// When the replica is full or stopping.
    pub fn admit(&self) -> Result<Permit, Refused> {
        if self.draining.load(Ordering::Acquire) {
            return Err(Refused::Draining);
        }
        if self.read_feeds().len() >= self.config.limits.channels {
            return Err(Refused::Channels);
        }
        let limit = self.config.limits.connections;
        self.connections
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < limit).then_some(open + 1))
            .map_err(|_| Refused::Connections)?;
        self.metrics.connections_active.inc();
        self.metrics.connections.inc();
        Ok(Permit { hub: Weak::clone(&self.this) })
    }
}
