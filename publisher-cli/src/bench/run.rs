//! `sluice bench run`, phase by phase: before, opened, idle, warmed up, measured, settled.

use super::{
    checker,
    engine::{Engine, Pace, PublishTarget, Sources, StreamTarget, Traffic},
    limits,
    payload::Payload,
    process::{self, Process, Sample},
    progress::Progress,
    report::{self, Checked, Connect, Memory, Report, Streams, TcpPages},
    template::Template,
};
use crate::{
    args::{RunArgs, ServerArgs},
    exit::Failure,
    output::{self, Output},
};
use std::{io, time::Duration};

const SECOND: u64 = 1_000_000_000;
/// How long nothing at all may happen while streams are opened.
const OPENING_PATIENCE: u64 = 30 * SECOND;
/// Memory is looked at when nothing has come for this long, and not later than the other.
const QUIET: u64 = SECOND;
const MAX_UNTIL_QUIET: u64 = 10 * SECOND;
/// So many refusals without a single success are no measurement.
const HOPELESS_FAILURES: u64 = 100;
/// Descriptors beside those of streams and publishers.
const OTHER_FILES: u64 = 50;
/// The most connections to publish over, unless another number is given.
const MAX_PUBLISHERS: u32 = 256;

/// Everything about the measured processes at a moment.
#[derive(Debug)]
pub(super) struct Moment {
    samples: Vec<Sample>,
    own: Sample,
    tcp_pages: Option<u64>,
    at: u64,
    deliveries: u64,
    wire_bytes: u64,
    body_bytes: u64,
    sent: u64,
}

pub(super) struct Run<'a> {
    args: &'a ServerArgs,
    pub(super) engine: Engine,
    progress: Progress,
}

fn failed(error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot go on: {error}"))
}

/// Runs the command.
///
/// # Errors
/// When it cannot be carried out, or something was lost, doubled or out of order.
pub(super) fn run(args: &RunArgs) -> Result<(), Failure> {
    let streams = args.streams as usize;
    let channels = args.channels.min(u32::try_from(args.streams).unwrap_or(u32::MAX));
    let wanted = args.outstanding.map_or(MAX_PUBLISHERS, |window| window.saturating_mul(2).min(MAX_PUBLISHERS));
    let mut run = Run::new(&args.server, streams, wanted)?;
    let group = run.engine.ledger.add_group().map_err(|e| failed(&e))?;
    run.add_streams(group, channels, streams);
    let before = run.moment();
    run.open()?;
    let connect_seconds = (run.engine.last_bytes().saturating_sub(before.at)) as f64 / 1e9;
    run.wait_for_quiet()?;
    let idle = run.moment();
    let mut report = Report {
        streams: run.streams(streams, channels),
        connect: Connect { seconds: connect_seconds, per_second: run.engine.counts.open as f64 / connect_seconds },
        traffic: None,
        checked: Checked::new(0, run.engine.ledger.checker.faults()),
        processes: Vec::new(),
        tcp_pages: TcpPages { before: before.tcp_pages, idle: idle.tcp_pages, after: None },
    };
    let measured = if args.idle {
        run.hold(args.duration.unwrap_or(Duration::from_secs(10)))?;
        None
    } else {
        Some(run.traffic(args, group, channels)?)
    };
    let after = run.moment();
    report.traffic = measured.as_ref().map(|start| run.figures(start, &after));
    report.streams = run.streams(streams, channels);
    report.checked = Checked::new(run.engine.ledger.deliveries(), run.engine.ledger.checker.faults());
    report.tcp_pages.after = after.tcp_pages;
    report.processes = run.processes(&before, &idle, measured.as_ref(), &after);
    run.conclude(&report)
}

