//! The judge of the chaos tests is itself judged: where resume is broken on purpose, it must say so.

use sluice_tests::{
    chaos::{self, Report, Settings, plan::Kind},
    follower::Habit,
};
use std::time::Duration;

const HISTORY_OFF: &str = "[[channel]]\nmatch = \"*\"\nhistory = \"off\"\n";

async fn short(habit: Habit, config: &str) -> Report {
    let settings = Settings {
        time: Duration::from_secs(4),
        kinds: vec![Kind::CutClients, Kind::CutReplica],
        followers: 30,
        channels: 6,
        events_per_second: 300,
        habit,
        config: config.to_owned(),
        ..Settings::from_environment(0)
    };
    chaos::run(settings).await
}

#[tokio::test]
async fn a_client_that_resumes_passes() {
    let report = short(Habit::Faithful, "").await;
    assert!(report.reconnects > 10, "{report}");
    report.assert_exact();
}

#[tokio::test]
async fn a_client_that_forgets_its_last_event_id_is_found_to_lose_events() {
    let report = short(Habit::ForgetsId, "").await;
    assert!(report.breaks.len() > 5 && report.gaps.is_empty(), "{report}");
}

#[tokio::test]
async fn a_client_that_presents_an_older_id_is_found_to_get_events_twice() {
    let report = short(Habit::StaleId, "").await;
    assert!(report.breaks.len() > 5 && report.gaps.is_empty(), "{report}");
}

#[tokio::test]
async fn a_gateway_that_keeps_no_history_is_found_to_lose_events() {
    let report = short(Habit::Faithful, HISTORY_OFF).await;
    assert!(report.breaks.len() > 5, "{report}");
}
