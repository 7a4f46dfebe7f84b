//! What one client may have, and how often: refused in a form that it understands, and given back.

use serde_json::json;
use sluice_tests::{
    client::Client,
    cluster::connect,
    gateway::Gateway,
    token::{KEYS, claims, token},
};

async fn refused(gateway: &Gateway, headers: &[(&str, &str)], status: u16) {
    let answer = gateway.http.send("GET", "/events?channel=a", headers, "").await;
    answer.problem(status);
    let wait: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    let mut page = headers.to_vec();
    page.push(("accept", "text/event-stream"));
    let answer = gateway.http.send("GET", "/events?channel=a", &page, "").await;
    assert_eq!(answer.status, 200, "an EventSource would give up for ever");
    assert!(answer.text().starts_with("retry: "), "{}", answer.text());
}

#[tokio::test]
async fn an_address_and_a_subject_have_so_many_streams_and_no_more() {
    let gateway = Gateway::start("[limits]\nconnections_per_address = 5\n").await;
    let mut clients = connect(5, |_| async { gateway.subscribe(&["a"]).await }).await;
    refused(&gateway, &[], 429).await;
    gateway.wait_metric("sse_refused_total", &["reason=\"address\""], 2.0).await;
    gateway.publish("a", "x").await;
    for client in &clients {
        client.wait_data("x").await;
    }
    // Whatever ends makes room, and polls count like streams.
    clients.truncate(4);
    gateway.wait_metric("sse_connections_active", &[], 4.0).await;
    for _ in 0..10 {
        let poll = [("accept", "application/json")];
        assert_eq!(gateway.http.send("GET", "/events?channel=a&wait=1ms", &poll, "").await.status, 200);
    }
    clients.push(gateway.subscribe(&["a"]).await);
    clients[4].read(|log| assert_eq!(log.head().status, 200));
    refused(&gateway, &[], 429).await;

    let gateway = Gateway::start(&format!("[limits]\nconnections_per_subject = 2\n{KEYS}")).await;
    let bearer = |subject: &str| format!("Bearer {}", token(&claims(subject, json!({ "subscribe": ["*"] }))));
    let (ann, bob) = (bearer("ann"), bearer("bob"));
    let open = async |bearer: &str| Client::once(gateway.events(&["a"]).header("Authorization", bearer)).await;
    let anns = [open(&ann).await, open(&ann).await];
    refused(&gateway, &[("authorization", &ann)], 429).await;
    drop(open(&bob).await);
    drop(anns);
    gateway.wait_metric("sse_connections_active", &[], 0.0).await;
    open(&ann).await.read(|log| assert_eq!(log.head().status, 200));
}

#[tokio::test]
async fn rates_hold_with_their_bursts_for_each_by_itself() {
    let config = "[limits]\npublish_rate_per_channel = \"1/h burst 3\"\nconnect_rate_per_address = \"1/h burst 2\"\n";
    let gateway = Gateway::start(config).await;
    let publish = async |channel: &str| {
        let answer = gateway.http.post(&format!("/channels/{channel}/events"), "x").await;
        (answer.status, answer.header("retry-after").parse::<u64>().unwrap_or(0))
    };
    for channel in ["a", "b"] {
        for _ in 0..3 {
            assert_eq!(publish(channel).await.0, 200, "{channel}");
        }
        let (status, wait) = publish(channel).await;
        assert!(status == 429 && (3000..=3603).contains(&wait), "{status}, again in {wait} s");
    }
    let body = "{\"channel\":\"a\",\"data\":1}\n{\"channel\":\"c\",\"data\":1}\n";
    let answer = gateway.http.post("/events", body).await;
    assert_eq!(answer.status, 207, "{}", answer.text());
    let results = answer.json()["results"].clone();
    assert!(results[0]["problem"]["status"] == 429 && results[1]["position"].is_string(), "{results}");
    gateway.wait_metric("sse_publish_refused_total", &["reason=\"channel\""], 3.0).await;

    let streams = [gateway.subscribe(&["a"]).await, gateway.subscribe(&["a"]).await];
    let answer = gateway.http.get("/events?channel=a").await;
    answer.problem(429);
    gateway.wait_metric("sse_refused_total", &["reason=\"rate\""], 1.0).await;
    gateway.publish("d", "x").await;
    drop(streams);

    let keys = "[[auth.api_key]]\nname = \"one\"\nkey = \"0123456789abcdef-one\"\npublish = [\"*\"]\n\
                [[auth.api_key]]\nname = \"two\"\nkey = \"0123456789abcdef-two\"\npublish = [\"*\"]\n";
    let gateway = Gateway::start(&format!("[limits]\npublish_rate_per_subject = \"2/h\"\n{keys}")).await;
    for key in ["0123456789abcdef-one", "0123456789abcdef-two"] {
        let statuses =
            async || gateway.http.send("POST", "/channels/a/events", &[("x-api-key", key)], "x").await.status;
        assert_eq!([statuses().await, statuses().await, statuses().await], [200, 200, 429], "{key}");
    }
    let gateway = Gateway::start("[limits]\npublish_rate_per_address = \"2/h\"\n").await;
    let statuses = async || gateway.http.post("/channels/a/events", "x").await.status;
    assert_eq!([statuses().await, statuses().await, statuses().await], [200, 200, 429]);
}

#[tokio::test]
async fn at_the_limit_of_channels_only_those_that_are_here_are_joined() {
    // `$all` is one of them.
    let gateway = Gateway::start("[limits]\nchannels = 4\n").await;
    let first = gateway.subscribe(&["a", "b", "c"]).await;
    gateway.wait_metric("sse_channels_active", &[], 4.0).await;
    gateway.http.get("/events?channel=d").await.problem(503);
    gateway.http.get("/events?channel=a&channel=d").await.problem(503);
    let second = gateway.subscribe(&["a", "c"]).await;
    gateway.publish("c", "x").await;
    first.wait_data("x").await;
    second.wait_data("x").await;
    // Nor can one request ask for more than there is room for.
    let empty = Gateway::start("[limits]\nchannels = 4\n").await;
    let many = (0..10).map(|n| format!("channel=c{n}")).collect::<Vec<_>>().join("&");
    empty.http.get(&format!("/events?{many}")).await.problem(503);
    assert_eq!(empty.metric("sse_channels_active", &[]).await, 0.0);
}