impl<'a> Run<'a> {
    pub(super) fn new(args: &'a ServerArgs, streams: usize, publishers: u32) -> Result<Self, Failure> {
        let publishers = args.publishers.unwrap_or(publishers);
        let needed = streams as u64 + u64::from(publishers) + OTHER_FILES;
        if let Some(allowed) = limits::raise_open_files().filter(|&allowed| allowed < needed) {
            let message = format!("{needed} open files are needed, and the limit (`ulimit -Hn`) is {allowed}");
            return Err(Failure::Failed(message));
        }
        for process in &args.processes {
            if !process.exists() {
                return Err(Failure::Failed(format!("there is no process {}", process.pid)));
            }
        }
        let address = args.url.resolve().map_err(Failure::Failed)?;
        let stream_target = StreamTarget {
            target: args.url.clone(),
            address,
            headers: args.headers.clone(),
            sources: Sources::new(&args.sources, address, streams),
            connect_rate: args.connect_rate,
        };
        let publish_url = args.publish_url.clone().unwrap_or_else(|| args.url.with_path("/channels/{channel}/events"));
        let publish_target = PublishTarget {
            address: publish_url.resolve().map_err(Failure::Failed)?,
            target: publish_url,
            method: args.publish_method.clone(),
            headers: args.publish_headers.clone(),
            body: Template::new(&args.publish_body),
            payload: Payload::new(args.data, args.size),
            connections: publishers as usize,
        };
        let run = fastrand::u32(..);
        let engine = Engine::new(stream_target, publish_target, run).map_err(|e| failed(&e))?;
        Ok(Self { args, engine, progress: Progress::new() })
    }

    fn add_streams(&mut self, group: u8, channels: u32, streams: usize) {
        let prefix = self.args.channel_prefix.clone();
        let prefix = prefix.unwrap_or_else(|| format!("bench-{:08x}-", fastrand::u32(..)));
        for channel in 0..channels {
            let followers = (streams - channel as usize).div_ceil(channels as usize);
            self.engine.add_channel(format!("{prefix}{channel}"), group, followers as u32);
        }
        for stream in 0..streams {
            self.engine.add_stream((stream % channels as usize) as u32, false);
        }
    }

    pub(super) fn moment(&self) -> Moment {
        let ledger = &self.engine.ledger;
        Moment {
            samples: self.args.processes.iter().map(Process::sample).collect(),
            own: Process::own().sample(),
            tcp_pages: process::tcp_pages(),
            at: self.engine.now(),
            deliveries: ledger.deliveries(),
            wire_bytes: ledger.wire_bytes,
            body_bytes: ledger.body_bytes,
            sent: self.engine.traffic.iter().map(|traffic| traffic.sent).sum(),
        }
    }

    /// Turns until `done`, which is asked after every turn, or the deadline; whether it was done.
    fn turn_until(&mut self, deadline: u64, mut done: impl FnMut(&mut Self) -> bool) -> Result<bool, Failure> {
        while self.engine.now() < deadline {
            if done(self) {
                return Ok(true);
            }
            // The progress is to move where nothing else does.
            let soon = self.engine.now() + SECOND / 4;
            self.engine.turn(deadline.min(soon)).map_err(|e| failed(&e))?;
        }
        Ok(done(self))
    }

