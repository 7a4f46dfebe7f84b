//! The rights that docs/redis.md gives to a gateway and to a publisher are enough for all they do, and for nothing else.

use serde_json::json;
use sluice_tests::{
    client::{Client, End, Request},
    gateway::{Gateway, Options, events_target},
    redis::{Kind, Redis, cluster::RedisCluster},
    token::{KEYS, claims, token},
};

const PAGE: &str = include_str!("../../docs/redis.md");

/// Makes a user as the page has it, with these rights beside.
async fn make(redis: &Redis, name: &str, beside: &[&str]) {
    let begins = format!("user {name} on ");
    let line = PAGE.lines().find(|line| line.starts_with(&begins)).expect("it is on the page");
    let words: Vec<_> =
        ["ACL", "SETUSER"].into_iter().chain(line.split(' ').skip(1)).chain(beside.iter().copied()).collect();
    redis.run::<()>(&words).await;
}

fn bearer(subject: &str) -> String {
    let claims = claims(subject, json!({ "subscribe": ["*"], "publish": ["*", "$all"], "admin": true }));
    format!("Bearer {}", token(&claims))
}

/// What was refused to anyone, as Redis wrote it down.
async fn refusals(redis: &Redis) -> Vec<Vec<redis::Value>> {
    redis.run(&["ACL", "LOG"]).await
}

#[tokio::test]
async fn the_documented_rights_are_enough_and_no_more() {
    for beside in [&["+function|list", "+function|load"][..], &[]] {
        let redis = Redis::start().await;
        make(&redis, "sluice", beside).await;
        let options = Options {
            config: KEYS.to_owned(),
            redis: Some(format!("redis://sluice:secret@{}", redis.address())),
            ..Options::default()
        };
        let (one, two) = (Gateway::start_with(options.clone()).await, Gateway::start_with(options).await);
        everything(&redis, &one, &two).await;
        let refused = refusals(&redis).await;
        // Without those the function cannot be installed, which is tried once by each.
        assert_eq!(refused.is_empty(), !beside.is_empty(), "{refused:?}");
        if !beside.is_empty() {
            publisher(&redis, &two).await;
        }
        for gateway in [&one, &two] {
            assert!(!gateway.process.stderr().contains("NOPERM") || beside.is_empty(), "{}", gateway.process.stderr());
        }
    }
}

