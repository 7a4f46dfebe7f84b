//! Rules: what anyone may do, and that nothing else is allowed once there is a key.

use serde_json::json;
use sluice_tests::{
    client::Client,
    gateway::{Gateway, Options},
    token::{KEYS, claims, token},
};

const RULES: &str = "[[channel]]\nmatch = \"public.*\"\nread = \"anyone\"\n\
                     [[channel]]\nmatch = \"inbox.*\"\npublish = \"anyone\"\n";

#[tokio::test]
async fn nothing_is_allowed_but_what_a_rule_gives_to_anyone() {
    let gateway = Gateway::start(&format!("{RULES}{KEYS}")).await;
    let poll = async |channel: &str| {
        let accept = [("accept", "application/json")];
        gateway.http.send("GET", &format!("/events?channel={channel}&wait=1ms"), &accept, "").await.status
    };
    let publish = async |channel: &str| gateway.http.post(&format!("/channels/{channel}/events"), "x").await.status;
    assert_eq!((poll("public.a").await, publish("public.a").await), (200, 401));
    assert_eq!((poll("inbox.a").await, publish("inbox.a").await), (401, 200));
    assert_eq!((poll("other").await, publish("other").await), (401, 401));
    assert_eq!(gateway.http.get("/channels/public.a/events").await.status, 200, "history is read as a stream is");
    gateway.http.get("/channels/inbox.a/events").await.problem(401);
    gateway.http.get("/channels/public.a").await.problem(401);
    gateway.http.send("DELETE", "/channels/public.a/events", &[], "").await.problem(401);
    gateway.http.get("/").await.problem(404);
    let shown = Gateway::start(&format!("console = true\n{RULES}{KEYS}")).await;
    assert_eq!(shown.http.get("/").await.status, 200);
    // Whatever cookies the browser has, and from wherever it comes.
    for cookie in ["sluice=a.b.c", "sluice=", "other=x"] {
        let headers = [("cookie", cookie), ("sec-fetch-site", "cross-site")];
        assert_eq!(shown.http.send("GET", "/", &headers, "").await.status, 200);
        assert_eq!(shown.http.send("GET", "/console.js", &headers, "").await.status, 200);
    }
}

#[tokio::test]
async fn broadcasts_are_for_those_who_are_let_in() {
    let gateway = Gateway::start(&format!("{RULES}{KEYS}")).await;
    let status = async |target: &str, headers: &[(&str, &str)]| {
        let headers = [headers, &[("accept", "application/json")]].concat();
        gateway.http.send("GET", &format!("{target}&wait=1ms"), &headers, "").await.status
    };
    for target in ["/events?channel=$all", "/events?channel=%24all", "/events?channel=public.a&channel=$all"] {
        assert_eq!(status(target, &[]).await, 401, "{target}");
        let ann = format!("Bearer {}", token(&claims("ann", json!({ "subscribe": [] }))));
        let with_token = if target.contains("public") { "/events?channel=$all&channel=public.b" } else { target };
        assert_eq!(status(with_token, &[("authorization", ann.as_str())]).await, 200, "{target}");
    }
    assert_eq!(status("/events?channel=public.a", &[]).await, 200);
    let rule = "[[channel]]\nmatch = \"$all\"\nread = \"anyone\"\n";
    let gateway = Gateway::start(&format!("{rule}{KEYS}")).await;
    let stream = Client::once(gateway.events(&["$all"])).await;
    stream.read(|log| assert_eq!(log.head().status, 200));
}

#[tokio::test]
async fn a_token_in_the_query_stands_in_nothing_that_nginx_writes() {
    let gone = sluice_tests::ports::free();
    let nginx = sluice_tests::nginx::Nginx::start(&[gone]).await;
    for path in ["/events?channel=a&token=SECRET-TOKEN", "/channels/a/events?token=SECRET-TOKEN"] {
        // An EventSource is told to come back.
        assert!(matches!(nginx.http.get(path).await.status, 200 | 502), "{path}");
    }
    let written = nginx.process.stderr();
    assert!(!written.contains("SECRET-TOKEN"), "{written}");
}

#[tokio::test]
async fn one_channel_that_may_not_be_read_refuses_the_whole_stream_by_its_name() {
    let gateway = Gateway::start(&format!("{RULES}{KEYS}")).await;
    let bearer = format!("Bearer {}", token(&claims("ann", json!({ "subscribe": ["a.*"] }))));
    let target = "/events?channel=a.1&channel=a.2&channel=public.x&channel=a.3&channel=secret.5";
    for accept in ["text/event-stream", "application/x-ndjson", "application/json"] {
        let headers = [("authorization", bearer.as_str()), ("accept", accept)];
        let answer = gateway.http.send("GET", target, &headers, "").await;
        let detail = answer.problem(403)["detail"].to_string();
        assert!(detail.contains("secret.5") && !detail.contains("a.1"), "{detail}");
    }
    assert_eq!(gateway.metric("sse_connections_total", &[]).await, 0.0);
    gateway.wait_metric("sse_auth_failures_total", &["reason=\"forbidden\""], 3.0).await;
}

