//! A whole cluster with a network between its parts that can be broken, hundreds of followers, publishers that do not
//! give up, and a seeded plan of faults. What happened is a [`Report`]; tests say what must be in it.
//!
//! Everything that chance decides comes from the seed, so that a run that failed can be had again as nearly as the
//! machine allows: the plan is the same, what it meets is not.

pub mod inflict;
pub mod plan;
pub mod publishers;
pub mod world;

use crate::{
    follower::{Follower, Habit, Seen},
    wait::PATIENCE,
};
use fastrand::Rng;
use futures_util::{StreamExt, stream};
use plan::{Kind, Step};
use publishers::Publishers;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use world::{Topology, World};

const CONNECTING: usize = 32;
/// When nothing has come for this long, nothing will: longer than any retry, nginx's included.
const QUIET: Duration = Duration::from_secs(8);

/// What to run.
#[derive(Debug, Clone)]
pub struct Settings {
    pub seed: u64,
    pub time: Duration,
    /// The faults to choose from.
    pub kinds: Vec<Kind>,
    pub followers: usize,
    pub channels: usize,
    pub events_per_second: u32,
    pub habit: Habit,
    pub topology: Topology,
    /// Added to the gateways' settings.
    pub config: String,
}

impl Settings {
    /// The seed from `SLUICE_SEED`, else chance's; the time from `SLUICE_CHAOS_SECONDS`, else `seconds`; the kinds of faults
    /// from `SLUICE_CHAOS_KINDS` (`KillMaster,MoveSlots`), else all that one Redis can have.
    #[must_use]
    pub fn from_environment(seconds: u64) -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
        Self {
            seed: number("SLUICE_SEED").unwrap_or_else(|| fastrand::u64(..)),
            time: Duration::from_secs(number("SLUICE_CHAOS_SECONDS").unwrap_or(seconds)),
            kinds: Kind::from_environment().unwrap_or_else(|| Kind::ALL.to_vec()),
            followers: 300,
            channels: 40,
            events_per_second: 300,
            habit: Habit::Faithful,
            topology: Topology::One,
            config: String::new(),
        }
    }
}

/// What happened.
#[derive(Debug, Default)]
pub struct Report {
    pub seed: u64,
    /// What was done, in order, and what it concerned.
    pub steps: Vec<String>,
    /// How many connections, processes or clients each kind of fault concerned in all.
    pub effects: BTreeMap<Kind, usize>,
    pub published: u64,
    /// Attempts to publish that had to be repeated.
    pub repeated: u64,
    /// Events that came, over all followers.
    pub delivered: u64,
    /// Connections beyond each follower's first.
    pub reconnects: usize,
    /// Answers that sent a client away to come back later.
    pub turned_away: usize,
    pub gaps: Vec<String>,
    /// Doubled, out of order, or not following what came before.
    pub breaks: Vec<String>,
    /// Channels of followers that did not begin with the first event, or did not end with the last.
    pub incomplete: Vec<String>,
    /// Of the gateways as they are at the end.
    pub metrics: String,
}

impl Report {
    /// # Panics
    /// When anything was lost, doubled or out of order, or a gap was told of.
    pub fn assert_exact(&self) {
        let wrong = self.gaps.len() + self.breaks.len() + self.incomplete.len();
        assert!(wrong == 0, "SLUICE_SEED={} shows it again\n{self}", self.seed);
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { published, repeated, delivered, reconnects, turned_away, effects, .. } = self;
        writeln!(f, "{published} published ({repeated} repeated), {delivered} delivered")?;
        writeln!(f, "{reconnects} reconnects ({turned_away} turned away)")?;
        writeln!(f, "effects: {effects:?}")?;
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        for (what, found) in [("gaps", &self.gaps), ("breaks", &self.breaks), ("incomplete", &self.incomplete)] {
            writeln!(f, "{what}: {}", found.len())?;
            for one in found.iter().take(15) {
                writeln!(f, "  {one}")?;
            }
        }
        write!(f, "{}", self.metrics)
    }
}

