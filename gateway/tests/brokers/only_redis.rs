//! What only Redis has: keys that expire, settings that stand in it, links that are cut.

use crate::{
    ear::Ear,
    server::Server,
    stage::{channel, on_redis, publish},
};
use sluice_gateway::position::Position;

#[tokio::test]
async fn redis_entries_are_exact_to_the_last_digit_and_rise_when_the_clock_went_back() {
    let stage = on_redis().await;
    let server = stage.server();
    // An entry from a server whose clock is an hour ahead.
    let ahead = sluice_gateway::broker::memory::now_micros() + 3_600_000_000;
    let id = format!("{ahead}-7");
    let _: String = server.query(&["XADD", "sluice:log:{sluice:c}", &id, "event", "", "data", "x", "prev", "1"]).await;
    let mut last = Position::new(ahead, 7);
    for _ in 0..50 {
        let at = stage.publish("c", "x").await;
        assert!(at.seq == last.seq + 1 && at.micros > last.micros && at.micros <= last.micros + 1000, "{last} {at}");
        last = at;
    }
}

#[tokio::test]
async fn redis_keys_expire_and_joining_renews_them() {
    let stage = on_redis().await;
    let server = stage.server();
    stage.publish("e", "x").await;
    let week = 7 * 24 * 3600;
    let _: i64 = server.query(&["EXPIRE", "sluice:log:{sluice:e}", "100"]).await;
    stage.subscribe("e").await;
    let left: i64 = server.query(&["TTL", "sluice:log:{sluice:e}"]).await;
    assert!((week - 10..=week).contains(&left), "{left}");
}

#[tokio::test]
async fn a_channel_whose_history_is_off_loses_its_log_so_that_no_hole_looks_continuous() {
    let stage = on_redis().await;
    let server = stage.server();
    let _: String = server.query(&["XADD", "sluice:log:{sluice:off.b}", "5-1", "data", "x"]).await;
    stage.subscribe("off.b").await;
    let exists: i64 = server.query(&["EXISTS", "sluice:log:{sluice:off.b}"]).await;
    assert_eq!(exists, 0);
    // Where nobody is subscribed, publishing does it.
    let _: String = server.query(&["XADD", "sluice:log:{sluice:off.c}", "5-1", "data", "x"]).await;
    for _ in 0..2 {
        stage.broker.publish(vec![publish("off.c", "x", None)]).await.remove(0).expect("accepted");
        let exists: i64 = server.query(&["EXISTS", "sluice:log:{sluice:off.c}"]).await;
        assert_eq!(exists, 0);
    }
}

#[tokio::test]
async fn the_rules_limits_stand_in_redis_for_publishers_that_do_not_know_them() {
    let stage = on_redis().await;
    let server = stage.server();
    stage.subscribe("five.b").await;
    let limits: String = server.query(&["GET", "sluice:limits:{sluice:five.b}"]).await;
    assert_eq!(limits, "5 600000000 604800 600");
    stage.subscribe("plain").await;
    let exists: i64 = server.query(&["EXISTS", "sluice:limits:{sluice:plain}"]).await;
    assert_eq!(exists, 0, "the default needs no key");
}

#[tokio::test]
async fn a_killed_subscription_is_a_cut_and_comes_back_by_itself() {
    let stage = on_redis().await;
    let server = stage.server();
    stage.subscribe("r").await;
    let killed: i64 = server.query(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    assert_eq!(killed, 1);
    stage.ear.until("the cut", |heard| (heard.cuts == 1).then_some(())).await;
    stage
        .ear
        .until("subscribed again", |heard| {
            (heard.subscribed.iter().filter(|name| **name == channel("r")).count() == 2).then_some(())
        })
        .await;
    let at = stage.publish("r", "x").await;
    stage.ear.until("the event", |heard| (Ear::entries(heard, "r").first()?.0 == at).then_some(())).await;
}

#[tokio::test]
async fn a_master_that_became_a_replica_is_a_cut_with_the_connection_intact() {
    let stage = on_redis().await;
    let server = stage.server();
    let other = Server::start().await;
    let _: String = server.query(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]).await;
    stage.ear.until("the cut", |heard| (heard.cuts == 1).then_some(())).await;
    let why = stage.ear.until("why", |heard| heard.reachable.clone()?.err()).await;
    assert!(why.contains("replica") || why.contains("role"), "{why}");
}