    pub(super) fn open(&mut self) -> Result<(), Failure> {
        self.engine.begin_opening();
        while !self.engine.is_opened() {
            let progressed = (self.engine.counts.open, self.engine.counts.refused);
            let patience = self.engine.now() + OPENING_PATIENCE;
            let moved = self.turn_until(patience, |run| {
                let (open, refused) = (run.engine.counts.open, run.engine.counts.refused);
                run.progress.show(|| format!("opening: {open} streams"));
                (open, refused) != progressed || run.engine.is_opened()
            })?;
            if !moved {
                let open = self.engine.counts.open;
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
        let deadline = self.engine.now() + MAX_UNTIL_QUIET;
        self.turn_until(deadline, |run| {
            run.progress.show(|| "waiting for quiet".into());
            run.engine.now() >= run.engine.last_bytes() + QUIET
        })?;
        Ok(())
    }

    fn hold(&mut self, duration: Duration) -> Result<(), Failure> {
        let deadline = self.engine.now() + nanoseconds(duration);
        self.turn_until(deadline, |run| {
            run.progress.show(|| format!("holding {} streams", run.engine.counts.open));
            false
        })?;
        Ok(())
    }

    /// Publishes, measures, and waits for what is outstanding; gives the moment when measuring began.
    fn traffic(&mut self, args: &RunArgs, group: u8, channels: u32) -> Result<Moment, Failure> {
        let pace = match (args.rate, args.outstanding) {
            (Some(rate), _) => Pace::Rate(rate),
            (None, window) => Pace::Outstanding(u64::from(window.unwrap_or(1))),
        };
        let (began, forever) = (self.engine.now(), u64::MAX);
        let traffic = Traffic {
            group,
            channels: 0..channels,
            pace,
            began,
            sent: 0,
            last: forever,
            until: forever,
            completed_before: 0,
        };
        self.engine.traffic.push(traffic);
        self.publish_until(began + nanoseconds(args.warmup), "warming up")?;
        let start = self.moment();
        self.engine.publish_figures().clear();
        self.engine.ledger.groups[usize::from(group)].record_from = start.at;
        if let Some(events) = args.events {
            self.engine.traffic[0].last = start.sent + events;
        }
        let duration = args.duration.or(args.events.is_none().then_some(Duration::from_secs(10)));
        let until = duration.map_or(forever, |duration| start.at + nanoseconds(duration));
        self.engine.traffic[0].until = until;
        self.publish_until(until, "measuring")?;
        self.settle()?;
        Ok(start)
    }

    fn publish_until(&mut self, until: u64, what: &str) -> Result<(), Failure> {
        let settle = nanoseconds(self.args.settle).max(SECOND);
        let began = self.engine.now();
        let mut hopeless = None;
        self.turn_until(until, |run| {
            let deliveries = run.engine.ledger.deliveries();
            run.progress.show(|| format!("{what}: {deliveries} deliveries"));
            let figures = run.engine.publish_figures();
            if figures.accepted == 0 && figures.failed >= HOPELESS_FAILURES {
                hopeless.clone_from(&figures.first_failure);
            }
            let all_sent = run.engine.traffic.iter().all(|traffic| traffic.sent >= traffic.last);
            // A window that is full of what was lost never moves again.
            let is_stuck = run.engine.now() > run.engine.last_bytes().max(began) + settle && run.is_full();
            all_sent || is_stuck || hopeless.is_some() || run.engine.counts.open == 0
        })?;
        match hopeless {
            Some(reason) => Err(Failure::Failed(format!("nothing can be published: {reason}"))),
            None => Ok(()),
        }
    }

    fn is_full(&self) -> bool {
        self.engine.traffic.iter().all(|traffic| match traffic.pace {
            Pace::Rate(_) => false,
            Pace::Outstanding(most) => self.outstanding(traffic) >= most,
        })
    }

    fn outstanding(&self, traffic: &Traffic) -> u64 {
        traffic.outstanding(self.engine.ledger.groups[usize::from(traffic.group)].completed)
    }

    /// Waits for what is outstanding.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        let now = self.engine.now();
        for traffic in &mut self.engine.traffic {
            traffic.until = traffic.until.min(now);
        }
        let deadline = now + nanoseconds(self.args.settle);
        self.turn_until(deadline, |run| {
            run.progress.show(|| "waiting for what is outstanding".into());
            run.engine.traffic.iter().all(|traffic| run.outstanding(traffic) == 0) && run.engine.all_answered()
        })?;
        Ok(())
    }

    fn streams(&self, asked: usize, channels: u32) -> Streams {
        let counts = &self.engine.counts;
        Streams {
            asked,
            open: counts.open,
            refused: counts.refused,
            cut: counts.cut,
            channels,
            first_reason: counts.first_reason.clone(),
        }
    }

    fn figures(&mut self, start: &Moment, after: &Moment) -> report::Traffic {
        let last_delivery = self.engine.ledger.groups.iter().map(|group| group.last_delivery).max().unwrap_or(0);
        let seconds = last_delivery.saturating_sub(start.at) as f64 / 1e9;
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let (events, deliveries) = (after.sent - start.sent, after.deliveries - start.deliveries);
        let per_delivery = |bytes: u64| bytes as f64 / deliveries.max(1) as f64;
        let own = after.own.cpu_ns_since(&start.own) as f64 / (after.at - start.at).max(1) as f64;
        let latency_us = self.engine.ledger.groups.first().and_then(|group| group.latency.percentiles());
        let figures = self.engine.publish_figures();
        report::Traffic {
            seconds,
            events,
            events_per_second: per_second(events),
            deliveries,
            deliveries_per_second: per_second(deliveries),
            wire_bytes_per_delivery: per_delivery(after.wire_bytes - start.wire_bytes),
            body_bytes_per_delivery: per_delivery(after.body_bytes - start.body_bytes),
            latency_us,
            answer_us: figures.answer.percentiles(),
            lag_us: figures.lag.percentiles(),
            publishes_failed: figures.failed,
            first_failure: figures.first_failure.clone(),
            bench_cpu_percent: own * 100.0,
            other_events: self.engine.ledger.other_events,
        }
    }

    fn processes(
        &self,
        before: &Moment,
        idle: &Moment,
        start: Option<&Moment>,
        after: &Moment,
    ) -> Vec<report::Process> {
        let connections = self.engine.counts.open as f64;
        let of = |index: usize, process: &Process| {
            let [before, idle, after_sample] = [before, idle, after].map(|moment| &moment.samples[index]);
            let traffic = start.map(|start| (after_sample.cpu_ns_since(&start.samples[index]) as f64, start));
            let per = |count: fn(&Moment) -> u64| {
                let (cpu, start) = traffic?;
                Some(cpu / 1e3 / (count(after) - count(start)) as f64).filter(|value| value.is_finite())
            };
            let memory = |sample: &Sample| Memory { rss_kib: sample.rss_kib, anonymous_kib: sample.anonymous_kib };
            let grown = |sample: &Sample| {
                let kib = sample.rss_kib as f64 - before.rss_kib as f64;
                Some(kib / connections).filter(|value| value.is_finite())
            };
            report::Process {
                name: process.name.clone(),
                pid: process.pid,
                cpu_us_per_connection: Some(idle.cpu_ns_since(before) as f64 / 1e3 / connections)
                    .filter(|v| v.is_finite()),
                cpu_us_per_delivery: per(|moment| moment.deliveries),
                cpu_us_per_event: per(|moment| moment.sent),
                cpu_percent: traffic.map(|(cpu, start)| cpu * 100.0 / (after.at - start.at) as f64),
                before: memory(before),
                idle: memory(idle),
                after: memory(after_sample),
                idle_kib_per_connection: grown(idle),
                after_kib_per_connection: grown(after_sample),
            }
        };
        self.args.processes.iter().enumerate().map(|(index, process)| of(index, process)).collect()
    }

    fn conclude(self, report: &Report) -> Result<(), Failure> {
        drop(self.progress);
        let text = if self.args.json {
            serde_json::to_string(report).map_err(|error| Failure::Failed(error.to_string()))? + "\n"
        } else {
            report.table()
        };
        Output::write_now(text.as_bytes())?;
        let mut wrong = Vec::new();
        let faults = self.engine.ledger.checker.faults();
        if faults.any() {
            let checker::Faults { lost, doubled, disordered, stray } = faults;
            wrong.push(format!("{lost} deliveries lost, {doubled} doubled, {disordered} out of order, {stray} stray"));
        }
        let counts = &self.engine.counts;
        if counts.refused + counts.cut > 0 {
            wrong.push(format!("{} streams refused, {} cut", counts.refused, counts.cut));
        }
        if let Some(failed) = report.traffic.as_ref().map(|traffic| traffic.publishes_failed).filter(|&n| n > 0) {
            wrong.push(format!("{failed} events not published"));
        }
        wrong.iter().for_each(|wrong| output::say(wrong));
        if wrong.is_empty() { Ok(()) } else { Err(Failure::AlreadySaid) }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}
