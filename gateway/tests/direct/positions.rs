//! Positions, and that every way to publish gives the same ones.

use crate::server::{Redis, text, through};
use bytes::Bytes;
use futures_util::StreamExt;
use sluice_gateway::{
    broker::announcement::{self, Announced},
    config::Config,
};

pub(crate) fn split(position: &str) -> (u64, u64) {
    let (micros, seq) = position.split_once('-').expect("a position");
    (micros.parse().expect("a number"), seq.parse().expect("a number"))
}

#[tokio::test]
async fn function_script_and_gateway_count_one_line_of_positions() {
    let redis = Redis::with_library().await;
    let gateway = redis.gateway(Config::default());
    let mut positions = Vec::new();
    for round in 0..5 {
        let data = round.to_string();
        positions.push(redis.fcall("sluice:news", &["update", &data]).await.expect("taken").expect("a position"));
        positions.push(redis.script("news", &data, None).await.expect("taken").expect("a position"));
        positions.push(text(through(&gateway, "news", &data, None).await));
    }
    let log = redis.log("news").await;
    assert_eq!(log.iter().map(|(id, ..)| id).collect::<Vec<_>>(), positions.iter().collect::<Vec<_>>());
    for (number, pair) in log.windows(2).enumerate() {
        let ((before, seq), (after, next)) = (split(&pair[0].0), split(&pair[1].0));
        assert_eq!((seq, next), (number as u64 + 1, number as u64 + 2));
        assert!(after > before);
        assert_eq!(pair[1].1, before.to_string(), "an entry names the time of the one before");
    }
}

#[tokio::test]
async fn an_idempotency_key_holds_whichever_way_it_comes() {
    let redis = Redis::with_library().await;
    let gateway = redis.gateway(Config::default());
    let first = redis.fcall("sluice:news", &["", "x", "k"]).await.expect("taken").expect("a position");
    assert_eq!(redis.fcall("sluice:news", &["", "x", "k"]).await.expect("known"), Some(first.clone()));
    assert_eq!(redis.script("news", "x", Some("k")).await.expect("known"), Some(first.clone()));
    let repeated = through(&gateway, "news", "x", Some("k")).await.expect("known");
    assert!(repeated.repeated);
    assert_eq!(text(Ok(repeated)), first);

    let other = redis.script("news", "y", Some("k2")).await.expect("taken");
    assert_eq!(redis.fcall("sluice:news", &["", "y", "k2"]).await.expect("known"), other);
    assert_eq!(redis.log("news").await.len(), 2);
    assert_ne!(
        redis.fcall("sluice:other", &["", "x", "k"]).await.expect("taken"),
        Some(first),
        "a key is its channel's"
    );
}

#[tokio::test]
async fn a_repeat_writes_an_expiry() {
    let redis = Redis::with_library().await;
    let hash = "sluice:idempotency:{sluice:news}";
    redis.fcall("sluice:news", &["", "x", "k"]).await.expect("taken");
    let _: i64 = redis.ask(&["EXPIRE", hash, "5"]).await;
    redis.fcall("sluice:news", &["", "x", "k"]).await.expect("known");
    assert_eq!(redis.ask::<i64>(&["TTL", hash]).await, 1200);
}

