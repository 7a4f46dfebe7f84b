//! What keeps an entry of the outbox from coming twice, or being passed over: each guard by itself.

use crate::topology_outbox::{by_channel, taker, watcher};
use sluice_tests::{
    gateway::{Gateway, Options},
    proxy::{Cut, Proxy},
    redis::{Kind, Redis, cluster::RedisCluster, sentinel::part},
    wait,
};

const STREAM: &str = "stream=\"sluice:intake\"";

/// In one step, as an application adds what belongs together.
async fn add(redis: &Redis, entries: impl Iterator<Item = (&str, u64)>) {
    let mut pipeline = redis::pipe();
    pipeline.atomic();
    for (channel, number) in entries {
        let data = format!("{channel} {number}");
        let fields = ["channel", channel, "data", &data];
        pipeline.cmd("XADD").arg("sluice:intake").arg("*").arg(&fields).ignore();
    }
    let () = pipeline.query_async(&mut redis.connection().await).await.expect("added");
}

async fn left(redis: &Redis) -> i64 {
    redis.run(&["XLEN", "sluice:intake"]).await
}

async fn wait_empty(redis: &Redis) {
    wait::until("what is settled is gone", async || (left(redis).await == 0).then_some(())).await;
}

async fn counted(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric("sse_intake_entries_total", &[&format!("result=\"{result}\"")]).await
}

