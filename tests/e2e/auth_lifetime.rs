//! How streams end with their tokens: when these expire, and when they are taken back, on all replicas.

use serde_json::json;
use sluice_tests::{
    client::{Client, End},
    cluster::Cluster,
    gateway::{Gateway, Options},
    redis::Redis,
    token::{KEYS, claims, now, token, with},
};
use std::time::{Duration, Instant};

fn bearer(subject: &str, lifetime: u64) -> String {
    let claims = claims(subject, json!({ "subscribe": ["*"], "publish": ["*"], "admin": true }));
    format!("Bearer {}", token(&with(claims, "exp", json!(now() + lifetime))))
}

#[tokio::test]
async fn a_stream_is_warned_and_ends_with_its_token() {
    let gateway = Gateway::start(&format!("[auth]\nexpiry_warning = \"2s\"\nleeway = \"1m\"\n{KEYS}")).await;
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let began = Instant::now();
        let request = gateway.events(&["a"]).header("Accept", accept).header("Authorization", &bearer("ann", 4));
        let client = Client::once(request.keeping_body()).await;
        assert_eq!(client.wait_end().await, End::Clean);
        let lasted = began.elapsed();
        assert!(lasted > Duration::from_millis(2900) && lasted < Duration::from_secs(6), "{lasted:?}");
        let text = client.read(|log| log.text());
        let warned = text.find("token-expiring").expect("a warning");
        let ended = text.find("token-expired").expect("and the end");
        assert!(warned < ended, "{text}");
        assert!(text.contains("expires_in"), "{text}");
    }
    gateway.wait_metric("sse_disconnects_total", &["reason=\"token_expired\""], 2.0).await;
    // A stream does not begin after its end either, whatever leeway publishing has.
    let late = format!(
        "Bearer {}",
        token(&with(claims("ann", json!({ "subscribe": ["*"], "publish": ["*"] })), "exp", json!(now() - 5)))
    );
    gateway.http.send("GET", "/events?channel=a", &[("authorization", &late)], "").await.problem(401);
    assert_eq!(gateway.http.send("POST", "/channels/a/events", &[("authorization", &late)], "x").await.status, 200);
}

#[tokio::test]
async fn connections_are_closed_and_tokens_denied_on_every_replica_within_a_second() {
    let cluster = Cluster::start(Redis::start().await, 3, KEYS).await;
    let admin = bearer("root", 600);
    let connect = async |replica: usize, subject: &str| {
        let gateway: &Gateway = &cluster.gateways[replica];
        let mut request = gateway.events(&["a"]).header("Authorization", &bearer(subject, 600));
        request.target.push_str("&hello=1");
        Client::once(request).await
    };
    let (ann, bob, eve) = (connect(1, "ann").await, connect(2, "bob").await, connect(2, "eve").await);
    let also_ann = connect(2, "ann").await;
    bob.wait_events(1).await;
    let hello: serde_json::Value = serde_json::from_str(&bob.data()[0]).expect("JSON");
    assert_eq!(hello["subject"], "bob", "{hello}");
    let id = hello["id"].as_str().expect("an id").to_owned();

    let delete = async |path: &str| {
        let answer = cluster.gateways[0].http.send("DELETE", path, &[("authorization", &admin)], "").await;
        assert_eq!(answer.status, 204, "{path}: {}", answer.text());
        Instant::now()
    };
    let within_a_second = async |since: Instant, client: &Client| {
        assert_eq!(client.wait_end().await, End::Clean);
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    };
    let asked = delete("/users/ann/connections").await;
    within_a_second(asked, &ann).await;
    within_a_second(asked, &also_ann).await;
    let asked = delete(&format!("/connections/{id}")).await;
    within_a_second(asked, &bob).await;
    // Who was closed may come back; who was denied may not, on any replica, nor on one that starts later.
    drop(connect(2, "ann").await);
    let asked = delete("/tokens/of-eve").await;
    within_a_second(asked, &eve).await;
    let eves = bearer("eve", 600);
    let refused = async |gateway: &Gateway| {
        gateway.http.send("GET", "/events?channel=a", &[("authorization", &eves)], "").await.problem(401);
        gateway.http.send("POST", "/channels/a/events", &[("authorization", &eves)], "x").await.problem(401);
    };
    for gateway in &cluster.gateways {
        refused(gateway).await;
    }
    let later = Options { config: KEYS.to_owned(), redis: Some(cluster.redis.url()), ..Options::default() };
    let later = Gateway::spawn(later);
    // From its first moment on: while it does not know yet who is denied, it lets nobody in.
    sluice_tests::wait::until("the list is there", async || {
        let headers = [("authorization", eves.as_str())];
        let answer = later.http.try_send("POST", "/channels/a/events", &headers, "x").await.ok()?;
        assert!(matches!(answer.status, 401 | 503), "{}", answer.text());
        (answer.status == 401).then_some(())
    })
    .await;
    refused(&later).await;
    gatewayless(&cluster.gateways[0], &admin).await;
}

/// Denying is refused where it makes no sense.
async fn gatewayless(gateway: &Gateway, admin: &str) {
    for path in ["/tokens/x?for=0s", "/tokens/x?for=9999d", "/tokens/x?for=soon"] {
        gateway.http.send("DELETE", path, &[("authorization", admin)], "").await.problem(400);
    }
    gateway.http.send("DELETE", "/tokens/", &[("authorization", admin)], "").await.problem(404);
}
