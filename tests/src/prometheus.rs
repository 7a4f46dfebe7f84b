//! Debian's Prometheus and promtool: one that scrapes gateways and knows the chart's alerts, and what it answers.

use crate::{
    http::{Answer, Http},
    ports,
    process::{Process, directory, repository},
    wait,
};
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// The alerts, from the top of the repository.
pub const RULES: &str = "helm/sluice/files/rules.yaml";
/// The job of the gateways.
pub const JOB: &str = "sluice";
/// What Grafana puts for `$__rate_interval` where a target is scraped every second: four times as much.
pub const RATE_INTERVAL: &str = "4s";
const SETTINGS: &str = "prometheus.yml";

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    http: Http,
    _process: Process,
    _directory: TempDir,
}

/// What came of a query: the labels of each series, and its value.
pub type Series = Vec<(Value, f64)>;

impl Prometheus {
    /// One that scrapes these addresses every second and has the alerts in force.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(targets: &[SocketAddr]) -> Self {
        let (directory, address) = (directory(), ports::free());
        let targets: Vec<_> = targets.iter().map(|target| format!("\"{target}\"")).collect();
        let settings = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [\"{}\"]\n\
             scrape_configs:\n  - job_name: {JOB}\n    static_configs: [{{ targets: [{}] }}]\n",
            repository().join(RULES).display(),
            targets.join(", ")
        );
        let file = directory.path().join(SETTINGS);
        std::fs::write(&file, settings).expect("a settings file");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}")).arg("--log.level=warn");
        let process = Process::start("prometheus", &mut command, directory.path());
        let prometheus = Self { http: Http::new(address), _process: process, _directory: directory };
        wait::until("prometheus is ready", async || {
            let answer = prometheus.http.try_send("GET", "/-/ready", &[], "").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        prometheus
    }

    /// The series that an expression has now.
    ///
    /// # Errors
    /// When it is no expression, or its parts do not fit together.
    pub async fn query(&self, expression: &str) -> Result<Series, String> {
        let answer = self.ask("/api/v1/query", expression).await;
        let body = answer.json();
        if answer.status != 200 {
            return Err(body["error"].as_str().unwrap_or_default().to_owned());
        }
        let result = body["data"]["result"].as_array().ok_or_else(|| format!("no vector: {body}"))?;
        let value = |one: &Value| one["value"][1].as_str().and_then(|text| text.parse().ok());
        Ok(result.iter().filter_map(|one| Some((one["metric"].clone(), value(one)?))).collect())
    }

    /// Waits until an expression has a series with a number.
    ///
    /// # Panics
    /// When it is no expression, or has none in time.
    pub async fn wait_data(&self, what: &str, expression: &str) {
        wait::until(&format!("{what} has data: {expression}"), async || {
            let series = self.query(expression).await.unwrap_or_else(|error| panic!("{what}: {error}: {expression}"));
            series.iter().any(|(_, value)| !value.is_nan()).then_some(())
        })
        .await;
    }

    /// All alerts as it has parsed them, and how their last evaluation went.
    pub async fn alerts(&self) -> Vec<Value> {
        let answer = self.http.json("/api/v1/rules?type=alert").await;
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
    }

    /// The names of the alerts that fire, each once.
    pub async fn firing(&self) -> Vec<String> {
        let series = self.query("count by (alertname) (ALERTS{alertstate=\"firing\"})").await.expect("an answer");
        series.iter().filter_map(|(labels, _)| Some(labels["alertname"].as_str()?.to_owned())).collect()
    }

    async fn ask(&self, path: &str, expression: &str) -> Answer {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("query", expression).finish();
        self.http.get(&format!("{path}?{query}")).await
    }
}

/// Runs Debian's promtool at the top of the repository.
///
/// # Panics
/// When it is missing.
#[must_use]
pub fn promtool(args: &[&str]) -> Output {
    let output = Command::new("promtool").args(args).current_dir(repository()).output();
    output.unwrap_or_else(|error| panic!("promtool does not start: {error} (tests/run installs it)"))
}

/// Files with cases for the alerts, from the top of the repository.
///
/// # Panics
/// When the directory is missing.
#[must_use]
pub fn case_files() -> Vec<PathBuf> {
    let folder = Path::new("tests/deploy");
    let entries = std::fs::read_dir(repository().join(folder)).expect("tests/deploy");
    let names = entries.flatten().map(|entry| folder.join(entry.file_name()));
    let is_case = |path: &PathBuf| path.to_string_lossy().ends_with("_test.yaml");
    let mut files: Vec<_> = names.filter(is_case).collect();
    files.sort();
    files
}

/// A YAML file of the repository.
///
/// # Panics
/// When it is missing, or is none.
#[must_use]
pub fn yaml(path: &Path) -> Value {
    let text = std::fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The alerts of the chart, as their file has them.
///
/// # Panics
/// When the file has another form.
#[must_use]
pub fn alerts() -> Vec<Value> {
    let rules = yaml(Path::new(RULES));
    let groups = rules["groups"].as_array().expect("groups");
    groups.iter().flat_map(|group| group["rules"].as_array().cloned().expect("rules")).collect()
}

/// The metrics that an expression names, of the gateway or of its process.
pub fn names(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("sse_") || word.starts_with("process_"))
}
