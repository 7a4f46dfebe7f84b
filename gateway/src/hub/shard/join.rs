//! How a connection's channels begin: live, from the ring, or from history, and how history joins the live stream.
//!
//! The joining is one step on the shard's thread: a position is looked up in the ring, and from then on the connection
//! is a place in it. Nothing can be published between the two.

use super::{connection::Reading, *};
use crate::{
    hub::{connection::Start, replay::PageAnswer},
    position::Position,
};

impl Shard {
    /// Subscribes a new connection, and starts it if everything is known.
    pub(super) fn join(&mut self, key: Key, channels: Vec<(Channel, Start)>) {
        let keys: Vec<_> = channels.iter().map(|(channel, _)| *channel.cursor_key()).collect();
        for (nth, (channel, start)) in channels.into_iter().enumerate() {
            let index = self.channel_index(channel);
            let Some(connection) = self.connections.get_mut(key.index as usize) else { return };
            let subscribers = &mut self.channels[index as usize].subscribers;
            let link = Link {
                channel: index,
                subscriber: u32::try_from(subscribers.len()).unwrap_or(u32::MAX),
                by_name: keys.iter().filter(|&&key| key == keys[nth]).count() > 1,
                progress: Progress::Waiting(start),
                resuming: matches!(start, Start::After(_)),
                live_from: 0,
                held: None,
                at: Position::default(),
            };
            subscribers.push(Subscriber {
                connection: key.index,
                link: u16::try_from(connection.links.len()).unwrap_or(u16::MAX),
                wire: connection.wire,
                aside: true,
                next: u64::MAX,
            });
            connection.links.push(link);
        }
        self.begin_links(key);
        // Who waits for a broker that is known to be away waits in vain.
        let away = self.hub.reachable().is_err();
        self.start_if_ready(key, away);
    }

    fn channel_index(&mut self, channel: Channel) -> u32 {
        if let Some(&index) = self.by_name.get(&channel) {
            return index;
        }
        let slow = self.hub.config.slow_of(channel.as_str());
        let index = u32::try_from(self.channels.insert(ShardChannel::new(channel.clone(), slow))).unwrap_or(u32::MAX);
        self.by_name.insert(channel.clone(), index);
        self.hub.attach(self.index, &channel);
        index
    }

    /// Begins every link of a connection whose channel is known.
    fn begin_links(&mut self, key: Key) {
        let links = self.connection(key).map_or(0, |connection| connection.links.len());
        for link in 0..links {
            self.begin_link(key, link);
        }
    }

    fn begin_link(&mut self, key: Key, nth: usize) {
        let Some(connection) = self.connections.get_mut(key.index as usize) else { return };
        let link = &mut connection.links[nth];
        let channel = &mut self.channels[link.channel as usize];
        let Progress::Waiting(start) = link.progress else { return };
        if !channel.attached {
            return;
        }
        let head = channel.head();
        link.at = channel.last();
        link.progress = Progress::Live;
        link.live_from = head;
        channel.subscribers[link.subscriber as usize].next = head;
        if !channel.positioned {
            return;
        }
        match start {
            Start::Live => {}
            Start::After(position) => {
                link.at = position;
                if let Some(place) = channel.locate(position) {
                    let frames = || (place..head).filter_map(|place| channel.frame(place));
                    if frames().any(|frame| frame.at().is_none()) {
                        // Events without position have no replay: history has only the others.
                        link.progress = Progress::Replay(Box::default());
                        return self.ask(key, nth);
                    }
                    if std::mem::take(&mut link.resuming) {
                        self.hub.metrics.resumes.with_label_values(&["memory", "complete"]).inc();
                    }
                    self.hub.metrics.replayed_events.inc_by(frames().filter(|frame| frame.is_event()).count() as u64);
                    channel.subscribers[link.subscriber as usize].next = place;
                } else {
                    link.progress = Progress::Replay(Box::default());
                    self.ask(key, nth);
                }
            }
            Start::Since(since) => {
                link.progress = Progress::Waiting(start);
                let name = channel.channel.clone();
                if let Some(replayer) = self.hub.replayer() {
                    replayer.place(self.index, key, &name, since);
                }
            }
            Start::Unreadable => {
                let gap = Frame::gap(channel.channel.clone(), GapReason::Cursor, None, Some(link.at));
                self.hub.metrics.resumes.with_label_values(&["cursor", "gap"]).inc();
                let reading = Reading { gap: Some(Arc::new(gap)), complete: true, ..Reading::default() };
                link.progress = Progress::Replay(Box::new(reading));
            }
        }
    }

