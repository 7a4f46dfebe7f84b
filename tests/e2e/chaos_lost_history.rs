//! Redis does lose data: whoever that concerns is told once for each loss and channel, and misses nothing afterwards;
//! nobody else hears of it (see `docs/testing.md`).

use sluice_tests::{
    check::{number, payload},
    client::{Client, Log},
    cluster::Cluster,
    gateway::{Gateway, Options},
    proxy::Proxy,
    redis::Redis,
    wait::{self, PATIENCE},
};
use std::{ops::RangeInclusive, time::Duration};

const CONFIG: &str = "[stream]\nretry_min = \"50ms\"\nretry_max = \"200ms\"\n[redis]\ngrace = \"0s\"\n";
/// What a first look at another history takes before it is believed, and written down.
const SETTLED: Duration = Duration::from_secs(15);

/// What the looks at it take, at least.
const LOOKS: Duration = Duration::from_secs(4);

/// The numbers that came of a channel, in their order, and how many gaps were told of it.
fn saw(log: &Log, channel: &str) -> (Vec<u64>, usize) {
    let numbers = log.data().filter_map(|data| number(channel, data)).collect();
    let gaps = log.events.iter().filter(|event| event.event == "gap");
    let gaps = gaps.filter(|gap| gap.data.contains(&format!("\"channel\":\"{channel}\""))).count();
    (numbers, gaps)
}

fn assert_saw(who: &str, client: &Client, channel: &str, numbers: impl IntoIterator<Item = u64>, gaps: usize) {
    client.read(|log| {
        let events: Vec<_> = log.events.iter().map(|event| format!("{} {}", event.event, event.data)).collect();
        let expected = (numbers.into_iter().collect(), gaps);
        assert_eq!(saw(log, channel), expected, "{who} on {channel}: {events:?}");
    });
}

/// Publishes each until it is taken: the connections of a pool may have died with the Redis before.
async fn publish(gateway: &Gateway, channel: &str, numbers: RangeInclusive<u64>) {
    let path = format!("/channels/{channel}/events");
    for number in numbers {
        let data = payload(channel, number);
        let key = [("idempotency-key", data.replace(' ', "-"))];
        let key = key.each_ref().map(|(name, value)| (*name, value.as_str()));
        let taken = async || (gateway.http.send("POST", &path, &key, data.clone()).await.status == 200).then_some(());
        wait::until("the event is taken", taken).await;
    }
}

/// Waits for the `number`th event, and until the gap was told.
async fn wait_for(client: &Client, channel: &str, number: u64, gaps: usize) {
    let done = |log: &Log| saw(log, channel).1 >= gaps && log.data().any(|data| data == payload(channel, number));
    client.wait_within(&format!("{channel} {number} and {gaps} gaps"), SETTLED, done).await;
}

/// One that has left, and the cursor that it left with.
async fn sleeper(gateway: &Gateway, channels: &[&str], awake: impl AsyncFnOnce()) -> String {
    let client = gateway.subscribe(channels).await;
    awake().await;
    let newest = |log: &Log| log.events.len() >= channels.len();
    client.wait("it has seen events", newest).await;
    client.read(|log| log.last_event_id.clone())
}

async fn resume(gateway: &Gateway, channels: &[&str], cursor: &str) -> Client {
    Client::once(gateway.events(channels).header("Last-Event-ID", cursor)).await
}

/// A Redis and its replica, and a way to each that can be cut.
struct Pair {
    old: Redis,
    new: Redis,
    replication: Proxy,
    link: Proxy,
}

impl Pair {
    /// With as many gateways as a test wants, on the first of the two.
    async fn start<const GATEWAYS: usize>() -> (Self, [Gateway; GATEWAYS]) {
        let (old, new) = (Redis::start_durable().await, Redis::start_durable().await);
        let (replication, link) = (Proxy::start(old.address()).await, Proxy::start(old.address()).await);
        let address = replication.address;
        let _: String = new.run(&["REPLICAOF", &address.ip().to_string(), &address.port().to_string()]).await;
        let url = Some(format!("redis://{}", link.address));
        let options = Options { config: CONFIG.to_owned(), redis: url, ..Options::default() };
        let gateways = [(); GATEWAYS].map(|()| Gateway::spawn(options.clone()));
        ready(&gateways).await;
        (Self { old, new, replication, link }, gateways)
    }

