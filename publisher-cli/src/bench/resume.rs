//! `sluice bench resume`: many clients come back at once to a channel whose events they missed.
//!
//! The same events follow as live traffic to the same streams, so that there is something to compare with, and all the
//! while some streams of another channel show what the others feel of it.

use super::{
    clock::{SECOND, nanoseconds, seconds},
    engine::{Pace, Role, Traffic},
    latency::Percentiles,
    report::{self, Checked, ProcessTraffic, Streams, Table, Tabular, percentiles},
    session::{Moment, Needs, Session, failed, ratio},
};
use crate::{args::ResumeArgs, exit::Failure};
use serde::Serialize;

/// Connections to publish over, unless another number is given: enough to keep a server busy.
const PUBLISHERS: u32 = 16;
/// What the watching streams get before anything is measured, and between the stages.
const WARMUP: u64 = SECOND;

/// The groups of channels, and the channels, by their index: what is watched, and what is resumed.
const WATCHED: u8 = 0;
const RESUMED: u8 = 1;

#[derive(Debug, Serialize)]
struct Found {
    streams: Streams,
    events: u64,
    quiet: Stage,
    resume: Stage,
    live: Stage,
    /// How many times as long as the live traffic the resuming took.
    resume_to_live: Option<f64>,
    checked: Checked,
}

/// A part of the measurement.
#[derive(Debug, Serialize)]
struct Stage {
    /// Everything came that was to come.
    is_complete: bool,
    seconds: f64,
    /// Of the resuming channel.
    deliveries: u64,
    deliveries_per_second: Option<f64>,
    /// Of all streams, those that watch too.
    wire_bytes_per_delivery: Option<f64>,
    /// From publishing to arrival on the watching streams, and whether all that was due came: what did not is not in it.
    watch_latency_us: Option<Percentiles>,
    watch_is_complete: bool,
    processes: Vec<ProcessTraffic>,
}

/// Runs the command.
///
/// # Errors
/// When it cannot be carried out, or something was lost, doubled or out of order.
pub(super) fn run(args: &ResumeArgs) -> Result<(), Failure> {
    let (streams, watching) = (args.streams as usize, args.watch as usize);
    let needs = Needs { streams: streams + watching, publishers: PUBLISHERS, streams_per_connection: None };
    let mut session = Session::new(&args.server, needs)?;
    for (group, name, followers) in [(WATCHED, "watch", args.watch), (RESUMED, "resume", args.streams)] {
        session.engine.ledger.add_group().map_err(failed)?;
        session.engine.add_channel(format!("{}{name}", session.prefix), group, followers as u32);
    }
    (0..watching).for_each(|_| session.engine.add_stream(u32::from(WATCHED), Role::Follow));
    session.open()?;
    session.engine.resume_from = session.engine.first_id(u32::from(RESUMED)).map_err(Failure::Failed)?.into_bytes();
    miss(&mut session, args.events)?;
    session.wait_for_quiet()?;

    let now = session.engine.now();
    let watch = Traffic::new(WATCHED, channel(WATCHED), Pace::Rate(args.watch_rate), now);
    session.engine.traffic = vec![watch];
    session.turn_for(WARMUP, "warming up")?;
    let before = begin(&mut session);
    session.turn_for(nanoseconds(args.quiet), "measuring the quiet")?;
    let quiet = stage(&mut session, &before, None)?;

    (0..streams).for_each(|_| session.engine.add_stream(u32::from(RESUMED), Role::Resume));
    if args.connected {
        connect(&mut session, args)?;
    }
    let before = begin(&mut session);
    if args.connected {
        session.engine.ask_for_all();
    } else {
        session.engine.begin_opening();
    }
    until_completed(&mut session, args, args.events, "resuming")?;
    let resume = stage(&mut session, &before, Some(args.events))?;

    session.turn_for(WARMUP, "catching breath")?;
    let before = begin(&mut session);
    burst(&mut session, args.events);
    until_completed(&mut session, args, 2 * args.events, "live")?;
    let live = stage(&mut session, &before, Some(2 * args.events))?;
    session.settle()?;

    let mut wrong: Vec<String> = report::unanswered(session.engine.unanswered()).into_iter().collect();
    let figures = session.engine.publish_figures();
    if figures.failed > 0 {
        let reason = figures.first_failure.as_deref().unwrap_or_default();
        wrong.push(format!("{} events were not published, the first: {reason}", figures.failed));
    }
    for (name, stage) in [("quiet", &quiet), ("resuming", &resume), ("live traffic", &live)] {
        if !stage.watch_is_complete {
            wrong.push(format!("the other channel's events of the {name} had not all come at its end"));
        }
    }
    let found = Found {
        streams: session.streams(streams + watching, 2),
        events: args.events,
        resume_to_live: (resume.is_complete && live.is_complete).then(|| resume.seconds / live.seconds),
        quiet,
        resume,
        live,
        checked: Checked::new(session.engine.ledger.deliveries(), session.engine.ledger.checker.faults()),
    };
    session.conclude(&report::shown(&found, args.server.json)?, &wrong)
}

fn channel(group: u8) -> std::ops::Range<u32> {
    u32::from(group)..u32::from(group) + 1
}

/// Adds traffic that publishes so many events to the resuming channel as fast as it goes.
fn burst(session: &mut Session<'_>, events: u64) {
    let completed_before = session.engine.ledger.groups[usize::from(RESUMED)].completed;
    let mut traffic = Traffic::new(RESUMED, channel(RESUMED), Pace::Burst, session.engine.now());
    (traffic.last, traffic.completed_before) = (events, completed_before);
    session.engine.traffic.push(traffic);
}

