//! Promise P2 where masters are lost and replaced: with sentinels, and on a cluster whose slots move meanwhile.
//!
//! An event is answered for once a replica has it (`redis.wait_replicas`), so that nothing acknowledged is lost.

use sluice_tests::chaos::{self, Report, Settings, plan::Kind, world::Topology};

#[expect(clippy::print_stderr, reason = "the seed is what a failing run is repeated with")]
async fn storm(topology: Topology, kinds: &[Kind], seconds: u64) -> Report {
    let settings = Settings {
        topology,
        kinds: Kind::from_environment().unwrap_or_else(|| kinds.to_vec()),
        followers: 100,
        events_per_second: 150,
        ..Settings::from_environment(seconds)
    };
    eprintln!("SLUICE_SEED={}", settings.seed);
    let kinds = settings.kinds.clone();
    let report = chaos::run(settings).await;
    eprintln!("{report}");
    report.assert_exact();
    for kind in kinds {
        assert!(report.effects.get(&kind).is_some_and(|&concerned| concerned > 0), "no {kind:?} happened\n{report}");
    }
    assert!(report.repeated > 0, "publishers had to try again\n{report}");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_sentinels_each_client_sees_every_event_once_and_in_order_without_a_gap() {
    storm(Topology::Sentinels, &Kind::SENTINELS, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_cluster_each_client_sees_every_event_once_and_in_order_without_a_gap() {
    storm(Topology::Cluster, &Kind::CLUSTER, 30).await;
}
