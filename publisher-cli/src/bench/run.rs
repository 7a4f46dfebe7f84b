//! `sluice bench run`, phase by phase: before, opened, idle, warmed up, measured, settled.

use super::{
    clock::{SECOND, nanoseconds, seconds},
    engine::{Pace, Role, Schedule, Traffic},
    report::{self, Checked, Connect, Memory, Report, TcpPages},
    session::{Moment, Needs, Session, cpu_ns, failed, ratio},
};
use crate::{args::RunArgs, exit::Failure};
use std::time::Duration;

/// So many refusals without a single success are no measurement.
const HOPELESS_FAILURES: u64 = 100;
/// The most connections to publish over, unless another number is given.
const MAX_PUBLISHERS: u32 = 256;
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// Runs the command.
///
/// # Errors
/// When it cannot be carried out, or something was lost, doubled or out of order.
pub(super) fn run(args: &RunArgs) -> Result<(), Failure> {
    let window = args.outstanding.unwrap_or(1);
    let publishers = if args.rate.is_some() { MAX_PUBLISHERS } else { window.saturating_mul(2).min(MAX_PUBLISHERS) };
    let (streams, stalled) = (args.streams as usize, args.stall as usize);
    let streams_per_connection = args.http2.then_some(args.streams_per_connection);
    let needs = Needs { streams: streams + stalled, publishers, streams_per_connection };
    let mut session = Session::new(&args.server, needs)?;
    let channels = args.channels;
    let group = add_streams(&mut session, args, channels)?;
    let before = session.moment();
    session.open()?;
    session.wait_for_quiet()?;
    let idle = session.moment();
    let connect_seconds = seconds(session.engine.latest_opening().saturating_sub(before.at));
    let connected = session.engine.counts.connected();
    let measured = if args.idle {
        session.turn_for(nanoseconds(args.duration.unwrap_or(DEFAULT_DURATION)), "holding the streams")?;
        None
    } else {
        Some(traffic(&mut session, args, group, channels)?)
    };
    let after = session.moment();
    let traffic = measured.as_ref().map(|measured| figures(&mut session, measured, &after));
    let report = Report {
        streams: session.streams(streams, channels),
        connect: Connect { seconds: connect_seconds, per_second: connected as f64 / connect_seconds },
        checked: Checked::new(session.engine.ledger.deliveries(), session.engine.ledger.checker.faults()),
        processes: processes(
            &session,
            [&before, &idle, &after],
            measured.as_ref().map(|measured| &measured.start),
            connected as u64,
        ),
        tcp_pages: TcpPages { before: before.tcp_pages, idle: idle.tcp_pages, after: after.tcp_pages },
        traffic,
    };
    let wrong = report.traffic.as_ref().map(report::Traffic::wrong).unwrap_or_default();
    let found = report::shown(&report, args.server.json)?;
    session.conclude(&found, &wrong)
}

/// Adds all that is to be opened, and gives its group.
fn add_streams(session: &mut Session<'_>, args: &RunArgs, channels: u32) -> Result<u8, Failure> {
    let group = session.engine.ledger.add_group().map_err(failed)?;
    for channel in 0..channels {
        let followers = (args.streams - u64::from(channel)).div_ceil(u64::from(channels));
        session.engine.add_channel(format!("{}{channel}", session.prefix), group, followers as u32);
    }
    let channel_of = |stream: u64| (stream % u64::from(channels)) as u32;
    (0..args.streams).for_each(|stream| session.engine.add_stream(channel_of(stream), Role::Follow));
    (0..args.stall).for_each(|stream| session.engine.add_stream(channel_of(stream), Role::Stall));
    Ok(group)
}

/// What was measured, beside what the engine knows.
struct Measured {
    start: Moment,
    schedule: Option<Schedule>,
    /// Events that were to be sent and were not.
    unsent: u64,
}

/// Publishes, measures, and waits for what is outstanding.
fn traffic(session: &mut Session<'_>, args: &RunArgs, group: u8, channels: u32) -> Result<Measured, Failure> {
    let pace = match (args.rate, args.outstanding) {
        (Some(rate), _) => Pace::Rate(rate),
        (None, window) => Pace::Outstanding(u64::from(window.unwrap_or(1))),
    };
    session.engine.traffic.push(Traffic::new(group, 0..channels, pace, session.engine.now()));
    publish_until(session, session.engine.now() + nanoseconds(args.warmup), "warming up")?;
    let start = session.moment();
    session.engine.begin_measuring();
    let began = session.engine.now();
    let traffic = &mut session.engine.traffic[0];
    traffic.restart(began);
    traffic.last = args.events.map_or(u64::MAX, |events| start.sent + events);
    let duration = args.duration.or(args.events.is_none().then_some(DEFAULT_DURATION));
    traffic.until = duration.map_or(u64::MAX, |duration| began + nanoseconds(duration)).min(traffic.all_due());
    let until = traffic.until;
    publish_until(session, until, "measuring")?;
    let planned = session.engine.traffic[0].planned();
    send_overdue(session, planned)?;
    let traffic = &session.engine.traffic[0];
    let (schedule, unsent) = (traffic.schedule(session.engine.now()), planned.saturating_sub(traffic.sent));
    session.settle()?;
    Ok(Measured { start, schedule, unsent })
}

