//! Installing the library.

use crate::server::{Redis, eventually};
use redis::Value;
use sluice_gateway::{
    broker::redis::function::{Installed, NotInstalled, install, is_cluster},
    config::Config,
};
use std::collections::HashMap;

async fn library(redis: &Redis) -> Option<String> {
    let list = &["FUNCTION", "LIST", "LIBRARYNAME", "sluice", "WITHCODE"];
    let mut libraries: Vec<HashMap<String, Value>> = redis.ask(list).await;
    let code = libraries.pop()?.remove("library_code")?;
    Some(redis::from_redis_value(code).expect("text"))
}

#[tokio::test]
async fn an_older_library_never_replaces_a_newer_one() {
    let mut redis = Redis::start().await;
    assert_eq!(install(&mut redis.connection, "sluice:", None, false).await.expect("installs"), Installed::New);
    assert_eq!(install(&mut redis.connection, "sluice:", None, false).await.expect("is there"), Installed::Unchanged);
    let current = library(&redis).await.expect("a library");

    let newer = current.replace("local VERSION = ", "local VERSION = 9");
    let _: String = redis.ask(&["FUNCTION", "LOAD", "REPLACE", &newer]).await;
    for prefix in ["sluice:", "other:"] {
        let done = install(&mut redis.connection, prefix, Some(9), false).await.expect("looks");
        assert_eq!(done, Installed::NewerPresent);
    }
    assert_eq!(library(&redis).await, Some(newer));

    let line = current.lines().find(|line| line.starts_with("local VERSION = ")).expect("a version");
    let older = current.replace(line, "local VERSION = 0");
    let _: String = redis.ask(&["FUNCTION", "LOAD", "REPLACE", &older]).await;
    assert_eq!(install(&mut redis.connection, "sluice:", None, false).await.expect("installs"), Installed::Updated);
    assert_eq!(library(&redis).await, Some(current));
}

#[tokio::test]
async fn two_prefixes_stand_side_by_side() {
    let redis = Redis::with_library().await;
    let connection = &mut redis.connection.clone();
    assert_eq!(install(connection, "sluice:shop:", Some(3), false).await.expect("installs"), Installed::Updated);
    // Who says nothing of the size leaves what another said.
    assert_eq!(install(connection, "sluice:shop:", None, false).await.expect("is there"), Installed::Unchanged);
    assert_eq!(install(connection, "sluice:", None, false).await.expect("is there"), Installed::Unchanged);

    assert!(redis.fcall("sluice:news", &["", "long"]).await.expect("taken").is_some());
    assert!(redis.fcall("sluice:shop:news", &["", "abc"]).await.expect("taken").is_some());
    redis.fcall("sluice:shop:news", &["", "long"]).await.expect_err("longer than this prefix allows");
    // The longest prefix wins, unless the caller says which it means.
    redis.fcall("sluice:shop:news", &["", "long", "k", "sluice:"]).await.expect("taken");
    let mut logs: Vec<String> = redis.ask(&["KEYS", "*log:*"]).await;
    logs.sort();
    let expected = ["sluice:log:{sluice:news}", "sluice:log:{sluice:shop:news}", "sluice:shop:log:{sluice:shop:news}"];
    assert_eq!(logs, expected);
}

#[tokio::test]
async fn many_who_install_at_once_agree() {
    let redis = Redis::start().await;
    let installing: Vec<_> = (0..8)
        .map(|_| {
            let mut connection = redis.connection.clone();
            tokio::spawn(async move { install(&mut connection, "sluice:", Some(65536), false).await })
        })
        .collect();
    for installed in installing {
        installed.await.expect("ends").expect("installs");
    }
    assert!(redis.fcall("sluice:news", &["", "x"]).await.is_ok());
}

#[tokio::test]
async fn another_projects_library_is_left_alone() {
    let mut redis = Redis::start().await;
    let foreign = "#!lua name=sluice\nredis.register_function('f', function() return 1 end)";
    let _: String = redis.ask(&["FUNCTION", "LOAD", foreign]).await;
    let refused = install(&mut redis.connection, "sluice:", None, false).await;
    assert!(matches!(refused, Err(NotInstalled::Foreign)), "{refused:?}");
    assert_eq!(library(&redis).await.as_deref(), Some(foreign));
}

#[tokio::test]
async fn who_may_not_install_is_told_so() {
    let redis = Redis::start().await;
    let mut limited = redis.as_user(&["~*", "&*", "+@all", "-function"]).await;
    let refused = install(&mut limited, "sluice:", None, false).await;
    assert!(matches!(refused, Err(NotInstalled::NotPermitted(_))), "{refused:?}");
    assert!(!is_cluster(&mut limited).await);
}

#[tokio::test]
async fn a_prefix_that_no_name_could_begin_with_is_refused() {
    let mut redis = Redis::start().await;
    for prefix in ["a\"b", "a,b", "a\nb", "a{b", &"x".repeat(65)] {
        let refused = install(&mut redis.connection, prefix, None, false).await;
        assert!(matches!(refused, Err(NotInstalled::InvalidPrefix(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_gateway_installs_the_library_with_its_link_and_again_where_it_was_lost() {
    let redis = Redis::start().await;
    let mut config = Config::default();
    config.redis.prefix = "shop:".to_owned();
    let _gateway = redis.gateway(config);
    eventually("the gateway installs", async || library(&redis).await).await;
    assert!(redis.fcall("shop:news", &["", "x"]).await.expect("taken").is_some());
    let _: () = redis.ask(&["FUNCTION", "FLUSH"]).await;
    let _: i64 = redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    eventually("the gateway installs again", async || library(&redis).await).await;
}
