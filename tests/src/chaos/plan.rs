//! Which faults happen when: decided by the seed alone, before anything runs.

use crate::proxy::Cut;
use fastrand::Rng;
use std::time::Duration;

/// Replicas of the cluster that faults are planned for.
pub const REPLICAS: usize = 3;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `kill -9`, and started again on the same ports after a while.
    KillGateway,
    /// SIGTERM, and started again when it has ended.
    StopGateway,
    CutClients,
    CutReplica,
    CutRedisLink,
    StallClients,
    StallReplica,
    StallRedisLink,
    KillSubscriptions,
    /// SIGSTOP, and SIGCONT after a while.
    FreezeRedis,
    /// `kill -9`, and started again with its append-only file.
    KillRedis,
    /// SHUTDOWN, and started again with its append-only file.
    StopRedis,
    /// Some clients read nothing for a while.
    PauseClients,
    /// `kill -9` of a master, which comes back as a replica once another was promoted.
    KillMaster,
    /// SIGSTOP of a master, and SIGCONT once another was promoted.
    FreezeMaster,
    /// A master hands over to its replica.
    HandOver,
    /// `kill -9` of a sentinel, and started again.
    KillSentinel,
    /// Slots go from one master to another, and back.
    MoveSlots,
    /// A master comes into the cluster, and gets some slots.
    AddMaster,
}

impl Kind {
    pub const ALL: [Self; 13] = [
        Self::KillGateway,
        Self::StopGateway,
        Self::CutClients,
        Self::CutReplica,
        Self::CutRedisLink,
        Self::StallClients,
        Self::StallReplica,
        Self::StallRedisLink,
        Self::KillSubscriptions,
        Self::FreezeRedis,
        Self::KillRedis,
        Self::StopRedis,
        Self::PauseClients,
    ];

    /// What happens where sentinels watch.
    pub const SENTINELS: [Self; 9] = [
        Self::KillGateway,
        Self::StopGateway,
        Self::CutClients,
        Self::KillSubscriptions,
        Self::PauseClients,
        Self::KillMaster,
        Self::FreezeMaster,
        Self::HandOver,
        Self::KillSentinel,
    ];

    /// What happens to a cluster.
    pub const CLUSTER: [Self; 10] = [
        Self::KillGateway,
        Self::StopGateway,
        Self::CutClients,
        Self::KillSubscriptions,
        Self::PauseClients,
        Self::KillMaster,
        Self::FreezeMaster,
        Self::HandOver,
        Self::MoveSlots,
        Self::AddMaster,
    ];

    /// Those that `SLUICE_CHAOS_KINDS` names.
    ///
    /// # Panics
    /// When it names one that does not exist.
    #[must_use]
    pub fn from_environment() -> Option<Vec<Self>> {
        let named = std::env::var("SLUICE_CHAOS_KINDS").ok()?;
        let all = || Self::ALL.into_iter().chain(Self::SENTINELS).chain(Self::CLUSTER);
        let kind = |name: &str| all().find(|kind| format!("{kind:?}") == name);
        Some(named.split(',').map(|name| kind(name).unwrap_or_else(|| panic!("no fault is called {name}"))).collect())
    }

    /// How long it may last, in milliseconds.
    fn lasts(self) -> std::ops::Range<u64> {
        match self {
            Self::CutClients | Self::CutReplica | Self::CutRedisLink | Self::KillSubscriptions => 0..1,
            Self::KillGateway | Self::StopGateway | Self::KillRedis | Self::StopRedis | Self::KillSentinel => 100..1500,
            // As long as it takes.
            Self::KillMaster | Self::FreezeMaster | Self::HandOver | Self::MoveSlots | Self::AddMaster => 100..300,
            Self::StallClients | Self::StallReplica | Self::StallRedisLink | Self::FreezeRedis | Self::PauseClients => {
                1000..4000
            }
        }
    }
}

/// One fault.
#[derive(Debug, Clone)]
pub struct Step {
    /// After the beginning.
    pub at: Duration,
    pub kind: Kind,
    /// Which replica, where it concerns one.
    pub target: usize,
    pub lasts: Duration,
    pub cut: Cut,
    /// For choices within the fault.
    pub seed: u64,
}

/// Faults of these kinds for this long, and each kind at least once. Mostly one at a time; a fourth of them begin before
/// the one before is over.
#[must_use]
pub fn plan(rng: &mut Rng, kinds: &[Kind], time: Duration) -> Vec<Step> {
    let (mut steps, mut deck) = (Vec::new(), Vec::new());
    let mut at = Duration::from_millis(rng.u64(300..1000));
    while !kinds.is_empty() && (at < time || steps.len() < kinds.len()) {
        if deck.is_empty() {
            deck = kinds.to_vec();
            rng.shuffle(&mut deck);
        }
        let Some(kind) = deck.pop() else { break };
        let lasts = Duration::from_millis(rng.u64(kind.lasts()));
        let cut = if rng.bool() { Cut::Close } else { Cut::Reset };
        steps.push(Step { at, kind, target: rng.usize(..REPLICAS), lasts, cut, seed: rng.u64(..) });
        let overlaps = rng.u32(..4) == 0;
        at += if overlaps { lasts / 2 } else { lasts + Duration::from_millis(rng.u64(100..900)) };
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan_with_every_kind_of_fault() {
        for seed in 0..50 {
            let made = || plan(&mut Rng::with_seed(seed), &Kind::ALL, Duration::from_secs(30));
            let steps = made();
            assert_eq!(format!("{steps:?}"), format!("{:?}", made()));
            for kind in Kind::ALL {
                assert!(steps.iter().any(|step| step.kind == kind), "seed {seed}: {kind:?}");
            }
            assert!(steps.is_sorted_by_key(|step| step.at));
            let end = steps.last().map(|step| step.at);
            assert!(end < Some(Duration::from_secs(45)), "seed {seed}: {end:?}");
        }
    }
}
