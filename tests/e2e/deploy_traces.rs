//! Traces: publishing and connecting as an operator sees them, from the publisher's span to the subscriber.

use sluice_tests::{
    client::Client,
    cluster::Cluster,
    collector::{Collector, Span},
    gateway::{Gateway, Options},
    redis::Redis,
    wait,
};
use std::collections::BTreeSet;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PUBLISHER: &str = "b7ad6b7169203331";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PUBLISHER}-{flags}")
}

fn traced(collector: &Collector, more: &str) -> String {
    format!("[traces]\notlp = \"http://{}\"\n{more}", collector.address)
}

fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
}

#[tokio::test]
async fn a_publishers_trace_goes_on_to_every_replica_and_to_subscribers() {
    let collector = Collector::start().await;
    let cluster = Cluster::start(Redis::start().await, 3, &traced(&collector, "one_in = 1000000000\n")).await;
    for channel in ["orders", "live.orders"] {
        let mut clients = Vec::new();
        for gateway in &cluster.gateways {
            let request = sluice_tests::client::Request::new(
                gateway.address,
                &format!("/events?channel={channel}&envelope=1&hello=1"),
            );
            let client = Client::once(request).await;
            client.wait("the greeting", |log| log.events.iter().any(|event| event.event == "connected")).await;
            clients.push(client);
        }
        let path = format!("/channels/{channel}/events?event=created");
        let http = &cluster.gateways[0].http;
        assert_eq!(http.send("POST", &path, &[("traceparent", &traceparent("01"))], "x").await.status, 200);

        let of = |span: &Span| span.trace == TRACE && span.attributes.values().any(|value| value == channel);
        let delivered = collector.wait("three deliveries", 3, |span| of(span) && span.name == "deliver").await;
        let sent = collector.wait("the sending", 1, |span| of(span) && span.name == "send").await;
        let server = collector.wait("the request", 1, |span| span.id == sent[0].parent).await;
        assert_eq!((server[0].parent.as_str(), server[0].kind), (PUBLISHER, 2), "{server:#?}");
        assert_eq!(server[0].name, "POST /channels/{channel}/events");
        for (name, value) in [
            ("http.request.method", "POST"),
            ("http.route", "/channels/{channel}/events"),
            ("http.response.status_code", "200"),
        ] {
            assert_eq!(server[0].attributes.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!(sent[0].kind, 4);
        assert!(delivered.iter().all(|span| span.parent == sent[0].id && span.kind == 5), "{delivered:#?}");
        let replicas: BTreeSet<_> = delivered.iter().map(|span| &span.resource["service.instance.id"]).collect();
        assert_eq!(replicas.len(), 3, "each replica says so itself");
        assert!(delivered.iter().all(|span| span.resource["service.name"] == "sluice"));

        let expected = format!("00-{TRACE}-{}-01", sent[0].id);
        for client in &clients {
            let with = |data: &str| {
                serde_json::from_str::<serde_json::Value>(data).unwrap_or_default()["traceparent"] == *expected
            };
            client.wait("the event with its trace", |log| log.data().any(with)).await;
        }
    }
    // Whoever comes later finds it in the history.
    let request = sluice_tests::client::Request::new(
        cluster.gateways[2].address,
        "/events?channel=orders&since=earliest&envelope=1",
    );
    let late = Client::once(request.header("Accept", "application/x-ndjson").keeping_body()).await;
    late.wait("the event from history", |log| log.text().contains(&format!("\"traceparent\":\"00-{TRACE}-"))).await;
}

#[tokio::test]
async fn connecting_is_a_span_until_the_stream_has_begun_with_what_was_asked_for() {
    let collector = Collector::start().await;
    let gateway =
        Gateway::start(&traced(&collector, "one_in = 1\nservice = \"events\"\n[limits]\nconnections = 2\n")).await;
    let first = Client::once(gateway.events(&["a", "b"]).header("traceparent", &traceparent("01"))).await;
    gateway.publish("a", "x").await;
    first.wait_data("x").await;
    let id = first.read(|log| log.last_event_id.clone());
    let _second = Client::once(gateway.events(&["a"]).header("Last-Event-ID", &id)).await;
    let refused = Client::once(gateway.events(&["a"]).header("Sluice-Refuse-With", "503")).await;
    refused.wait_end().await;

    let spans = collector.wait("three of them", 3, |span| span.name == "GET /events").await;
    let with = |name: &str, value: &str| {
        let found = spans.iter().find(|span| span.attributes.get(name).is_some_and(|found| found == value));
        found.unwrap_or_else(|| panic!("{name} = {value} in {spans:#?}"))
    };
    // With `$all`, which every stream has.
    let traced = with("sluice.channels", "3");
    assert_eq!((traced.trace.as_str(), traced.parent.as_str()), (TRACE, PUBLISHER));
    assert_eq!(traced.attributes["http.response.status_code"], "200");
    let resumed = with("sluice.resumes", "true");
    assert!(resumed.parent.is_empty() && resumed.trace != TRACE, "a trace of its own: {resumed:#?}");
    assert!(with("http.response.status_code", "503").is_error);
    assert_eq!(traced.resource["service.name"], "events");
    // Their ends do not wait for those of the streams.
    assert_eq!(gateway.metric("sse_connections_active", &[]).await, 2.0);
    assert!(gateway.metric("sse_trace_exports_total", &["result=\"ok\""]).await > 0.0);
}

#[tokio::test]
async fn what_nobody_keeps_is_not_sent_and_what_is_no_trace_is_ignored() {
    let collector = Collector::start().await;
    let gateway = Gateway::start(&traced(&collector, "one_in = 1000000000\n")).await;
    let client = Client::once(gateway.events(&["a"]).header("Accept", "application/x-ndjson").keeping_body()).await;
    let wrong = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
    for header in [&traceparent("00"), wrong, "nonsense", ""] {
        let answer = gateway.http.send("POST", "/channels/a/events", &[("traceparent", header)], "x").await;
        assert_eq!(answer.status, 200, "{header}");
    }
    let last = gateway.http.send("POST", "/channels/a/events", &[("traceparent", &traceparent("01"))], "last").await;
    assert_eq!(last.status, 200);
    client.wait("all of them", |log| log.text().contains("last")).await;
    let text = client.read(|log| log.text());
    assert_eq!(text.matches("traceparent").count(), 1, "{text}");
    let spans = collector.wait("the last one's spans", 3, |span| span.trace == TRACE).await;
    assert_eq!(collector.spans().len(), spans.len(), "and no others: {spans:#?}");
}

#[tokio::test]
async fn without_a_collector_a_kept_trace_is_carried_all_the_same() {
    let gateway = Gateway::start("").await;
    let client = Client::once(gateway.events(&["a"]).header("Accept", "application/x-ndjson").keeping_body()).await;
    let batch = r#"[{"channel":"a","data":"one"},{"channel":"a","data":"two"}]"#;
    assert_eq!(gateway.http.send("POST", "/events", &[("traceparent", &traceparent("01"))], batch).await.status, 200);
    client.wait("both", |log| log.text().contains("two")).await;
    let text = client.read(|log| log.text());
    assert_eq!(text.matches(&format!("\"traceparent\":\"{}\"", traceparent("01"))).count(), 2, "{text}");
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let gateway = Gateway::start_with(Options {
        config: format!("[traces]\notlp = \"http://{}\"\none_in = 1\n", sluice_tests::ports::free()),
        env: vec![("OTEL_EXPORTER_OTLP_HEADERS".to_owned(), "authorization=Bearer%20s3cret".to_owned())],
        ..Options::default()
    })
    .await;
    let client = gateway.subscribe(&["a"]).await;
    gateway.publish("a", "x").await;
    client.wait_data("x").await;
    wait::until("failures are counted", async || {
        (gateway.metric("sse_trace_exports_total", &["result=\"failed\""]).await > 0.0).then_some(())
    })
    .await;
    let log = gateway.process.stderr();
    assert!(log.contains("spans cannot be sent"), "{log}");
    let config = gateway.admin.get("/config").await.text();
    assert!(!log.contains("s3cret") && !config.contains("s3cret"));
}

#[tokio::test]
async fn a_collector_gets_the_headers_that_it_wants_and_the_last_spans_before_the_end() {
    let collector = Collector::start().await;
    let mut gateway = Gateway::start_with(Options {
        config: traced(&collector, "one_in = 1\n[drain]\ndelay = \"0s\"\nwindow = \"0s\"\n"),
        env: vec![("OTEL_EXPORTER_OTLP_HEADERS".to_owned(), "authorization=Bearer%20s3cret".to_owned())],
        ..Options::default()
    })
    .await;
    gateway.publish("a", "x").await;
    gateway.process.signal(rustix::process::Signal::TERM);
    assert_eq!(gateway.process.end(wait::PATIENCE).await.code(), Some(0));
    let spans = collector.spans();
    assert_eq!(one(&spans, "send").parent, one(&spans, "POST /channels/{channel}/events").id);
    for (path, headers) in collector.requests() {
        assert_eq!((path.as_str(), headers["authorization"].as_str()), ("/v1/traces", "Bearer s3cret"));
    }
}
