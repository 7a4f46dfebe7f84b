//! Stdout and stderr. What is written is flushed before the call returns, so that who reads along sees it, and what is
//! recorded as printed has been.

use crate::exit::Failure;
use std::io::{self, IsTerminal, Write};
use tokio::io::AsyncWriteExt;

/// Stdout, written in the background so that a reader that has stopped reading does not keep Ctrl-C from working.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: tokio::io::Stdout,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { stdout: tokio::io::stdout() }
    }

    /// # Errors
    /// [`Failure::NobodyReads`] when the reader has gone.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if bytes.is_empty() {
            return Ok(());
        }
        let written = async {
            self.stdout.write_all(bytes).await?;
            self.stdout.flush().await
        };
        written.await.map_err(|error| cannot_write(&error))
    }

    /// Writes at once, for where nothing can be waited for.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub(crate) fn write_now(bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| cannot_write(&error))
    }
}

fn cannot_write(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::NobodyReads,
        _ => Failure::Failed(format!("cannot write to stdout: {error}")),
    }
}

/// Says something about the work on stderr.
pub(crate) fn say(message: &str) {
    // Nobody is left to be told that stderr does not work.
    let _ = writeln!(io::stderr(), "sluice: {message}");
}

/// Text that a stranger wrote, made safe to show on a terminal: control characters could move the cursor, recolour
/// or retitle it. Tabs are kept, and so is everything when no terminal is there to be harmed.
pub(crate) fn printable(text: &str, for_terminal: bool) -> std::borrow::Cow<'_, str> {
    let harmful = |c: char| c.is_control() && c != '\t';
    if !for_terminal || !text.contains(harmful) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmful(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe.into()
}

pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}
