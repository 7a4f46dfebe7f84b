//! Clients that others wrote read the stream as ours does.

use eventsource_client::{Client as _, ClientBuilder, ReconnectOptions, SSE};
use futures_util::StreamExt;
use launchdarkly_sdk_transport::HyperTransport;
use sluice_tests::{cli::sluice_ok, gateway::Gateway, process::Process, process::directory, wait};
use std::{process::Command, time::Duration};

#[tokio::test]
async fn the_crate_eventsource_client_gets_events_types_ids_and_comments() {
    let gateway = Gateway::start("[stream]\nheartbeat = \"1s\"\n").await;
    let transport = HyperTransport::builder().disable_proxy().build_http().expect("a transport");
    let url = format!("http://{}/events?channel=news", gateway.address);
    let client = ClientBuilder::for_url(&url).expect("an address").build_with_transport(transport);
    let mut stream = client.stream();
    let (mut events, mut comments, mut published) = (Vec::new(), 0, false);
    while events.len() < 3 || comments == 0 {
        match wait::soon("the next item", stream.next()).await.expect("no end") {
            Ok(SSE::Connected(details)) => assert_eq!(details.response().status(), 200),
            Ok(SSE::Event(event)) => events.push((event.event_type, event.data, event.id)),
            Ok(SSE::Comment(_)) => comments += 1,
            Err(error) => panic!("{error}"),
        }
        // The first item says that the stream has begun.
        if !published {
            published = true;
            gateway.publish("news", "one\r\ntwo\n").await;
            gateway.http.post("/channels/news/events?event=update", "{\"n\":2}").await;
            gateway.publish("news", "").await;
        }
    }
    let seen: Vec<_> = events.iter().map(|(kind, data, _)| (kind.as_str(), data.as_str())).collect();
    assert_eq!(seen, [("message", "one\ntwo\n"), ("update", "{\"n\":2}"), ("message", "")]);
    let ids: std::collections::HashSet<_> = events.iter().map(|(_, _, id)| id.clone().expect("an id")).collect();
    assert_eq!(ids.len(), 3, "each event has its own: {ids:?}");
}

#[tokio::test]
async fn the_crate_eventsource_client_resumes_after_its_stream_was_closed() {
    let config = "[stream]\nmax_age = \"1s\"\nretry_min = \"50ms\"\nretry_max = \"100ms\"\n";
    let gateway = Gateway::start(config).await;
    let transport = HyperTransport::builder().disable_proxy().build_http().expect("a transport");
    let reconnect = ReconnectOptions::reconnect(true).delay(Duration::from_millis(50)).build();
    let url = format!("http://{}/events?channel=news", gateway.address);
    let client = ClientBuilder::for_url(&url).expect("an address").reconnect(reconnect).build_with_transport(transport);
    let mut stream = client.stream();
    let connected = tokio::sync::Notify::new();
    let publishing = async {
        wait::soon("it is connected", connected.notified()).await;
        for number in 1..=40 {
            gateway.publish("news", sluice_tests::check::payload("news", number)).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let reading = async {
        let (mut data, mut connects) = (Vec::new(), 0);
        while data.len() < 40 {
            match wait::soon("the next item", stream.next()).await.expect("no end") {
                Ok(SSE::Connected(_)) => {
                    connects += 1;
                    connected.notify_one();
                }
                Ok(SSE::Event(event)) => data.push(event.data),
                // The close is told as an error; the crate goes on by itself.
                Ok(SSE::Comment(_)) | Err(_) => {}
            }
        }
        (data, connects)
    };
    let ((), (data, connects)) = tokio::join!(publishing, reading);
    assert!(connects >= 3, "closed by max_age again and again, not {connects} times");
    let verdict = sluice_tests::check::once_and_in_order("news", data.iter().map(String::as_str), 1..=40);
    assert!(verdict.is_ok(), "{verdict:?}");
}

#[tokio::test]
async fn curl_shows_events_as_they_come() {
    let gateway = Gateway::start("").await;
    let directory = directory();
    let mut command = Command::new("curl");
    command.args(["-sN", "--noproxy", "*", &format!("http://{}/events?channel=news", gateway.address)]);
    let curl = Process::start("curl", &mut command, directory.path());
    wait::until("the first bytes", async || curl.stdout().starts_with("retry: ").then_some(())).await;
    gateway.publish("news", "Hello,\nworld").await;
    wait::until("the event", async || curl.stdout().contains("data: Hello,\ndata: world\n\n").then_some(())).await;
    gateway.publish("news", "again").await;
    wait::until("the next", async || curl.stdout().ends_with("data: again\n\n").then_some(())).await;
}

#[tokio::test]
async fn our_own_command_publishes_and_follows() {
    let gateway = Gateway::start("").await;
    let url = format!("http://{}", gateway.address);
    let tail = tokio::spawn({
        let url = url.clone();
        async move { sluice_ok(&["tail", "news", "--json", "--count", "2", "--timeout", "30s", "--url", &url]).await }
    });
    // The first bytes are sent when nothing that is published can be missed any more.
    let listens = async || (gateway.metric("sse_bytes_sent_total", &[]).await > 0.0).then_some(());
    wait::until("it listens", listens).await;
    sluice_ok(&["publish", "news", "one", "--url", &url]).await;
    sluice_ok(&["publish", "news", "two\nlines", "--event", "update", "--url", &url]).await;
    let printed = wait::soon("its end", tail).await.expect("no panic");
    let lines: Vec<serde_json::Value> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let seen: Vec<_> = lines.iter().map(|line| (&line["channel"], &line["event"], &line["data"])).collect();
    assert_eq!(
        seen,
        [(&"news".into(), &"message".into(), &"one".into()), (&"news".into(), &"update".into(), &"two\nlines".into())]
    );
}