    /// Asks for what follows where a link stands.
    pub(super) fn ask(&mut self, key: Key, nth: usize) {
        let Some(connection) = self.connections.get_mut(key.index as usize) else { return };
        let link = &mut connection.links[nth];
        let Progress::Replay(reading) = &mut link.progress else { return };
        self.streams[key.index as usize].leave_chain();
        let in_vain = reading.empty;
        **reading = Reading { asked: true, ..Reading::default() };
        let channel = &mut self.channels[link.channel as usize];
        let asking = channel.asking.entry(link.at).or_default();
        asking.push(key);
        let Some(replayer) = self.hub.replayer() else { return };
        if in_vain {
            replayer.ask_later(self.index, &channel.channel, link.at);
        } else if asking.len() == 1 {
            replayer.ask(self.index, &channel.channel, link.at);
        }
    }

    /// A page of history has come for all who asked for what follows its position.
    pub(super) fn page(&mut self, answer: PageAnswer) {
        let Some(&index) = self.by_name.get(&answer.channel) else { return };
        let asked = self.channels[index as usize].asking.remove(&answer.after).unwrap_or_default();
        let resumes = self.hub.metrics.resumes.clone();
        for key in asked {
            let Some(connection) = self.connection(key) else { continue };
            let Some(link) = connection.links.iter_mut().find(|link| link.channel == index) else { continue };
            let Progress::Replay(reading) = &mut link.progress else { continue };
            if !reading.asked || link.at != answer.after {
                continue;
            }
            if std::mem::take(&mut link.resuming) {
                let result = if answer.gap.is_some() { "gap" } else { "complete" };
                resumes.with_label_values(&["broker", result]).inc();
            }
            **reading = Reading {
                asked: false,
                gap: answer.gap.clone(),
                page: Some(Arc::clone(&answer.page)),
                next: answer.start,
                complete: answer.complete,
                empty: answer.gap.is_none() && answer.start >= answer.page.frames.len(),
            };
            self.serve_alone(key);
        }
    }

    /// Takes their pages from clients whose sockets are full: each asks anew, from where it stands, once it reads on.
    pub(super) fn let_go(&mut self) {
        for (_, connection) in &mut self.connections {
            if connection.blocked.is_none() {
                continue;
            }
            for link in &mut connection.links {
                if let Progress::Replay(reading) = &mut link.progress
                    && reading.page.is_some()
                {
                    **reading = Reading::default();
                }
            }
        }
    }

    /// Where a `since=` begins.
    pub(super) fn placed(&mut self, key: Key, name: &Channel, place: Position) {
        let Some(&index) = self.by_name.get(name) else { return };
        let Some(connection) = self.connection(key) else { return };
        let Some(nth) = connection.links.iter().position(|link| link.channel == index) else { return };
        let link = &mut connection.links[nth];
        if !matches!(link.progress, Progress::Waiting(Start::Since(_))) {
            return;
        }
        link.progress = Progress::Waiting(Start::After(place));
        let late = matches!(connection.stage, Stage::Open);
        self.begin_link(key, nth);
        if late {
            self.began_late(key);
        } else {
            self.start_if_ready(key, false);
        }
    }

    /// The link has been sent its page: joins it to the ring if the ring goes on from there, else asks for more.
    /// Answers whether it joined.
    pub(super) fn rejoin(&mut self, key: Key, nth: usize) -> bool {
        let Some(connection) = self.connections.get_mut(key.index as usize) else { return false };
        let link = &mut connection.links[nth];
        let Progress::Replay(reading) = &link.progress else { return true };
        if reading.asked {
            return false;
        }
        let channel = &mut self.channels[link.channel as usize];
        let ahead = reading.complete && link.at.seq >= channel.last().seq;
        if let Some(place) = channel.locate(link.at) {
            channel.subscribers[link.subscriber as usize].next = place;
            link.progress = Progress::Live;
            link.live_from = channel.head();
            true
        } else if ahead {
            // The client was sent more by another replica than this one has heard of.
            channel.subscribers[link.subscriber as usize].next = channel.head();
            link.progress = Progress::Floor(link.at);
            true
        } else {
            self.ask(key, nth);
            false
        }
    }