#[tokio::test]
async fn a_key_is_forgotten_when_its_time_is_over_and_the_hash_stays_small() {
    let redis = Redis::with_library().await;
    let _: () = redis.ask(&["SET", "sluice:limits:{sluice:news}", "1000 600000000 604800 0"]).await;
    for n in 0..50 {
        redis.fcall("sluice:news", &["", "x", &format!("k{n}")]).await.expect("taken");
    }
    assert_eq!(redis.log("news").await.len(), 50);
    // A lifetime of nothing lets the whole hash go at once; with a second, what is out of date is dropped in turn.
    let _: () = redis.ask(&["SET", "sluice:limits:{sluice:news}", "1000 600000000 604800 600"]).await;
    let past = redis.now().await - 1;
    let hash = "sluice:idempotency:{sluice:news}";
    for n in 1..=20 {
        let _: i64 = redis.ask(&["HSET", hash, &format!("kold{n}"), &format!("1-1 {past}")]).await;
        let _: i64 = redis.ask(&["HSET", hash, &format!("n{n}"), &format!("old{n}"), "tail", "20"]).await;
    }
    for n in 0..3 {
        redis.fcall("sluice:news", &["", "x", &format!("new{n}")]).await.expect("taken");
    }
    // k and n of each of three, head and tail.
    assert_eq!(redis.ask::<i64>(&["HLEN", hash]).await, 8);
}

#[tokio::test]
async fn a_clock_that_went_back_gives_rising_positions() {
    let redis = Redis::with_library().await;
    let ahead = redis.now().await + 3_600_000_000;
    let log = "sluice:log:{sluice:news}";
    let _: String = redis.ask(&["XADD", log, &format!("{ahead}-7"), "event", "", "data", "x", "prev", "1"]).await;
    let mut last = ahead;
    for seq in 8..12 {
        let position = redis.fcall("sluice:news", &["", "x"]).await.expect("taken").expect("a position");
        let (micros, number) = split(&position);
        assert_eq!(number, seq);
        assert!(micros > last && micros <= last + 1000, "{micros} after {last}");
        assert_eq!(redis.log("news").await.last().expect("an entry").1, last.to_string());
        last = micros;
    }
}

#[tokio::test]
async fn the_last_position_outlives_its_entries() {
    let redis = Redis::with_library().await;
    redis.fcall("sluice:news", &["", "x"]).await.expect("taken");
    let _: i64 = redis.ask(&["XTRIM", "sluice:log:{sluice:news}", "MAXLEN", "=", "0"]).await;
    let second = redis.fcall("sluice:news", &["", "y"]).await.expect("taken").expect("a position");
    assert_eq!(split(&second).1, 2);
    // Also where the newest one alone was taken out by hand.
    let third = redis.fcall("sluice:news", &["", "z"]).await.expect("taken").expect("a position");
    assert_eq!(redis.ask::<i64>(&["XDEL", "sluice:log:{sluice:news}", &third]).await, 1);
    let gateway = redis.gateway(Config::default());
    assert_eq!(split(&text(through(&gateway, "news", "z", None).await)).1, 4);
    assert_eq!(redis.log("news").await.last().expect("an entry").1, split(&third).0.to_string());
}

#[tokio::test]
async fn an_announcement_says_what_the_entry_says() {
    let redis = Redis::with_library().await;
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", redis.port)).expect("an address");
    let mut subscription = client.get_async_pubsub().await.expect("connects");
    subscription.subscribe("sluice:news").await.expect("subscribes");
    subscription.subscribe("sluice:$all").await.expect("subscribes");
    let position = redis.fcall("sluice:news", &["update", "{\"a\":1}"]).await.expect("taken").expect("a position");
    assert_eq!(redis.fcall("sluice:$all", &["message", "é"]).await.expect("taken"), None);

    let mut messages = subscription.on_message();
    let payload = Bytes::from(messages.next().await.expect("a message").get_payload_bytes().to_vec());
    let Announced::Entry { at, prev, event } = announcement::decode(payload, 100) else { panic!("no entry") };
    let log = redis.log("news").await;
    assert_eq!((at.to_string(), prev.to_string()), (position, log[0].1.clone()));
    assert_eq!((event.event_type(), event.data()), (Some("update"), "{\"a\":1}"));
    let payload = Bytes::from(messages.next().await.expect("a message").get_payload_bytes().to_vec());
    let Announced::Plain { event, .. } = announcement::decode(payload, 100) else { panic!("not plain") };
    assert_eq!((event.event_type(), event.data()), (None, "é"));
}
