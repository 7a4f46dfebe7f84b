//! A real Prometheus on real gateways: everything that the dashboard shows and the alerts go by is there, nothing fires
//! while all is well, and what must fire does.

use sluice_tests::{
    client::Client,
    cluster::Cluster,
    dashboard::{dashboard, expressions, filled, variables},
    gateway::{Gateway, Options},
    numbered::cursor,
    prometheus::{JOB, Prometheus, alerts, names},
    redis::Redis,
    tls::{Authority, SERVED},
    wait,
};
use std::{collections::BTreeSet, time::Duration};
use tokio::task::JoinSet;

const REPLICAS: usize = 3;
/// Little is kept in memory, so that history is read.
const CONFIG: &str = "[stream]\nretry_min = \"100ms\"\nretry_max = \"300ms\"\n[hub]\ntail_bytes = \"1KiB\"\n\
                      [[channel]]\nmatch = \"live\"\nhistory = \"off\"\n";
/// Between one of a kind of traffic and the next.
const PACE: Duration = Duration::from_millis(50);
/// How many cursors a client makes up: enough to pass for a loss, if they counted as one.
const MADE_UP: u32 = 40;
/// What the clients listen to.
const CHANNELS: [&str; 3] = ["a", "live", "outbox"];

/// Clients of every kind, on every replica, and publishers of every kind; as long as this lives.
struct Traffic {
    _clients: Vec<Client>,
    _publishers: JoinSet<()>,
}

impl Traffic {
    async fn start(cluster: &Cluster) -> Self {
        let mut clients = Vec::new();
        for gateway in &cluster.gateways {
            for encoding in ["gzip", "zstd", "identity"] {
                clients.push(Client::event_source(gateway.events(&CHANNELS).encoded(encoding)).await);
            }
            let lines = gateway.events(&["a"]).header("Accept", "application/x-ndjson");
            clients.push(Client::once(lines).await);
            // Refused, so that the problems have a series.
            gateway.http.get("/nothing").await.problem(404);
        }
        let mut publishers = JoinSet::new();
        for gateway in &cluster.gateways {
            let (http, again) = (gateway.http.clone(), gateway.events(&["a"]).header("Last-Event-ID", "made-up"));
            publishers.spawn(async move {
                loop {
                    http.post("/channels/a/events", "one").await;
                    let two = r#"[{"channel":"a","data":"two"},{"channel":"live","data":"two"}]"#;
                    http.post("/events", two).await;
                    // One that was away, and one that made its cursor up.
                    http.send("GET", "/events?channel=a&since=earliest", &[("Accept", "application/json")], "").await;
                    drop(Client::once(again.clone()).await);
                    tokio::time::sleep(PACE).await;
                }
            });
        }
        let mut redis = cluster.redis.connection().await;
        publishers.spawn(async move {
            loop {
                let mut pipe = redis::pipe();
                pipe.cmd("PUBLISH").arg("sluice:live").arg("raw").ignore();
                pipe.cmd("XADD")
                    .arg("sluice:intake")
                    .arg("*")
                    .arg("channel")
                    .arg("outbox")
                    .arg("data")
                    .arg("x")
                    .ignore();
                // Nobody answers once the test has ended it.
                let _: Result<(), _> = pipe.query_async(&mut redis).await;
                tokio::time::sleep(PACE).await;
            }
        });
        Self { _clients: clients, _publishers: publishers }
    }
}

/// One more replica, with TLS, which the others leave to nginx.
async fn secure(cluster: &Cluster) -> Gateway {
    let authority = Authority::new();
    let options =
        Options { config: format!("{CONFIG}{SERVED}"), redis: Some(cluster.redis.url()), ..Options::default() };
    Gateway::start_beside(options, |directory| authority.server().write(directory)).await
}

/// A client makes up cursors, of places that no history here has come to. Answers once it was told of every one.
async fn make_cursors_up(gateway: &Gateway) {
    let honest = cursor(&gateway.subscribe(&["a"]).await);
    let (key, _) = honest.split_once('.').expect("a component");
    let mut clients = Vec::new();
    for nth in 1..=MADE_UP {
        clients.push(Client::once(gateway.events(&["a"]).header("Last-Event-ID", &format!("{key}.{nth}-zzzzz"))).await);
    }
    for client in &clients {
        client.wait("a gap", |log| log.events.iter().any(|event| event.event == "gap")).await;
    }
}

/// Waits until this alert waits to fire, for at least so much.
async fn wait_pending(prometheus: &Prometheus, name: &str, least: f64) {
    wait::until(&format!("{name} is pending"), async || {
        let alerts = prometheus.alerts().await;
        let rule = alerts.iter().find(|alert| alert["name"] == name)?;
        let pending = rule["alerts"].as_array()?.iter().filter(|alert| alert["state"] == "pending");
        let value = pending.filter_map(|alert| alert["value"].as_str()?.parse::<f64>().ok()).next()?;
        (value >= least).then_some(())
    })
    .await;
}

