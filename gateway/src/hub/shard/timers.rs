//! What a shard does because time has passed: starting late ones, heartbeats, write timeouts, ends, and the budget for
//! all outboxes together.

use super::*;

const TIDY_EVERY: Duration = Duration::from_secs(1);
/// Connections that are looked at before it is the turn of what has come meanwhile.
const DUE_A_TURN: usize = 256;

impl Shard {
    pub(super) fn timers(&mut self) {
        self.wheel.advance(self.now, &mut self.due);
        // Those who came together want their heartbeats together.
        for _ in 0..DUE_A_TURN {
            let Some(key) = self.due.pop_front() else { break };
            self.look_at(key);
        }
        if self.now >= self.next_tidy {
            self.next_tidy = self.now + TIDY_EVERY;
            self.bound_outboxes();
            self.bound_tails();
        }
    }

    /// Trims quiet channels too, whose share grows smaller as others come.
    fn bound_tails(&mut self) {
        let keep = self.hub.tail_bytes() as u64;
        let most = keep + 2 * self.hub.config.outbox.max_bytes.get() as u64;
        // Others are trimmed when they have been written.
        let is_quiet = |channel: &ShardChannel| channel.positioned && !channel.dirty && channel.weight() > keep;
        for (_, channel) in self.channels.iter_mut().filter(|(_, channel)| is_quiet(channel)) {
            let needed = channel.subscribers.iter().map(|subscriber| subscriber.next).min().unwrap_or(u64::MAX);
            channel.trim(keep, needed, most);
        }
    }

    /// Entries of the wheel may be stale: looks at what is really due.
    fn look_at(&mut self, key: Key) {
        let (now, stream) = (self.now, self.hub.config.stream.clone());
        let Some(connection) = self.connection(key) else { return };
        let is_open = matches!(connection.stage, Stage::Open);
        if let Stage::Starting(deadline) = connection.stage
            && deadline <= now
        {
            return self.start_if_ready(key, true);
        }
        if let Some((when, reason)) = connection.ends
            && when <= now
        {
            return self.close(key, reason, true);
        }
        if let Some((at, warned)) = connection.expiry.as_ref().map(|expiry| (expiry.at, expiry.warned)) {
            if at <= now {
                return self.expire(key);
            }
            if !warned && is_open && self.warns_at(at) <= now {
                self.warn_of_expiry(key);
            }
        }
        let Some(connection) = self.connection(key) else { return };
        if let Some(since) = connection.blocked {
            if since + stream.write_timeout <= now {
                return self.close(key, Reason::WriteTimeout, false);
            }
            self.wheel.add(key, since + stream.write_timeout);
        }
        let Some(connection) = self.connection(key) else { return };
        if matches!(connection.stage, Stage::Open) && connection.next_heartbeat <= now {
            let spoke = self.news_at(key).filter(|spoke| *spoke + stream.heartbeat > now);
            let next = spoke.unwrap_or(now) + stream.heartbeat;
            if let Some(connection) = self.connection(key) {
                connection.next_heartbeat = next;
            }
            self.wheel.add(key, next);
            if spoke.is_none() {
                self.write_heartbeat(key);
            }
        }
    }

    /// When a connection was last sent news by the shared pass: a stream that is not silent needs no heartbeat. (What is
    /// written past the pass counts for nothing here: a heartbeat too many does no harm.)
    fn news_at(&self, key: Key) -> Option<Instant> {
        let connection = self.connections.get(key.index as usize).filter(|connection| connection.key == key)?;
        let news = connection.links.iter().filter_map(|link| {
            let channel = &self.channels[link.channel as usize];
            let subscriber = channel.subscribers[link.subscriber as usize];
            channel.news_at.filter(|_| !subscriber.aside && subscriber.next == channel.head())
        });
        news.max()
    }

    /// Measures what waits for slow clients. While that is more than this shard's share of the budget, gives up what their
    /// channels' policies allow, and then cuts the slowest.
    fn bound_outboxes(&mut self) {
        let share = (self.hub.config.outbox.total_bytes.get() / self.hub.queues.len()) as u64;
        let mut waiting: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.blocked.is_some())
            .map(|(_, connection)| (self.waiting_bytes(connection), connection.key))
            .collect();
        let mut total: u64 = waiting.iter().map(|(bytes, _)| bytes).sum();
        if total > share {
            waiting.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
            for (bytes, key) in &mut waiting {
                if total <= share {
                    break;
                }
                let before = self.connections.get(key.index as usize).map_or(0, |c| self.behind_bytes(c));
                let given = before - self.relieve(*key, 0).min(before);
                *bytes -= given.min(*bytes);
                total -= given.min(total);
            }
            waiting.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
            for (bytes, key) in waiting {
                if total <= share {
                    break;
                }
                total -= bytes;
                self.hub.metrics.slow_consumers.with_label_values(&["disconnect"]).inc();
                self.close(key, Reason::Slow, false);
            }
        }
        let total = i64::try_from(total).unwrap_or(i64::MAX);
        self.hub.metrics.outbox_bytes.add(total - std::mem::replace(&mut self.reported_outbox_bytes, total));
    }
}
