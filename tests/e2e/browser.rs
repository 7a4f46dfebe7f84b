//! A real browser: nothing but `new EventSource(url)` in a page of another origin, and the console.

use serde_json::Value;
use sluice_tests::{
    browser::Browser,
    check::payload,
    client,
    cluster::Cluster,
    gateway::{self, Gateway},
    http::Http,
    ports,
    process::{Process, directory},
    redis::Redis,
    wait,
};
use std::{net::SocketAddr, path::Path};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Time enough to publish while a browser waits, on a machine that is busy with other tests.
pub(super) const CONFIG: &str = "[stream]\nretry_min = \"3s\"\nretry_max = \"3s\"\n";

/// A page that notes all that its EventSource tells it.
const PAGE: &str = r#"<!doctype html><title>a page</title><link rel="icon" href="data:,"><script>
const told = { opens: 0, seen: [] };
const source = new EventSource("URL");
const note = (event) => told.seen.push({ type: event.type, data: event.data, id: event.lastEventId });
source.onopen = () => told.opens += 1;
source.onmessage = note;
for (const type of ["update", "gap"]) source.addEventListener(type, note);
</script>"#;

/// Serves the page from a port, and so an origin, of its own, for as long as the test runs.
async fn serve_page(events_url: &str) -> String {
    let listener = TcpListener::bind(ports::free()).await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let page = PAGE.replace("URL", events_url);
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
        page.len()
    );
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // A page's request is short and comes in one piece; a browser also opens connections that it never uses.
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                if matches!(stream.read(&mut head).await, Ok(1..)) {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    url
}

/// Opens the page in a browser of its own, once it listens.
async fn open_page(events: &client::Request) -> Browser {
    let url = format!("http://{}{}", events.address, events.target);
    open_page_of(&url, Browser::start().await).await
}

pub(super) async fn open_page_of(events_url: &str, browser: Browser) -> Browser {
    browser.open(&serve_page(events_url).await).await;
    browser.until("the stream is open", "return told.opens === 1").await;
    browser
}

pub(super) async fn seen(browser: &Browser, count: usize) -> Vec<Value> {
    let script = format!("return told.seen.length >= {count} && told.seen");
    browser.until(&format!("{count} events are seen"), &script).await.as_array().expect("a list").clone()
}

pub(super) fn data(seen: &[Value]) -> Vec<&str> {
    seen.iter().map(|event| event["data"].as_str().expect("text")).collect()
}

/// Kills the replica that has the browser's stream; answers another one.
async fn kill_its_replica(cluster: &mut Cluster) -> &Gateway {
    let mut holder = None;
    for (index, gateway) in cluster.gateways.iter().enumerate() {
        if gateway.connections().await == 1 {
            holder = Some(index);
        }
    }
    let holder = holder.expect("one replica has the stream");
    cluster.gateways[holder].process.kill();
    &cluster.gateways[1 - holder]
}

#[tokio::test]
async fn a_page_goes_on_exactly_where_it_was_when_its_replica_is_killed() {
    let mut cluster = Cluster::start(Redis::start().await, 2, CONFIG).await;
    let browser = open_page(&cluster.events(&["a", "b"])).await;
    let multi_line = "a 2\n\n two lines further, ä 語 🦀";
    cluster.gateways[0].publish("a", payload("a", 1)).await;
    seen(&browser, 1).await;
    cluster.gateways[1].publish("a", multi_line).await;
    seen(&browser, 2).await;
    cluster.nginx.http.post("/channels/b/events?event=update", payload("b", 1)).await;
    let before = seen(&browser, 3).await;
    assert_eq!(data(&before), ["a 1", multi_line, "b 1"]);
    let types: Vec<_> = before.iter().map(|event| event["type"].as_str().expect("text")).collect();
    assert_eq!(types, ["message", "message", "update"]);
    let ids: Vec<_> = before.iter().map(|event| event["id"].as_str().expect("text")).collect();
    assert!(!ids[0].is_empty() && ids[0] != ids[1] && ids[1] != ids[2], "lastEventId moves: {ids:?}");

    let other = kill_its_replica(&mut cluster).await;
    for number in 3..=5 {
        other.publish("a", payload("a", number)).await;
    }
    assert_eq!(browser.run("return told.opens").await, 1, "these were published while the page was away");
    browser.until("the stream is open again", "return told.opens === 2").await;
    other.publish("a", payload("a", 6)).await;
    let after = seen(&browser, 7).await;
    assert_eq!(data(&after), ["a 1", multi_line, "b 1", "a 3", "a 4", "a 5", "a 6"], "once, in order, without a gap");
}

