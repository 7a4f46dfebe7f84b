//! Which share of Redis can be reached, told to the hub and in metrics: of a cluster, a part that is down stops only its
//! own channels.

use super::topology::SLOTS;
use crate::{broker::Sink, metrics::Metrics};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub(super) struct Reach {
    sink: Arc<dyn Sink>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    links: BTreeMap<String, Link>,
    /// Every link was made, or tried in vain, at least once.
    begun: bool,
}

struct Link {
    slots: usize,
    /// `None` before the first try has ended.
    up: Option<Result<(), String>>,
}

impl Reach {
    pub(super) fn new(sink: Arc<dyn Sink>, metrics: Arc<Metrics>) -> Self {
        Self { sink, metrics, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No server could say which masters there are.
    pub(super) fn no_layout(&self, why: &str) {
        self.metrics.redis_up.set(0);
        self.metrics.redis_reachable.set(0.0);
        self.sink.reachable(Err(why.to_owned()));
    }

    /// These are the masters now, each with how many slots it has.
    pub(super) fn masters(&self, masters: impl Iterator<Item = (String, usize)>) {
        let mut state = self.lock();
        let mut before = std::mem::take(&mut state.links);
        state.links = masters
            .map(|(name, slots)| {
                let up = before.remove(&name).and_then(|link| link.up);
                (name, Link { slots, up })
            })
            .collect();
        self.tell(&mut state);
    }

    /// The link to a master stands, or does not.
    pub(super) fn link(&self, name: &str, up: Result<(), String>) {
        let mut state = self.lock();
        // One that is not there any more ends.
        if let Some(link) = state.links.get_mut(name) {
            link.up = Some(up);
            self.tell(&mut state);
        }
    }

    fn tell(&self, state: &mut State) {
        state.begun |= state.links.values().all(|link| link.slots == 0 || link.up.is_some());
        if !state.begun {
            return;
        }
        let is_up = |link: &&Link| matches!(link.up, Some(Ok(())));
        let reached: usize = state.links.values().filter(is_up).map(|link| link.slots).sum();
        self.metrics.redis_up.set(i64::from(reached == usize::from(SLOTS)));
        self.metrics.redis_reachable.set(reached as f64 / f64::from(SLOTS));
        let down: Vec<_> = state.links.iter().filter(|(_, link)| link.slots > 0 && !is_up(link)).collect();
        let why = |(name, link): &(&String, &Link)| match &link.up {
            Some(Err(why)) if name.is_empty() => why.clone(),
            Some(Err(why)) => format!("{name}: {why}"),
            _ => format!("{name}: it is being connected to"),
        };
        let mut whys: Vec<_> = down.iter().map(why).collect();
        let served: usize = state.links.values().map(|link| link.slots).sum();
        if served < usize::from(SLOTS) {
            whys.push(format!("{} slots have no master", usize::from(SLOTS) - served));
        }
        if reached == 0 {
            self.sink.reachable(Err(whys.join("; ")));
            return;
        }
        self.sink.reachable(Ok(()));
        let note = (!whys.is_empty()).then(|| {
            let lost = usize::from(SLOTS) - reached;
            format!(
                "{lost} of {SLOTS} slots cannot be reached, and the channels in them stand still: {}",
                whys.join("; ")
            )
        });
        self.sink.partly(note);
    }
}
