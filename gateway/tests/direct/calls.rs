//! Events of one channel that a gateway sends in one call: each is answered by itself, and truly.

use crate::server::{Redis, publish, text};
use redis::{Value, aio::ConnectionLike, cmd};
use sluice_gateway::{
    broker::{Accepted, Broker, Publish, Unavailable, redis::RedisBroker},
    config::Config,
};

const IDEMPOTENCY: &str = "sluice:idempotency:{sluice:news}";

fn news(data: &str, key: Option<&str>) -> Publish {
    publish("news", data, key)
}

impl Redis {
    /// A gateway whose user has these rights.
    async fn limited_gateway(&self, rights: &[&str]) -> RedisBroker {
        self.as_user(rights).await;
        self.gateway_at(&format!("redis://limited:pw@127.0.0.1:{}", self.port), Config::default())
    }

    /// The data in the log, after a look at its numbers: they have no hole.
    async fn data(&self, channel: &str) -> Vec<String> {
        let log = self.log(channel).await;
        for (nth, (position, ..)) in log.iter().enumerate() {
            assert!(position.ends_with(&format!("-{}", nth + 1)), "{log:?}");
        }
        log.into_iter().map(|(.., data)| data).collect()
    }
}

fn refused(answer: &Result<Accepted, Unavailable>, told: &str) -> bool {
    answer.as_ref().is_err_and(|error| error.to_string().contains(told))
}

#[tokio::test]
async fn an_event_that_is_refused_takes_none_of_its_neighbours_with_it() {
    let redis = Redis::start().await;
    let gateway = redis.gateway(Config::default());
    let batch = || vec![news("a", None), news("b", Some("k")), news("c", None), news("d", Some("l")), news("e", None)];

    let _: () = redis.ask(&["SET", IDEMPOTENCY, "no hash"]).await;
    let answers = gateway.publish(batch()).await;
    assert!(refused(&answers[1], "WRONGTYPE") && refused(&answers[3], "WRONGTYPE"), "{answers:?}");
    let accepted: Vec<_> = answers.into_iter().flatten().map(|accepted| text(Ok(accepted))).collect();
    assert_eq!(redis.data("news").await, ["a", "c", "e"]);
    assert_eq!(redis.log("news").await.into_iter().map(|(position, ..)| position).collect::<Vec<_>>(), accepted);

    let _: i64 = redis.ask(&["DEL", IDEMPOTENCY]).await;
    let gateway = redis.limited_gateway(&["~*", "&*", "+@all", "-hset"]).await;
    let answers = gateway.publish(batch()).await;
    assert!(refused(&answers[1], "can't run") && refused(&answers[3], "can't run"), "{answers:?}");
    assert_eq!(redis.data("news").await, ["a", "c", "e", "a", "c", "e"]);
}

#[tokio::test]
async fn where_the_log_takes_nothing_no_event_is_accepted_and_no_key_remembered() {
    let redis = Redis::start().await;
    let batch = || (0..5).map(|n| news("x", Some(&n.to_string()))).collect::<Vec<_>>();
    for (right, told) in [("-xadd", "can't run"), ("-xinfo", "can't run"), ("-publish", "nothing was written")] {
        let gateway = redis.limited_gateway(&["~*", "&*", "+@all", right]).await;
        let answers = gateway.publish(batch()).await;
        assert!(answers.iter().all(|answer| refused(answer, told)), "{right}: {answers:?}");
    }
    let gateway = redis.gateway(Config::default());
    let _: () = redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let answers = gateway.publish(batch()).await;
    assert!(answers.iter().all(|answer| refused(answer, "OOM")), "{answers:?}");
    let _: () = redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(redis.keys().await, [""; 0]);
    let answers = gateway.publish(batch()).await;
    assert!(answers.iter().flatten().filter(|accepted| !accepted.repeated).count() == 5, "{answers:?}");
}

#[tokio::test]
async fn what_is_forbidden_after_the_entries_were_written_is_no_error() {
    let redis = Redis::start().await;
    let rights = ["~*", "&*", "+@all", "-hincrby", "-hdel", "-xtrim", "-expire", "-get"];
    let gateway = redis.limited_gateway(&rights).await;
    let answers = gateway.publish((0..5).map(|n| news(&n.to_string(), Some(&n.to_string()))).collect()).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(redis.data("news").await, ["0", "1", "2", "3", "4"]);
}

