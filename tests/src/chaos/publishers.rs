//! Publishers that do not give up: one for each channel, each event under an idempotency key, tried through one replica
//! after the other until one answers 2xx, and only then the next.

use crate::{check::payload_of_size, http::Http, wait::PATIENCE};
use fastrand::Rng;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(30);

/// Those of all channels.
#[derive(Debug)]
pub struct Publishers {
    stopping: Arc<AtomicBool>,
    tasks: Vec<(String, JoinHandle<(u64, u64)>)>,
}

impl Publishers {
    #[must_use]
    pub fn start(replicas: Vec<SocketAddr>, channels: &[String], events_per_second: u32, seed: u64) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let replicas: Vec<_> = replicas.into_iter().map(Http::new).collect();
        let pace = Duration::from_secs(1) * u32::try_from(channels.len()).unwrap_or(1) / events_per_second;
        let tasks = channels.iter().enumerate().map(|(nth, channel)| {
            let one = One {
                replicas: replicas.clone(),
                channel: channel.clone(),
                pace,
                rng: Rng::with_seed(seed.wrapping_add(nth as u64)),
                stopping: Arc::clone(&stopping),
            };
            (channel.clone(), tokio::spawn(one.run()))
        });
        let tasks = tasks.collect();
        Self { stopping, tasks }
    }

    /// Stops each after its present event; answers the last number of each channel, and how many attempts failed.
    ///
    /// # Panics
    /// When an event is not taken in time.
    pub async fn stop(self) -> (BTreeMap<String, u64>, u64) {
        self.stopping.store(true, Ordering::Release);
        let (mut counts, mut repeated) = (BTreeMap::new(), 0);
        for (channel, task) in self.tasks {
            let ended = tokio::time::timeout(2 * PATIENCE, task).await;
            let (count, failed) = ended.unwrap_or_else(|_| panic!("{channel}: not taken in time")).expect("no panic");
            counts.insert(channel, count);
            repeated += failed;
        }
        (counts, repeated)
    }
}

struct One {
    replicas: Vec<Http>,
    channel: String,
    pace: Duration,
    rng: Rng,
    stopping: Arc<AtomicBool>,
}

impl One {
    async fn run(mut self) -> (u64, u64) {
        let path = format!("/channels/{}/events", self.channel);
        let (mut number, mut failed) = (0, 0);
        // Spread over the first interval, then steady, and catching up after a pause.
        let first = tokio::time::Instant::now() + self.pace.mul_f64(self.rng.f64());
        let mut ticks = tokio::time::interval_at(first, self.pace);
        while !self.stopping.load(Ordering::Acquire) {
            ticks.tick().await;
            number += 1;
            let key = format!("{}-{number}", self.channel);
            // Most are small; a few fill sockets.
            let bytes = if self.rng.u32(..50) == 0 { 8 * 1024 } else { self.rng.usize(20..300) };
            let data = payload_of_size(&self.channel, number, bytes);
            loop {
                let replica = &self.replicas[self.rng.usize(..self.replicas.len())];
                let answer = replica.try_send("POST", &path, &[("idempotency-key", &key)], data.clone()).await;
                match answer {
                    Ok(answer) if (200..300).contains(&answer.status) => break,
                    Ok(answer) => assert!(answer.status >= 500, "{key}: {} {}", answer.status, answer.text()),
                    Err(_) => {}
                }
                failed += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
        (number, failed)
    }
}
