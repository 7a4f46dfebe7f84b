//! A master is lost whose replica had been parted from it: what had been acknowledged meanwhile is lost with it, and said
//! to be; unless an acknowledgement waits for the replica.

use rustix::process::Signal;
use serde_json::json;
use sluice_tests::{
    check::payload,
    cli,
    client::{Client, Log},
    gateway::{Gateway, Options},
    numbered::{self, assert_saw, saw},
    redis::{
        Kind, Redis,
        cluster::RedisCluster,
        sentinel::{Sentinels, follow, part},
    },
    wait::{self, PATIENCE},
};
use std::{ops::RangeInclusive, time::Duration};

const CONFIG: &str = "[stream]\nretry_min = \"50ms\"\nretry_max = \"200ms\"\n[redis]\ngrace = \"0s\"\n";
/// What a first look at another history takes before it is believed, and written down.
const SETTLED: Duration = Duration::from_secs(20);

async fn start(url: &str, settings: &str) -> [Gateway; 2] {
    let config = format!("{CONFIG}{settings}");
    let options = Options { config, redis: Some(url.to_owned()), ..Options::default() };
    let gateways = [Gateway::spawn(options.clone()), Gateway::spawn(options)];
    for gateway in &gateways {
        gateway.wait_ready(PATIENCE).await;
    }
    gateways
}

async fn publish(gateway: &Gateway, channel: &str, numbers: RangeInclusive<u64>) {
    numbered::publish(&gateway.http, channel, numbers).await;
}

async fn wait_for(client: &Client, channel: &str, number: u64, gaps: usize) {
    let done = |log: &Log| saw(log, channel).1.len() >= gaps && log.data().any(|data| data == payload(channel, number));
    client.wait_within(&format!("{channel} {number} and {gaps} gaps"), SETTLED, done).await;
}

async fn on_replica(redis: &Redis, channel: &str, events: i64) {
    let copied = async || {
        let mut connection = redis.try_connection().await?;
        let key = format!("sluice:log:{{sluice:{channel}}}");
        // A replica of a cluster answers for its slots when it is asked to.
        let _ = redis::cmd("READONLY").query_async::<String>(&mut connection).await;
        let length: i64 = redis::cmd("XLEN").arg(key).query_async(&mut connection).await.ok()?;
        (length == events).then_some(())
    };
    wait::until("everything is on the replica", copied).await;
}

#[tokio::test]
async fn what_a_parted_replica_lacks_is_one_gap_for_each_channel_that_lost_and_none_elsewhere() {
    let mut all = Sentinels::start(Kind { durable: true, ..Kind::default() }, "").await;
    let gateways = start(&all.url(), "").await;
    let live = [gateways[0].subscribe(&["a", "b"]).await, gateways[1].subscribe(&["a", "b"]).await];
    publish(&gateways[0], "a", 1..=10).await;
    publish(&gateways[0], "b", 1..=10).await;
    on_replica(&all.servers[1], "a", 10).await;
    on_replica(&all.servers[1], "b", 10).await;
    part(&all.servers[1], &all.servers[0], true).await;
    publish(&gateways[0], "a", 11..=15).await;
    for client in &live {
        wait_for(client, "a", 15, 0).await;
    }
    all.servers[0].kill();
    all.promoted(0).await;
    publish(&gateways[0], "a", 16..=20).await;
    publish(&gateways[1], "b", 11..=20).await;
    for client in &live {
        wait_for(client, "a", 20, 1).await;
        wait_for(client, "b", 20, 0).await;
        assert_saw("live", client, "a", 1..=20, &["reset"]);
        assert_saw("live", client, "b", 1..=20, &[]);
    }
    // The old master comes back, and gives up what only it has.
    all.servers[0].restart().await;
    part(&all.servers[1], &all.servers[0], false).await;
    all.wait_followed().await;
    publish(&gateways[0], "a", 21..=25).await;
    for client in &live {
        wait_for(client, "a", 25, 0).await;
        assert_saw("live", client, "a", 1..=25, &["reset"]);
    }
}

