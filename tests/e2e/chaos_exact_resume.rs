//! Promise P2 under everything that breaks without losing what Redis answered for.

use sluice_tests::chaos::{self, Settings, plan::Kind};

/// Long enough for every kind of fault once; `SLUICE_CHAOS_SECONDS` and `SLUICE_SEED` choose another run.
const SECONDS: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "the seed is what a failing run is repeated with")]
async fn through_every_fault_each_client_sees_every_event_once_and_in_order_without_a_gap() {
    let settings = Settings::from_environment(SECONDS);
    eprintln!("SLUICE_SEED={}", settings.seed);
    let followers = settings.followers;
    let report = chaos::run(settings).await;
    eprintln!("{report}");
    report.assert_exact();

    for kind in Kind::ALL {
        assert!(report.effects.get(&kind).is_some_and(|&concerned| concerned > 0), "no {kind:?} happened\n{report}");
    }
    assert!(report.reconnects > followers, "clients had to come back\n{report}");
    assert!(report.repeated > 0, "publishers had to try again\n{report}");
    assert!(report.metrics.contains("sse_resumes_total{"), "{report}");
    assert!(report.delivered > report.published, "{report}");
}
