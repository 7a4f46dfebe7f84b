//! A broker that does everything a broker may do: it cuts subscriptions, loses announcements, is slow to answer, fails,
//! and forgets.

use bytes::Bytes;
use sluice_gateway::{
    broker::{
        Accepted, BoxFuture, Broker, Ends, Publish, Rules, Since, Sink, Top, Unavailable, announcement::Announced,
        log::Page, memory::MemoryBroker,
    },
    channel::Channel,
    hub::Hub,
    position::Position,
};
use std::{
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Between the real broker and the hub: loses announcements while the link is cut, and now and then without a cut.
pub(crate) struct Relay {
    pub(crate) hub: Arc<Hub>,
    pub(crate) cut: AtomicBool,
    pub(crate) calm: AtomicBool,
}

impl Sink for Relay {
    fn subscribed(&self, channel: &Channel) {
        if !self.cut.load(Ordering::SeqCst) {
            self.hub.subscribed(channel);
        }
    }

    fn announced(&self, channel: &str, announced: Announced) {
        let lost = self.cut.load(Ordering::SeqCst) || (!self.calm.load(Ordering::SeqCst) && fastrand::u32(..50) == 0);
        if !lost {
            self.hub.announced(channel, announced.clone());
            if fastrand::u32(..50) == 0 {
                self.hub.announced(channel, announced);
            }
        }
    }

    fn cut(&self, _: &mut dyn Iterator<Item = &Channel>) {}

    fn control(&self, message: Bytes) {
        self.hub.control(message);
    }

    fn reachable(&self, state: Result<(), String>) {
        Sink::reachable(&*self.hub, state);
    }
}

pub(crate) struct Flaky {
    pub(crate) inner: RwLock<Arc<MemoryBroker>>,
    pub(crate) rules: Rules,
    pub(crate) relay: Arc<Relay>,
    pub(crate) subscribed: Mutex<Vec<Channel>>,
}

impl Flaky {
    pub(crate) fn inner(&self) -> Arc<MemoryBroker> {
        Arc::clone(&self.inner.read().expect("not poisoned"))
    }

    /// Loses all history, as a Redis that is restarted without persistence.
    pub(crate) async fn wipe(&self) {
        self.relay.cut.store(true, Ordering::SeqCst);
        let fresh = MemoryBroker::new(self.rules.clone(), 1 << 30, Arc::clone(&self.relay) as Arc<dyn Sink>);
        for channel in self.subscribed.lock().expect("not poisoned").iter() {
            fresh.subscribe(channel);
        }
        *self.inner.write().expect("not poisoned") = Arc::new(fresh);
        self.cut().await;
    }

    pub(crate) async fn mood(&self) -> Result<(), Unavailable> {
        if self.relay.calm.load(Ordering::SeqCst) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..8))).await;
        if self.relay.cut.load(Ordering::SeqCst) || fastrand::u32(..8) == 0 {
            return Err(Unavailable("a bad moment".to_owned()));
        }
        Ok(())
    }

    /// Loses the link for a moment, as a killed or stopped Redis would.
    pub(crate) async fn cut(&self) {
        self.relay.cut.store(true, Ordering::SeqCst);
        let channels = self.subscribed.lock().expect("not poisoned").clone();
        self.relay.hub.cut(&mut channels.iter());
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..120))).await;
        self.relay.cut.store(false, Ordering::SeqCst);
        let channels = self.subscribed.lock().expect("not poisoned").clone();
        for channel in channels {
            self.relay.hub.subscribed(&channel);
        }
    }
}

impl Broker for Flaky {
    fn publish(&self, batch: Vec<Publish>) -> BoxFuture<'_, Vec<Result<Accepted, Unavailable>>> {
        Box::pin(async move { self.inner().publish(batch).await })
    }

    fn subscribe(&self, channel: &Channel) {
        self.subscribed.lock().expect("not poisoned").push(channel.clone());
        self.inner().subscribe(channel);
    }

    fn unsubscribe(&self, channel: &Channel) {
        self.subscribed.lock().expect("not poisoned").retain(|known| known != channel);
        self.inner().unsubscribe(channel);
    }

    fn join(&self, channels: Vec<Channel>) -> BoxFuture<'_, Result<Vec<Top>, Unavailable>> {
        Box::pin(async move {
            self.mood().await?;
            let tops = self.inner().join(channels).await;
            self.mood().await?;
            tops
        })
    }

    fn read<'a>(
        &'a self,
        channel: &'a Channel,
        after: Position,
        before: usize,
        count: usize,
    ) -> BoxFuture<'a, Result<Page, Unavailable>> {
        Box::pin(async move {
            self.mood().await?;
            // Small pages, so that most replays take several.
            let page = self.inner().read(channel, after, before, count.min(7)).await;
            self.mood().await?;
            page
        })
    }

    fn place<'a>(&'a self, channel: &'a Channel, since: Since) -> BoxFuture<'a, Result<Position, Unavailable>> {
        Box::pin(async move { self.inner().place(channel, since).await })
    }

    fn ends<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Option<Ends>, Unavailable>> {
        Box::pin(async move { self.inner().ends(channel).await })
    }

    fn forget<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async move { self.inner().forget(channel).await })
    }

    fn mark_fork<'a>(&'a self, channel: &'a Channel, common: Position) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async move {
            self.mood().await?;
            self.inner().mark_fork(channel, common).await
        })
    }

    fn control(&self, message: Bytes) -> BoxFuture<'_, Result<usize, Unavailable>> {
        Box::pin(async move { self.inner().control(message).await })
    }

    fn deny<'a>(&'a self, token_id: &'a str, until_ms: u64) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async move { self.inner().deny(token_id, until_ms).await })
    }

    fn denied(&self) -> BoxFuture<'_, Result<Vec<(String, u64)>, Unavailable>> {
        Box::pin(async move { self.inner().denied().await })
    }

    fn stop(&self) {
        self.inner().stop();
    }
}
