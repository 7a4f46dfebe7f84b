//! `curl`, as users have it.

use crate::process::{Process, directory};
use crate::wait;
use std::process::Command;
use tempfile::TempDir;

/// A running curl that shows what comes as it comes, or one that has ended.
#[derive(Debug)]
pub struct Curl {
    process: Process,
    _directory: TempDir,
}

impl Curl {
    #[must_use]
    pub fn start(args: &[&str]) -> Self {
        let directory = directory();
        let mut command = Command::new("curl");
        command.args(["-sS", "-N", "--noproxy", "*", "--max-time", "60"]).args(args);
        Self { process: Process::start("curl", &mut command, directory.path()), _directory: directory }
    }

    /// Runs it to its end.
    pub async fn run(args: &[&str]) -> Self {
        let mut curl = Self::start(args);
        curl.process.end(wait::PATIENCE).await;
        curl
    }

    #[must_use]
    pub fn stdout(&self) -> String {
        self.process.stdout()
    }

    #[must_use]
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Waits until what it printed is as wanted.
    pub async fn wait(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        wait::until(what, async || wanted(&self.stdout()).then_some(())).await;
    }
}