/// The names in `/metrics`, those of a histogram's parts among them.
async fn shown(gateway: &Gateway) -> BTreeSet<String> {
    let text = gateway.admin.get("/metrics").await.text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// The alternatives of an alert's expression, as Prometheus prints it, each as a question that has an answer whether
/// or not it fires: comparisons answer 0 or 1, and what must not be there is asked for instead.
fn answerable(expression: &str) -> Vec<String> {
    let mut text = expression.replace(" unless ", " and ").replace("absent(", "count(");
    for comparison in ["==", "!=", "<", "<=", ">", ">="] {
        text = text.replace(&format!(" {comparison} "), &format!(" {comparison} bool "));
    }
    let (mut depth, mut from, mut parts) = (0_i32, 0, Vec::new());
    for (at, c) in text.char_indices() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if depth == 0 && text[at..].starts_with(" or ") {
            parts.push(text[from..at].to_owned());
            from = at + " or ".len();
        }
    }
    parts.push(text[from..].to_owned());
    parts
}

/// Waits until these alerts fire; no other may.
async fn wait_firing(prometheus: &Prometheus, wanted: &[&str]) {
    wait::until(&format!("{wanted:?} fire"), async || {
        let mut firing = prometheus.firing().await;
        firing.sort();
        let others: Vec<_> = firing.iter().filter(|name| !wanted.contains(&&***name)).collect();
        assert!(others.is_empty(), "{others:?} fire too");
        (firing == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_expression_of_the_dashboard_and_the_alerts_has_data_and_what_must_fire_does() {
    let cluster = Cluster::start(Redis::start().await, REPLICAS, CONFIG).await;
    let secure = secure(&cluster).await;
    let gateways: Vec<_> = cluster.gateways.iter().chain([&secure]).collect();
    let targets: Vec<_> = gateways.iter().map(|gateway| gateway.admin_address).collect();
    let prometheus = Prometheus::start(&targets).await;
    let traffic = Traffic::start(&cluster).await;
    wait::until("all are scraped", async || {
        let up = prometheus.query(&format!("up{{job=\"{JOB}\"}} == 1")).await.expect("an answer");
        (up.len() == targets.len()).then_some(())
    })
    .await;

    let exist = shown(gateways[0]).await;
    let panels = expressions(&dashboard());
    assert!(panels.len() > 60, "{}", panels.len());
    for (title, expression) in &panels {
        for metric in names(expression) {
            assert!(exist.contains(metric), "{title} goes by {metric}, which no gateway has");
        }
        prometheus.wait_data(title, &filled(expression)).await;
    }
    for (name, query) in variables(&dashboard()) {
        let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).expect("label values");
        let (selector, label) = inside.rsplit_once(", ").expect("a label");
        // Outside Kubernetes nothing has one, and its "All" fits what has none.
        if label != "namespace" {
            let values = format!("count by ({label}) ({}) and on ({label}) up{{{label}!=\"\"}}", filled(selector));
            prometheus.wait_data(&name, &values).await;
        }
    }

    let parsed = prometheus.alerts().await;
    assert_eq!(parsed.len(), alerts().len(), "all alerts are in force");
    for alert in &parsed {
        let (name, expression) = (alert["name"].as_str().expect("a name"), alert["query"].as_str().expect("a query"));
        for metric in names(expression) {
            assert!(exist.contains(metric), "{name} goes by {metric}, which no gateway has");
        }
        for question in answerable(expression) {
            prometheus.wait_data(name, &question).await;
        }
    }
    wait::until("every alert was evaluated", async || {
        let alerts = prometheus.alerts().await;
        alerts.iter().all(|alert| alert["health"] == "ok").then_some(())
    })
    .await;
    assert_eq!(prometheus.firing().await, Vec::<String>::new(), "all is well");

    // What needs no time to be sure of: an entry that is no event, and a Redis that has lost everything. Cursors that a
    // client makes up are not that.
    cluster.redis.run::<String>(&["XADD", "sluice:intake", "*", "neither", "nor"]).await;
    wait_firing(&prometheus, &["SluiceIntakeRejected"]).await;
    make_cursors_up(&cluster.gateways[0]).await;
    wait_pending(&prometheus, "SluiceHistoryLostInPart", f64::from(MADE_UP)).await;
    wait_firing(&prometheus, &["SluiceIntakeRejected"]).await;
    cluster.redis.run::<String>(&["FLUSHALL"]).await;
    wait_firing(&prometheus, &["SluiceHistoryLost", "SluiceIntakeRejected"]).await;
    drop(traffic);
}

#[test]
fn a_question_is_asked_in_place_of_each_alternative() {
    let asked = answerable("max by (job) (sse_ready) == 0 or max(sse_a or sse_b) unless on (job) sse_ready");
    assert_eq!(asked, ["max by (job) (sse_ready) == bool 0", "max(sse_a or sse_b) and on (job) sse_ready"]);
    assert_eq!(answerable("absent(sse_build_info)"), ["count(sse_build_info)"]);
}
