//! How long a pipeline waits for company.
//!
//! A pipeline costs Redis and the gateway much the same however much is in it, so events that come close together had
//! better go together, also where Redis could take each as it comes. How close they come is found out by trying: one more
//! request is waited for than last time, and if none comes, fewer are.
//!
//! Publishers that each wait for their answer before they go on publish less if they wait longer. Whether they do is
//! found out by trying too: requests are counted for a while without any waiting, and then with it, at all lanes
//! together, as what is lost at one is missing at another.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// With as many requests in a pipeline as this, its own cost is small beside theirs.
const ENOUGH: usize = 8;
/// In how many pipelines it is tried again at least once whether more come.
const MAX_REST: u32 = 256;
/// How long requests are counted.
const COUNTED: Duration = Duration::from_millis(100);
/// With fewer in that time there is little to save, and how many they are is chance.
const FEW: usize = 50;
/// How long what was found holds: that waiting costs nothing; and at first, and at last, that it does.
const HOLDS: Duration = Duration::from_secs(5);
const FIRST_REST: Duration = Duration::from_secs(1);
const LAST_REST: Duration = Duration::from_secs(60);

pub(super) struct Gather {
    /// How long the first request of a pipeline waits at most. None waits that comes later than this after the last
    /// pipeline.
    within: Duration,
    company: Company,
    comparison: Arc<Mutex<Comparison>>,
    sent: Option<Instant>,
}

/// One pipeline that is being filled.
pub(super) struct Filling {
    /// For how many requests it waits, and until when.
    pub(super) wanted: usize,
    pub(super) until: Instant,
    first: Instant,
    trial: bool,
}

impl Gather {
    pub(super) fn new(within: Duration, comparison: Arc<Mutex<Comparison>>) -> Self {
        Self { within, company: Company { together: 1, rest: 1, left: 1 }, comparison, sent: None }
    }

    /// What a pipeline waits for from `now` on whose first request came at `first`.
    pub(super) fn begin(&mut self, first: Instant, now: Instant) -> Filling {
        let busy = self.sent.is_some_and(|sent| first.duration_since(sent) <= self.within);
        let until = first + self.within;
        let mut filling = Filling { wanted: 1, until, first, trial: false };
        if !busy {
            self.company.together = 1;
        } else if self.compared(|comparison| comparison.waits(now)) && now < until {
            // What has waited for the pipeline before it for so long waits no longer.
            filling.trial = self.company.left == 0;
            filling.wanted = ENOUGH.min(self.company.together + usize::from(filling.trial));
        }
        filling
    }

    /// `found` requests are sent `now`, the last of which came at `last`.
    pub(super) fn end(&mut self, filling: &Filling, found: usize, last: Instant, now: Instant) {
        self.sent = Some(now);
        self.compared(|comparison| comparison.requests += found);
        let soon = last.duration_since(filling.first) < self.within / 2;
        self.company.came(filling, found, soon);
    }

