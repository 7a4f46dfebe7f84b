//! What replicas ask each other: how many connections and subscribers there are, and to close some.
//!
//! A question goes to all over the broker; each replica that lives answers at once, so a dead one's share is gone as
//! soon as the broker has noticed, and no count is ever stored.

use super::{Hub, Target, lock};
use crate::channel::Channel;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// How long a replica has to answer.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How many there are, in one replica or in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Replicas that answered.
    pub replicas: usize,
    pub connections: usize,
    /// Of the channel that was asked for.
    pub subscribers: usize,
}

impl Counts {
    /// Both together. Whoever can write to the broker can count as it likes, and harms nothing but the sum.
    fn and(self, other: Self) -> Self {
        Self {
            replicas: self.replicas.saturating_add(other.replicas),
            connections: self.connections.saturating_add(other.connections),
            subscribers: self.subscribers.saturating_add(other.subscribers),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Message {
    Count {
        from: String,
        question: u64,
        channel: Option<String>,
    },
    Counted {
        to: String,
        question: u64,
        counts: Counts,
    },
    /// A channel's history was deleted.
    Forget {
        channel: String,
    },
    CloseConnection {
        id: String,
    },
    CloseUser {
        subject: String,
    },
    /// A token is denied until then, in milliseconds since 1970.
    Deny {
        token: String,
        until_ms: u64,
    },
    /// From a newer build: not for us.
    #[serde(other)]
    Unknown,
}

/// This replica's part in it.
pub struct Cluster {
    replica: String,
    next_question: AtomicU64,
    asked: Mutex<HashMap<u64, mpsc::UnboundedSender<Counts>>>,
}

impl Cluster {
    pub(super) fn new(replica: &str) -> Self {
        Self { replica: replica.to_owned(), next_question: AtomicU64::new(0), asked: Mutex::default() }
    }

    /// This replica's id.
    #[must_use]
    pub fn replica(&self) -> &str {
        &self.replica
    }

    /// Counts connections, and subscribers of `channel` if one is given, in the whole cluster; `None` while the broker
    /// is away.
    pub async fn count(&self, hub: &Hub, channel: Option<&Channel>) -> Option<Counts> {
        let broker = hub.broker()?;
        // Who waits for a broker that is known to be away waits in vain.
        hub.reachable().ok()?;
        let question = self.next_question.fetch_add(1, Ordering::Relaxed);
        let (answers, mut answered) = mpsc::unbounded_channel();
        lock(&self.asked).insert(question, answers);
        let message =
            Message::Count { from: self.replica.clone(), question, channel: channel.map(ToString::to_string) };
        let mut total = Counts::default();
        let _ = tokio::time::timeout(PATIENCE, async {
            if let Ok(expected) = broker.control(encode(&message)).await {
                while total.replicas < expected
                    && let Some(counts) = answered.recv().await
                {
                    total = total.and(counts);
                }
            }
        })
        .await;
        lock(&self.asked).remove(&question);
        (total.replicas > 0).then_some(total)
    }

    /// Has every replica forget what it remembers of a channel whose history was deleted.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub async fn forget(&self, hub: &Hub, channel: &Channel) -> Result<(), crate::broker::Unavailable> {
        hub.forget(channel);
        let Some(broker) = hub.broker() else { return Ok(()) };
        broker.control(encode(&Message::Forget { channel: channel.to_string() })).await.map(drop)
    }

    /// Has every replica close the connections that `target` means, and let none in with a token that is denied.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub async fn close(&self, hub: &Hub, target: Target) -> Result<(), crate::broker::Unavailable> {
        let Some(broker) = hub.broker() else {
            return Err(crate::broker::Unavailable("the gateway is starting".to_owned()));
        };
        let message = match target {
            Target::Connection(id) => Message::CloseConnection { id },
            Target::User(subject) => Message::CloseUser { subject },
            Target::Token { id, until_ms } => {
                broker.deny(&id, until_ms).await?;
                Message::Deny { token: id, until_ms }
            }
        };
        broker.control(encode(&message)).await.map(drop)
    }

    pub(super) fn received(hub: &Arc<Hub>, message: &[u8]) {
        let message = match serde_json::from_slice(message) {
            Ok(message) => message,
            Err(error) => return tracing::debug!(%error, "a message between replicas cannot be read"),
        };
        match message {
            Message::Count { from, question, channel } => {
                let hub = Arc::clone(hub);
                let runtime = hub.runtime.clone();
                runtime.spawn(async move { answer(&hub, from, question, channel).await });
            }
            Message::Counted { to, question, counts } if to == hub.cluster.replica => {
                if let Some(asked) = lock(&hub.cluster.asked).get(&question) {
                    let _ = asked.send(counts);
                }
            }
            Message::Forget { channel } => {
                if let Ok(channel) = Channel::new(&channel) {
                    hub.forget(&channel);
                }
            }
            Message::CloseConnection { id } => hub.close_here(&Target::Connection(id)),
            Message::CloseUser { subject } => hub.close_here(&Target::User(subject)),
            Message::Deny { token: id, until_ms } => {
                hub.denied.add(&id, until_ms);
                hub.close_here(&Target::Token { id, until_ms });
            }
            Message::Counted { .. } | Message::Unknown => {}
        }
    }
}

async fn answer(hub: &Hub, to: String, question: u64, channel: Option<String>) {
    let subscribers = match channel.as_deref().map(Channel::new) {
        Some(Ok(channel)) => hub.subscribers(&channel).await,
        _ => 0,
    };
    let counts = Counts { replicas: 1, connections: hub.connections(), subscribers };
    if let Some(broker) = hub.broker()
        && let Err(error) = broker.control(encode(&Message::Counted { to, question, counts })).await
    {
        tracing::debug!(%error, "a count cannot be answered");
    }
}

/// What this build understands of a message, as it would write it itself; `None` if it is no message.
#[cfg(any(test, fuzzing))]
pub(super) fn written_again(message: &[u8]) -> Option<Bytes> {
    serde_json::from_slice(message).ok().as_ref().map(encode)
}

fn encode(message: &Message) -> Bytes {
    // Strings and numbers only: nothing in them can fail to be written.
    serde_json::to_vec(message).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_counts_harm_nothing_but_the_sum() {
        let one = Counts { replicas: 1, connections: 2, subscribers: 3 };
        assert_eq!(one.and(one), Counts { replicas: 2, connections: 4, subscribers: 6 });
        let all = Counts { replicas: usize::MAX, connections: usize::MAX, subscribers: usize::MAX };
        assert_eq!(one.and(all), all);
    }
}
