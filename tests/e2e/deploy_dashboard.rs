//! The dashboard that operators are given: what can be seen without a Grafana.

use serde_json::Value;
use sluice_tests::{
    dashboard::{dashboard, expressions, panels, variables},
    process::repository,
    prometheus::names,
};
use std::collections::BTreeSet;

/// In the order of an operator's questions.
const ROWS: [&str; 6] = [
    "Is everyone connected?",
    "Is anything late, lost or refused?",
    "Who is slow?",
    "Is Redis keeping up?",
    "Is a roll-out going well?",
    "When do we need another replica?",
];
/// What chooses the replicas, in every selector.
const CHOSEN: &str = r#"{namespace=~"$namespace", job=~"$job", instance=~"$instance""#;

fn place(panel: &Value) -> [u64; 4] {
    ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap_or_else(|| panic!("{side} of {panel}")))
}

#[test]
fn it_is_imported_under_one_address_and_from_any_prometheus() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "sluice");
    assert!(dashboard["id"].is_null(), "an id is of one Grafana");
    assert!(dashboard["__inputs"].is_null(), "provisioning and sidecars fill nothing in");
    let list = dashboard["templating"]["list"].as_array().expect("variables");
    assert_eq!(
        (&list[0]["name"], &list[0]["type"], &list[0]["query"]),
        (&"datasource".into(), &"datasource".into(), &"prometheus".into())
    );
    for one in panels(&dashboard).iter().filter(|panel| panel["type"] != "row").chain(&list[1..]) {
        assert_eq!(one["datasource"]["uid"], "${datasource}", "{one}");
    }
    for (name, query) in variables(&dashboard) {
        assert!(query.starts_with("label_values(sse_build_info"), "{name}: of gateways and of nothing else: {query}");
    }
}

#[test]
fn its_rows_are_the_operators_questions_and_the_documents_say_what_each_answers() {
    let dashboard = dashboard();
    let rows: Vec<_> = panels(&dashboard).iter().filter(|panel| panel["type"] == "row").collect();
    let titles: Vec<_> = rows.iter().filter_map(|row| row["title"].as_str()).collect();
    assert_eq!(titles, ROWS);
    let page = std::fs::read_to_string(repository().join("docs/operations.md")).expect("a page");
    let (_, section) = page.split_once("\n## Dashboard\n").expect("a section on the dashboard");
    let section = section.split("\n## ").next().unwrap_or_default();
    for title in titles {
        assert!(section.contains(&format!("| {title} |")), "docs/operations.md says nothing of {title}");
    }
}

#[test]
fn every_panel_says_what_is_good_what_is_bad_and_what_to_do() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64()), "the id of {title} is another's too");
        if panel["type"] == "row" {
            continue;
        }
        let description = panel["description"].as_str().unwrap_or_default();
        for part in ["Good: ", "Bad: ", "Do: "] {
            assert!(description.contains(part), "{title} has no {part:?}");
        }
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
        assert!(unit.is_some_and(|unit| !unit.is_empty()), "{title} has no unit");
        assert!(!panel["targets"].as_array().expect("targets").is_empty(), "{title} shows nothing");
        for target in panel["targets"].as_array().into_iter().flatten() {
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            assert!(!legend.is_empty() || panel["type"] == "table", "{title} has no legend");
        }
    }
}

#[test]
fn panels_do_not_lie_upon_each_other() {
    let dashboard = dashboard();
    let places: Vec<_> = panels(&dashboard).iter().map(|panel| (panel["title"].as_str(), place(panel))).collect();
    for (nth, (title, [x, y, w, h])) in places.iter().enumerate() {
        assert!(x + w <= 24 && *w > 0 && *h > 0, "{title:?}");
        for (other, [x2, y2, w2, h2]) in &places[nth + 1..] {
            let apart = x + w <= *x2 || x2 + w2 <= *x || y + h <= *y2 || y2 + h2 <= *y;
            assert!(apart, "{title:?} and {other:?}");
        }
    }
}

#[test]
fn every_selector_goes_by_the_variables_and_counters_survive_restarts() {
    for (title, expression) in expressions(&dashboard()) {
        assert!(names(&expression).next().is_some(), "{title}: {expression}");
        for metric in names(&expression) {
            for (at, _) in expression.match_indices(&format!("{metric}{{")) {
                let (before, after) = (&expression[..at], &expression[at + metric.len()..]);
                assert!(after.starts_with(CHOSEN), "{title}: {metric} of whatever there is: {expression}");
                if metric.ends_with("_total") || metric.ends_with("_bucket") {
                    let window = after.split_once('}').is_some_and(|(_, rest)| rest.starts_with("[$__rate_interval])"));
                    assert!(before.ends_with("rate(") && window, "{title}: {metric}: {expression}");
                }
            }
            assert!(expression.contains(&format!("{metric}{CHOSEN}")), "{title}: {metric} without a selector");
        }
        // Other programs of a job have these too.
        if expression.contains("process_") {
            let guard = format!(" and on (namespace, job, instance) sse_build_info{CHOSEN}}}");
            assert!(expression.contains(&guard), "{title}: of processes that are no gateways: {expression}");
        }
    }
}