    /// A feed says where its channel stands: for the first time, or anew after this shard missed something.
    pub(super) fn attached(&mut self, name: &Channel, tail: Tail) {
        let Some(&index) = self.by_name.get(name) else { return };
        let stamp = self.next_stamp();
        let channel = &mut self.channels[index as usize];
        if !channel.attached {
            channel.restart(tail.last.is_some(), tail.base);
            tail.frames.into_iter().for_each(|frame| channel.push(frame, stamp));
            // A quiet channel's feed may not have been trimmed yet.
            channel.trim(self.hub.tail_bytes() as u64, u64::MAX, 0);
            let waiting: Vec<_> = channel.subscribers.iter().map(|subscriber| subscriber.connection).collect();
            for connection in waiting {
                let Some(connection) = self.connections.get(connection as usize) else { continue };
                let (key, late) = (connection.key, matches!(connection.stage, Stage::Open));
                self.begin_links(key);
                if late {
                    self.began_late(key);
                } else {
                    self.start_if_ready(key, false);
                }
            }
            return;
        }
        self.catch_up(index, tail);
    }

    /// The shard's queue was full and frames of this channel were turned away: takes them from the feed's tail, or, if
    /// that no longer has them, has every subscriber read them.
    fn catch_up(&mut self, index: u32, tail: Tail) {
        let stamp = self.next_stamp();
        let channel = &mut self.channels[index as usize];
        let last = channel.last();
        let missed = if last == tail.base {
            Some(0)
        } else {
            tail.frames.iter().position(|frame| frame.at() == Some(last)).map(|place| place + 1)
        };
        if !channel.positioned {
            if tail.missed {
                let gap = Frame::gap(channel.channel.clone(), GapReason::Overflow, None, None);
                channel.push(Arc::new(gap), stamp);
            }
        } else if let Some(missed) = missed {
            tail.frames.into_iter().skip(missed).for_each(|frame| channel.push(frame, stamp));
        } else if tail.last != Some(last) {
            let stands: Vec<_> =
                channel.subscribers.iter().map(|s| (s.connection, s.link, channel.stands(s.next))).collect();
            let base = tail.base;
            channel.restart(true, base);
            tail.frames.into_iter().for_each(|frame| channel.push(frame, stamp));
            for (connection, nth, stands) in stands {
                let Some(connection) = self.connections.get_mut(connection as usize) else { continue };
                let key = connection.key;
                let link = &mut connection.links[usize::from(nth)];
                let at = match (&link.progress, stands) {
                    // What was kept back for it is in the history too, and what it should be told is not missing then.
                    (Progress::Live, Some(_)) if link.held.take().is_some() => link.at,
                    (Progress::Live, Some(stands)) => stands,
                    // It was sent more elsewhere than this shard had, but not up to where the ring begins now.
                    (Progress::Floor(floor), _) if floor.seq < base.seq => link.at,
                    _ => continue,
                };
                self.streams[key.index as usize].leave_chain();
                link.at = at;
                link.progress = Progress::Replay(Box::default());
                self.serve_alone(key);
            }
        }
        let channel = &mut self.channels[index as usize];
        if !std::mem::replace(&mut channel.dirty, true) {
            self.dirty.push(index);
        }
    }

    /// Writes the first bytes once every link has begun; `anyway` even if some have not.
    pub(super) fn start_if_ready(&mut self, key: Key, anyway: bool) {
        let Some(connection) = self.connection(key) else { return };
        let begun = connection.links.iter().all(|link| !matches!(link.progress, Progress::Waiting(_)));
        if !matches!(connection.stage, Stage::Starting(_)) || !(begun || anyway) {
            return;
        }
        connection.stage = Stage::Open;
        if let Some(started) = connection.started.take() {
            let _ = started.send(());
        }
        let (due, expiry) = (connection.next_heartbeat, connection.expiry.as_ref().map(|expiry| expiry.at));
        self.wheel.add(key, due);
        if let Some(at) = expiry {
            self.wheel.add(key, self.warns_at(at));
        }
        self.write_greeting(key);
        self.serve_alone(key);
    }

    /// A link began after the connection's first bytes: the client's id now says more than it did.
    fn began_late(&mut self, key: Key) {
        self.write_id(key);
        self.serve_alone(key);
    }
}