/// Publishes the events that are to be resumed, to nobody.
fn miss(session: &mut Session<'_>, events: u64) -> Result<(), Failure> {
    burst(session, events);
    let deadline = session.engine.now() + 60 * SECOND;
    let published = session.turn_until(deadline, |session| {
        let sent = session.engine.traffic[0].sent;
        session.progress.show(|| format!("publishing: {sent} events"));
        sent == events && session.engine.unanswered() == 0
    })?;
    let figures = session.engine.publish_figures();
    if let Some(reason) = &figures.first_failure {
        return Err(Failure::Failed(format!("{} events were not published, the first: {reason}", figures.failed)));
    }
    if published { Ok(()) } else { Err(Failure::Failed("the events cannot be published within a minute".into())) }
}

/// Connects the clients that are to resume, whose requests are held back.
fn connect(session: &mut Session<'_>, args: &ResumeArgs) -> Result<(), Failure> {
    session.engine.begin_connecting();
    let deadline = session.engine.now() + nanoseconds(args.patience);
    let connected = session.turn_until(deadline, |session| {
        session.progress.show(|| "connecting".to_owned());
        session.engine.is_opened()
    })?;
    if connected {
        session.turn_for(WARMUP, "catching breath")
    } else {
        Err(Failure::Failed("the clients cannot be connected in time".into()))
    }
}

/// Turns until all streams have so many events, or there is no hope of it.
fn until_completed(session: &mut Session<'_>, args: &ResumeArgs, events: u64, what: &str) -> Result<(), Failure> {
    let deadline = session.engine.now() + nanoseconds(args.patience);
    session.turn_until(deadline, |session| {
        let group = &session.engine.ledger.groups[usize::from(RESUMED)];
        let (deliveries, is_complete) = (group.deliveries, group.completed >= events);
        session.progress.show(|| format!("{what}: {deliveries} deliveries"));
        is_complete
    })?;
    Ok(())
}

fn begin(session: &mut Session<'_>) -> Moment {
    let moment = session.moment();
    let watched = &mut session.engine.ledger.groups[usize::from(WATCHED)];
    watched.latency.clear();
    (watched.record_from, watched.record_until) = (moment.at, u64::MAX);
    moment
}

/// What was found since `before`. A stage in which the resuming channel is expected to complete so many events ends with
/// its last delivery.
fn stage(session: &mut Session<'_>, before: &Moment, expected: Option<u64>) -> Result<Stage, Failure> {
    let after = session.moment();
    let resumed = &session.engine.ledger.groups[usize::from(RESUMED)];
    let end = if expected.is_some() { resumed.last_delivery } else { after.at };
    let deliveries = resumed.deliveries - before.groups[usize::from(RESUMED)];
    let elapsed = end.saturating_sub(before.at);
    let is_complete = expected.is_none_or(|expected| resumed.completed >= expected);
    let wire_bytes = (after.wire_bytes - before.wire_bytes) as f64;
    let mut processes = session.spent(before, &after);
    // The events of a stage are mostly not published in it.
    processes.iter_mut().for_each(|process| process.cpu_us_per_event = None);
    let (watch_latency_us, watch_is_complete) = watch_latency(session, end)?;
    Ok(Stage {
        is_complete,
        seconds: seconds(elapsed),
        deliveries,
        deliveries_per_second: ratio(deliveries as f64 * 1e9, elapsed),
        wire_bytes_per_delivery: ratio(wire_bytes, after.deliveries - before.deliveries),
        watch_latency_us,
        watch_is_complete,
        processes,
    })
}

/// The latency of what was to be published by `end`, the last of which is waited for: it is what was held up most.
/// Also whether it came.
fn watch_latency(session: &mut Session<'_>, end: u64) -> Result<(Option<Percentiles>, bool), Failure> {
    session.engine.ledger.groups[usize::from(WATCHED)].record_until = end;
    let due = session.engine.traffic[0].due_by(end);
    let deadline = session.engine.now() + nanoseconds(session.args.settle);
    let has_come = |session: &mut Session<'_>| session.engine.ledger.groups[usize::from(WATCHED)].completed >= due;
    let is_complete = session.turn_until(deadline, has_come)?;
    Ok((session.engine.ledger.groups[usize::from(WATCHED)].latency.percentiles(), is_complete))
}

impl Tabular for Found {
    fn table(&self) -> String {
        let mut table = Table::default();
        self.streams.rows(&mut table);
        for (name, stage) in [("quiet", &self.quiet), ("resume", &self.resume), ("live", &self.live)] {
            let rate = stage.deliveries_per_second.unwrap_or_default();
            let incomplete = if stage.is_complete { "" } else { ", not all that were to come" };
            let deliveries = format!("{} deliveries{incomplete}, {rate:.0}/s", stage.deliveries);
            table.row(name, format!("{:.3} s, {deliveries}", stage.seconds));
            table.row("  watch latency", percentiles(stage.watch_latency_us));
            for process in &stage.processes {
                table.row(&format!("  {} CPU", process.name), process.costs().join(", "));
            }
        }
        if let Some(ratio) = self.resume_to_live {
            table.row("resume / live", format!("{ratio:.2}"));
        }
        self.checked.rows(&mut table);
        table.text
    }
}
