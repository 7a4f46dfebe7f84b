//! Events by `XADD` alone: each is published once, in the order of its stream, whatever becomes of the replicas.

use sluice_tests::{
    client::Client,
    gateway::{Gateway, Options},
    redis::{Kind, Redis, cluster::RedisCluster},
    wait::{self, PATIENCE},
};
use std::{collections::HashMap, time::Duration};

/// One that takes nothing in.
pub(crate) fn watcher(url: &str) -> Options {
    let config = "[redis]\nintake = []\n[history]\nsize = 5000\n".to_owned();
    Options { config, redis: Some(url.to_owned()), ..Options::default() }
}

pub(crate) fn taker(url: &str) -> Options {
    let config = "[history]\nsize = 5000\n".to_owned();
    Options { config, redis: Some(url.to_owned()), ..Options::default() }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|nth| format!("out{nth}")).collect()
}

/// Adds so many entries, one after another to each of the channels.
async fn add(redis: &Redis, channels: &[String], entries: usize) {
    let mut connection = redis.connection().await;
    for batch in (0..entries).collect::<Vec<_>>().chunks(500) {
        let mut pipeline = redis::pipe();
        for number in batch {
            let channel = &channels[number % channels.len()];
            let data = format!("{channel} {}", number / channels.len());
            pipeline
                .cmd("XADD")
                .arg("sluice:intake")
                .arg("*")
                .arg("channel")
                .arg(channel)
                .arg("data")
                .arg(data)
                .ignore();
        }
        let () = pipeline.query_async(&mut connection).await.expect("added");
        // Spread over some seconds, in which replicas can be killed.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What came of each channel, in order.
pub(crate) fn by_channel(client: &Client) -> HashMap<String, Vec<u64>> {
    let mut all: HashMap<String, Vec<u64>> = HashMap::new();
    for data in client.data() {
        let (channel, number) = data.split_once(' ').expect("a channel and a number");
        all.entry(channel.to_owned()).or_default().push(number.parse().expect("a number"));
    }
    all
}

#[tokio::test]
async fn an_entry_is_an_event_and_what_can_be_none_is_put_aside() {
    let redis = Redis::start().await;
    let gateway = Gateway::start_with(taker(&redis.url())).await;
    let client = gateway.subscribe(&["orders.eu"]).await;
    let add = async |fields: &[&str]| {
        let _: String = redis.run(&[&["XADD", "sluice:intake", "*"], fields].concat()).await;
    };
    add(&["channel", "orders.eu", "event", "update", "data", "{\"a\":1}", "trace", "x"]).await;
    add(&["channel", "no*name", "data", "x"]).await;
    add(&["channel", "orders.eu", "data", &"x".repeat(100_000)]).await;
    add(&["nothing", "of use"]).await;
    add(&["channel", "orders.eu", "data", "last"]).await;
    client.wait_data("last").await;
    assert_eq!(client.data(), ["{\"a\":1}", "last"]);
    client.read(|log| assert_eq!(log.events[0].event, "update"));
    let empty = async || (redis.run::<i64>(&["XLEN", "sluice:intake"]).await == 0).then_some(());
    wait::until("what is settled is gone", empty).await;
    // A key of another kind in a log's place concerns that channel alone.
    let _: String = redis.run(&["SET", "sluice:log:{sluice:poison}", "x"]).await;
    add(&["channel", "poison", "data", "one"]).await;
    add(&["channel", "poison", "data", "two"]).await;
    add(&["channel", "orders.eu", "data", "behind it"]).await;
    client.wait_data("behind it").await;
    wait::until("what is settled is gone", empty).await;
    let poisoned: Vec<(String, Vec<String>)> =
        redis.run(&["XREVRANGE", "sluice:intake:rejected", "+", "-", "COUNT", "2"]).await;
    assert!(poisoned.iter().all(|(_, fields)| fields[1].contains("WRONGTYPE")), "{poisoned:?}");
    assert_eq!(poisoned[0].1.last().map(String::as_str), Some("two"));
    let rejected: Vec<(String, Vec<String>)> =
        redis.run(&["XRANGE", "sluice:intake:rejected", "-", "+", "COUNT", "3"]).await;
    let reasons: Vec<_> = rejected.iter().map(|(_, fields)| fields[1].as_str()).collect();
    assert_eq!(rejected.len(), 3, "{reasons:?}");
    assert!(reasons[0].contains("channel name") && reasons[1].contains("100000 bytes"), "{reasons:?}");
    assert_eq!(rejected[0].1[2..], ["channel", "no*name", "data", "x"]);
    gateway.wait_metric("sse_intake_entries_total", &["result=\"rejected\""], 5.0).await;
    gateway.wait_metric("sse_intake_entries_total", &["result=\"published\""], 3.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_killed_every_second_and_each_entry_is_published_once_and_in_order() {
    const ENTRIES: usize = 20_000;
    let redis = Redis::start_durable().await;
    let observer = Gateway::start_with(watcher(&redis.url())).await;
    let names = names(50);
    let channels: Vec<_> = names.iter().map(String::as_str).collect();
    let client = Client::event_source(observer.events(&channels)).await;
    let mut takers: Vec<_> = (0..3).map(|_| Gateway::spawn(taker(&redis.url()))).collect();
    let all = async || (client.read(|log| log.events.len()) >= ENTRIES).then_some(());
    let adding = add(&redis, &names, ENTRIES);
    let killing = async {
        let mut round = 0;
        while all().await.is_none() && round < 60 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            // Whoever holds the lease by now among them.
            let victim = round % takers.len();
            takers[victim].process.kill();
            takers[victim].restart();
            round += 1;
        }
        round
    };
    let (kills, ()) = tokio::join!(killing, adding);
    assert!(kills >= 3, "{kills} were killed");
    wait::until_within("every entry has come", 2 * PATIENCE, all).await;
    let came = by_channel(&client);
    for name in &names {
        let expected: Vec<u64> = (0..(ENTRIES / names.len()) as u64).collect();
        assert_eq!(came.get(name), Some(&expected), "{name}");
    }
    assert!(client.read(|log| log.events.iter().all(|event| event.event != "gap")));
}

#[tokio::test]
async fn on_a_cluster_entries_go_to_their_channels_masters_while_slots_move() {
    let cluster = RedisCluster::start(Kind::default(), 3, false).await;
    let observer = Gateway::start_with(watcher(&cluster.url())).await;
    let takers = [Gateway::start_with(taker(&cluster.url())).await, Gateway::start_with(taker(&cluster.url())).await];
    let names = names(10);
    let channels: Vec<_> = names.iter().map(String::as_str).collect();
    let client = observer.subscribe(&channels).await;
    let owner = cluster.servers[cluster.owner_of_key("sluice:intake").await].url();
    let client_of_owner = redis::Client::open(owner).expect("a URL");
    let mut connection = client_of_owner.get_multiplexed_async_connection().await.expect("it answers");
    let slot: u16 = cluster.servers[0].run(&["CLUSTER", "KEYSLOT", "sluice:out0"]).await;
    let from = cluster.master_of("out0").await;
    let adding = async {
        for number in 0..400 {
            let channel = &names[number % names.len()];
            let mut add = redis::cmd("XADD");
            add.arg("sluice:intake").arg("*").arg("channel").arg(channel);
            add.arg("data").arg(format!("{channel} {}", number / names.len()));
            let _: String = add.query_async(&mut connection).await.expect("added");
        }
    };
    let moving = async {
        cluster.move_slot(slot, from, (from + 1) % 3).await;
    };
    tokio::join!(adding, moving);
    client.wait_events(400).await;
    let came = by_channel(&client);
    for name in &names {
        assert_eq!(came.get(name), Some(&(0..40).collect::<Vec<u64>>()), "{name}");
    }
    drop(takers);
}

#[tokio::test]
async fn entries_that_wait_for_replicas_come_once_and_in_order_while_their_slot_is_on_its_way() {
    let cluster = RedisCluster::start(Kind::default(), 3, true).await;
    let observer = Gateway::start_with(watcher(&cluster.url())).await;
    let waits = || {
        let Options { config, .. } = taker("");
        let config = format!("{config}[redis]\nwait_replicas = 1\n");
        Options { config, redis: Some(cluster.url()), ..Options::default() }
    };
    let takers = [Gateway::start_with(waits()).await, Gateway::start_with(waits()).await];
    // One whose slot moves, one beside it, and the stream elsewhere, so that only the channel is on its way.
    let stream = cluster.owner_of_key("sluice:intake").await;
    let from = (0..3).find(|&nth| nth != stream).expect("another");
    let to = (0..3).find(|&nth| nth != stream && nth != from).expect("a third");
    let names: [String; 2] = cluster.channels_of(from, "out").await;
    let client = observer.subscribe(&[&names[0], &names[1]]).await;
    let redis = &cluster.servers[stream];
    let fill = async |numbers: std::ops::Range<u64>| {
        let mut pipeline = redis::pipe();
        for (number, channel) in numbers.flat_map(|number| names.iter().map(move |channel| (number, channel))) {
            let data = format!("{channel} {number}");
            let fields = ["channel", channel, "data", &data];
            pipeline.cmd("XADD").arg("sluice:intake").arg("*").arg(&fields).ignore();
        }
        let () = pipeline.query_async(&mut redis.connection().await).await.expect("added");
    };
    fill(0..20).await;
    client.wait_events(40).await;
    let slot: u16 = redis.run(&["CLUSTER", "KEYSLOT", &format!("sluice:{}", names[0])]).await;
    cluster.begin_to_move(slot, from, to).await;
    // Its keys are all there still.
    fill(20..40).await;
    client.wait_events(80).await;
    cluster.move_keys(slot, from, to).await;
    fill(40..60).await;
    // The one beside it goes on, and entries that are answered ASK wait.
    client.wait_data(&format!("{} 59", names[1])).await;
    let told = async || takers.iter().any(|one| one.process.stderr().contains("slot is on its way")).then_some(());
    wait::until("a taker met the slot on its way", told).await;
    assert_eq!(by_channel(&client)[&names[0]], (0..40).collect::<Vec<_>>());
    assert_eq!(redis.run::<i64>(&["XLEN", "sluice:intake"]).await, 40, "none of the page is let go of");
    cluster.end_move(slot, from, to).await;
    fill(60..80).await;
    client.wait_events(160).await;
    let came = by_channel(&client);
    for name in &names {
        assert_eq!(came[name], (0..80).collect::<Vec<_>>(), "{name}");
    }
    let empty = async || (redis.run::<i64>(&["XLEN", "sluice:intake"]).await == 0).then_some(());
    wait::until("what is settled is gone", empty).await;
    assert!(client.read(|log| log.events.iter().all(|event| event.event != "gap")));
}

#[tokio::test]
async fn a_holder_that_is_frozen_for_longer_than_its_lease_publishes_nothing_again() {
    let redis = Redis::start().await;
    let observer = Gateway::start_with(watcher(&redis.url())).await;
    let mut takers = [Gateway::start_with(taker(&redis.url())).await, Gateway::start_with(taker(&redis.url())).await];
    let client = observer.subscribe(&["out0", "out1"]).await;
    let names = names(2);
    const ENTRIES: usize = 6000;
    let adding = async {
        for part in 0..60 {
            let mut pipeline = redis::pipe();
            // As an application does it: together with what the event is about.
            pipeline.atomic();
            for number in part * 100..(part + 1) * 100 {
                let channel = &names[number % 2];
                let data = format!("{channel} {}", number / 2);
                let fields = ["channel", channel, "data", &data];
                pipeline.cmd("XADD").arg("sluice:intake").arg("*").arg(&fields).ignore();
            }
            let () = pipeline.query_async(&mut redis.connection().await).await.expect("added");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let freezing = async {
        for _ in 0..2 {
            let holder = wait::until("one of them takes entries in", async || {
                for (nth, gateway) in takers.iter().enumerate() {
                    if gateway.metric("sse_intake_held", &["stream=\"sluice:intake\""]).await == 1.0 {
                        return Some(nth);
                    }
                }
                None
            })
            .await;
            takers[holder].process.signal(rustix::process::Signal::STOP);
            // The lease holds for three seconds.
            tokio::time::sleep(Duration::from_millis(4500)).await;
            takers[holder].process.signal(rustix::process::Signal::CONT);
        }
    };
    tokio::join!(adding, freezing);
    client.wait_events(ENTRIES).await;
    let came = by_channel(&client);
    for name in &names {
        assert_eq!(came.get(name), Some(&(0..ENTRIES as u64 / 2).collect::<Vec<_>>()), "{name}");
    }
}

#[tokio::test]
async fn several_streams_are_taken_in_each_in_its_order() {
    let redis = Redis::start().await;
    let config = "[redis]\nintake = [\"intake\", \"bulk\"]\nwait_replicas = 0\n".to_owned();
    let options = Options { config, redis: Some(redis.url()), ..Options::default() };
    let gateway = Gateway::start_with(options).await;
    let client = gateway.subscribe(&["a"]).await;
    for number in 0..100 {
        for stream in ["intake", "bulk"] {
            let (key, data) = (format!("sluice:{stream}"), format!("{stream} {number}"));
            let _: String = redis.run(&["XADD", &key, "*", "channel", "a", "data", &data]).await;
        }
    }
    client.wait_events(200).await;
    let came = by_channel(&client);
    for stream in ["intake", "bulk"] {
        assert_eq!(came.get(stream), Some(&(0..100).collect::<Vec<u64>>()), "{stream}");
    }
}