/// Runs it all.
///
/// # Panics
/// When a process does not start, or does not come back.
pub async fn run(settings: Settings) -> Report {
    let mut rng = Rng::with_seed(settings.seed);
    let plan = plan::plan(&mut rng, &settings.kinds, settings.time);
    let names: Vec<String> = (0..settings.channels).map(|nth| format!("c{nth}")).collect();
    let choices: Vec<Vec<&str>> = (0..settings.followers).map(|_| some(&mut rng, &names)).collect();

    let mut world = World::start(settings.topology, &settings.config).await;
    let followers = choices.iter().map(|channels| Follower::start(world.events(channels), channels, settings.habit));
    world.followers = stream::iter(followers).buffered(CONNECTING).collect().await;
    let publishers = Publishers::start(world.addresses(), &names, settings.events_per_second, settings.seed);
    let begun = Instant::now();
    let mut report = Report { seed: settings.seed, ..Report::default() };
    let inflicted = futures_util::future::join_all(plan.iter().map(async |step| {
        tokio::time::sleep_until((begun + step.at).into()).await;
        let from = begun.elapsed();
        let concerned = world.inflict(step).await;
        (step, from, begun.elapsed(), concerned)
    }));
    for (step, from, to, concerned) in inflicted.await {
        report.note(step, from, to, concerned);
    }
    let left = settings.time.saturating_sub(begun.elapsed());
    tokio::time::sleep(left).await;
    world.wait_calm().await;
    let (counts, repeated) = publishers.stop().await;
    (report.published, report.repeated) = (counts.values().sum(), repeated);
    settle(&world.followers, &counts).await;
    report.judge(&world.followers, &counts);
    report.metrics = world.metrics().await;
    report
}

/// 1 to 8 of them.
fn some<'a>(rng: &mut Rng, names: &'a [String]) -> Vec<&'a str> {
    let count = rng.usize(1..=8);
    let chosen: BTreeSet<_> = (0..count).map(|_| rng.usize(..names.len())).collect();
    chosen.into_iter().map(|nth| names[nth].as_str()).collect()
}

/// Waits until everyone has everything, or nothing has come for some seconds, or it has taken far too long.
async fn settle(followers: &[Follower], counts: &BTreeMap<String, u64>) {
    let begun = Instant::now();
    let (mut progress, mut since) = (0, begun);
    let whole = |follower: &Follower| {
        let whole = |seen: &Seen| follower.channels.iter().all(|name| seen.last(name).unwrap_or(0) >= counts[name]);
        follower.read(whole)
    };
    while !followers.iter().all(whole) && since.elapsed() < QUIET && begun.elapsed() < PATIENCE {
        let events: u64 = followers.iter().map(|follower| follower.read(|seen| seen.events)).sum();
        if events != progress {
            (progress, since) = (events, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Report {
    fn note(&mut self, step: &Step, from: Duration, to: Duration, concerned: usize) {
        *self.effects.entry(step.kind).or_default() += concerned;
        self.steps.push(format!(
            "{:6.2}–{:6.2} s: {:?} {} ({concerned})",
            from.as_secs_f64(),
            to.as_secs_f64(),
            step.kind,
            step.target
        ));
    }

    fn judge(&mut self, followers: &[Follower], counts: &BTreeMap<String, u64>) {
        for (nth, follower) in followers.iter().enumerate() {
            follower.read(|seen| {
                self.delivered += seen.events;
                self.reconnects += seen.connections.saturating_sub(1);
                self.turned_away += seen.turned_away;
                self.gaps.extend(seen.gaps.iter().map(|gap| format!("follower {nth}: {gap:?}")));
                self.breaks.extend(seen.breaks.iter().map(|one| format!("follower {nth}: {one:?}")));
                if let Some(status) = seen.refused {
                    self.incomplete.push(format!("follower {nth} was refused for ever: {status}"));
                }
                for channel in &follower.channels {
                    let runs = seen.runs.get(channel).map(Vec::as_slice).unwrap_or_default();
                    let (first, last) = (runs.first().map(|run| *run.start()), runs.last().map(|run| *run.end()));
                    if (first, last) != (Some(1), Some(counts[channel])) {
                        let count = counts[channel];
                        let id = &seen.last_event_id;
                        self.incomplete.push(format!("follower {nth}: {channel} of 1..={count}: {runs:?}, id {id}"));
                    }
                }
            });
        }
    }
}
