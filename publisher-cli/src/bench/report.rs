//! What a run found, as a table or as JSON. The names of the fields are what others rely on.

use super::{checker::Faults, latency::Percentiles, process::Sample};
use crate::exit::Failure;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) streams: Streams,
    pub(super) connect: Connect,
    /// Absent when nothing was published.
    pub(super) traffic: Option<Traffic>,
    pub(super) checked: Checked,
    pub(super) processes: Vec<Process>,
    pub(super) tcp_pages: TcpPages,
}

#[derive(Debug, Serialize)]
pub(super) struct Streams {
    pub(super) asked: usize,
    pub(super) open: usize,
    pub(super) stalled: usize,
    pub(super) refused: usize,
    pub(super) cut: usize,
    pub(super) channels: u32,
    pub(super) first_reason: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Connect {
    pub(super) seconds: f64,
    pub(super) per_second: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Traffic {
    pub(super) seconds: f64,
    pub(super) events: u64,
    pub(super) events_per_second: f64,
    pub(super) deliveries: u64,
    pub(super) deliveries_per_second: f64,
    pub(super) wire_bytes_per_delivery: Option<f64>,
    pub(super) body_bytes_per_delivery: Option<f64>,
    /// Events that this run did not publish, heartbeats and gaps for example.
    pub(super) other_events: u64,
    pub(super) latency_us: Option<Percentiles>,
    pub(super) answer_us: Option<Percentiles>,
    pub(super) lag_us: Option<Percentiles>,
    /// Events that were not accepted, and those of which the server has not said anything to the end.
    pub(super) publishes_failed: u64,
    pub(super) publishes_unanswered: u64,
    pub(super) first_failure: Option<String>,
    /// Events that were to be sent and were not.
    pub(super) unsent: u64,
    /// Whether events went out when they were to, and how late the last one did; absent of what has no rate.
    pub(super) rate_held: Option<bool>,
    pub(super) behind_seconds: Option<f64>,
    /// Of one core, of this program: near 100 it is what limits.
    pub(super) bench_cpu_percent: Option<f64>,
}

/// Over the whole run, warmup included.
#[derive(Debug, Serialize)]
pub(super) struct Checked {
    pub(super) deliveries: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) disordered: u64,
    pub(super) stray: u64,
}

impl Checked {
    pub(super) fn new(deliveries: u64, faults: Faults) -> Self {
        let Faults { lost, doubled, disordered, stray } = faults;
        Self { deliveries, lost, doubled, disordered, stray }
    }
}

/// What a process spent on traffic.
#[derive(Debug, Serialize)]
pub(super) struct ProcessTraffic {
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) cpu_us_per_delivery: Option<f64>,
    pub(super) cpu_us_per_event: Option<f64>,
    /// Of one core.
    pub(super) cpu_percent: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Process {
    #[serde(flatten)]
    pub(super) traffic: ProcessTraffic,
    pub(super) cpu_us_per_connection: Option<f64>,
    /// Absent from when the process has ended.
    pub(super) before: Option<Memory>,
    pub(super) idle: Option<Memory>,
    pub(super) after: Option<Memory>,
    pub(super) idle_kib_per_connection: Option<f64>,
    pub(super) after_kib_per_connection: Option<f64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Memory {
    pub(super) rss_kib: u64,
    pub(super) anonymous_kib: u64,
}

impl Memory {
    pub(super) fn of(sample: &Sample) -> Self {
        Self { rss_kib: sample.rss_kib, anonymous_kib: sample.anonymous_kib }
    }
}

/// Kernel memory of all TCP sockets of the machine, in pages.
#[derive(Debug, Serialize)]
pub(super) struct TcpPages {
    pub(super) before: Option<u64>,
    pub(super) idle: Option<u64>,
    pub(super) after: Option<u64>,
}

/// Something that was found, for people.
pub(super) trait Tabular: Serialize {
    fn table(&self) -> String;
}

/// What was found, as it is printed.
///
/// # Errors
/// None that could happen: all that is found can be JSON.
pub(super) fn shown(found: &impl Tabular, as_json: bool) -> Result<String, Failure> {
    if !as_json {
        return Ok(found.table());
    }
    let json = serde_json::to_string(found).map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(json + "\n")
}

impl Tabular for Report {
    fn table(&self) -> String {
        let mut table = Table::default();
        self.streams.rows(&mut table);
        table.row("connect", format!("{:.2} s, {:.0}/s", self.connect.seconds, self.connect.per_second));
        if let Some(traffic) = &self.traffic {
            traffic.rows(&mut table);
        }
        self.checked.rows(&mut table);
        self.processes.iter().for_each(|process| process.rows(&mut table));
        if let TcpPages { before: Some(before), idle: Some(idle), after: Some(after) } = self.tcp_pages {
            table.row("tcp memory", format!("{before} pages before, {idle} idle, {after} after (whole machine)"));
        }
        table.text
    }
}

impl Streams {
    pub(super) fn rows(&self, table: &mut Table) {
        let Self { asked, open, stalled, refused, cut, channels, first_reason } = self;
        let stalled = if *stalled == 0 { String::new() } else { format!(", {stalled} that never read") };
        let ended = format!("{refused} refused, {cut} cut");
        table.row("streams", format!("{open} of {asked} open on {channels} channels{stalled}, {ended}"));
        if let Some(reason) = first_reason {
            table.row("", format!("the first that ended: {reason}"));
        }
    }
}

impl Traffic {
    fn rows(&self, table: &mut Table) {
        table.row(
            "traffic",
            format!("{} events in {:.2} s, {:.1}/s", self.events, self.seconds, self.events_per_second),
        );
        table.row("deliveries", format!("{}, {:.0}/s", self.deliveries, self.deliveries_per_second));
        if let (Some(wire), Some(body)) = (self.wire_bytes_per_delivery, self.body_bytes_per_delivery) {
            table.row("bytes", format!("{wire:.1} on the wire per delivery, {body:.1} of event stream"));
        }
        if self.other_events > 0 {
            table.row("other events", self.other_events.to_string());
        }
        table.row("latency", percentiles(self.latency_us));
        table.row("publish answer", percentiles(self.answer_us));
        table.row("publish lag", percentiles(self.lag_us));
        if let Some(reason) = &self.first_failure {
            table.row("not published", format!("{}, the first: {reason}", self.publishes_failed));
        }
        if self.publishes_unanswered > 0 {
            table.row("not answered", self.publishes_unanswered.to_string());
        }
        if let (Some(false), Some(behind)) = (self.rate_held, self.behind_seconds) {
            table.row("rate", format!("not held: {} events not sent, {behind:.2} s late at the end", self.unsent));
        }
        if let Some(percent) = self.bench_cpu_percent {
            table.row("bench CPU", format!("{percent:.0} % of a core"));
        }
    }
}

impl Traffic {
    /// What has to be said of it, if it did not go as it should.
    pub(super) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.publishes_failed > 0 {
            wrong.push(format!("{} events were not published", self.publishes_failed));
        }
        wrong.extend(unanswered(self.publishes_unanswered));
        if self.unsent > 0 {
            wrong.push(format!("{} events were to be sent and were not", self.unsent));
        }
        if let (Some(false), Some(behind)) = (self.rate_held, self.behind_seconds) {
            wrong.push(format!("the rate was not held: events were {behind:.2} s late at the end"));
        }
        if self.deliveries == 0 {
            wrong.push("nothing was delivered".to_owned());
        }
        wrong
    }
}

/// What is to be said of publishing that was not answered.
pub(super) fn unanswered(events: u64) -> Option<String> {
    (events > 0).then(|| format!("the publishing of {events} events was never answered"))
}

impl Checked {
    pub(super) fn rows(&self, table: &mut Table) {
        let Self { deliveries, lost, doubled, disordered, stray } = self;
        let stray = if *stray == 0 { String::new() } else { format!(", {stray} stray") };
        let faults = format!("{lost} lost, {doubled} doubled, {disordered} disordered{stray}");
        table.row("checked", format!("{deliveries} deliveries: {faults}"));
    }
}

impl ProcessTraffic {
    /// The costs that there are.
    pub(super) fn costs(&self) -> Vec<String> {
        let per = |value: Option<f64>, what: &str| value.map(|value| format!("{value:.2} µs per {what}"));
        let percent = self.cpu_percent.map(|percent| format!("{percent:.0} % of a core"));
        let costs = [per(self.cpu_us_per_delivery, "delivery"), per(self.cpu_us_per_event, "event"), percent];
        costs.into_iter().flatten().collect()
    }
}

impl Process {
    fn rows(&self, table: &mut Table) {
        let name = &self.traffic.name;
        let mut costs = self.traffic.costs();
        costs.extend(self.cpu_us_per_connection.map(|cost| format!("{cost:.2} µs per connection")));
        table.row(&format!("{name} CPU"), if costs.is_empty() { "-".into() } else { costs.join(", ") });
        let memory = |memory: Option<Memory>| {
            memory.map_or_else(|| "-".into(), |memory| format!("{}/{}", memory.rss_kib, memory.anonymous_kib))
        };
        let (before, idle, after) = (memory(self.before), memory(self.idle), memory(self.after));
        let text = format!("KiB, all/anonymous: {before} before, {idle} idle, {after} after");
        table.row(&format!("{name} memory"), text);
        if let (Some(idle), Some(after)) = (self.idle_kib_per_connection, self.after_kib_per_connection) {
            table.row("", format!("{idle:.2} KiB per connection idle, {after:.2} after"));
        }
    }
}

pub(super) fn percentiles(percentiles: Option<Percentiles>) -> String {
    let ms = |us: u64| format!("{:.3}", us as f64 / 1e3);
    percentiles.map_or_else(
        || "-".into(),
        |p| {
            let [p50, p90, p99, p999, max] = [p.p50, p.p90, p.p99, p.p999, p.max].map(ms);
            format!("ms: p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}")
        },
    )
}

/// Names and what there is to say of them.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) text: String,
}

impl Table {
    pub(super) fn row(&mut self, name: &str, value: String) {
        self.text.push_str(&format!("{name:<16}  {value}\n"));
    }
}