#[tokio::test]
async fn history_is_replayed_to_who_may_read_it_now() {
    let gateway = Gateway::start(&format!("{RULES}{KEYS}")).await;
    let writer = format!("Bearer {}", token(&claims("w", json!({ "publish": ["*"] }))));
    for n in 1..=3 {
        let headers = [("authorization", writer.as_str())];
        gateway.http.send("POST", "/channels/a.1/events", &headers, n.to_string()).await;
    }
    let reader = |rights| format!("Bearer {}", token(&claims("ann", rights)));
    let all = gateway.events(&["a.1"]).header("Authorization", &reader(json!({ "subscribe": ["a.*"] })));
    let mut since = all.clone();
    since.target.push_str("&since=earliest");
    let client = Client::once(since).await;
    client.wait_events(3).await;
    let cursor = client.read(|log| log.events[0].id.clone());
    Client::once(all.header("Last-Event-ID", &cursor)).await.wait_events(2).await;
    // The same cursor with a token that has lost the right, and with none.
    let path = "/events?channel=a.1";
    for bearer in [Some(reader(json!({ "subscribe": ["b.*"] }))), None] {
        let mut headers = vec![("last-event-id", &*cursor)];
        headers.extend(bearer.as_ref().map(|bearer| ("authorization", bearer.as_str())));
        let answer = gateway.http.send("GET", path, &headers, "").await;
        answer.problem(if bearer.is_some() { 403 } else { 401 });
    }
}

#[tokio::test]
async fn a_token_joins_channels_without_asking_and_its_subjects_own() {
    let gateway = Gateway::start(&format!("{RULES}{KEYS}")).await;
    let rights = json!({ "join": ["for.{sub}", "news"], "publish": ["$user.*", "$all", "for.*", "news"] });
    let bearer = format!("Bearer {}", token(&claims("auth0|7", rights)));
    let client = Client::once(gateway.events(&[]).header("Authorization", &bearer)).await;
    for (path, data) in [
        ("/channels/$user.auth0%257C7/events", "own"),
        ("/channels/for.auth0%257C7/events", "joined"),
        ("/channels/news/events", "news"),
        ("/broadcast", "all"),
        ("/channels/$user.other/events", "not ours"),
    ] {
        let answer = gateway.http.send("POST", path, &[("authorization", &bearer)], data).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    client.wait_events(4).await;
    let mut data = client.data();
    data.sort();
    assert_eq!(data, ["all", "joined", "news", "own"]);
    // What was joined without asking resumes like the rest.
    let cursor = client.read(|log| log.last_event_id.clone());
    gateway.http.send("POST", "/channels/news/events", &[("authorization", &bearer)], "missed").await;
    let back = gateway.events(&[]).header("Authorization", &bearer).header("Last-Event-ID", &cursor);
    Client::once(back).await.wait_data("missed").await;
}

#[tokio::test]
async fn the_documented_file_works_as_it_stands() {
    let config = r#"
        [[auth.key]]
        alg = "HS256"
        secret_file = "hs.key"
        issuer = "https://id.example.com"
        audience = "sluice"

        [[channel]]
        match = "public.*"
        read = "anyone"

        [cors]
        origins = ["https://app.example.com"]

        [limits]
        channels_per_connection = 16
    "#;
    let gateway = Gateway::start_beside(Options { config: config.to_owned(), ..Options::default() }, |directory| {
        std::fs::write(directory.join("hs.key"), format!("{}\n", sluice_tests::token::SECRET)).expect("written");
    })
    .await;
    let rights = json!({ "subscribe": ["orders.*", "mine.{sub}"], "publish": ["orders.eu"] });
    let bearer = format!("Bearer {}", token(&claims("ann", rights)));
    let client = Client::once(gateway.events(&["orders.eu", "mine.ann"]).header("Authorization", &bearer)).await;
    let answer = gateway.http.send("POST", "/channels/orders.eu/events", &[("authorization", &bearer)], "x").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    client.wait_data("x").await;
    let many = (0..17).map(|n| format!("channel=orders.{n}")).collect::<Vec<_>>().join("&");
    gateway.http.send("GET", &format!("/events?{many}"), &[("authorization", &bearer)], "").await.problem(400);
}
