//! A real browser asks for compressed streams by itself, and needs nothing else for them.

use crate::browser::{CONFIG, data, open_page_of, seen};
use sluice_tests::{browser::Browser, cluster::Cluster, redis::Redis, wait};

/// A browser takes zstd from secure origins alone. 127.0.0.1 counts as one, this name does not.
const NAME: &str = "gateway.test";

/// The replica that has the browser's stream, once one has it.
async fn holder(cluster: &Cluster, encoding: &str) -> usize {
    let label = format!("encoding=\"{encoding}\"");
    let holds = async || {
        for (nth, gateway) in cluster.gateways.iter().enumerate() {
            let is_up = gateway.ready().await == Some(200);
            if is_up && gateway.metric("sse_compressed_connections_active", &[&label]).await == 1.0 {
                return Some(nth);
            }
        }
        None
    };
    wait::until(&format!("a replica has a stream with {encoding}"), holds).await
}

/// Orders, one after the other, each seen before the next is published.
async fn publish(cluster: &Cluster, browser: &Browser, published: &mut Vec<String>, count: usize) {
    for _ in 0..count {
        let order = format!("{{\"order\":{},\"symbol\":\"ACME\",\"text\":\"ä 語 🦀\"}}", published.len());
        cluster.nginx.http.post("/channels/a/events", order.clone()).await;
        published.push(order);
        seen(browser, published.len()).await;
    }
}

async fn goes_on_exactly(host: &str, encoding: &str) {
    let config = format!("{CONFIG}[drain]\ndelay = \"0s\"\nwindow = \"0s\"\n");
    let mut cluster = Cluster::start(Redis::start().await, 3, &config).await;
    let resolves = format!("--host-resolver-rules=MAP {NAME} 127.0.0.1");
    let browser = Browser::start_with(&[&resolves]).await;
    let url = format!("http://{host}:{}/events?channel=a", cluster.nginx.address.port());
    let browser = open_page_of(&url, browser).await;
    let mut published = Vec::new();
    publish(&cluster, &browser, &mut published, 50).await;

    for round in 0..2 {
        let holder = holder(&cluster, encoding).await;
        let process = &mut cluster.gateways[holder].process;
        if round == 0 {
            // It ends as it should ...
            process.signal(rustix::process::Signal::TERM);
            process.end(wait::PATIENCE).await;
        } else {
            // ... and in the middle.
            process.kill();
        }
        for _ in 0..3 {
            let order = format!("published while the page was away, {round}.{}", published.len());
            cluster.nginx.http.post("/channels/a/events", order.clone()).await;
            published.push(order);
        }
        let opens = round + 2;
        browser.until("the stream is open again", &format!("return told.opens === {opens}")).await;
        publish(&cluster, &browser, &mut published, 50).await;
    }
    let seen = seen(&browser, published.len()).await;
    assert_eq!(data(&seen), published, "once, in order, without a gap");
    holder(&cluster, encoding).await;
}

#[tokio::test]
async fn a_page_with_gzip_goes_on_exactly_when_its_stream_ends_and_when_it_breaks() {
    goes_on_exactly(NAME, "gzip").await;
}

#[tokio::test]
async fn a_page_with_zstd_goes_on_exactly_when_its_stream_ends_and_when_it_breaks() {
    goes_on_exactly("127.0.0.1", "zstd").await;
}
