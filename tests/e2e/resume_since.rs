//! `since=` asks for history where there is no cursor.

use sluice_tests::{
    client::{Client, Request},
    cluster::Cluster,
    gateway::{Gateway, Options},
    numbered::{assert_saw, cursor, publish, wait_number},
    proxy::{Cut, Proxy},
    redis::Redis,
    wait,
};
use std::net::SocketAddr;

const CONFIG: &str = "[stream]\nretry_min = \"50ms\"\nretry_max = \"100ms\"\n";
/// Little in memory, so that history is read.
const LONG: &str = "[hub]\ntail_bytes = \"1KiB\"\n[[channel]]\nmatch = \"*\"\nhistory = { size = 20000 }\n";

async fn since(address: SocketAddr, since: &str) -> Client {
    Client::once(Request::new(address, &format!("/events?channel=a&since={since}"))).await
}

/// Each form on this gateway, which has published nothing yet.
async fn every_form(gateway: &Gateway, publisher: &Gateway) {
    publish(&publisher.http, "a", 1..=4).await;
    let fifth = publisher.publish("a", "a 5").await;
    publish(&publisher.http, "a", 6..=9).await;
    let at: u64 = fifth["position"].as_str().and_then(|text| text.split('-').next()?.parse().ok()).expect("a position");
    let (at, second_before) = (at.to_string(), (at / 1_000_000 - 1).to_string());
    let cases = [
        ("10m", 1),
        ("1d", 1),
        ("earliest", 1),
        ("last:1", 9),
        ("last:3", 7),
        ("last:1000", 1),
        (&*at, 5),
        ("2020-01-31T12:00:00Z", 1),
        ("2020-01-31T13:00:00%2B01:00", 1),
    ];
    let mut clients = Vec::new();
    for (form, first) in cases {
        clients.push((form, first, since(gateway.address, form).await));
    }
    let recent = since(gateway.address, &second_before).await;
    let future = since(gateway.address, "2100-01-01T00:00:00Z").await;
    publish(&publisher.http, "a", 10..=10).await;
    for (form, first, client) in &clients {
        wait_number(client, "a", 10).await;
        assert_saw(form, client, "a", *first..=10, &[]);
    }
    wait_number(&recent, "a", 10).await;
    recent.read(|log| assert!(log.events.len() >= 6, "a second before the fifth: {:?}", log.events));
    wait_number(&future, "a", 10).await;
    assert_saw("a time to come", &future, "a", 10..=10, &[]);
}

#[tokio::test]
async fn all_forms_with_the_embedded_broker() {
    let gateway = Gateway::start(CONFIG).await;
    every_form(&gateway, &gateway).await;
}

#[tokio::test]
async fn all_forms_with_redis_on_a_replica_that_was_not_there_when_it_was_published() {
    let redis = Redis::start().await;
    let options = Options { config: CONFIG.to_owned(), redis: Some(redis.url()), ..Options::default() };
    let (gateway, publisher) = (Gateway::start_with(options.clone()).await, Gateway::start_with(options).await);
    every_form(&gateway, &publisher).await;
}

#[tokio::test]
async fn a_cursor_wins_over_since() {
    let gateway = Gateway::start(CONFIG).await;
    publish(&gateway.http, "a", 1..=5).await;
    let client = since(gateway.address, "earliest").await;
    wait_number(&client, "a", 5).await;
    let (before, after) = (client.read(|log| log.events[1].id.to_string()), cursor(&client));
    let target = "/events?channel=a&since=earliest";
    let resumed = Client::once(Request::new(gateway.address, target).header("Last-Event-ID", &after)).await;
    let early =
        Client::once(Request::new(gateway.address, "/events?channel=a&since=last:1").header("Last-Event-ID", &before))
            .await;
    publish(&gateway.http, "a", 6..=6).await;
    wait_number(&resumed, "a", 6).await;
    assert_saw("with a cursor", &resumed, "a", 6..=6, &[]);
    wait_number(&early, "a", 6).await;
    assert_saw("with an earlier one", &early, "a", 3..=6, &[]);
}

#[tokio::test]
async fn an_event_source_with_since_that_is_cut_again_and_again_sees_everything_once() {
    let cluster = Cluster::start(Redis::start().await, 2, &format!("{CONFIG}{LONG}")).await;
    publish(&cluster.gateways[0].http, "a", 1..=3000).await;
    let proxy = Proxy::start(cluster.nginx.address).await;
    let client = Client::event_source(Request::new(proxy.address, "/events?channel=a&since=earliest")).await;
    for cut in 0..8 {
        publish(&cluster.gateways[1].http, "a", 3001 + cut * 10..=3010 + cut * 10).await;
        // Between two connections there is nothing to cut.
        let again = async || {
            proxy.cut_all(if cut % 2 == 0 { Cut::Reset } else { Cut::Close });
            client.read(|log| log.ends.len() as u64 > cut).then_some(())
        };
        wait::until("it is cut", again).await;
    }
    wait_number(&client, "a", 3080).await;
    assert_saw("the client", &client, "a", 1..=3080, &[]);
    client.read(|log| assert!(log.heads.len() > 4, "it came back often: {}", log.heads.len()));
}