    /// Lets nothing more through to the replica once it has so many entries of a channel.
    async fn part(&self, channel: &str, entries: i64) {
        let log = format!("sluice:log:{{sluice:{channel}}}");
        let copied = async || (self.new.run::<i64>(&["XLEN", &log]).await == entries).then_some(());
        wait::until("everything is on the replica", copied).await;
        self.replication.refuse(true);
    }

    /// Puts the replica in the place of the other, which is gone with what it alone had.
    async fn promote(&mut self) {
        let _: String = self.new.run(&["REPLICAOF", "NO", "ONE"]).await;
        self.link.switch(self.new.address());
        self.old.kill();
    }
}

async fn ready(gateways: &[Gateway]) {
    for gateway in gateways {
        gateway.wait_ready(PATIENCE).await;
    }
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_one_gap_for_everyone_who_was_there_before() {
    let mut cluster = Cluster::start(Redis::start().await, 2, CONFIG).await;
    let live = [
        cluster.gateways[0].subscribe(&["a", "b"]).await,
        Client::event_source(cluster.gateways[1].events(&["a"])).await,
    ];
    let asleep = sleeper(&cluster.gateways[0], &["a"], async || publish(&cluster.gateways[0], "a", 1..=10).await).await;
    publish(&cluster.gateways[0], "b", 1..=3).await;
    wait_for(&live[0], "b", 3, 0).await;
    wait_for(&live[1], "a", 10, 0).await;
    cluster.redis.kill();
    for gateway in &cluster.gateways {
        gateway.wait_metric("sse_redis_up", &[], 0.0).await;
    }
    cluster.redis.restart().await;
    ready(&cluster.gateways).await;
    publish(&cluster.gateways[1], "a", 11..=20).await;
    publish(&cluster.gateways[1], "b", 4..=6).await;
    wait_for(&live[0], "a", 20, 1).await;
    wait_for(&live[0], "b", 6, 1).await;
    wait_for(&live[1], "a", 20, 1).await;

    let woken = resume(&cluster.gateways[1], &["a"], &asleep).await;
    wait_for(&woken, "a", 20, 1).await;
    let newcomer = cluster.gateways[0].subscribe(&["a"]).await;
    publish(&cluster.gateways[0], "a", 21..=25).await;
    for client in live.iter().chain([&woken, &newcomer]) {
        wait_for(client, "a", 25, 0).await;
    }
    assert_saw("live", &live[0], "a", 1..=25, 1);
    assert_saw("live", &live[0], "b", 1..=6, 1);
    assert_saw("live elsewhere", &live[1], "a", 1..=25, 1);
    // It left with what it had by then, and the rest of the old history is gone.
    woken.read(|log| {
        let (numbers, gaps) = saw(log, "a");
        assert_eq!((&numbers[..], gaps), (&(11..=25).collect::<Vec<_>>()[..], 1), "{:?}", log.events);
    });
    assert_saw("newcomer", &newcomer, "a", 21..=25, 0);
    // Told once: a cut after the gap does not tell of it again, on whichever replica.
    for (client, gateway) in [(&woken, 0), (&live[0], 1)] {
        let cursor = client.read(|log| log.last_event_id.clone());
        let again = resume(&cluster.gateways[gateway], &["a"], &cursor).await;
        cluster.gateways[0].publish("a", "marker").await;
        again.wait_data("marker").await;
        assert_eq!(again.read(|log| saw(log, "a").1), 0, "{:?}", again.data());
    }
}

#[tokio::test]
async fn a_deleted_stream_is_one_gap_on_its_channel_and_none_on_others() {
    let cluster = Cluster::start(Redis::start().await, 2, CONFIG).await;
    let live = [cluster.gateways[0].subscribe(&["a", "b"]).await, cluster.gateways[1].subscribe(&["b", "a"]).await];
    publish(&cluster.gateways[0], "a", 1..=10).await;
    publish(&cluster.gateways[0], "b", 1..=10).await;
    for client in &live {
        wait_for(client, "a", 10, 0).await;
        wait_for(client, "b", 10, 0).await;
    }
    for (loss, last) in [(1, 20), (2, 30)] {
        let deleted: i64 = cluster.redis.run(&["DEL", "sluice:log:{sluice:a}"]).await;
        assert_eq!(deleted, 1);
        publish(&cluster.gateways[0], "a", last - 9..=last).await;
        publish(&cluster.gateways[0], "b", last - 9..=last).await;
        for client in &live {
            wait_for(client, "a", last, loss).await;
            wait_for(client, "b", last, 0).await;
        }
    }
    let newcomer = cluster.gateways[1].subscribe(&["a"]).await;
    publish(&cluster.gateways[1], "a", 31..=35).await;
    for client in live.iter().chain([&newcomer]) {
        wait_for(client, "a", 35, 0).await;
    }
    for client in &live {
        assert_saw("live", client, "a", 1..=35, 2);
        assert_saw("live", client, "b", 1..=30, 0);
    }
    assert_saw("newcomer", &newcomer, "a", 31..=35, 0);
}

#[tokio::test]
async fn history_trimmed_below_a_sleeping_client_is_one_gap_and_the_oldest_entry_kept_follows() {
    let rule = format!("{CONFIG}[[channel]]\nmatch = \"small\"\nhistory = {{ size = 5 }}\n");
    let cluster = Cluster::start(Redis::start().await, 1, &rule).await;
    let gateway = &cluster.gateways[0];
    for channel in ["trimmed", "small"] {
        let live = gateway.subscribe(&[channel]).await;
        let asleep = sleeper(gateway, &[channel], async || publish(gateway, channel, 1..=1).await).await;
        publish(gateway, channel, 2..=25).await;
        wait_for(&live, channel, 25, 0).await;
        let just_in_time = live.read(|log| log.last_event_id.clone());
        publish(gateway, channel, 26..=30).await;
        wait_for(&live, channel, 30, 0).await;
        let awake = live.read(|log| log.last_event_id.clone());
        if channel == "trimmed" {
            let _: i64 = cluster.redis.run(&["XTRIM", "sluice:log:{sluice:trimmed}", "MAXLEN", "=", "5"]).await;
        }
        // One that remembers nothing of its own.
        let options = Options { config: rule.clone(), redis: Some(cluster.redis.url()), ..Options::default() };
        let fresh = Gateway::start_with(options).await;
        let late = resume(&fresh, &[channel], &asleep).await;
        let punctual = resume(&fresh, &[channel], &just_in_time).await;
        let complete = resume(&fresh, &[channel], &awake).await;
        wait_for(&late, channel, 30, 1).await;
        publish(gateway, channel, 31..=33).await;
        for client in [&live, &late, &punctual, &complete] {
            wait_for(client, channel, 33, 0).await;
        }
        assert_saw("late", &late, channel, 26..=33, 1);
        late.read(|log| assert!(log.events[0].data.contains("\"trimmed\""), "first the gap: {:?}", log.events[0]));
        assert_saw("just in time", &punctual, channel, 26..=33, 0);
        assert_saw("complete", &complete, channel, 31..=33, 0);
        assert_saw("live", &live, channel, 1..=33, 0);
    }
}

#[tokio::test]
async fn a_promoted_replica_that_lacks_the_last_entries_is_one_gap_for_whoever_crosses_the_fork() {
    let (mut pair, gateways) = Pair::start::<2>().await;

    let live = [gateways[0].subscribe(&["a", "b"]).await, gateways[1].subscribe(&["a"]).await];
    publish(&gateways[0], "a", 1..=10).await;
    publish(&gateways[0], "b", 1..=10).await;
    wait_for(&live[0], "a", 10, 0).await;
    wait_for(&live[0], "b", 10, 0).await;
    let before = live[0].read(|log| log.last_event_id.clone());
    pair.part("b", 10).await;
    publish(&gateways[0], "a", 11..=15).await;
    for client in &live {
        wait_for(client, "a", 15, 0).await;
    }
    let after = live[0].read(|log| log.last_event_id.clone());

    pair.promote().await;
    let flows = async || (gateways[0].http.post("/channels/c/events", "x").await.status == 200).then_some(());
    wait::until("publishing goes on", flows).await;
    publish(&gateways[0], "a", 16..=20).await;
    publish(&gateways[0], "b", 11..=20).await;
    wait_for(&live[0], "a", 20, 1).await;
    wait_for(&live[1], "a", 20, 1).await;
    let had_seen_the_lost = resume(&gateways[1], &["a", "b"], &after).await;
    let stood_before_the_lost = resume(&gateways[1], &["a", "b"], &before).await;
    wait_for(&had_seen_the_lost, "a", 20, 1).await;
    wait_for(&stood_before_the_lost, "a", 20, 1).await;
    let newcomer = gateways[1].subscribe(&["a"]).await;
    publish(&gateways[1], "a", 21..=25).await;
    for client in live.iter().chain([&had_seen_the_lost, &stood_before_the_lost, &newcomer]) {
        wait_for(client, "a", 25, 0).await;
    }
    assert_saw("live", &live[0], "a", 1..=25, 1);
    assert_saw("live elsewhere", &live[1], "a", 1..=25, 1);
    assert_saw("had seen the lost", &had_seen_the_lost, "a", 16..=25, 1);
    assert_saw("stood before the lost", &stood_before_the_lost, "a", 16..=25, 1);
    assert_saw("newcomer", &newcomer, "a", 21..=25, 0);
    // Nothing of this channel was lost.
    assert_saw("live", &live[0], "b", 1..=20, 0);
    assert_saw("stood before", &stood_before_the_lost, "b", 11..=20, 0);
    assert_saw("stood before", &had_seen_the_lost, "b", 11..=20, 0);
}

#[tokio::test]
async fn replicas_that_came_to_a_channel_while_its_end_was_being_lost_find_the_same_fork() {
    let (mut pair, gateways) = Pair::start::<3>().await;
    let [knows, comes_late, comes_before] = &gateways;

    let there = knows.subscribe(&["a"]).await;
    publish(knows, "a", 1..=100).await;
    wait_for(&there, "a", 100, 0).await;
    let hundredth = there.read(|log| log.last_event_id.clone());
    // It knows the last entry that is not lost, and nothing before it.
    let just_before = comes_before.subscribe(&["a"]).await;
    pair.part("a", 100).await;
    publish(knows, "a", 101..=102).await;
    // It knows nothing but what is lost.
    let moved = resume(comes_late, &["a"], &hundredth).await;
    wait_for(&moved, "a", 102, 0).await;
    let joined = comes_late.subscribe(&["a"]).await;
    publish(knows, "a", 103..=103).await;
    for client in [&there, &just_before, &moved, &joined] {
        wait_for(client, "a", 103, 0).await;
    }

    pair.promote().await;
    let flows = async || (comes_late.http.post("/channels/c/events", "x").await.status == 200).then_some(());
    wait::until("publishing goes on", flows).await;
    publish(comes_late, "a", 104..=110).await;
    for client in [&there, &just_before, &moved, &joined] {
        wait_for(client, "a", 110, 1).await;
    }
    // Another fork would be another gap, and come before this.
    publish(comes_before, "a", 111..=120).await;
    for client in [&there, &just_before, &moved, &joined] {
        wait_for(client, "a", 120, 1).await;
    }
    assert_saw("there all the time", &there, "a", 1..=120, 1);
    assert_saw("came just before", &just_before, "a", 101..=120, 1);
    assert_saw("moved", &moved, "a", 101..=120, 1);
    assert_saw("joined", &joined, "a", 103..=120, 1);
    let log: Vec<redis::Value> = pair.new.run(&["XRANGE", "sluice:log:{sluice:a}", "-", "+"]).await;
    assert_eq!(log.iter().filter(|entry| format!("{entry:?}").contains("fork")).count(), 1, "it is written down once");
}

#[tokio::test]
async fn whose_place_was_lost_is_told_though_no_connection_of_theirs_lasts() {
    let cluster = Cluster::start(Redis::start().await, 1, CONFIG).await;
    let gateway = &cluster.gateways[0];
    let live = gateway.subscribe(&["a"]).await;
    publish(gateway, "a", 1..=5).await;
    wait_for(&live, "a", 5, 0).await;
    let lost = live.read(|log| log.last_event_id.clone());
    drop(live);
    // Nobody is there to see that the history is replaced by another.
    gateway.wait_metric("sse_connections_active", &[], 0.0).await;
    let _: i64 = cluster.redis.run(&["DEL", "sluice:log:{sluice:a}"]).await;
    publish(gateway, "a", 6..=10).await;
    // It takes a while to be sure that the place is lost, and longer than a connection may last.
    let brief = resume(gateway, &["a"], &lost).await;
    brief.wait("it is let in", |log| log.retry_ms.is_some()).await;
    drop(brief);
    for _ in 0..2 {
        let patient = resume(gateway, &["a"], &lost).await;
        wait_for(&patient, "a", 10, 1).await;
    }
    // It is remembered for whoever stands there too.
    let began = std::time::Instant::now();
    let again = resume(gateway, &["a"], &lost).await;
    wait_for(&again, "a", 10, 1).await;
    assert!(began.elapsed() < LOOKS, "after {:?}", began.elapsed());
    assert_saw("again", &again, "a", 6..=10, 1);
}
