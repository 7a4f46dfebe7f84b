//! What the hub does beside the data path, because it takes time: joining channels, filling holes, comparing tops, and
//! letting go of channels that nobody has any more.

use super::{
    Hub, Target,
    feed::{Cause, Need, Repaired},
    lock,
};
use crate::channel::Channel;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Tops are compared this often even if nothing seems amiss: a net beneath the rest.
const AUDIT_EVERY: Duration = Duration::from_secs(60);
/// Before a top that seems wrong is looked at again.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// After the broker answered, but not for one channel: a key of another kind, say.
const ONE_CHANNEL_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// After the broker did not answer.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Channels whose tops are asked for in one go.
const JOIN_BATCH: usize = 512;
/// Entries read with one page of a repair, and before it where two histories are to be told apart.
const REPAIR_PAGE: usize = 512;

/// How often the list of denied tokens is read: a net beneath the messages that tell of each entry at once.
const DENIED_EVERY: Duration = Duration::from_secs(10);
/// Before there is a broker, and after it did not answer.
const DENIED_AGAIN_AFTER: Duration = Duration::from_millis(100);

impl Hub {
    /// Keeps this replica's list of denied tokens as the broker has it.
    pub(super) async fn keep_denied(self: Arc<Self>) {
        let mut complained = false;
        loop {
            let listed = match self.broker.get() {
                Some(broker) if self.reachable().is_ok() => Some(broker.denied().await),
                _ => None,
            };
            let pause = match listed {
                Some(Ok(listed)) => {
                    complained = false;
                    for (id, until_ms) in self.denied.merge(listed) {
                        self.close_here(&Target::Token { id, until_ms });
                    }
                    DENIED_EVERY
                }
                Some(Err(error)) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!(%error, "the list of denied tokens cannot be read, trying again");
                    }
                    DENIED_AGAIN_AFTER
                }
                None => DENIED_AGAIN_AFTER,
            };
            tokio::time::sleep(pause).await;
        }
    }

    pub(super) fn see_to(&self, channel: &Channel, need: Need) {
        let Some(hub) = self.this.upgrade() else { return };
        match need {
            Need::Nothing => {}
            Need::LookAgain => {
                let (joins, channel) = (self.joins.clone(), channel.clone());
                self.runtime.spawn(async move {
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                    let _ = joins.send(channel);
                });
            }
            Need::Repair(cause) => {
                self.metrics.repairs.with_label_values(&[cause.as_str()]).inc();
                let channel = channel.clone();
                if cause == Cause::Audit {
                    // Announcements did not come although nothing was cut: the subscription itself may be gone.
                    let _ = self.subscriptions.send((channel.clone(), true));
                }
                self.runtime.spawn(async move { hub.repair(channel).await });
            }
        }
    }

    /// Reads on until the feed misses nothing.
    async fn repair(self: Arc<Self>, channel: Channel) {
        let Some(broker) = self.broker.get() else { return };
        let mut proven = false;
        loop {
            let Some(feed) = self.feed(channel.as_str()) else { return };
            let after = lock(&feed).last();
            if proven {
                // A log that was deleted needs an identity before anything can be told of it; and joining writes, so
                // that only a master can be the one that shows another history.
                if let Err(error) = broker.join(vec![channel.clone()]).await {
                    tracing::debug!(%channel, %error, "the history cannot be looked at again yet");
                    tokio::time::sleep(RETRY_AFTER).await;
                    continue;
                }
            }
            let before = if proven { REPAIR_PAGE } else { 1 };
            let timer = self.metrics.history_read_seconds.start_timer();
            let page = broker.read(&channel, after, before, REPAIR_PAGE).await;
            timer.observe_duration();
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    tracing::debug!(%channel, %error, "a hole cannot be filled yet");
                    tokio::time::sleep(RETRY_AFTER).await;
                    continue;
                }
            };
            match self.with_feed(&feed, |feed, outlets| feed.repaired(&page, proven, outlets)) {
                Repaired::ReadOn => proven = false,
                Repaired::Doubtful => {
                    tracing::warn!(%channel, at = %after, "the history looks like another one, reading it again");
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                    proven = true;
                }
                Repaired::Forked(common) => {
                    tracing::warn!(%channel, %common, "the history was replaced after this position");
                    while let Err(error) = broker.mark_fork(&channel, common).await {
                        tracing::debug!(%channel, %error, "a fork cannot be written down yet");
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                    proven = false;
                }
                Repaired::Done(need) => return self.see_to(&channel, need),
            }
        }
    }

    /// Asks for tops, many at a time: of channels just subscribed to, after every cut, and where something seems wrong.
    pub(super) async fn join_channels(self: Arc<Self>, mut wanted: mpsc::UnboundedReceiver<Channel>) {
        let mut batch = Vec::new();
        while wanted.recv_many(&mut batch, JOIN_BATCH).await > 0 {
            let channels: Vec<_> = batch.drain(..).filter(|channel| self.feed(channel.as_str()).is_some()).collect();
            let Some(broker) = self.broker.get() else { continue };
            match broker.join(channels.clone()).await {
                Ok(tops) => {
                    let mut failed = Vec::new();
                    for (channel, top) in channels.into_iter().zip(tops) {
                        match (top, self.feed(channel.as_str())) {
                            (Ok(top), Some(feed)) => {
                                let need = self.with_feed(&feed, |feed, outlets| feed.joined(top, outlets));
                                self.see_to(&channel, need);
                            }
                            (Err(error), Some(_)) => {
                                // Of many only one is named: as a rule it is a part of a cluster that is away.
                                if failed.is_empty() {
                                    tracing::warn!(%channel, %error, "a channel's history cannot be read");
                                }
                                failed.push(channel);
                            }
                            (_, None) => {}
                        }
                    }
                    if failed.len() > 1 {
                        tracing::warn!(channels = failed.len(), "the histories of so many channels cannot be read");
                    }
                    self.join_later(failed, ONE_CHANNEL_AGAIN_AFTER);
                }
                Err(error) => {
                    tracing::debug!(%error, channels = channels.len(), "tops cannot be read yet");
                    self.join_later(channels, RETRY_AFTER);
                }
            }
        }
    }

    fn join_later(&self, channels: Vec<Channel>, after: Duration) {
        let joins = self.joins.clone();
        if !channels.is_empty() {
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                for channel in channels {
                    let _ = joins.send(channel);
                }
            });
        }
    }

    pub(super) async fn keep_subscriptions(self: Arc<Self>, mut wanted: mpsc::UnboundedReceiver<(Channel, bool)>) {
        while let Some((channel, subscribe)) = wanted.recv().await {
            let Some(broker) = self.broker.get() else { continue };
            if subscribe {
                broker.subscribe(&channel);
            } else {
                broker.unsubscribe(&channel);
            }
        }
    }

    /// Unsubscribes from channels that nobody here has had for a while, and has tops compared now and then.
    pub(super) async fn tidy(self: Arc<Self>) {
        let mut every_second = tokio::time::interval(Duration::from_secs(1));
        let mut audited = Instant::now();
        loop {
            every_second.tick().await;
            let linger = self.config.redis.linger;
            self.write_feeds().retain(|channel, feed| {
                let mut feed = lock(feed);
                // Quiet ones too, whose share grows smaller as others come.
                feed.trim(self.tail_bytes());
                let gone = feed.idle_since.is_some_and(|since| since.elapsed() >= linger);
                if gone {
                    self.metrics.channels_active.dec();
                    let _ = self.subscriptions.send((channel.clone(), false));
                }
                !gone
            });
            if audited.elapsed() >= AUDIT_EVERY {
                audited = Instant::now();
                for channel in self.read_feeds().keys() {
                    let _ = self.joins.send(channel.clone());
                }
            }
        }
    }
}
