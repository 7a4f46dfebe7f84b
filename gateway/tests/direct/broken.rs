//! Rights that are missing and things that are flushed: no event is written and refused, and so doubled by the retry.

use crate::server::{Redis, command, publish, text, through};
use redis::{RedisResult, Value, aio::MultiplexedConnection};
use sluice_gateway::{
    broker::{Broker as _, redis::direct::Direct},
    config::Config,
};
use std::collections::HashMap;

async fn fcall(connection: &mut MultiplexedConnection, arguments: &[&str]) -> RedisResult<Option<String>> {
    let words = [&["FCALL", "sluice_publish", "1", "sluice:news"], arguments].concat();
    command(&words).query_async(connection).await
}

#[tokio::test]
async fn where_announcing_is_forbidden_nothing_is_written_and_nothing_doubled() {
    let redis = Redis::with_library().await;
    let mut limited = redis.as_user(&["~*", "+@all", "resetchannels"]).await;
    for _ in 0..3 {
        for arguments in [&["", "x"][..], &["", "x", "k"]] {
            let error = fcall(&mut limited, arguments).await.expect_err("refused");
            assert!(error.to_string().contains("nothing was written"), "{error}");
        }
    }
    // An own probe cannot come back either, but the lane needs no link.
    let gateway = redis.gateway_at(&format!("redis://limited:pw@127.0.0.1:{}", redis.port), Config::default());
    assert!(through(&gateway, "news", "x", Some("k")).await.is_err());
    assert_eq!(redis.keys().await, [""; 0]);
    let position = redis.fcall("sluice:news", &["", "x", "k"]).await.expect("taken").expect("a position");
    assert!(position.ends_with("-1"));
}

#[tokio::test]
async fn what_is_forbidden_after_the_entry_was_written_is_no_error() {
    let redis = Redis::with_library().await;
    let mut limited = redis.as_user(&["~*", "&*", "+@all", "-hincrby", "-hdel", "-xtrim", "-expire"]).await;
    let position = fcall(&mut limited, &["", "x", "k"]).await.expect("taken");
    assert!(position.is_some());
    assert_eq!(redis.fcall("sluice:news", &["", "x", "k"]).await.expect("known"), position);
    assert_eq!(redis.log("news").await.len(), 1);
}

#[tokio::test]
async fn what_is_forbidden_before_the_entry_is_written_leaves_nothing() {
    let redis = Redis::with_library().await;
    for right in ["-hset", "-xadd", "-get", "-xinfo|stream"] {
        let mut limited = redis.as_user(&["~*", "&*", "+@all", right]).await;
        fcall(&mut limited, &["", "x", "k"]).await.expect_err(right);
        assert_eq!(redis.log("news").await.len(), 0, "{right}");
        assert!(!redis.ask::<bool>(&["HEXISTS", "sluice:idempotency:{sluice:news}", "kk"]).await, "{right}");
    }
    for (key, wrong) in [("idempotency", "SET"), ("log", "SADD")] {
        let key = format!("sluice:{key}:{{sluice:news}}");
        let _: Value = redis.ask(&[wrong, &key, "x"]).await;
        redis.fcall("sluice:news", &["", "x", "k"]).await.expect_err("a key of another kind");
        let _: i64 = redis.ask(&["DEL", &key]).await;
    }
    let position = redis.fcall("sluice:news", &["", "x", "k"]).await.expect("taken").expect("a position");
    assert!(position.ends_with("-1"));
}

#[tokio::test]
async fn publishing_goes_on_after_scripts_and_functions_were_flushed() {
    let redis = Redis::with_library().await;
    let gateway = redis.gateway(Config::default());
    for seq in 1..=4 {
        let position = match seq {
            1 => text(through(&gateway, "news", "x", None).await),
            2 => redis.fcall("sluice:news", &["", "x"]).await.expect("taken").expect("a position"),
            3 => {
                let _: () = redis.ask(&["SCRIPT", "FLUSH"]).await;
                text(through(&gateway, "news", "x", None).await)
            }
            _ => {
                let _: () = redis.ask(&["FUNCTION", "FLUSH"]).await;
                let mut connection = redis.connection.clone();
                assert!(!Direct::find(&mut connection, "sluice:").await.expect("answers").by_function());
                redis.script("news", "x", None).await.expect("taken").expect("a position")
            }
        };
        assert!(position.ends_with(&format!("-{seq}")), "{position}");
    }
}

#[tokio::test]
async fn events_that_go_together_are_each_published_once_and_in_order_after_scripts_were_flushed() {
    let redis = Redis::with_library().await;
    let gateway = redis.gateway(Config::default());
    // With one call for each channel, and with two.
    let batches = [&["a", "b", "c"][..], &["a", "b", "a", "c"], &["a"]];
    let mut last = HashMap::new();
    for _ in 0..3 {
        for batch in batches {
            let _: () = redis.ask(&["SCRIPT", "FLUSH"]).await;
            let events = batch.iter().map(|channel| publish(channel, "x", None)).collect();
            for (channel, accepted) in batch.iter().zip(gateway.publish(events).await) {
                let last = last.entry(channel).or_insert(0);
                *last += 1;
                let position = accepted.expect("accepted").position.expect("a position");
                assert_eq!(position.seq, *last, "{channel} of {batch:?}");
            }
        }
    }
    for (channel, last) in last {
        let written: u64 = redis.ask(&["XLEN", &format!("sluice:log:{{sluice:{channel}}}")]).await;
        assert_eq!(written, last, "{channel}");
    }
}

#[tokio::test]
async fn a_full_server_refuses_before_it_writes() {
    let redis = Redis::with_library().await;
    let _: () = redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    redis.fcall("sluice:news", &["", "x", "k"]).await.expect_err("no memory");
    redis.script("news", "x", Some("k")).await.expect_err("no memory");
    let _: () = redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(redis.keys().await, [""; 0]);
}
