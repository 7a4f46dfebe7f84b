//! Waiting for conditions, each with a deadline far longer than anything takes that works.

use std::time::{Duration, Instant};

/// Far longer than anything takes that works, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(20);

/// Asks until there is an answer.
///
/// # Panics
/// When there is none within [`PATIENCE`].
pub async fn until<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(what, PATIENCE, probe).await
}

/// Asks until there is an answer, for promises that name a time.
///
/// # Panics
/// When there is none within `limit`.
pub async fn until_within<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Awaits what must end by itself.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(answer) => answer,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}