/// All that gateways do with Redis.
async fn everything(redis: &Redis, one: &Gateway, two: &Gateway) {
    let admin = bearer("root");
    let headers = [("authorization", admin.as_str())];
    let open = async |gateway: &Gateway, subject: &str| {
        Client::once(gateway.events(&["a"]).header("Authorization", &bearer(subject))).await
    };
    let send = async |gateway: &Gateway, method: &str, path: &str, body: &'static str| {
        let answer = gateway.http.send(method, path, &headers, body).await;
        assert!(matches!(answer.status, 200 | 204), "{method} {path}: {} {}", answer.status, answer.text());
        answer
    };
    let (ann, bob) = (open(one, "ann").await, open(two, "bob").await);
    send(two, "POST", "/channels/a/events", "first").await;
    send(one, "POST", "/events", r#"[{"channel":"a","data":"second","idempotency_key":"k"}]"#).await;
    send(one, "POST", "/events", r#"[{"channel":"a","data":"second","idempotency_key":"k"}]"#).await;
    send(two, "POST", "/broadcast", "to all").await;
    for client in [&ann, &bob] {
        client.wait_events(3).await;
    }
    let since = Request::new(two.address, &format!("{}&since=earliest", events_target(&["a"])));
    let late = Client::once(since.header("Authorization", &admin)).await;
    late.wait_data("second").await;
    assert_eq!(send(one, "GET", "/channels/a/events", "").await.json()["events"].as_array().map(Vec::len), Some(2));
    assert_eq!(send(two, "GET", "/connections", "").await.json()["connections"]["cluster"], 3);
    send(one, "DELETE", "/users/bob/connections", "").await;
    assert_eq!(bob.wait_end().await, End::Clean);
    send(two, "DELETE", "/channels/a/events", "").await;
    send(two, "DELETE", "/tokens/some-id?for=1h", "").await;
    send(one, "POST", "/channels/a/events", "after").await;
    ann.wait_data("after").await;
    for forbidden in [&["FLUSHALL"][..], &["KEYS", "*"], &["CONFIG", "GET", "*"], &["GET", "other"]] {
        refused(redis, "sluice", forbidden).await;
    }
}

async fn refused(redis: &Redis, user: &str, words: &[&str]) {
    let words: Vec<_> = ["ACL", "DRYRUN", user].into_iter().chain(words.iter().copied()).collect();
    let answer: String = redis.run(&words).await;
    assert!(answer.contains("no permissions") || answer.contains("NOPERM"), "{words:?}: {answer}");
}

#[tokio::test]
async fn a_publisher_with_the_documented_rights_publishes_by_the_function_on_every_master_of_a_cluster() {
    let cluster = RedisCluster::start(Kind::default(), 3, false).await;
    let gateway = Gateway::start_with(Options { redis: Some(cluster.url()), ..Options::default() }).await;
    for server in &cluster.servers {
        make(server, "publisher", &[]).await;
    }
    let names: Vec<_> = (0..20).map(|nth| format!("direct{nth}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let client = gateway.subscribe(&names).await;
    // A client of clusters, which asks who has which slots.
    let urls = cluster.servers.iter().map(|server| format!("redis://publisher:secret@{}", server.address()));
    let connection = redis::cluster::ClusterClient::new(urls).expect("URLs").get_async_connection().await;
    let mut connection = connection.expect("connects");
    for name in &names {
        let mut call = redis::cmd("FCALL");
        call.arg("sluice_publish").arg(1).arg(format!("sluice:{name}")).arg("").arg(format!("to {name}"));
        let position: String = call.query_async(&mut connection).await.expect("published");
        assert!(position.ends_with("-1"), "{name} at {position}");
    }
    for name in &names {
        client.wait_data(&format!("to {name}")).await;
    }
    assert_eq!(client.data().len(), names.len(), "none twice");
    // And the command.
    let url = cluster.url().replace("redis+cluster://", "redis+cluster://publisher:secret@");
    let published = sluice_tests::cli::sluice(&["publish", "direct0", "by the command", "--redis", &url]).await;
    assert_eq!(published.code, Some(0), "{published:?}");
    client.wait_data("by the command").await;
    for server in &cluster.servers {
        for forbidden in [&["SSUBSCRIBE", "sluice:direct0"][..], &["SPUBLISH", "other", "x"], &["CLUSTER", "RESET"]] {
            refused(server, "publisher", forbidden).await;
        }
        let refused = refusals(server).await;
        assert!(refused.is_empty(), "{refused:?}");
    }
}

async fn publisher(redis: &Redis, gateway: &Gateway) {
    make(redis, "publisher", &[]).await;
    let client = Client::once(gateway.events(&["direct"]).header("Authorization", &bearer("ann"))).await;
    let url = format!("redis://publisher:secret@{}", redis.address());
    let connection = redis::Client::open(url).expect("a URL").get_multiplexed_async_connection().await;
    let mut connection = connection.expect("connects");
    let mut call = redis::cmd("FCALL");
    call.arg("sluice_publish").arg(1).arg("sluice:direct").arg("update").arg("by function");
    let position: String = call.query_async(&mut connection).await.expect("published");
    assert!(!position.is_empty());
    client.wait_data("by function").await;
    for forbidden in
        [&["SUBSCRIBE", "sluice:direct"][..], &["DEL", "sluice:log:{sluice:direct}"], &["EVAL", "return 1", "0"]]
    {
        refused(redis, "publisher", forbidden).await;
    }
}
