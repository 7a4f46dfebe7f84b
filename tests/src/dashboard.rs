//! The dashboard of the chart, taken apart: its panels, and their expressions as Grafana would send them.

use crate::{
    process::repository,
    prometheus::{JOB, RATE_INTERVAL},
};
use serde_json::Value;

/// The dashboard, from the top of the repository.
pub const DASHBOARD: &str = "helm/sluice/files/dashboard.json";

/// # Panics
/// When it is missing, or no JSON.
#[must_use]
pub fn dashboard() -> Value {
    let text = std::fs::read_to_string(repository().join(DASHBOARD)).expect("a dashboard");
    serde_json::from_str(&text).expect("JSON")
}

/// All panels, rows among them.
///
/// # Panics
/// When it has none.
#[must_use]
pub fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().expect("panels")
}

/// Each expression with the title of its panel.
#[must_use]
pub fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let of_panel = |panel: &Value| {
        let title = panel["title"].as_str().unwrap_or_default().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets
            .iter()
            .filter_map(|target| Some((title.clone(), target["expr"].as_str()?.to_owned())))
            .collect::<Vec<_>>()
    };
    panels(dashboard).iter().flat_map(of_panel).collect()
}

/// The variables that are asked for: name and query.
///
/// # Panics
/// When it has none.
#[must_use]
pub fn variables(dashboard: &Value) -> Vec<(String, String)> {
    let list = dashboard["templating"]["list"].as_array().expect("variables");
    let asked = list.iter().filter(|one| one["type"] == "query");
    let text = |one: &Value| one.as_str().unwrap_or_default().to_owned();
    asked.map(|one| (text(&one["name"]), text(&one["query"]["query"]))).collect()
}

/// With every variable set to "All", as Grafana does: to `allValue`, or to the list of what there is.
#[must_use]
pub fn filled(expression: &str) -> String {
    let values = [("$namespace", ".*"), ("$job", JOB), ("$instance", ".*"), ("$__rate_interval", RATE_INTERVAL)];
    values.iter().fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value))
}