#[tokio::test]
async fn one_replica_at_a_time_takes_entries_in_and_another_when_it_is_killed() {
    let redis = Redis::start().await;
    let observer = Gateway::start_with(watcher(&redis.url())).await;
    let mut takers = [Gateway::start_with(taker(&redis.url())).await, Gateway::start_with(taker(&redis.url())).await];
    let client = observer.subscribe(&["a"]).await;
    let holds = async |gateway: &Gateway| gateway.metric("sse_intake_held", &[STREAM]).await == 1.0;
    let (holder, other) = wait::until("one of them takes entries in", async || {
        let both = (holds(&takers[0]).await, holds(&takers[1]).await);
        assert_ne!(both, (true, true));
        both.0.then_some((0, 1)).or(both.1.then_some((1, 0)))
    })
    .await;
    for round in 0..20 {
        add(&redis, (round * 50..round * 50 + 50).map(|number| ("a", number))).await;
        client.wait_events(round as usize * 50 + 50).await;
    }
    wait_empty(&redis).await;
    assert_eq!(
        (counted(&takers[holder], "published").await, counted(&takers[other], "published").await),
        (1000.0, 0.0)
    );
    for taker in &takers {
        assert_eq!(counted(taker, "repeated").await, 0.0);
    }
    takers[holder].process.kill();
    add(&redis, (1000..1050).map(|number| ("a", number))).await;
    client.wait_events(1050).await;
    assert!(holds(&takers[other]).await);
    assert_eq!(by_channel(&client)["a"], (0..1050).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_was_published_and_not_let_go_of_is_not_published_again() {
    let redis = Redis::start().await;
    let observer = Gateway::start_with(watcher(&redis.url())).await;
    let client = observer.subscribe(&["a", "b"]).await;
    // One that can publish, and not delete: as one that is killed in between.
    let rights = ["ACL", "SETUSER", "keeps", "on", ">pw", "~*", "&*", "+@all", "-xtrim", "-xdel"];
    let _: String = redis.run(&rights).await;
    let mut keeps = Gateway::start_with(taker(&format!("redis://keeps:pw@{}", redis.address()))).await;
    let entries = |numbers: std::ops::Range<u64>| numbers.flat_map(|number| ["a", "b"].map(|name| (name, number)));
    add(&redis, entries(0..50)).await;
    client.wait_events(100).await;
    let refused = async || keeps.process.stderr().contains("entries cannot be taken in").then_some(());
    wait::until("it cannot let go of them", refused).await;
    assert_eq!(left(&redis).await, 100);
    keeps.process.kill();
    let taker = Gateway::start_with(taker(&redis.url())).await;
    add(&redis, entries(50..60)).await;
    client.wait_events(120).await;
    wait_empty(&redis).await;
    assert_eq!((counted(&taker, "repeated").await, counted(&taker, "published").await), (100.0, 20.0));
    let came = by_channel(&client);
    for name in ["a", "b"] {
        assert_eq!(came[name], (0..60).collect::<Vec<_>>(), "{name}");
    }
}

#[tokio::test]
async fn an_entry_that_could_not_be_published_is_passed_over_by_none_of_its_channel() {
    let cluster = RedisCluster::start(Kind::default(), 3, false).await;
    let observer = Gateway::start_with(watcher(&cluster.url())).await;
    let Options { config, redis: url, .. } = taker(&cluster.url());
    // So long each attempt at a slot on its way takes.
    let config = format!("{config}[redis]\ntimeout = \"300ms\"\n");
    let taker = Gateway::start_with(Options { config, redis: url, ..Options::default() }).await;
    let stream = cluster.owner_of_key("sluice:intake").await;
    let from = (0..3).find(|&nth| nth != stream).expect("another");
    let to = (0..3).find(|&nth| nth != stream && nth != from).expect("a third");
    let [moving, staying] = cluster.channels_of(from, "out").await;
    let client = observer.subscribe(&[&moving, &staying]).await;
    // In turn, so that none share a call.
    let entries = |numbers: std::ops::Range<u64>| numbers.flat_map(|number| [(&*moving, number), (&*staying, number)]);
    add(&cluster.servers[stream], entries(0..1)).await;
    client.wait_events(2).await;
    wait_empty(&cluster.servers[stream]).await;
    // Half of what the channel has is there and half is here, which is TRYAGAIN for as long as it is so.
    let slot: u16 = cluster.servers[from].run(&["CLUSTER", "KEYSLOT", &format!("sluice:{moving}")]).await;
    cluster.begin_to_move(slot, from, to).await;
    cluster.move_key(&format!("sluice:log:{{sluice:{moving}}}"), from, to).await;
    add(&cluster.servers[stream], entries(1..41)).await;
    // The first of the moving channel was given up: the others are still to be tried.
    let given_up = async || (counted(&taker, "published").await >= 3.0).then_some(());
    wait::until("the first one beside it is settled", given_up).await;
    cluster.move_keys(slot, from, to).await;
    // From here on it is ASK, which is followed.
    client.wait_events(82).await;
    cluster.end_move(slot, from, to).await;
    wait_empty(&cluster.servers[stream]).await;
    let came = by_channel(&client);
    for name in [&moving, &staying] {
        assert_eq!(came[name], (0..41).collect::<Vec<_>>(), "{name}");
    }
    assert!(client.read(|log| log.events.iter().all(|event| event.event != "gap")));
}

#[tokio::test]
async fn an_entry_is_told_of_and_let_go_of_once_a_replica_has_it() {
    let mut cluster = RedisCluster::start(Kind { durable: true, ..Kind::default() }, 3, true).await;
    let observer = Gateway::start_with(watcher(&cluster.url())).await;
    let Options { config, redis: url, .. } = taker(&cluster.url());
    let config = format!("{config}[redis]\nwait_replicas = 1\nwait_timeout = \"300ms\"\n");
    let taker = Gateway::start_with(Options { config, redis: url, ..Options::default() }).await;
    let stream = cluster.owner_of_key("sluice:intake").await;
    let master = (0..3).find(|&nth| nth != stream).expect("another");
    let [channel] = cluster.channels_of(master, "out").await;
    let client = observer.subscribe(&[&channel]).await;
    let entries = |numbers: std::ops::Range<u64>| numbers.map(|number| (&*channel, number));
    add(&cluster.servers[stream], entries(0..10)).await;
    client.wait_events(10).await;
    wait_empty(&cluster.servers[stream]).await;
    let (replica, id) =
        (cluster.replica_of(master).await, cluster.servers[master].run::<String>(&["CLUSTER", "MYID"]).await);
    let slot: u16 = cluster.servers[stream].run(&["CLUSTER", "KEYSLOT", &format!("sluice:{channel}")]).await;
    part(&cluster.servers[replica], &cluster.servers[master], true).await;
    add(&cluster.servers[stream], entries(10..20)).await;
    let waits = async || taker.process.stderr().contains("0 replicas have the events").then_some(());
    wait::until("it waits in vain", waits).await;
    // It may have said so of the first ones already.
    let log = format!("sluice:log:{{sluice:{channel}}}");
    let is_there = async || (cluster.servers[master].run::<i64>(&["XLEN", &log]).await == 20).then_some(());
    wait::until("it is in the log of the master", is_there).await;
    assert_eq!((client.data().len(), left(&cluster.servers[stream]).await), (10, 10), "and nobody was told");
    // What the master alone had is lost with it, and still in the stream.
    cluster.servers[master].kill();
    assert_eq!(cluster.promoted(&id, slot).await, replica);
    cluster.servers[master].restart().await;
    part(&cluster.servers[replica], &cluster.servers[master], false).await;
    client.wait_events(20).await;
    wait_empty(&cluster.servers[stream]).await;
    assert_eq!(by_channel(&client)[&channel], (0..20).collect::<Vec<_>>());
    assert!(client.read(|log| log.events.iter().all(|event| event.event != "gap")));
}

#[tokio::test]
async fn a_replica_that_does_not_reach_the_stream_does_not_say_that_it_takes_it_in() {
    let redis = Redis::start().await;
    let link = Proxy::start(redis.address()).await;
    let gateway = Gateway::start_with(taker(&format!("redis://{}", link.address))).await;
    gateway.wait_metric("sse_intake_held", &[STREAM], 1.0).await;
    link.refuse(true);
    link.cut_all(Cut::Close);
    gateway.wait_metric("sse_intake_held", &[STREAM], 0.0).await;
    link.refuse(false);
    gateway.wait_metric("sse_intake_held", &[STREAM], 1.0).await;
    // Nor one for which something else stands in the stream's place.
    let () = redis.run(&["DEL", "sluice:intake"]).await;
    let () = redis.run(&["SET", "sluice:intake", "x"]).await;
    gateway.wait_metric("sse_intake_held", &[STREAM], 0.0).await;
    assert!(gateway.process.stderr().contains("the lease has run out"), "{}", gateway.process.stderr());
}
