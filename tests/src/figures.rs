//! What a gateway holds, by its own metrics.

use crate::gateway::Gateway;
use std::fmt;

/// All of it at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Resident, in bytes.
    pub memory: f64,
    /// Open descriptors.
    pub files: f64,
    pub threads: f64,
    pub tasks: f64,
    pub streams: f64,
    pub channels: f64,
}

impl Figures {
    pub async fn of(gateway: &Gateway) -> Self {
        let metric = async |name| gateway.metric(name, &[]).await;
        Self {
            memory: metric("process_resident_memory_bytes").await,
            files: metric("process_open_fds").await,
            threads: metric("process_threads").await,
            tasks: metric("sse_tasks").await,
            streams: metric("sse_connections_active").await,
            channels: metric("sse_channels_active").await,
        }
    }

    /// Whether nothing of clients is left over since `before`, some connections of the tests' own requests aside.
    #[must_use]
    pub fn is_as(&self, before: &Self, kept: f64) -> bool {
        let same = self.streams == before.streams && self.channels == before.channels;
        same && self.files <= before.files + kept && self.tasks <= before.tasks + kept
    }
}

impl fmt::Display for Figures {
    /// As cells of a table; memory in MiB.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, files, threads, tasks, streams, channels } = self;
        write!(f, "{:.1} | {files} | {threads} | {tasks} | {streams} | {channels}", memory / f64::from(1 << 20))
    }
}