/// The gateways' script, on a server that refuses the third entry of a call.
#[tokio::test]
async fn what_comes_after_an_entry_that_was_refused_is_refused_with_it() {
    let refusing = "local server, entries = redis, 0
        local redis = setmetatable({pcall = function(name, ...)
          if name == 'XADD' then entries = entries + 1 end
          if name == 'XADD' and entries == 3 then return {err = 'OOM no more'} end
          return server.pcall(name, ...)
        end}, {__index = server})\n";
    let (core, script) =
        (include_str!("../../src/broker/redis/core.lua"), include_str!("../../src/broker/redis/publish.lua"));
    let redis = Redis::start().await;
    let mut call = cmd("EVAL");
    call.arg([refusing, core, script].concat()).arg(3);
    call.arg("sluice:log:{sluice:news}").arg(IDEMPOTENCY).arg("sluice:limits:{sluice:news}");
    call.arg(&["PUBLISH", "sluice:news", "600", "2", "600000000", "604800", "2 600000000 604800 600", ""]);
    for event in ["a", "b", "c", "d", "e"] {
        call.arg("").arg(event).arg(format!("key {event}"));
    }
    let answer = redis.connection.clone().req_packed_command(&call).await.expect("runs");
    let Value::Array(answers) = answer else { panic!("{answer:?}") };
    let position = |answer: &Value| redis::from_redis_value::<String>(answer.clone()).expect("a position");
    let log = redis.log("news").await;
    assert_eq!((position(&answers[0]), position(&answers[1])), (log[0].0.clone(), log[1].0.clone()));
    for refused in &answers[2..5] {
        assert!(matches!(refused, Value::ServerError(error) if error.code() == "OOM"), "{answers:?}");
    }
    assert_eq!(redis.data("news").await, ["a", "b"]);
    for (event, known) in [("a", true), ("b", true), ("c", false), ("d", false), ("e", false)] {
        assert_eq!(redis.ask::<bool>(&["HEXISTS", IDEMPOTENCY, &format!("kkey {event}")]).await, known, "{event}");
    }
    // What belongs to the end of a call was done for the two.
    assert!(redis.ask::<i64>(&["TTL", "sluice:log:{sluice:news}"]).await > 604_000);
    assert_eq!(redis.ask::<String>(&["GET", "sluice:limits:{sluice:news}"]).await, "2 600000000 604800 600");
    assert_eq!(redis.ask::<String>(&["HGET", IDEMPOTENCY, "tail"]).await, "2");
}

#[tokio::test]
async fn events_of_one_call_never_get_ahead_of_the_clock() {
    let redis = Redis::start().await;
    let gateway = redis.gateway(Config::default());
    for _ in 0..10 {
        let answers = gateway.publish((0..500).map(|n| news(&n.to_string(), None)).collect()).await;
        let (micros, _) = crate::positions::split(&text(answers.into_iter().next_back().expect("answers")));
        assert!(micros <= redis.now().await);
    }
}

#[tokio::test]
async fn keys_of_one_call_are_forgotten_in_their_turn() {
    let redis = Redis::start().await;
    let gateway = redis.gateway(Config::default());
    let keyed = |keys: std::ops::Range<u32>| keys.map(|n| news("x", Some(&n.to_string()))).collect::<Vec<_>>();
    assert!(gateway.publish(keyed(0..100)).await.iter().all(Result::is_ok));
    assert_eq!(redis.ask::<i64>(&["HLEN", IDEMPOTENCY]).await, 201, "k and n of each, and their count");
    let past = redis.now().await - 1;
    for n in 0..100 {
        let _: i64 = redis.ask(&["HSET", IDEMPOTENCY, &format!("k{n}"), &format!("1-1 {past}")]).await;
    }
    assert!(gateway.publish(keyed(100..160)).await.iter().all(Result::is_ok));
    assert_eq!(redis.ask::<i64>(&["HLEN", IDEMPOTENCY]).await, 122, "head as well");
}