#[tokio::test]
async fn nothing_is_lost_that_was_acknowledged_by_a_replica_too() {
    let mut all = Sentinels::start(Kind { durable: true, ..Kind::default() }, "").await;
    let gateways = start(&all.url(), "wait_replicas = 1\nwait_timeout = \"300ms\"\n").await;
    let live = gateways[1].subscribe(&["a"]).await;
    publish(&gateways[0], "a", 1..=10).await;
    wait_for(&live, "a", 10, 0).await;
    part(&all.servers[1], &all.servers[0], true).await;
    // The key that it is published with afterwards: with another it could be there twice.
    let key = [("idempotency-key", "a-11")];
    let answer = gateways[0].http.send("POST", "/channels/a/events", &key, payload("a", 11)).await;
    assert_eq!(answer.status, 503);
    let told = answer.text();
    assert!(told.contains("\"position\":\"") && told.contains("Idempotency-Key"), "{told}");
    let again = gateways[1].http.send("POST", "/channels/a/events", &key, payload("a", 11)).await;
    assert_eq!(again.status, 503, "a repeat waits again: {}", again.text());
    // It is in the log of the master alone, and nobody was told of it.
    assert_saw("live", &live, "a", 1..=10, &[]);
    all.servers[0].kill();
    all.promoted(0).await;
    all.servers[0].restart().await;
    part(&all.servers[1], &all.servers[0], false).await;
    all.wait_followed().await;
    // Everything that was answered for is there, and the one that was not is published once.
    publish(&gateways[0], "a", 11..=20).await;
    wait_for(&live, "a", 20, 0).await;
    assert_saw("live", &live, "a", 1..=20, &[]);
}

/// A master and its replica, and a gateway that waits for the replica for so long, with one event in `a`.
async fn with_replica(waits: &str) -> (Redis, Redis, Gateway) {
    let (master, replica) = (Redis::start().await, Redis::start().await);
    follow(&replica, &master).await;
    let config = format!("{CONFIG}timeout = \"25s\"\nwait_replicas = 1\nwait_timeout = \"{waits}\"\n");
    let redis = Some(format!("redis://{}", master.address()));
    let gateway = Gateway::start_with(Options { config, redis, ..Options::default() }).await;
    publish(&gateway, "a", 1..=1).await;
    (master, replica, gateway)
}

#[tokio::test]
async fn who_reads_history_waits_for_the_replica_too() {
    let (master, mut replica, gateway) = with_replica("20s").await;
    let waiting = async |count: usize| {
        let enough = async || {
            let clients: String = master.run(&["CLIENT", "LIST"]).await;
            (clients.lines().filter(|client| client.contains(" cmd=wait ")).count() >= count).then_some(())
        };
        wait::until("a client of redis waits for the replica", enough).await;
    };
    replica.signal(Signal::STOP);
    let publishing = gateway.http.send("POST", "/channels/a/events", &[], payload("a", 2));
    let reading = async {
        waiting(1).await;
        gateway.http.get("/channels/a/events?since=earliest").await
    };
    let going_on = async {
        waiting(2).await;
        replica.signal(Signal::CONT);
    };
    let (published, read, ()) = tokio::join!(publishing, reading, going_on);
    assert_eq!((published.status, read.status), (200, 200), "{} {}", published.text(), read.text());
    assert_eq!(read.json()["events"].as_array().map(Vec::len), Some(2), "{}", read.text());
}

#[tokio::test]
async fn history_that_the_replica_lacks_is_shown_only_once_it_has_been_away_for_long() {
    let (_master, mut replica, gateway) = with_replica("100ms").await;
    replica.signal(Signal::STOP);
    let read = async || gateway.http.get("/channels/a/events?since=earliest").await;
    let refused = read().await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    let shown = async || Some(read().await).filter(|answer| answer.status == 200);
    let shown = wait::until("it is shown all the same", shown).await;
    assert_eq!(shown.json()["events"].as_array().map(Vec::len), Some(1), "{}", shown.text());
    // Once it is back, the next time begins anew.
    replica.signal(Signal::CONT);
    publish(&gateway, "a", 2..=2).await;
    assert_eq!(read().await.status, 200);
    replica.signal(Signal::STOP);
    assert_eq!(read().await.status, 503);
    replica.signal(Signal::CONT);
}

