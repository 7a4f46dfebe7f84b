//! An EventSource that judges what it gets as it comes and keeps only the verdict, so that hundreds can run for hours.
//!
//! Events carry their channel and number ([`crate::check`]). What a channel brought is a row of runs of consecutive
//! numbers: a new run begins after each `gap` event, and anything else that breaks one is a [`Break`]. The connection is
//! a browser's: it reconnects with `Last-Event-ID`, unless its [`Habit`] is to do that wrongly, by which tests show that
//! the judge notices.

use crate::{
    check,
    chunked::Chunked,
    client::{Head, Request},
    wait::PATIENCE,
};
use sluice_cli::sse::{Event, Parser};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    ops::RangeInclusive,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::watch,
    task::JoinHandle,
};

const RECEIVE_BYTES: u32 = 16 * 1024;
/// Until a `retry:` has come.
const DEFAULT_RETRY: Duration = Duration::from_millis(200);
/// How many ids back [`Habit::StaleId`] goes.
const STALE: usize = 5;

/// What it does with the last event id when it reconnects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Habit {
    #[default]
    Faithful,
    /// Sends none.
    ForgetsId,
    /// Sends one that was the last some events ago.
    StaleId,
}

/// A number that neither followed the one before nor came after a gap.
#[derive(Debug, Clone)]
pub struct Break {
    pub channel: String,
    pub expected: u64,
    pub got: u64,
    /// Since the follower began.
    pub at: Duration,
    /// On which connection, counted from 1, and the id that it was opened with.
    pub connection: usize,
    pub opened_with: String,
}

/// A `gap` event.
#[derive(Debug, Clone)]
pub struct Gap {
    pub channel: String,
    pub reason: String,
    pub data: String,
    pub at: Duration,
    pub connection: usize,
}

/// All that came.
#[derive(Debug, Default)]
pub struct Seen {
    pub runs: BTreeMap<String, Vec<RangeInclusive<u64>>>,
    pub breaks: Vec<Break>,
    pub gaps: Vec<Gap>,
    pub events: u64,
    pub connections: usize,
    /// When each of them was answered.
    pub connected: Vec<Instant>,
    /// Connections that could not be made, or that ended before the answer did.
    pub cut: usize,
    /// Answers that hold nothing but when to come back.
    pub turned_away: usize,
    /// Answers that end an EventSource for ever.
    pub refused: Option<u16>,
    pub last_event_id: String,
    opened_with: String,
    ids: VecDeque<String>,
    retry: Option<Duration>,
    open: bool,
}

impl Seen {
    /// The last number of a channel's present run.
    #[must_use]
    pub fn last(&self, channel: &str) -> Option<u64> {
        self.runs.get(channel)?.last().map(|run| *run.end())
    }

    /// What came of a channel, for an assertion: the runs, and how many gaps were told of it.
    #[must_use]
    pub fn of(&self, channel: &str) -> (Vec<RangeInclusive<u64>>, usize) {
        let gaps = self.gaps.iter().filter(|gap| gap.channel == channel).count();
        (self.runs.get(channel).cloned().unwrap_or_default(), gaps)
    }

    fn take(&mut self, event: &Event, began: Instant) {
        if event.event == "gap" {
            let field = |name: &str| {
                let value: serde_json::Value = serde_json::from_str(&event.data).unwrap_or_default();
                value[name].as_str().unwrap_or_default().to_owned()
            };
            let gap = Gap {
                channel: field("channel"),
                reason: field("reason"),
                data: event.data.clone(),
                at: began.elapsed(),
                connection: self.connections,
            };
            // The next number begins a run, whatever it is.
            self.runs.entry(gap.channel.clone()).or_default().push(RangeInclusive::new(1, 0));
            self.gaps.push(gap);
            return;
        }
        let Some((channel, number)) =
            event.data.split_once(' ').and_then(|(channel, _)| Some((channel, check::number(channel, &event.data)?)))
        else {
            return;
        };
        self.events += 1;
        let runs = self.runs.entry(channel.to_owned()).or_default();
        match runs.last_mut() {
            Some(run) if run.is_empty() => *run = number..=number,
            Some(run) if *run.end() + 1 == number => *run = *run.start()..=number,
            None => runs.push(number..=number),
            Some(run) => {
                let expected = *run.end() + 1;
                *run = *run.start()..=number.max(*run.end());
                self.breaks.push(Break {
                    channel: channel.to_owned(),
                    expected,
                    got: number,
                    at: began.elapsed(),
                    connection: self.connections,
                    opened_with: self.opened_with.clone(),
                });
            }
        }
    }
}