fn publish_until(session: &mut Session<'_>, until: u64, what: &str) -> Result<(), Failure> {
    let patience = nanoseconds(session.args.settle).max(SECOND);
    let began = session.engine.now();
    let mut hopeless = None;
    session.turn_until(until, |session| {
        let deliveries = session.engine.ledger.deliveries();
        session.progress.show(|| format!("{what}: {deliveries} deliveries"));
        let figures = session.engine.publish_figures();
        if figures.accepted == 0 && figures.failed >= HOPELESS_FAILURES {
            hopeless.clone_from(&figures.first_failure);
        }
        let all_sent = session.engine.traffic.iter().all(|traffic| traffic.sent >= traffic.last);
        // A window that is full of what was lost never moves again.
        let is_stuck = is_full(session) && session.engine.now() > session.engine.last_bytes().max(began) + patience;
        all_sent || is_stuck || hopeless.is_some() || session.engine.counts.open == 0
    })?;
    match hopeless {
        Some(reason) => Err(Failure::Failed(format!("nothing can be published: {reason}"))),
        None => Ok(()),
    }
}

/// Sends what fell due and could not go out in time, since the server took no more at a time.
fn send_overdue(session: &mut Session<'_>, planned: u64) -> Result<(), Failure> {
    if !matches!(session.engine.traffic[0].pace, Pace::Rate(_)) {
        return Ok(());
    }
    let deadline = session.engine.now() + nanoseconds(session.args.settle);
    session.turn_until(deadline, |session| {
        session.progress.show(|| "sending what is overdue".into());
        session.engine.traffic[0].sent >= planned || session.engine.counts.open == 0
    })?;
    Ok(())
}

fn is_full(session: &Session<'_>) -> bool {
    session.engine.traffic.iter().all(|traffic| match traffic.pace {
        Pace::Rate(_) | Pace::Burst => false,
        Pace::Outstanding(most) => session.outstanding(traffic) >= most,
    })
}

fn figures(session: &mut Session<'_>, measured: &Measured, after: &Moment) -> report::Traffic {
    let Measured { start, schedule, unsent } = measured;
    let last_delivery = session.engine.ledger.groups.iter().map(|group| group.last_delivery).max().unwrap_or(0);
    let elapsed = seconds(last_delivery.saturating_sub(start.at));
    let per_second = |count: u64| if elapsed > 0.0 { count as f64 / elapsed } else { 0.0 };
    let (events, deliveries) = (after.sent - start.sent, after.deliveries - start.deliveries);
    let own = after.own.cpu_ns_since(&start.own) as f64;
    let latency_us = session.engine.ledger.groups.first().and_then(|group| group.latency.percentiles());
    let other_events = session.engine.ledger.other_events;
    let publishes_unanswered = session.engine.unanswered();
    let figures = session.engine.publish_figures();
    report::Traffic {
        seconds: elapsed,
        events,
        events_per_second: per_second(events),
        deliveries,
        deliveries_per_second: per_second(deliveries),
        wire_bytes_per_delivery: ratio((after.wire_bytes - start.wire_bytes) as f64, deliveries),
        body_bytes_per_delivery: ratio((after.body_bytes - start.body_bytes) as f64, deliveries),
        other_events,
        latency_us,
        answer_us: figures.answer.percentiles(),
        lag_us: figures.lag.percentiles(),
        publishes_failed: figures.failed,
        publishes_unanswered,
        first_failure: figures.first_failure.clone(),
        unsent: *unsent,
        rate_held: schedule.map(|schedule| *unsent == 0 && schedule.was_held()),
        behind_seconds: schedule.map(|schedule| seconds(schedule.behind)),
        bench_cpu_percent: ratio(own * 100.0, after.at - start.at),
    }
}

fn processes(
    session: &Session<'_>,
    [before, idle, after]: [&Moment; 3],
    start: Option<&Moment>,
    connected: u64,
) -> Vec<report::Process> {
    let spent = session.spent(start.unwrap_or(idle), after);
    let of = |(index, traffic): (usize, report::ProcessTraffic)| {
        let memory = [before, idle, after].map(|moment| moment.samples[index].as_ref().map(Memory::of));
        let grown = |to: Option<Memory>| ratio(to?.rss_kib as f64 - memory[0]?.rss_kib as f64, connected);
        let connecting = cpu_ns(before, idle, index);
        report::Process {
            traffic,
            cpu_us_per_connection: connecting.and_then(|cpu_ns| ratio(cpu_ns / 1e3, connected)),
            before: memory[0],
            idle: memory[1],
            after: memory[2],
            idle_kib_per_connection: grown(memory[1]),
            after_kib_per_connection: grown(memory[2]),
        }
    };
    spent.into_iter().enumerate().map(of).collect()
}
