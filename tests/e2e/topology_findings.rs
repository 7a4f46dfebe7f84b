//! What of a Redis would break a promise is found: by the gateways, in a metric and once in the log, and by `sluice redis
//! check`; and is said no more when it is mended.

use crate::resume_clocks::with_clock;
use sluice_tests::{
    cli,
    gateway::{Gateway, Options},
    redis::{Kind, Redis},
    wait,
};

const CONFIG: &str = "[redis]\ncheck_every = \"1s\"\n";

/// A server with which there is nothing to find, and a gateway that looks often.
async fn start() -> (Redis, Gateway) {
    let redis = Redis::start_durable().await;
    let gateway = Gateway::start_with(options(&redis, CONFIG)).await;
    assert_eq!(check(&redis).await, (Some(0), Vec::new()));
    (redis, gateway)
}

fn options(redis: &Redis, config: &str) -> Options {
    Options { config: config.to_owned(), redis: Some(redis.url()), ..Options::default() }
}

/// What `sluice redis check` ends with, and the kinds of what it finds.
async fn check(redis: &Redis) -> (Option<i32>, Vec<String>) {
    let check = cli::sluice(&["redis", "check", "--redis", &redis.url()]).await;
    // A finding is set in by two, and what to do about it by four.
    let kind = |line: &str| line.strip_prefix("  ")?.split_once(": ").map(|(kind, _)| kind.to_owned());
    (check.code, check.stdout.lines().filter(|line| !line.starts_with("   ")).filter_map(kind).collect())
}

async fn found(gateway: &Gateway, kind: &str, count: f64) {
    gateway.wait_metric("sse_redis_findings", &[&format!("finding=\"{kind}\"")], count).await;
}

async fn set(redis: &Redis, name: &str, value: &str) {
    let _: String = redis.run(&["CONFIG", "SET", name, value]).await;
}

#[tokio::test]
async fn each_setting_that_would_break_a_promise_is_found_and_found_mended() {
    let (redis, gateway) = start().await;
    let (small, large) = ("pubsub 65536 0 0", "pubsub 268435456 67108864 60");
    for (kind, name, wrong, right) in [
        ("eviction", "maxmemory-policy", "allkeys-lru", "noeviction"),
        ("persistence", "appendonly", "no", "yes"),
        ("pubsub-buffer", "client-output-buffer-limit", small, large),
        // So much that all that it has is a little less than too much, and more than nine tenths.
        ("memory", "maxmemory", "", "0"),
    ] {
        let info: String = redis.run(&["INFO", "memory"]).await;
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("a number");
        let full = (used.trim().parse::<u64>().expect("a number") * 19 / 18).to_string();
        set(&redis, name, if wrong.is_empty() { &full } else { wrong }).await;
        found(&gateway, kind, 1.0).await;
        assert_eq!(check(&redis).await, (Some(1), vec![kind.to_owned()]));
        set(&redis, name, right).await;
        found(&gateway, kind, 0.0).await;
        assert_eq!(check(&redis).await, (Some(0), Vec::new()));
        // It was looked at more than once.
        let told = format!("finding=\"{kind}\"");
        assert_eq!(gateway.process.stderr().matches(&told).count(), 1, "{}", gateway.process.stderr());
    }
}

#[tokio::test]
async fn rights_that_are_taken_away_are_found_by_name() {
    let redis = Redis::start_durable().await;
    let _: String = redis.run(&["ACL", "SETUSER", "sluice", "on", ">pw", "~sluice:*", "&sluice:*", "+@all"]).await;
    let url = format!("redis://sluice:pw@{}", redis.address());
    let config = format!("{CONFIG}wait_replicas = 1\n");
    let gateway = Gateway::start_with(Options { config, redis: Some(url.clone()), ..Options::default() }).await;
    // Who waits for replicas has to be allowed to, or waits in vain for ever.
    let _: String = redis.run(&["ACL", "SETUSER", "sluice", "-wait"]).await;
    found(&gateway, "rights", 1.0).await;
    assert!(gateway.process.stderr().contains("prefix sluice:: wait"), "{}", gateway.process.stderr());
    assert_eq!(cli::sluice(&["redis", "check", "--redis", &url]).await.code, Some(0), "others need it not");
    let _: String = redis.run(&["ACL", "SETUSER", "sluice", "+wait"]).await;
    found(&gateway, "rights", 0.0).await;
    let set = async |words: &str| {
        let words: Vec<_> = ["ACL", "SETUSER", "sluice"].into_iter().chain(words.split(' ')).collect();
        let _: String = redis.run(&words).await;
    };
    for (wrong, right, lacks) in [
        ("-xadd", "+xadd", "xadd"),
        ("resetchannels", "&sluice:*", "publish, subscribe"),
        ("resetkeys ~sluice:log:* ~sluice:limits:*", "~sluice:*", "keys ~sluice:idempotency:*, keys ~sluice:taken:*"),
    ] {
        set(wrong).await;
        found(&gateway, "rights", 1.0).await;
        let check = cli::sluice(&["redis", "check", "--redis", &url]).await;
        assert!(check.code == Some(1) && check.stdout.contains(&format!("prefix sluice:: {lacks}")), "{check:?}");
        set(right).await;
        found(&gateway, "rights", 0.0).await;
    }
}

#[tokio::test]
async fn a_clock_that_is_far_off_is_found() {
    let redis = Redis::start_as(Kind { durable: true, ..Kind::default() }).await;
    for offset in ["+3s", "-1h"] {
        found(&with_clock(&redis, offset).await, "clock", 1.0).await;
    }
}

#[tokio::test]
async fn two_deployments_on_one_prefix_are_found_and_replicas_of_one_are_not() {
    let (redis, one) = start().await;
    let two = Gateway::start_with(options(&redis, CONFIG)).await;
    let known = async |count: i64| {
        let there = async || (redis.run::<i64>(&["ZCARD", "sluice:$replicas"]).await == count).then_some(());
        wait::until("each says that it is there", there).await;
    };
    known(2).await;
    assert_eq!(check(&redis).await, (Some(0), Vec::new()));
    let elsewhere = "[redis]\nprefix = \"other:\"\n[history]\nsize = 7\n";
    let elsewhere = Gateway::start_with(options(&redis, elsewhere)).await;
    assert_eq!(check(&redis).await, (Some(0), Vec::new()));
    let other = Gateway::start_with(options(&redis, &format!("{CONFIG}[history]\nsize = 7\n"))).await;
    known(3).await;
    for gateway in [&one, &two, &other] {
        found(gateway, "deployments", 1.0).await;
    }
    found(&elsewhere, "deployments", 0.0).await;
    assert_eq!(check(&redis).await, (Some(1), vec!["deployments".to_owned()]));
}
