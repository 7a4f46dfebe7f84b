//! A real browser: headless Chromium, driven over WebDriver (<https://www.w3.org/TR/webdriver2/>), which is JSON over
//! HTTP. Only what the tests need of it is here: the client crates bring licences and second versions that `deny.toml`
//! refuses.
//!
//! The browser is started here and chromedriver joins it, so that both are our own children and end with this value:
//! the browser that a chromedriver starts lives on when that is killed.

use crate::{
    http::Http,
    ports,
    process::{Process, directory},
    wait,
};
use serde_json::{Value, json};
use std::process::Command;
use tempfile::TempDir;

/// It runs as root on machines that test, and speaks to nobody but the page.
const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
];

/// The name under which WebDriver hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one empty tab.
#[derive(Debug)]
pub struct Browser {
    driver: Http,
    session: String,
    // In the order in which they end.
    _driver: Process,
    _chromium: Process,
    _profile: TempDir,
}

impl Browser {
    /// # Panics
    /// When Chromium or its driver does not start.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more flags of Chromium.
    ///
    /// # Panics
    /// When Chromium or its driver does not start.
    pub async fn start_with(flags: &[&str]) -> Self {
        let (profile, address) = (directory(), ports::free());
        let mut chromium = Command::new("chromium");
        chromium
            .args(FLAGS)
            .args(flags)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank");
        chromium.env("HOME", profile.path());
        let chromium = Process::start("chromium", &mut chromium, profile.path()).with_children();
        let port_file = profile.path().join("DevToolsActivePort");
        let debugger = wait::until("chromium says where it listens", async || {
            let text = std::fs::read_to_string(&port_file).ok()?;
            text.lines().next()?.parse::<u16>().ok()
        });
        let debugger = debugger.await;

        let mut driver = Command::new("chromedriver");
        driver.arg(format!("--port={}", address.port())).env("HOME", profile.path());
        let process = Process::start("chromedriver", &mut driver, profile.path());
        let driver = Http::new(address);
        let is_ready = async || driver.try_send("GET", "/status", &[], "").await.ok();
        wait::until("chromedriver answers", is_ready).await;

        let options = json!({"debuggerAddress": format!("127.0.0.1:{debugger}")});
        let wanted =
            json!({"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
        let answer = ask(&driver, "/session", json!({"capabilities": {"alwaysMatch": wanted}})).await;
        let session = answer["sessionId"].as_str().expect("a session").to_owned();
        Self { driver, session, _driver: process, _chromium: chromium, _profile: profile }
    }

    /// Loads a page.
    pub async fn open(&self, url: &str) {
        self.ask("url", json!({"url": url})).await;
    }

    /// Runs a script in the page, the body of a function, and answers what it returns.
    pub async fn run(&self, script: &str) -> Value {
        self.ask("execute/sync", json!({"script": script, "args": []})).await
    }

    /// Runs a script until it returns something true; answers that.
    pub async fn until(&self, what: &str, script: &str) -> Value {
        let is_true = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
        wait::until(what, async || Some(self.run(script).await).filter(is_true)).await
    }

    /// Clicks on what a CSS selector finds, as a person would: it must be in sight.
    pub async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        self.ask(&format!("element/{element}/click"), json!({})).await;
    }

    /// Empties a field and types into it.
    pub async fn fill(&self, selector: &str, text: &str) {
        let element = self.find(selector).await;
        self.ask(&format!("element/{element}/clear"), json!({})).await;
        self.ask(&format!("element/{element}/value"), json!({"text": text})).await;
    }

    /// What has come into the browser's log since the last call: what scripts said, exceptions, violations of policies,
    /// requests that failed. Each has a `source` and a `message`.
    ///
    /// # Panics
    /// When the driver answers with something else.
    pub async fn log(&self) -> Vec<Value> {
        let log = self.ask("se/log", json!({"type": "browser"})).await;
        log.as_array().expect("a list").clone()
    }

    async fn find(&self, selector: &str) -> String {
        let found = self.ask("element", json!({"using": "css selector", "value": selector})).await;
        found[ELEMENT].as_str().unwrap_or_else(|| panic!("{selector}: {found}")).to_owned()
    }

    async fn ask(&self, command: &str, body: Value) -> Value {
        ask(&self.driver, &format!("/session/{}/{command}", self.session), body).await
    }
}

async fn ask(driver: &Http, path: &str, body: Value) -> Value {
    let answer = driver.post(path, body.to_string()).await;
    assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text());
    answer.json()["value"].take()
}
