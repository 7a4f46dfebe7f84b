//! The alerts that operators are given: valid, tried in both directions, and each with an entry of what to do.

use serde_json::Value;
use sluice_tests::{
    process::repository,
    prometheus::{RULES, alerts, case_files, names, promtool, yaml},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Output,
};

/// Where what to do stands, and under which heading.
const RUNBOOK: &str = "docs/operations.md";
const SECTION: &str = "## Alerts";

fn name(alert: &Value) -> &str {
    alert["alert"].as_str().expect("an alert: there are no recording rules")
}

fn shown(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn text(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn promtool_finds_the_alerts_valid() {
    let output = promtool(&["check", "rules", RULES]);
    assert!(output.status.success(), "{}", shown(&output));
    assert!(shown(&output).contains(&format!("{} rules found", alerts().len())), "{}", shown(&output));
}

#[test]
fn every_alert_fires_and_is_quiet_as_its_cases_say() {
    let files = case_files();
    let paths: Vec<_> = files.iter().map(|path| path.to_str().expect("UTF-8")).collect();
    let output = promtool(&[&["test", "rules"], &paths[..]].concat());
    assert!(output.status.success(), "{}", shown(&output));
}

#[test]
fn every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let (mut fires, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for file in case_files() {
        for group in yaml(&file)["tests"].as_array().expect("cases") {
            for case in group["alert_rule_test"].as_array().into_iter().flatten() {
                let alert = case["alertname"].as_str().expect("an alert").to_owned();
                let expected = case["exp_alerts"].as_array().unwrap_or_else(|| panic!("what is expected of {alert}"));
                if expected.is_empty() {
                    quiet.insert(alert)
                } else {
                    fires.insert(alert)
                };
            }
        }
    }
    let all: BTreeSet<_> = alerts().iter().map(|alert| name(alert).to_owned()).collect();
    assert_eq!(fires, all, "alerts with a firing case, and alerts");
    assert_eq!(quiet, all, "alerts with a quiet case, and alerts");
}

#[test]
fn every_alert_says_how_bad_it_is_what_is_the_matter_and_where_to_read_on() {
    let mut seen = BTreeSet::new();
    for alert in alerts() {
        let (name, annotations) = (name(&alert), &alert["annotations"]);
        assert!(seen.insert(name.to_owned()), "{name} is there twice");
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity:?}");
        for part in ["summary", "description"] {
            assert!(annotations[part].as_str().is_some_and(|text| text.len() > 20), "{part} of {name}");
        }
        assert_eq!(annotations["runbook"], format!("{RUNBOOK}#{}", name.to_lowercase()), "{name}");
    }
}

#[test]
fn counters_of_alerts_survive_restarts() {
    for alert in alerts() {
        let expression = alert["expr"].as_str().expect("an expression");
        for metric in names(expression).filter(|name| name.ends_with("_total") || name.ends_with("_bucket")) {
            for (at, _) in expression.match_indices(metric) {
                let before = &expression[..at];
                let is_rate = before.ends_with("rate(") || before.ends_with("increase(");
                assert!(is_rate, "{} uses {metric} as it is, which is zero again after a restart", name(&alert));
            }
        }
    }
}

/// The entries of the runbook: what stands under each heading of its section.
fn entries() -> BTreeMap<String, String> {
    let page = text(RUNBOOK);
    let (_, section) = page.split_once(&format!("\n{SECTION}\n")).unwrap_or_else(|| panic!("{RUNBOOK}: {SECTION}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let entry = |text: &str| text.split_once('\n').map(|(name, rest)| (name.trim().to_owned(), rest.to_owned()));
    section.split("\n### ").skip(1).filter_map(entry).collect()
}

#[test]
fn every_alert_has_an_entry_of_what_to_do_and_every_entry_an_alert() {
    let entries = entries();
    let told: BTreeSet<_> = entries.keys().cloned().collect();
    let all: BTreeSet<_> = alerts().iter().map(|alert| name(alert).to_owned()).collect();
    assert_eq!(told, all, "entries of {RUNBOOK}, and alerts");
    for (name, entry) in &entries {
        for part in ["**Clients:**", "**Look at:**", "**Do:**"] {
            assert!(entry.contains(part), "{RUNBOOK}: {name} has no {part}");
        }
    }
    for alert in alerts() {
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        let entry = &entries[name(&alert)];
        assert!(entry.trim_start().starts_with(&format!("*{severity}")), "{RUNBOOK}: {} is {severity}", name(&alert));
    }
}

#[test]
fn alerts_that_documents_name_exist() {
    let all: BTreeSet<_> = alerts().iter().map(|alert| name(alert).to_owned()).collect();
    let pages = fs::read_dir(repository().join("docs")).expect("docs").flatten().map(|entry| entry.path());
    let more = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "helm/sluice/files/dashboard.json", RULES];
    for path in pages.chain(more.iter().map(|path| repository().join(path))) {
        let page = fs::read_to_string(&path).expect("UTF-8");
        let words = page.split(|c: char| !c.is_ascii_alphanumeric());
        let is_alert =
            |word: &&str| word.strip_prefix("Sluice").is_some_and(|rest| rest.starts_with(char::is_uppercase));
        for word in words.filter(is_alert) {
            assert!(all.contains(word), "{} names the alert {word}, which does not exist", path.display());
        }
    }
}
