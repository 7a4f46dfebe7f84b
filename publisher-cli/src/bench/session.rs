//! What measurements have in common: an engine that is turned from phase to phase, and looks at the processes between.

use super::{
    checker::Faults,
    clock::{SECOND, nanoseconds},
    engine::{Engine, PublishTarget, Sources, StreamTarget, Traffic},
    limits,
    payload::Payload,
    process::{self, Process, Sample},
    progress::Progress,
    report::{ProcessTraffic, Streams},
    target,
    template::Template,
};
use crate::{
    args::ServerArgs,
    exit::Failure,
    output::{self, Output},
};
use hyper::header;
use std::io;

/// How long nothing at all may happen while streams are opened, from when the next one is due.
const OPENING_PATIENCE: u64 = 30 * SECOND;
/// Memory is looked at when nothing has come for this long, and not later than the other.
const QUIET: u64 = SECOND;
const MAX_UNTIL_QUIET: u64 = 10 * SECOND;
/// Descriptors beside those of streams and publishers.
const OTHER_FILES: u64 = 50;

/// How much a measurement needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    pub(super) streams: usize,
    /// Unless another number is given.
    pub(super) publishers: u32,
    pub(super) streams_per_connection: Option<u32>,
}

/// Counts and costs at a moment.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    /// Of the processes that are measured, without those that have ended.
    pub(super) samples: Vec<Option<Sample>>,
    pub(super) own: Sample,
    pub(super) tcp_pages: Option<u64>,
    pub(super) at: u64,
    pub(super) deliveries: u64,
    /// Deliveries by group.
    pub(super) groups: Vec<u64>,
    pub(super) wire_bytes: u64,
    pub(super) body_bytes: u64,
    pub(super) sent: u64,
}

pub(super) struct Session<'a> {
    pub(super) args: &'a ServerArgs,
    pub(super) engine: Engine,
    pub(super) progress: Progress,
    pub(super) prefix: String,
    /// The processes that are measured, as they were at the beginning.
    first: Vec<Sample>,
}

pub(super) fn failed(error: io::Error) -> Failure {
    Failure::Failed(format!("cannot go on: {error}"))
}

impl<'a> Session<'a> {
    pub(super) fn new(args: &'a ServerArgs, needs: Needs) -> Result<Self, Failure> {
        let publishers = args.publishers.unwrap_or(needs.publishers);
        let connections = needs.streams.div_ceil(needs.streams_per_connection.unwrap_or(1) as usize);
        let files = connections as u64 + u64::from(publishers) + OTHER_FILES;
        if let Some(allowed) = limits::raise_open_files().filter(|&allowed| allowed < files) {
            let message = format!("{files} open files are needed, and the limit (`ulimit -Hn`) is {allowed}");
            return Err(Failure::Failed(message));
        }
        let sample = |process: &Process| process.sample().ok_or(format!("there is no process {}", process.pid));
        let first = args.processes.iter().map(sample).collect::<Result<_, _>>().map_err(Failure::Failed)?;
        let address = args.url.resolve().map_err(Failure::Failed)?;
        // As EventSource does: some servers know by it what is asked for.
        let mut defaults = vec![(header::ACCEPT, "text/event-stream")];
        defaults.extend(args.accept_encoding.map(|encoding| (header::ACCEPT_ENCODING, encoding.as_str())));
        let stream_target = StreamTarget {
            target: args.url.clone(),
            address,
            headers: target::headers(&defaults, &args.headers),
            sources: Sources::new(&args.sources, address, connections),
            connect_rate: args.connect_rate,
            streams_per_connection: needs.streams_per_connection,
        };
        let publish_url = args.publish_url.clone().unwrap_or_else(|| args.url.with_path("/channels/{channel}/events"));
        let publish_target = PublishTarget {
            address: publish_url.resolve().map_err(Failure::Failed)?,
            target: publish_url,
            method: args.publish_method.clone(),
            headers: target::headers(&[], &args.publish_headers),
            body: Template::new(&args.publish_body),
            payload: Payload::new(args.data, args.size),
            connections: publishers as usize,
        };
        let run = fastrand::u32(..);
        let engine = Engine::new(stream_target, publish_target, run).map_err(failed)?;
        let prefix = args.channel_prefix.clone().unwrap_or_else(|| format!("bench-{run:08x}-"));
        Ok(Self { args, engine, progress: Progress::new(), prefix, first })
    }

    pub(super) fn moment(&mut self) -> Moment {
        let ledger = &self.engine.ledger;
        Moment {
            samples: self.args.processes.iter().map(Process::sample).collect(),
            own: Process::own().sample().unwrap_or_default(),
            tcp_pages: process::tcp_pages(),
            at: self.engine.now(),
            deliveries: ledger.deliveries(),
            groups: ledger.groups.iter().map(|group| group.deliveries).collect(),
            wire_bytes: ledger.wire_bytes,
            body_bytes: ledger.body_bytes,
            sent: self.engine.traffic.iter().map(|traffic| traffic.sent).sum(),
        }
    }