#[tokio::test]
async fn a_page_that_had_received_nothing_yet_goes_on_too() {
    let mut cluster = Cluster::start(Redis::start().await, 2, CONFIG).await;
    // What was before is not the page's.
    cluster.gateways[0].publish("a", payload("a", 1)).await;
    let browser = open_page(&cluster.events(&["a", "never.used"])).await;
    let other = kill_its_replica(&mut cluster).await;
    other.publish("a", payload("a", 2)).await;
    other.publish("never.used", payload("never.used", 1)).await;
    assert_eq!(browser.run("return told.opens").await, 1, "these were published while the page was away");
    browser.until("the stream is open again", "return told.opens === 2").await;
    other.publish("a", payload("a", 3)).await;
    let after = seen(&browser, 3).await;
    let mut first = data(&after)[..2].to_vec();
    // Between channels there is no order.
    first.sort_unstable();
    assert_eq!((first, data(&after)[2]), (vec!["a 2", "never.used 1"], "a 3"), "neither lost, nor from the start");
}

/// A gateway with the embedded broker that can be started again where it was.
async fn serve(public: SocketAddr, admin: SocketAddr, directory: &Path) -> Process {
    let args = ["--listen", &public.to_string(), "--admin-listen", &admin.to_string()].map(str::to_owned);
    let mut command = gateway::command(&args.each_ref().map(String::as_str));
    let process = Process::start("gateway", &mut command, directory);
    let http = Http::new(admin);
    let ready = async || http.try_send("GET", "/readyz", &[], "").await.ok().filter(|answer| answer.status == 200);
    wait::until("the gateway is ready", ready).await;
    process
}

async fn wait_state(browser: &Browser, state: &str) {
    let script = format!(
        "return document.getElementById('state').dataset.state === '{state}' \
         && document.getElementById('state-word').textContent === '{state}'"
    );
    browser.until(&format!("the console shows {state}"), &script).await;
}

/// Waits for a row of the console's list; the type is left out for `message`.
async fn wait_row(browser: &Browser, channel: &str, event_type: &str, data: &str) {
    let wanted = serde_json::json!([channel, event_type, data]);
    let script = format!(
        "const text = (row, part) => row.querySelector(part).textContent;\n\
         return [...document.querySelectorAll('#events .event')].some((row) => \
         JSON.stringify(['.channel', '.type', '.data'].map((part) => text(row, part))) === JSON.stringify({wanted}))"
    );
    browser.until(&format!("the console lists {wanted}"), &script).await;
}

#[tokio::test]
async fn the_console_shows_what_comes_as_text_and_how_its_stream_is() {
    const HOSTILE: &str =
        "<img src=x onerror=\"document.title='broken into'\"></pre><script>document.title='too'</script>";
    let (directory, public, admin) = (directory(), ports::free(), ports::free());
    let mut gateway = serve(public, admin, directory.path()).await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{public}/")).await;
    browser.fill("#channels", "orders.eu, news").await;
    browser.click("#connect").await;
    wait_state(&browser, "open").await;

    browser.fill("#data", HOSTILE).await;
    browser.click("#publish [type=submit]").await;
    wait_row(&browser, "orders.eu", "message", HOSTILE).await;
    Http::new(public).post("/channels/news/events?event=update", HOSTILE).await;
    wait_row(&browser, "news", "update", HOSTILE).await;
    let inside = "return document.querySelectorAll('#events img, #events script').length + ' ' + document.title";
    assert_eq!(browser.run(inside).await, "0 Sluice console", "an event is text, whatever is in it");
    assert_eq!(browser.log().await, Vec::<Value>::new(), "no exception, no violation of the page's policy");

    gateway.kill();
    wait_state(&browser, "reconnecting").await;
    let _gateway = serve(public, admin, directory.path()).await;
    wait_state(&browser, "open").await;
    Http::new(public).post("/channels/news/events", "after").await;
    wait_row(&browser, "news", "message", "after").await;
    // Requests that found no gateway are all that may be there.
    let log = browser.log().await;
    assert!(log.iter().all(|entry| entry["source"] == "network"), "{log:?}");
    // What the checks above rest on: were it in the page as HTML, the log would tell.
    browser.run("document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"1\">')").await;
    let told = async || browser.log().await.iter().any(|entry| entry.to_string().contains("Content Security Policy"));
    wait::until("the browser tells of a violation", async || told().await.then_some(())).await;
}