#[tokio::test]
async fn on_a_cluster_a_parted_replica_costs_only_the_channels_of_its_master_that_lost() {
    let mut cluster = RedisCluster::start(Kind { durable: true, ..Kind::default() }, 3, true).await;
    let gateways = start(&cluster.url(), "").await;
    let master = cluster.master_of("a").await;
    let (replica, id) =
        (cluster.replica_of(master).await, cluster.servers[master].run::<String>(&["CLUSTER", "MYID"]).await);
    // Two that lose, one beside them that does not, and one elsewhere.
    let [one, two, beside] = cluster.channels_of(master, "a").await;
    let [other] = cluster.channels_of((0..3).find(|&nth| nth != master).expect("another"), "a").await;
    let names = [&*one, &*two, &*beside, &*other];
    let live = [gateways[0].subscribe(&names).await, gateways[1].subscribe(&names).await];
    for name in names {
        publish(&gateways[0], name, 1..=10).await;
    }
    for name in [&one, &two, &beside] {
        on_replica(&cluster.servers[replica], name, 10).await;
    }
    part(&cluster.servers[replica], &cluster.servers[master], true).await;
    for name in [&one, &two, &other] {
        publish(&gateways[0], name, 11..=15).await;
        for client in &live {
            wait_for(client, name, 15, 0).await;
        }
    }
    let slot: u16 = cluster.servers[replica].run(&["CLUSTER", "KEYSLOT", &format!("sluice:{one}")]).await;
    cluster.servers[master].kill();
    assert_eq!(cluster.promoted(&id, slot).await, replica);
    for (name, from) in [(&one, 16), (&two, 16), (&beside, 11), (&other, 16)] {
        publish(&gateways[1], name, from..=20).await;
    }
    let lost = [(&*one, &["reset"][..]), (&*two, &["reset"]), (&*beside, &[]), (&*other, &[])];
    for (client, (name, gaps)) in live.iter().flat_map(|client| lost.map(|lost| (client, lost))) {
        wait_for(client, name, 20, gaps.len()).await;
        assert_saw("live", client, name, 1..=20, gaps);
    }
    // The old master comes back as a replica, and gives up what only it has.
    cluster.servers[master].restart().await;
    part(&cluster.servers[replica], &cluster.servers[master], false).await;
    on_replica(&cluster.servers[master], &beside, 20).await;
    for name in names {
        publish(&gateways[0], name, 21..=25).await;
    }
    for (client, (name, gaps)) in live.iter().flat_map(|client| lost.map(|lost| (client, lost))) {
        wait_for(client, name, 25, gaps.len()).await;
        assert_saw("live", client, name, 1..=25, gaps);
    }
}

