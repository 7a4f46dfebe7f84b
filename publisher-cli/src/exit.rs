//! How a command can end other than well, and what the shell is told.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | not done, or not all of it: stderr says what and why |
//! | 2 | the command line makes no sense (clap's own errors too) |
//! | 130 | interrupted from the keyboard |
//! | 141 | whoever reads stdout went away before all was published |

/// Not done, or not all of it.
pub const FAILED: u8 = 1;
/// Ended by Ctrl-C: 128 + SIGINT, as a shell shows a command that the signal killed.
pub const INTERRUPTED: u8 = 130;
/// 128 + SIGPIPE.
const PIPE_CLOSED: u8 = 141;

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// To be said on stderr.
    #[error("{0}")]
    Failed(String),
    /// The reasons have been said already.
    #[error("failed")]
    AlreadySaid,
    /// Stdout was closed by its reader when all that was asked for had been done or nothing else was to be done.
    #[error("stdout is closed")]
    NobodyReads,
    /// Stdout was closed by its reader while there was still something to publish. Code 0 would claim that it was.
    #[error("stdout is closed")]
    CutShort,
}

impl Failure {
    /// What to say on stderr; nothing about a reader that has enough.
    #[must_use]
    pub fn message(&self) -> Option<String> {
        match self {
            Self::Failed(message) => Some(message.clone()),
            Self::AlreadySaid | Self::NobodyReads | Self::CutShort => None,
        }
    }

    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::AlreadySaid => FAILED,
            Self::NobodyReads => 0,
            Self::CutShort => PIPE_CLOSED,
        }
    }
}