    /// Turns until `done`, which is asked after every turn, or the deadline; whether it was done.
    pub(super) fn turn_until(
        &mut self,
        deadline: u64,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Result<bool, Failure> {
        while self.engine.now() < deadline {
            if done(self) {
                return Ok(true);
            }
            // Progress is to be shown, and patience to end, also where nothing comes.
            let soon = self.engine.now() + SECOND / 4;
            self.engine.turn(deadline.min(soon)).map_err(failed)?;
        }
        Ok(done(self))
    }

    /// Turns for so long.
    pub(super) fn turn_for(&mut self, nanoseconds: u64, what: &str) -> Result<(), Failure> {
        let deadline = self.engine.now().saturating_add(nanoseconds);
        self.turn_until(deadline, |session| {
            session.progress.show(|| what.to_owned());
            false
        })?;
        Ok(())
    }

    /// Opens the streams that were added, and waits until each is open or has failed.
    pub(super) fn open(&mut self) -> Result<(), Failure> {
        self.engine.begin_opening();
        while !self.engine.is_opened() {
            let settled = |session: &Self| session.engine.counts.connected() + session.engine.counts.refused;
            let before = settled(self);
            let deadline = self.engine.now().saturating_add(opening_patience(self.args.connect_rate));
            let moved = self.turn_until(deadline, |session| {
                let open = session.engine.counts.connected();
                session.progress.show(|| format!("opening: {open} streams"));
                settled(session) != before || session.engine.is_opened()
            })?;
            if !moved {
                let open = self.engine.counts.connected();
                return Err(Failure::Failed(format!("{open} streams are open, and no other one opens")));
            }
        }
        match &self.engine.counts.first_reason {
            Some(reason) if self.engine.counts.open == 0 => {
                Err(Failure::Failed(format!("no stream could be opened: {reason}")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn wait_for_quiet(&mut self) -> Result<(), Failure> {
        let now = self.engine.now();
        self.turn_until(now + MAX_UNTIL_QUIET, |session| {
            session.progress.show(|| "waiting for quiet".into());
            session.engine.now() >= session.engine.last_bytes().max(now) + QUIET
        })?;
        Ok(())
    }

    pub(super) fn outstanding(&self, traffic: &Traffic) -> u64 {
        traffic.outstanding(self.engine.ledger.groups[usize::from(traffic.group)].completed)
    }

    /// Publishes nothing more, and waits for what is outstanding.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        for traffic in &mut self.engine.traffic {
            traffic.last = traffic.last.min(traffic.sent);
        }
        let deadline = self.engine.now() + nanoseconds(self.args.settle);
        self.turn_until(deadline, |session| {
            session.progress.show(|| "waiting for what is outstanding".into());
            let all = &session.engine.traffic;
            all.iter().all(|traffic| session.outstanding(traffic) == 0) && session.engine.unanswered() == 0
        })?;
        Ok(())
    }

    pub(super) fn streams(&self, asked: usize, channels: u32) -> Streams {
        let counts = self.engine.counts.clone();
        Streams {
            asked,
            open: counts.open,
            stalled: counts.stalled,
            refused: counts.refused,
            cut: counts.cut,
            channels,
            first_reason: counts.first_reason,
        }
    }

    /// What the processes spent between two moments.
    pub(super) fn spent(&self, from: &Moment, to: &Moment) -> Vec<ProcessTraffic> {
        let of = |(index, process): (usize, &Process)| {
            let cpu_ns = cpu_ns(from, to, index);
            let per = |of: u64| cpu_ns.and_then(|cpu_ns| ratio(cpu_ns, of));
            ProcessTraffic {
                name: process.name.clone(),
                pid: process.pid,
                cpu_us_per_delivery: per(1_000 * (to.deliveries - from.deliveries)),
                cpu_us_per_event: per(1_000 * to.sent.saturating_sub(from.sent)),
                cpu_percent: per(to.at - from.at).map(|share| share * 100.0),
            }
        };
        self.args.processes.iter().enumerate().map(of).collect()
    }

    /// Prints what was found, and says what was wrong.
    pub(super) fn conclude(self, found: &str, wrong: &[String]) -> Result<(), Failure> {
        drop(self.progress);
        Output::write_now(found.as_bytes())?;
        let mut wrong = wrong.to_vec();
        let Faults { lost, doubled, disordered, stray } = self.engine.ledger.checker.faults();
        if lost + doubled + disordered + stray > 0 {
            wrong.push(format!("{lost} deliveries lost, {doubled} doubled, {disordered} out of order, {stray} stray"));
        }
        for (process, first) in self.args.processes.iter().zip(&self.first) {
            if process.sample().is_none_or(|sample| !sample.is_same(first)) {
                wrong.push(format!(
                    "the process {} ({}) has ended, so its figures are not whole",
                    process.pid, process.name
                ));
            }
        }
        let counts = &self.engine.counts;
        if counts.refused + counts.cut > 0 {
            wrong.push(format!("{} streams refused, {} cut", counts.refused, counts.cut));
        }
        wrong.iter().for_each(|wrong| output::say(wrong));
        if wrong.is_empty() { Ok(()) } else { Err(Failure::AlreadySaid) }
    }
}

/// CPU time of a process between two moments, if it ran at both.
pub(super) fn cpu_ns(from: &Moment, to: &Moment, process: usize) -> Option<f64> {
    let (from, to) = (from.samples[process].as_ref()?, to.samples[process].as_ref()?);
    to.is_same(from).then(|| to.cpu_ns_since(from) as f64)
}

/// How long to wait for the next stream to open, at a rate of streams per second, 0 for as fast as it goes.
fn opening_patience(rate: f64) -> u64 {
    let next_ns = if rate > 0.0 { SECOND as f64 / rate } else { 0.0 };
    (next_ns as u64).saturating_add(OPENING_PATIENCE)
}

/// `None` of nothing.
pub(super) fn ratio(amount: f64, of: u64) -> Option<f64> {
    (of > 0).then(|| amount / of as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_connect_rate_is_waited_for() {
        for (rate, seconds) in [(0.0, 30), (1_000.0, 30), (0.5, 32), (0.01, 130)] {
            assert_eq!(opening_patience(rate) / SECOND, seconds, "{rate}");
        }
        assert_eq!(opening_patience(f64::MIN_POSITIVE), u64::MAX);
    }
}