#[tokio::test]
async fn on_a_cluster_nothing_is_lost_that_was_acknowledged_by_a_replica_too() {
    let mut cluster = RedisCluster::start(Kind { durable: true, ..Kind::default() }, 3, true).await;
    let gateways = start(&cluster.url(), "wait_replicas = 1\nwait_timeout = \"300ms\"\n").await;
    let master = cluster.master_of("a").await;
    let (replica, id) =
        (cluster.replica_of(master).await, cluster.servers[master].run::<String>(&["CLUSTER", "MYID"]).await);
    let [other] = cluster.channels_of((0..3).find(|&nth| nth != master).expect("another"), "a").await;
    let live = gateways[1].subscribe(&["a", &other]).await;
    publish(&gateways[0], "a", 1..=10).await;
    wait_for(&live, "a", 10, 0).await;
    part(&cluster.servers[replica], &cluster.servers[master], true).await;
    let key = [("idempotency-key", "a-11")];
    let answer = gateways[0].http.send("POST", "/channels/a/events", &key, payload("a", 11)).await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("\"position\":\""), "{}", answer.text());
    // Where there is a replica everything goes on, and one that waits in vain takes nothing with it.
    let batch = json!([
        { "channel": "a", "data": payload("a", 11), "idempotency_key": "a-11" },
        { "channel": other, "data": payload(&other, 1), "idempotency_key": format!("{other}-1") },
    ]);
    let answer = gateways[1].http.post("/events", batch.to_string()).await;
    assert_eq!(answer.status, 207, "{}", answer.text());
    publish(&gateways[0], &other, 2..=10).await;
    wait_for(&live, &other, 10, 0).await;
    // It is in the log of the master alone, and nobody was told of it.
    assert_saw("live", &live, "a", 1..=10, &[]);
    let slot: u16 = cluster.servers[replica].run(&["CLUSTER", "KEYSLOT", "sluice:a"]).await;
    cluster.servers[master].kill();
    assert_eq!(cluster.promoted(&id, slot).await, replica);
    cluster.servers[master].restart().await;
    part(&cluster.servers[replica], &cluster.servers[master], false).await;
    // Everything that was answered for is there, and the one that was not is published once.
    publish(&gateways[0], "a", 11..=20).await;
    wait_for(&live, "a", 20, 0).await;
    assert_saw("live", &live, "a", 1..=20, &[]);
    assert_saw("live", &live, &other, 1..=10, &[]);
}

#[tokio::test]
async fn a_master_of_a_cluster_that_is_down_stops_only_its_own_channels() {
    let mut cluster = RedisCluster::start(Kind { durable: true, ..Kind::default() }, 3, false).await;
    let gateways = start(&cluster.url(), "timeout = \"500ms\"\n").await;
    let down = cluster.master_of("a").await;
    // One elsewhere, which is not the one of `$control` either.
    let mut other = String::new();
    for nth in 0..50 {
        let name = format!("b{nth}");
        if cluster.master_of(&name).await != down {
            other = name;
            break;
        }
    }
    let live = gateways[0].subscribe(&["a", &other]).await;
    publish(&gateways[0], "a", 1..=3).await;
    publish(&gateways[0], &other, 1..=3).await;
    wait_for(&live, "a", 3, 0).await;
    cluster.servers[down].kill();
    let told = async || {
        let answer = gateways[0].admin.get("/readyz").await;
        (answer.status == 200 && answer.text().contains("slots cannot be reached")).then_some(())
    };
    wait::until("it says which share is away, and is ready", told).await;
    let share = gateways[0].metric("sse_redis_reachable_ratio", &[]).await;
    assert!((0.6..0.7).contains(&share), "{share}");
    let refused = gateways[0].http.send("POST", "/channels/a/events", &[], "x").await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    publish(&gateways[1], &other, 4..=10).await;
    wait_for(&live, &other, 10, 0).await;
    let alive = cluster.servers[(down + 1) % 3].address().to_string();
    let check = cli::sluice(&["redis", "check", "--redis", &cluster.servers[(down + 1) % 3].url()]).await;
    assert_eq!(check.code, Some(1));
    let others = cluster.servers.iter().filter(|server| check.stdout.contains(&format!("{}: ", server.address())));
    assert!(others.count() == 3 && check.stdout.contains(&format!("{alive}: redis 7.0")), "{check:?}");
    let batch = r#"[{"channel":"a","data":"x"},{"channel":"OTHER","data":"y"}]"#.replace("OTHER", &other);
    let answer = gateways[0].http.post("/events", batch).await;
    assert_eq!(answer.status, 207, "{}", answer.text());
    cluster.servers[down].restart().await;
    publish(&gateways[0], "a", 4..=6).await;
    wait_for(&live, "a", 6, 0).await;
    assert_saw("live", &live, "a", 1..=6, &[]);
    gateways[0].wait_metric("sse_redis_reachable_ratio", &[], 1.0).await;
}
