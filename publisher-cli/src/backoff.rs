//! How long to wait before trying again: doubling, jittered so that many who failed together do not return together,
//! and, for what may not be tried for ever, bounded.

use std::time::Duration;
use tokio::time::Instant;

/// The first wait, before jitter.
const FIRST: Duration = Duration::from_millis(200);

/// Waits that double from one attempt to the next up to `longest`, each shortened at random by up to a half.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn new(longest: Duration) -> Self {
        Self { next: FIRST.min(longest), longest }
    }

    /// The wait before the next attempt.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(self.longest);
        wait
    }
}

/// Attempts of something that may be repeated for a limited time.
#[derive(Debug)]
pub(crate) struct Retry {
    backoff: Backoff,
    budget: Duration,
    /// Set by the first failure, so that one slow attempt does not use up the time for a second.
    deadline: Option<Instant>,
}

impl Retry {
    pub(crate) fn new(budget: Duration) -> Self {
        Self { backoff: Backoff::new(Duration::from_secs(2)), budget, deadline: None }
    }

    /// Waits before the next attempt, at least for as long as the other side asked. Answers false, at once, if the time
    /// for attempts would be over before that.
    pub(crate) async fn wait(&mut self, at_least: Option<Duration>) -> bool {
        let now = Instant::now();
        let deadline = *self.deadline.get_or_insert(now + self.budget);
        let wait = self.backoff.next().max(at_least.unwrap_or_default());
        if now + wait > deadline {
            return false;
        }
        tokio::time::sleep(wait).await;
        true
    }
}
