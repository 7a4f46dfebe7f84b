//! A publisher that goes on until an event was taken, as a careful one does: every event has an idempotency key, and is
//! sent again under it for as long as there is no 2xx. So each numbered event is published exactly once, in order.

use crate::{check::payload, http::Http, wait::PATIENCE};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// One that publishes a channel's events 1, 2, 3 … at a steady pace.
#[derive(Debug)]
pub struct Publisher {
    taken: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
    task: JoinHandle<Vec<Refused>>,
}

/// An attempt that was not answered with 2xx.
#[derive(Debug, Clone)]
pub struct Refused {
    /// `None`: no answer at all.
    pub status: Option<u16>,
    pub retry_after: Option<String>,
    pub took: Duration,
}

impl Publisher {
    #[must_use]
    pub fn start(address: SocketAddr, channel: &str, pace: Duration) -> Self {
        let (taken, stopped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(run(address, channel.to_owned(), pace, Arc::clone(&taken), Arc::clone(&stopped)));
        Self { taken, stopped, task }
    }

    /// Events taken until now.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// Waits until `more` further events were taken.
    pub async fn wait_more(&self, more: u64) {
        let wanted = self.taken() + more;
        crate::wait::until("events are taken", async || (self.taken() >= wanted).then_some(())).await;
    }

    /// Stops after the present event; answers how many there were, and what was refused on the way.
    ///
    /// # Panics
    /// When the present event is not taken in time.
    pub async fn stop(self) -> (u64, Vec<Refused>) {
        self.stopped.store(true, Ordering::Release);
        let refused = crate::wait::soon("the publisher stops", self.task).await.expect("no panic");
        (self.taken.load(Ordering::Acquire), refused)
    }
}

async fn run(
    address: SocketAddr,
    channel: String,
    pace: Duration,
    taken: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
) -> Vec<Refused> {
    let (http, path) = (Http::new(address), format!("/channels/{channel}/events"));
    let mut refused = Vec::new();
    for number in 1.. {
        if stopped.load(Ordering::Acquire) {
            break;
        }
        let key = format!("{channel}-{number}");
        let begun = Instant::now();
        while begun.elapsed() < 2 * PATIENCE {
            let sent = Instant::now();
            let answer = http.try_send("POST", &path, &[("idempotency-key", &key)], payload(&channel, number)).await;
            let status = answer.as_ref().ok().map(|answer| answer.status);
            if status.is_some_and(|status| (200..300).contains(&status)) {
                taken.store(number, Ordering::Release);
                break;
            }
            let retry_after = answer.ok().map(|answer| answer.header("retry-after").to_owned());
            let retry_after = retry_after.filter(|value| !value.is_empty());
            refused.push(Refused { status, retry_after, took: sent.elapsed() });
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(pace).await;
    }
    refused
}
