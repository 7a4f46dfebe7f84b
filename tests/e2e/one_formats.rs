//! The forms of a stream: a greeting, data that names its channel, NDJSON.

use serde_json::{Value, json};
use sluice_tests::{client::Client, gateway::Gateway};

#[tokio::test]
async fn a_greeting_names_the_connection_and_its_channels() {
    let gateway = Gateway::start("").await;
    let mut request = gateway.events(&["a", "b"]);
    request.target.push_str("&hello=1");
    let client = Client::once(request.clone()).await;
    let other = Client::once(request).await;
    client.wait_events(1).await;
    other.wait_events(1).await;
    let greeting = |client: &Client| -> Value {
        let event = client.read(|log| log.events[0].clone());
        assert_eq!(event.event, "connected");
        serde_json::from_str(&event.data).expect("JSON")
    };
    let (hello, others) = (greeting(&client), greeting(&other));
    assert_eq!((&hello["channels"], &hello["subject"]), (&json!(["a", "b"]), &Value::Null));
    assert_ne!(hello["id"], others["id"]);

    let id = hello["id"].as_str().expect("an id");
    gateway.publish(&format!("$conn.{id}"), "to you alone").await;
    client.wait_data("to you alone").await;
    gateway.publish("a", "to both").await;
    client.wait_data("to both").await;
    other.wait_data("to both").await;
    assert_eq!(
        (client.data()[1..].join("|"), other.data()[1..].join("|")),
        ("to you alone|to both".into(), "to both".into())
    );
}

#[tokio::test]
async fn with_an_envelope_the_data_names_its_channel() {
    let gateway = Gateway::start("").await;
    let mut request = gateway.events(&["a", "b"]);
    request.target.push_str("&envelope=1");
    let client = Client::once(request).await;
    gateway.publish("a", "one\r\ntwo").await;
    client.wait_events(1).await;
    gateway.http.post("/channels/b/events?event=update", "\"quoted\"").await;
    client.wait_events(2).await;
    let envelopes: Vec<Value> =
        client.data().iter().map(|data| serde_json::from_str(data).expect("JSON in one line")).collect();
    assert_eq!((&envelopes[0]["channel"], &envelopes[0]["data"]), (&json!("a"), &json!("one\r\ntwo")));
    assert_eq!((&envelopes[1]["channel"], &envelopes[1]["data"]), (&json!("b"), &json!("\"quoted\"")));
    assert_eq!(client.read(|log| log.events[1].event.clone()), "update", "the type stays where clients look for it");
}

#[tokio::test]
async fn as_ndjson_each_event_is_a_line_and_heartbeats_are_none() {
    let gateway = Gateway::start("[stream]\nheartbeat = \"1s\"\n").await;
    let request = gateway.events(&["a", "b"]).header("Accept", "application/x-ndjson").keeping_body();
    let client = Client::once(request).await;
    client.read(|log| {
        assert_eq!(log.head().status, 200);
        assert_eq!(log.head().header("content-type").as_deref(), Some("application/x-ndjson"));
        assert_eq!(log.head().header("cache-control").as_deref(), Some("no-store, no-transform"));
    });
    gateway.publish("a", "one\ntwo").await;
    client.wait("the first line", |log| log.text().contains("one")).await;
    let after_first = client.read(|log| log.body.len());
    client.wait("two heartbeats", |log| log.body.len() >= after_first + 2).await;
    gateway.http.post("/channels/b/events?event=update", "2").await;
    client.wait("the second line", |log| log.text().contains("\"2\"")).await;
    gateway.http.post("/broadcast", "3").await;
    client.wait("the last line", |log| log.text().contains("\"3\"")).await;

    let body = client.read(|log| log.text());
    let lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).expect("JSON in each line")).collect();
    assert_eq!(lines.len(), 3, "{body:?}");
    for (line, (channel, event, data)) in
        lines.iter().zip([("a", "message", "one\ntwo"), ("b", "update", "2"), ("$all", "message", "3")])
    {
        assert_eq!((&line["channel"], &line["event"], &line["data"]), (&json!(channel), &json!(event), &json!(data)));
        let keys: Vec<_> = line.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys.len(), 4, "{keys:?}");
        assert_eq!(line["id"].is_string(), channel != "$all", "{line}");
    }
}
