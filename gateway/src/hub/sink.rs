//! What the broker tells the hub. Nothing here waits: whatever takes time is left to others.

use super::{Away, Hub, cluster::Cluster, feed::Feed, lock};
use crate::{
    broker::{Sink, announcement::Announced},
    channel::Channel,
};
use bytes::Bytes;
use std::{sync::atomic::Ordering, time::Instant};

impl Sink for Hub {
    fn subscribed(&self, channel: &Channel) {
        let _ = self.joins.send(channel.clone());
    }

    fn announced(&self, channel: &str, announced: Announced) {
        match &announced {
            Announced::Raw { .. } => self.metrics.published.with_label_values(&["raw"]).inc(),
            Announced::Refused(why) => {
                self.metrics.invalid_messages.inc();
                tracing::warn!(%channel, %why, "a raw message was refused");
            }
            Announced::Unreadable => self.metrics.invalid_messages.inc(),
            Announced::Entry { .. } | Announced::Plain { .. } | Announced::Look => {}
        }
        self.metrics.received.inc();
        if let Some(feed) = self.feed(channel) {
            // Ends when the event is with those who write it to sockets.
            let _span = announced.event().map(|event| self.traces().deliver(event, channel));
            let (need, channel) = self
                .with_feed_asleep(&feed, |feed, outlets| (feed.announced(announced, outlets), feed.channel().clone()));
            self.see_to(&channel, need);
        }
    }

    /// Writes a few frames on the caller's thread, and wakes the shards that have more to do than that.
    fn flush(&self) {
        self.for_each_asleep(|shard| self.see_to_few(shard));
    }

    fn flush_soon(&self) {
        if self.asleep.load(Ordering::Acquire) != 0 {
            self.flushing.notify_one();
        }
    }

    fn cut(&self, channels: &mut dyn Iterator<Item = &Channel>) {
        for channel in channels {
            if let Some(feed) = self.feed(channel.as_str()) {
                self.with_feed(&feed, Feed::cut);
            }
        }
    }

    fn control(&self, message: Bytes) {
        if let Some(hub) = self.this.upgrade() {
            Cluster::received(&hub, &message);
        }
    }

    fn reachable(&self, state: Result<(), String>) {
        let mut reachable = lock(&self.reachable);
        *reachable = match (state, &*reachable) {
            (Ok(()), _) => Ok(()),
            // Since when counts from the first failure.
            (Err(why), Err(away)) => Err(Away { why, ..away.clone() }),
            (Err(why), Ok(())) => Err(Away { since: Instant::now(), why, was_reached: true }),
        };
    }

    fn partly(&self, note: Option<String>) {
        *lock(&self.away_in_part) = note;
    }
}