    fn compared<T>(&self, with: impl FnOnce(&mut Comparison) -> T) -> T {
        with(&mut self.comparison.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How many requests come close together.
struct Company {
    /// As many as did last time.
    together: usize,
    /// Pipelines from one vain trial to the next, and how many of them are left.
    rest: u32,
    left: u32,
}

impl Company {
    fn came(&mut self, filling: &Filling, found: usize, soon: bool) {
        if filling.wanted > 1 || found == 1 {
            self.together = found.min(filling.wanted);
        }
        if found >= filling.wanted {
            self.rest = if filling.trial { (self.rest / 2).max(1) } else { self.rest };
            self.left = if filling.trial { 0 } else { self.left.saturating_sub(1) };
        } else if filling.trial && found + 1 == filling.wanted && soon {
            // All that were there came soon, and then none: they wait for their answers.
            self.rest = (self.rest * 2).min(MAX_REST);
            self.left = self.rest;
        } else {
            self.left = self.rest.min(4);
        }
    }
}

/// Whether as much is published with waiting as without, by all that the gateway's publishers publish.
pub(super) struct Comparison {
    phase: Phase,
    since: Option<Instant>,
    requests: usize,
    rest: Duration,
}

#[derive(Clone, Copy)]
enum Phase {
    Without,
    /// After so many requests a second without.
    With(f64),
    Waits,
    Rests,
}

impl Comparison {
    pub(super) const fn new() -> Self {
        Self { phase: Phase::Without, since: None, requests: 0, rest: FIRST_REST }
    }

    /// Whether to wait, as far as is known `now`.
    fn waits(&mut self, now: Instant) -> bool {
        let Some(since) = self.since else {
            (self.since, self.requests) = (Some(now), 0);
            return false;
        };
        let passed = now.duration_since(since);
        let rate = f64::from(u32::try_from(self.requests).unwrap_or(u32::MAX)) / passed.as_secs_f64();
        let next = match self.phase {
            // Of a longer time, with a pause in it, nothing can be said.
            Phase::Without if passed >= COUNTED * 2 => Some(Phase::Without),
            Phase::Without if passed >= COUNTED && self.requests < FEW => Some(Phase::Without),
            Phase::Without if passed >= COUNTED => Some(Phase::With(rate)),
            Phase::With(_) if passed >= COUNTED * 2 => Some(Phase::Without),
            Phase::With(without) if passed >= COUNTED && rate >= without * 0.9 => {
                self.rest = FIRST_REST;
                Some(Phase::Waits)
            }
            Phase::With(_) if passed >= COUNTED => Some(Phase::Rests),
            Phase::Waits if passed >= HOLDS => Some(Phase::Without),
            Phase::Rests if passed >= self.rest => {
                self.rest = (self.rest * 2).min(LAST_REST);
                Some(Phase::Without)
            }
            _ => None,
        };
        if let Some(next) = next {
            (self.phase, self.since, self.requests) = (next, Some(now), 0);
        }
        matches!(self.phase, Phase::With(_) | Phase::Waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_millis(1);

    fn gather() -> Gather {
        Gather::new(WITHIN, Arc::new(Mutex::new(Comparison::new())))
    }

    /// A lane with a clock of its own.
    struct Lane {
        gather: Gather,
        now: Instant,
        waited: Duration,
        /// How many requests each pipeline had.
        depths: Vec<usize>,
    }

    impl Lane {
        fn new() -> Self {
            Self { gather: gather(), now: Instant::now(), waited: Duration::ZERO, depths: Vec::new() }
        }

        /// One pipeline, to whose first request others come so much later, if it waits for them.
        fn pipeline(&mut self, others: impl Iterator<Item = Duration>) {
            let first = self.now;
            let filling = self.gather.begin(first, first);
            let (mut found, mut last) = (1, first);
            let in_time = others.map(|later| first + later).take_while(|came| *came <= filling.until);
            for came in in_time.take(filling.wanted - 1) {
                (found, last) = (found + 1, came);
            }
            self.now = if found < filling.wanted { filling.until } else { last };
            self.waited += self.now - first;
            self.gather.end(&filling, found, last, self.now);
            self.depths.push(found);
        }

        fn pipelines(&mut self, from: usize) -> f64 {
            let depths = &self.depths[from..];
            f64::from(u32::try_from(depths.iter().sum::<usize>()).expect("few"))
                / f64::from(u32::try_from(depths.len()).expect("few"))
        }
    }

    fn evenly(every: Duration) -> impl Iterator<Item = Duration> {
        (1..).map(move |nth| every * nth)
    }

    /// Requests that come however long the others wait: one every so often, for so long.
    fn open(every: Duration, long: Duration) -> Lane {
        let mut lane = Lane::new();
        let end = lane.now + long;
        while lane.now < end {
            lane.pipeline(evenly(every));
            lane.now += every;
        }
        lane
    }

    #[test]
    fn events_that_come_close_together_go_together() {
        let mut lane = open(Duration::from_micros(200), Duration::from_secs(20));
        let half = lane.depths.len() / 2;
        let depth = lane.pipelines(half);
        assert!((4.0..=6.0).contains(&depth), "{depth}");
    }

    #[test]
    fn no_more_are_waited_for_than_save_much() {
        let lane = open(Duration::from_micros(10), Duration::from_secs(2));
        assert_eq!(lane.depths.iter().max(), Some(&ENOUGH));
    }

    #[test]
    fn what_comes_seldom_waits_for_nothing() {
        let mut lane = Lane::new();
        for _ in 0..1000 {
            lane.pipeline(std::iter::empty());
            lane.now += WITHIN * 2;
        }
        assert_eq!(lane.waited, Duration::ZERO);
    }

    #[test]
    fn publishers_that_wait_for_their_answers_are_hardly_ever_waited_for_in_vain() {
        for publishers in [1, 3] {
            let mut lane = Lane::new();
            let began = lane.now;
            for _ in 0..50_000 {
                lane.pipeline(evenly(Duration::from_micros(20)).take(publishers - 1));
                lane.now += Duration::from_micros(150);
            }
            let lasted = lane.now - began;
            assert!(lane.waited < lasted / 10 + Duration::from_micros(40) * 50_000, "{:?} of {lasted:?}", lane.waited);
            let most = lane.depths.iter().filter(|depth| **depth == publishers).count();
            assert!(most > 40_000, "{most} with {publishers}");
        }
    }

    #[test]
    fn publishers_who_publish_less_while_they_wait_are_not_made_to_wait() {
        // Four of them at several lanes: here one comes now and then while another waits.
        let mut lane = Lane::new();
        let began = lane.now;
        let mut nth = 0_u32;
        while lane.now < began + Duration::from_secs(20) {
            nth += 1;
            lane.pipeline(evenly(Duration::from_micros(700)).take(usize::from(nth.is_multiple_of(2))));
            lane.now += Duration::from_micros(150);
        }
        assert!(lane.waited < Duration::from_secs(2), "{:?}", lane.waited);
    }

    #[test]
    fn what_waited_for_the_pipeline_before_waits_no_longer() {
        let mut gather = gather();
        gather.compared(|comparison| comparison.phase = Phase::Waits);
        (gather.company.left, gather.company.together) = (0, 3);
        let first = Instant::now();
        gather.sent = Some(first);
        let filling = gather.begin(first, first + WITHIN);
        assert_eq!((filling.wanted, filling.trial), (1, false));
        let filling = gather.begin(first, first);
        assert_eq!((filling.wanted, filling.trial), (4, true));
    }
}
