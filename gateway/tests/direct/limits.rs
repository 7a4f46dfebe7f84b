//! The limits of a channel, as publishers see them that do not know the rules.

use crate::server::{Redis, text, through};
use sluice_gateway::{
    broker::Broker,
    channel::{Channel, Pattern},
    config::{ChannelRule, Config, RuleHistory},
};

const LIMITS: &str = "sluice:limits:{sluice:news}";

fn with_size(pattern: &str, size: u64) -> Config {
    let history = RuleHistory::Keep { size: Some(size), age: None };
    let rule = ChannelRule {
        match_: Pattern::new(pattern).expect("a pattern"),
        history: Some(history),
        ..ChannelRule::default()
    };
    Config { channel: vec![rule], ..Config::default() }
}

#[tokio::test]
async fn history_is_trimmed_exactly_by_size() {
    let redis = Redis::with_library().await;
    let _: () = redis.ask(&["SET", LIMITS, "3 600000000 604800 600"]).await;
    for n in 0..250 {
        redis.fcall("sluice:news", &["", &n.to_string()]).await.expect("taken");
        assert_eq!(redis.log("news").await.len(), 3.min(n + 1));
    }
    let kept: Vec<_> = redis.log("news").await.into_iter().map(|(.., data)| data).collect();
    assert_eq!(kept, ["247", "248", "249"]);
}

#[tokio::test]
async fn history_is_trimmed_exactly_by_age() {
    let redis = Redis::with_library().await;
    let now = redis.now().await;
    // More than fit into one node of a stream, of which only whole ones would go without `=`.
    for seq in 1..=150u64 {
        let age = if seq <= 120 { 601_000_000 - seq } else { 599_000_000 - seq };
        let id = format!("{}-{seq}", now - age);
        let _: String = redis.ask(&["XADD", "sluice:log:{sluice:news}", &id, "data", "x", "prev", "1"]).await;
    }
    redis.fcall("sluice:news", &["", "new"]).await.expect("taken");
    let log = redis.log("news").await;
    assert_eq!(log.len(), 31);
    assert!(log[0].0.ends_with("-121") && log[30].0.ends_with("-151"), "{log:?}");
}

#[tokio::test]
async fn a_gateway_leaves_its_rules_for_others_even_before_anybody_subscribes() {
    let redis = Redis::with_library().await;
    let gateway = redis.gateway(with_size("news", 1500));
    let batch = (0..1400).map(|n| crate::server::publish("news", &n.to_string(), None)).collect();
    assert!(gateway.publish(batch).await.iter().all(Result::is_ok));
    redis.fcall("sluice:news", &["", "x"]).await.expect("taken");
    assert_eq!(redis.log("news").await.len(), 1401, "the default of 1000 is not this channel's");

    let gateway = redis.gateway(with_size("news", 2));
    text(through(&gateway, "news", "y", None).await);
    redis.fcall("sluice:news", &["", "z"]).await.expect("taken");
    redis.script("news", "z", None).await.expect("taken");
    assert_eq!(redis.log("news").await.len(), 2);

    let gateway = redis.gateway(Config::default());
    text(through(&gateway, "news", "y", None).await);
    assert!(!redis.ask::<bool>(&["EXISTS", LIMITS]).await, "the default needs no key");
}

#[tokio::test]
async fn a_channel_without_history_gets_none_from_a_direct_publisher() {
    let redis = Redis::with_library().await;
    let history = Some(RuleHistory::Off);
    let rule = ChannelRule { match_: Pattern::new("news").expect("a pattern"), history, ..ChannelRule::default() };
    let gateway = redis.gateway(Config { channel: vec![rule], ..Config::default() });
    gateway.join(vec![Channel::new("news").expect("a name")]).await.expect("joins");
    assert_eq!(redis.fcall("sluice:news", &["", "x"]).await.expect("taken"), None);
    assert_eq!(redis.fcall("sluice:news", &["", "x", "k"]).await.expect("taken"), None);
    assert_eq!(redis.script("news", "x", Some("k")).await.expect("known"), None);
    assert_eq!(redis.fcall("sluice:$user.7", &["", "x"]).await.expect("taken"), None);
    let logs: Vec<String> = redis.ask(&["KEYS", "sluice:log:*"]).await;
    assert!(logs.is_empty(), "{logs:?}");
}

#[tokio::test]
async fn a_reserved_channel_has_history_where_a_rule_gives_it_one() {
    for size in [1000, 5] {
        let redis = Redis::with_library().await;
        let gateway = redis.gateway(with_size("$all", size));
        gateway.join(vec![Channel::all()]).await.expect("joins");
        let position = redis.fcall("sluice:$all", &["", "x"]).await.expect("taken");
        assert!(position.is_some_and(|position| position.ends_with("-1")), "size {size}");
    }
}

#[tokio::test]
async fn limits_live_as_long_as_the_log_that_they_are_for() {
    let redis = Redis::with_library().await;
    let _: () = redis.ask(&["SET", LIMITS, "3 600000000 604800 600", "EX", "100"]).await;
    redis.fcall("sluice:news", &["", "x"]).await.expect("taken");
    for key in [LIMITS, "sluice:log:{sluice:news}"] {
        assert!(redis.ask::<i64>(&["TTL", key]).await > 604_000, "{key}");
    }
}

#[tokio::test]
async fn limits_that_cannot_be_read_are_an_error_that_writes_nothing() {
    let redis = Redis::with_library().await;
    let _: () = redis.ask(&["SET", LIMITS, "plenty"]).await;
    let error = redis.fcall("sluice:news", &["", "x"]).await.expect_err("refused");
    assert!(error.to_string().contains(LIMITS), "{error}");
    assert_eq!(redis.ask::<i64>(&["DBSIZE"]).await, 1);
    // A later build may add more numbers.
    let _: () = redis.ask(&["SET", LIMITS, "3 600000000 604800 600 17"]).await;
    redis.fcall("sluice:news", &["", "x"]).await.expect("taken");
}