/// A running follower.
#[derive(Debug)]
pub struct Follower {
    pub channels: Vec<String>,
    seen: watch::Receiver<Seen>,
    paused: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Starts one, and returns when its stream is open.
    pub async fn start(request: Request, channels: &[&str], habit: Habit) -> Self {
        let (sender, seen) = watch::channel(Seen::default());
        let (paused, is_paused) = watch::channel(false);
        let stream = Stream { request, habit, began: Instant::now(), seen: sender, is_paused };
        let task = tokio::spawn(stream.run());
        let channels = channels.iter().map(|&channel| channel.to_owned()).collect();
        let follower = Self { channels, seen, paused, task };
        follower.wait("the first bytes", |seen| seen.open).await;
        follower
    }

    pub fn read<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.borrow())
    }

    /// Reads nothing from its socket for this long.
    pub async fn pause(&self, time: Duration) {
        self.paused.send_replace(true);
        tokio::time::sleep(time).await;
        self.paused.send_replace(false);
    }

    /// # Panics
    /// When it is not as wanted within [`PATIENCE`].
    pub async fn wait(&self, what: &str, wanted: impl FnMut(&Seen) -> bool) {
        let waited = self.wait_within(PATIENCE, wanted).await;
        assert!(waited, "not in time: {what}: {:?}", self.seen.borrow());
    }

    /// Whether it became as wanted in time.
    pub async fn wait_within(&self, limit: Duration, wanted: impl FnMut(&Seen) -> bool) -> bool {
        let mut seen = self.seen.clone();
        matches!(tokio::time::timeout(limit, seen.wait_for(wanted)).await, Ok(Ok(_)))
    }

    /// Waits for a channel's `number`th event.
    pub async fn wait_number(&self, channel: &str, number: u64) {
        self.wait(&format!("{channel} {number}"), |seen| seen.last(channel).is_some_and(|last| last >= number)).await;
    }

    /// Asserts what came of a channel.
    ///
    /// # Panics
    /// When something else came.
    pub fn assert_saw(&self, channel: &str, runs: &[RangeInclusive<u64>], gaps: usize) {
        self.read(|seen| {
            assert!(seen.breaks.is_empty(), "{:?}", seen.breaks);
            assert_eq!(seen.of(channel), (runs.to_vec(), gaps), "{channel}, gaps: {:?}", seen.gaps);
        });
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Stream {
    request: Request,
    habit: Habit,
    began: Instant,
    seen: watch::Sender<Seen>,
    is_paused: watch::Receiver<bool>,
}

impl Stream {
    async fn run(mut self) {
        loop {
            // However it ended, the next connection goes on.
            let is_whole = self.connection().await.unwrap_or(false);
            self.seen.send_modify(|seen| seen.cut += usize::from(!is_whole));
            if self.seen.borrow().refused.is_some() {
                return;
            }
            let retry = self.seen.borrow().retry.unwrap_or(DEFAULT_RETRY);
            tokio::time::sleep(retry).await;
        }
    }

    fn id(&self) -> String {
        let seen = self.seen.borrow();
        match self.habit {
            Habit::Faithful => seen.last_event_id.clone(),
            Habit::ForgetsId => String::new(),
            Habit::StaleId => seen.ids.front().cloned().unwrap_or_default(),
        }
    }

    /// Answers whether the answer came to its end.
    async fn connection(&mut self) -> io::Result<bool> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(RECEIVE_BYTES)?;
        let mut stream = socket.connect(self.request.address).await?;
        let id = self.id();
        stream.write_all(&self.request.bytes(&id)).await?;
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES as usize);
        let head_end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(false);
            }
        };
        let head = Head::parse(&String::from_utf8_lossy(&buffer[..head_end]))?;
        buffer.drain(..head_end + 4);
        self.seen.send_modify(|seen| {
            seen.connections += 1;
            seen.connected.push(Instant::now());
            seen.opened_with.clone_from(&id);
            seen.refused = (head.status != 200).then_some(head.status);
        });
        if head.status != 200 {
            return Ok(true);
        }
        let mut chunked = (head.header("transfer-encoding").as_deref() == Some("chunked")).then(Chunked::default);
        let length: Option<usize> = head.header("content-length").and_then(|value| value.parse().ok());
        self.seen.send_modify(|seen| seen.turned_away += usize::from(length.is_some()));
        let mut taken = 0;
        let mut parser = Parser::resuming(&self.seen.borrow().last_event_id);
        let (mut content, mut events) = (Vec::new(), Vec::new());
        loop {
            match &mut chunked {
                Some(chunked) => chunked.push(&buffer, &mut content).map_err(io::Error::other)?,
                None => content.append(&mut buffer),
            }
            buffer.clear();
            taken += content.len();
            parser.push(&content, &mut events).map_err(io::Error::other)?;
            content.clear();
            self.take(&parser, &mut events);
            // Its sender goes with the follower, and this task with it.
            let _ = self.is_paused.wait_for(|paused| !paused).await;
            let is_whole = match &chunked {
                Some(chunked) => chunked.is_whole(),
                None => length.is_some_and(|length| taken >= length),
            };
            if is_whole || stream.read_buf(&mut buffer).await? == 0 {
                // Without a length or chunks the connection's end is the answer's.
                return Ok(is_whole || chunked.is_none() && length.is_none());
            }
        }
    }

    fn take(&self, parser: &Parser, events: &mut Vec<Event>) {
        let began = self.began;
        self.seen.send_modify(|seen| {
            for event in events.drain(..) {
                seen.take(&event, began);
                seen.ids.push_back(event.id.to_string());
                if seen.ids.len() > STALE {
                    seen.ids.pop_front();
                }
            }
            if let Some(retry) = parser.reconnection_time_ms() {
                seen.retry = Some(Duration::from_millis(retry));
                seen.open = true;
            }
            parser.last_event_id().clone_into(&mut seen.last_event_id);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saw(events: &[(&str, &str)]) -> Seen {
        let mut seen = Seen::default();
        for (event, data) in events {
            let event = Event { id: "".into(), event: (*event).to_owned(), data: (*data).to_owned(), retry: None };
            seen.take(&event, Instant::now());
        }
        seen
    }

    #[test]
    fn consecutive_numbers_are_one_run_and_a_gap_begins_another() {
        let gap = ("gap", r#"{"channel":"a","reason":"trimmed"}"#);
        let seen = saw(&[("x", "a 3"), ("x", "b 1"), ("x", "a 4"), gap, ("x", "a 9"), ("x", "a 10")]);
        assert_eq!(seen.of("a"), (vec![3..=4, 9..=10], 1));
        assert_eq!(seen.of("b"), (vec![1..=1], 0));
        assert!(seen.breaks.is_empty());
    }

    #[test]
    fn what_is_lost_doubled_or_late_breaks_a_run() {
        for (numbers, broken) in [([1, 3, 4], (2, 3)), ([1, 1, 2], (2, 1)), ([2, 1, 3], (3, 1))] {
            let data = numbers.map(|number| check::payload("a", number));
            let seen = saw(&data.each_ref().map(|data| ("x", data.as_str())));
            let first = &seen.breaks[0];
            assert_eq!((seen.breaks.len(), (first.expected, first.got)), (1, broken), "{numbers:?}");
        }
    }
}
