//! What both brokers promise, asked of both: the embedded one, and Redis on a real server.

use bytes::Bytes;
use sluice_gateway::{
    broker::{
        Accepted, Broker, Publish, Rules, Since, Sink,
        announcement::Announced,
        log::{Located, locate},
        memory::MemoryBroker,
        redis::RedisBroker,
    },
    channel::Channel,
    config::{ByteSize, Config, Sources},
    event::Event,
    metrics::Metrics,
    position::Position,
};
use std::{
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

/// Remembers what the broker said.
#[derive(Default)]
struct Ear(Mutex<Heard>);

#[derive(Default)]
struct Heard {
    subscribed: Vec<Channel>,
    announced: Vec<(String, Announced)>,
    cuts: usize,
    reachable: Option<Result<(), String>>,
    control: Vec<Bytes>,
}

impl Ear {
    async fn until<T>(&self, what: &str, mut look: impl FnMut(&Heard) -> Option<T>) -> T {
        for _ in 0..1500 {
            if let Some(found) = look(&self.0.lock().expect("not poisoned")) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}");
    }

    /// Everything announced on `channel` that stands in its history.
    fn entries(heard: &Heard, channel: &str) -> Vec<(Position, u64, String)> {
        let entry = |(name, announced): &(String, Announced)| match announced {
            Announced::Entry { at, prev, event } if name == channel => Some((*at, *prev, event.data().to_owned())),
            _ => None,
        };
        heard.announced.iter().filter_map(entry).collect()
    }
}

impl Sink for Ear {
    fn subscribed(&self, channel: &Channel) {
        self.0.lock().expect("not poisoned").subscribed.push(channel.clone());
    }
    fn announced(&self, channel: &str, announced: Announced) {
        self.0.lock().expect("not poisoned").announced.push((channel.to_owned(), announced));
    }
    fn cut(&self) {
        self.0.lock().expect("not poisoned").cuts += 1;
    }
    fn control(&self, message: Bytes) {
        self.0.lock().expect("not poisoned").control.push(message);
    }
    fn reachable(&self, state: Result<(), String>) {
        self.0.lock().expect("not poisoned").reachable = Some(state);
    }
}

/// A redis-server of this test alone, ended with it.
struct Server {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (tests/run installs it)");
        let server = Self { child, port, _dir: dir };
        for _ in 0..500 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("redis-server does not answer");
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn query<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.url()).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.expect("an answer")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Stage {
    broker: Arc<dyn Broker>,
    ear: Arc<Ear>,
    server: Option<Server>,
}

fn config() -> Arc<Config> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = "[[channel]]\nmatch = \"five.*\"\nhistory = { size = 5 }\n\
                [[channel]]\nmatch = \"brief.*\"\nhistory = { age = \"1s\" }\n\
                [[channel]]\nmatch = \"off.*\"\nhistory = \"off\"\n";
    std::fs::write(file.path(), text).expect("written");
    let sources = Sources { file: Some(file.path().to_owned()), env: Vec::new(), flags: Vec::new() };
    Arc::new(Config::load(&sources).expect("valid").config)
}

async fn embedded() -> Stage {
    let ear = Arc::new(Ear::default());
    let broker = MemoryBroker::new(Rules::new(config()), 1 << 30, Arc::clone(&ear) as Arc<dyn Sink>);
    Stage { broker: Arc::new(broker), ear, server: None }
}

async fn on_redis() -> Stage {
    let server = Server::start().await;
    let ear = Arc::new(Ear::default());
    let config = config();
    let (sink, metrics) = (Arc::clone(&ear) as Arc<dyn Sink>, Arc::new(Metrics::new()));
    let broker = RedisBroker::start(
        &config.redis,
        &server.url(),
        Rules::new(Arc::clone(&config)),
        "test",
        1 << 16,
        sink,
        metrics,
    )
    .expect("started");
    ear.until("the link stands", |heard| heard.reachable.clone()?.ok()).await;
    Stage { broker: Arc::new(broker), ear, server: Some(server) }
}

fn channel(name: &str) -> Channel {
    Channel::new(name).expect("a name")
}

fn publish(name: &str, data: &str, key: Option<&str>) -> Publish {
    let event = Event::new(Some("t"), Bytes::copy_from_slice(data.as_bytes())).expect("valid");
    Publish { channel: channel(name), event, idempotency_key: key.map(str::to_owned) }
}

impl Stage {
    async fn publish(&self, name: &str, data: &str) -> Position {
        let accepted = self.broker.publish(vec![publish(name, data, None)]).await.remove(0).expect("accepted");
        accepted.position.expect("a position")
    }

    async fn subscribe(&self, name: &str) -> Option<Position> {
        self.broker.subscribe(&channel(name));
        self.ear.until("subscribed", |heard| heard.subscribed.contains(&channel(name)).then_some(())).await;
        self.broker.join(vec![channel(name)]).await.expect("joined").remove(0).expect("answered")
    }
}

/// Asks both brokers.
macro_rules! of_both {
    ($($(#[$attribute:meta])* async fn $name:ident($stage:ident) $body:block)*) => {
        mod both {
            use super::*;
            $($(#[$attribute])* pub(super) async fn $name($stage: Stage) $body)*
        }
        mod embedded_broker {
            $(#[tokio::test] async fn $name() { super::both::$name(super::embedded().await).await; })*
        }
        mod redis_broker {
            $(#[tokio::test] async fn $name() { super::both::$name(super::on_redis().await).await; })*
        }
    };
}

of_both! {
    async fn announcements_come_in_the_order_of_their_numbers_and_name_the_entry_before(stage) {
        let top = stage.subscribe("a").await.expect("a history");
        let batch = (0..300).map(|n| publish("a", &n.to_string(), None)).collect();
        let answers = stage.broker.publish(batch).await;
        let entries = stage.ear.until("300 entries", |heard| {
            let entries = Ear::entries(heard, "a");
            (entries.len() == 300).then_some(entries)
        }).await;
        let mut last = top;
        for (n, (at, prev, data)) in entries.into_iter().enumerate() {
            assert!(last.is_followed_by(at, prev) && at.micros > last.micros, "{last} then {at} after {prev}");
            assert_eq!((data, answers[n].as_ref().expect("accepted").position), (n.to_string(), Some(at)));
            last = at;
        }
    }

    async fn a_batch_of_several_channels_keeps_the_order_of_each(stage) {
        // Runs of neighbours of every length up to five.
        let names = ["m.a", "m.b", "m.c"];
        let batch: Vec<_> = (0..15usize).flat_map(|n| vec![names[n % 3]; n % 5 + 1]).collect();
        for name in names {
            stage.subscribe(name).await;
        }
        let publishes = batch.iter().enumerate().map(|(n, name)| publish(name, &n.to_string(), None)).collect();
        let answers = stage.broker.publish(publishes).await;
        for name in names {
            let sent: Vec<_> = batch.iter().enumerate().filter(|(_, channel)| **channel == name).collect();
            let page = stage.broker.read(&channel(name), Position::default(), 0, 100).await.expect("read");
            let entries = stage.ear.until("all of them", |heard| {
                let entries = Ear::entries(heard, name);
                (entries.len() == sent.len()).then_some(entries)
            }).await;
            for (nth, (n, _)) in sent.into_iter().enumerate() {
                let accepted = answers[n].as_ref().expect("accepted");
                let (at, _, data) = &entries[nth];
                assert_eq!((accepted.position, accepted.repeated, at.seq), (Some(*at), false, nth as u64 + 1));
                assert_eq!((data, page.entries[nth].at), (&n.to_string(), *at));
            }
        }
    }

    async fn an_empty_channel_has_an_identity_that_its_first_event_follows(stage) {
        let top = stage.subscribe("fresh").await.expect("a history");
        assert!(top.seq == 0 && top.micros > 0);
        let at = stage.publish("fresh", "x").await;
        let page = stage.broker.read(&channel("fresh"), top, 0, 10).await.expect("read");
        assert_eq!((page.entries.len(), page.last, page.complete), (1, at, true));
        assert_eq!(locate(&page.entries, top), Located::At(0));
        // Joining again changes nothing.
        let again = stage.broker.join(vec![channel("fresh")]).await.expect("joined").remove(0);
        assert_eq!(again.expect("answered"), Some(at));
    }

    async fn a_page_has_what_follows_and_some_of_what_came_before(stage) {
        let mut all = Vec::new();
        for n in 0..10 {
            all.push(stage.publish("p", &n.to_string()).await);
        }
        let page = stage.broker.read(&channel("p"), all[4], 3, 2).await.expect("read");
        let places: Vec<_> = page.entries.iter().map(|entry| entry.at).collect();
        assert_eq!(places, all[2..=6]);
        assert_eq!((page.last, page.complete), (all[9], false));
        assert_eq!(page.entries[3].prev, all[4].micros);
        assert_eq!(page.entries[0].event, Event::new(Some("t"), Bytes::from_static(b"2")).expect("valid"));
        let rest = stage.broker.read(&channel("p"), all[6], 0, 100).await.expect("read");
        assert!(rest.complete && rest.entries.len() == 3);
    }

    async fn trimming_is_exact_and_positions_go_on(stage) {
        let mut all = Vec::new();
        for n in 0..12 {
            all.push(stage.publish("five.a", &n.to_string()).await);
        }
        let ends = stage.broker.ends(&channel("five.a")).await.expect("read").expect("a history");
        assert_eq!((ends.first, ends.last), (Some(all[7]), all[11]));
        let page = stage.broker.read(&channel("five.a"), all[2], 0, 100).await.expect("read");
        assert_eq!(locate(&page.entries, all[2]), Located::Before);
    }

    async fn trimming_is_exact_after_a_batch_too(stage) {
        // More than a node of a stream holds, of which only whole ones would go were it not exact.
        let first = stage.broker.publish(vec![publish("five.b", "first", Some("k"))]).await.remove(0).expect("accepted");
        for last in [None, Some("k")] {
            let batch = (0..150).map(|n| publish("five.b", "x", last.filter(|_| n == 149))).collect();
            let answers = stage.broker.publish(batch).await;
            let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("accepted")).collect();
            assert_eq!((answers[149].repeated, answers[149].position == first.position), (last.is_some(), last.is_some()));
            let written = answers.iter().filter(|answer| !answer.repeated).map(|answer| answer.position);
            let newest: Vec<_> = written.collect::<Vec<_>>().into_iter().rev().take(5).rev().collect();
            let ends = stage.broker.ends(&channel("five.b")).await.expect("read").expect("a history");
            assert_eq!((ends.first, Some(ends.last)), (newest[0], newest[4]));
        }
    }

    async fn what_is_older_than_the_age_goes_with_the_next_event(stage) {
        for name in ["brief.a", "brief.b"] {
            stage.publish(name, "old").await;
        }
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let new = stage.publish("brief.a", "new").await;
        let ends = stage.broker.ends(&channel("brief.a")).await.expect("read").expect("a history");
        assert_eq!((ends.first, new.seq), (Some(new), 2));
        let batch = (0..3).map(|_| publish("brief.b", "new", None)).collect();
        let new = stage.broker.publish(batch).await.remove(0).expect("accepted").position;
        let ends = stage.broker.ends(&channel("brief.b")).await.expect("read").expect("a history");
        assert_eq!((ends.first, ends.last.seq), (new, 4));
    }

    async fn a_repeated_key_is_answered_alike_and_publishes_nothing(stage) {
        stage.subscribe("k").await;
        let first = stage.broker.publish(vec![publish("k", "x", Some("one"))]).await.remove(0).expect("accepted");
        let batch = vec![publish("k", "y", None), publish("k", "x", Some("one")), publish("k", "z", Some("two"))];
        let answers: Vec<_> = stage.broker.publish(batch).await.into_iter().map(|a| a.expect("accepted")).collect();
        assert_eq!((answers[1].position, answers[1].repeated), (first.position, true));
        // The key is the channel's: elsewhere it is another one.
        let other = stage.broker.publish(vec![publish("k2", "x", Some("one"))]).await.remove(0).expect("accepted");
        assert!(!other.repeated);
        let data = stage.ear.until("three entries", |heard| {
            let data: Vec<_> = Ear::entries(heard, "k").into_iter().map(|(.., data)| data).collect();
            (data.len() >= 3).then_some(data)
        }).await;
        assert_eq!(data, ["x", "y", "z"]);
    }

    async fn a_key_that_comes_twice_in_one_batch_publishes_once(stage) {
        for (name, positioned) in [("kk", true), ("off.kk", false)] {
            let keys = [Some("one"), None, Some("one"), Some("two"), Some("one"), Some("two")];
            let batch = keys.iter().enumerate().map(|(n, key)| publish(name, &n.to_string(), *key)).collect();
            let answers: Vec<_> = stage.broker.publish(batch).await.into_iter().map(|a| a.expect("accepted")).collect();
            let repeated: Vec<_> = answers.iter().map(|answer| answer.repeated).collect();
            assert_eq!(repeated, [false, false, true, false, true, true], "{name}");
            let numbers = answers.iter().map(|answer| answer.position.map(|position| position.seq));
            let expected = [1, 2, 1, 3, 1, 3].map(|seq| positioned.then_some(seq));
            assert!(numbers.eq(expected), "{answers:?}");
            assert_eq!((answers[2], answers[4].position), (Accepted { repeated: true, ..answers[0] }, answers[0].position));
        }
    }

    async fn a_channel_without_history_has_no_positions_and_keys_hold_all_the_same(stage) {
        assert_eq!(stage.subscribe("off.a").await, None);
        for key in [None, Some("k"), Some("k")] {
            let accepted = stage.broker.publish(vec![publish("off.a", "x", key)]).await.remove(0).expect("accepted");
            assert_eq!(accepted.position, None);
        }
        stage.broker.publish(vec![publish("off.a", "end", None)]).await;
        let plain = stage.ear.until("the end", |heard| {
            let plain: Vec<_> = heard.announced.iter().filter_map(|(_, announced)| match announced {
                Announced::Plain { event, published } if *published > 0 => Some(event.data().to_owned()),
                _ => None,
            }).collect();
            (plain.last()? == "end").then_some(plain)
        }).await;
        assert_eq!(plain, ["x", "x", "end"]);
        assert_eq!(stage.broker.ends(&channel("off.a")).await.expect("read"), None);
    }

    async fn every_since_is_the_place_before_its_first_event(stage) {
        let empty = stage.subscribe("s").await.expect("a history");
        let mut all = vec![empty];
        for n in 0..10 {
            all.push(stage.publish("s", &n.to_string()).await);
        }
        let place = async |since| stage.broker.place(&channel("s"), since).await.expect("placed");
        assert_eq!(place(Since::Earliest).await, all[0]);
        assert_eq!(place(Since::Last(3)).await, all[7]);
        assert_eq!(place(Since::Last(300)).await, all[0]);
        assert_eq!(place(Since::Ago(3_600_000_000)).await, all[0]);
        assert_eq!(place(Since::Ago(u64::MAX)).await, all[0]);
        assert_eq!(place(Since::Time(all[5].micros)).await, all[4]);
        assert_eq!(place(Since::Time(all[5].micros + 1)).await, all[5]);
        assert_eq!(place(Since::Time(u64::MAX >> 8)).await, all[10]);
    }

    async fn forgetting_leaves_the_numbers(stage) {
        let last = stage.publish("f", "x").await;
        stage.broker.forget(&channel("f")).await.expect("forgotten");
        let ends = stage.broker.ends(&channel("f")).await.expect("read").expect("a history");
        assert_eq!((ends.first, ends.last), (None, last));
        let next = stage.publish("f", "y").await;
        let page = stage.broker.read(&channel("f"), last, 0, 9).await.expect("read");
        assert_eq!((locate(&page.entries, last), next.seq), (Located::At(0), last.seq + 1));
    }

    async fn a_fork_is_written_down_once_and_has_everyone_read(stage) {
        let common = stage.publish("w", "x").await;
        stage.subscribe("w").await;
        for _ in 0..2 {
            stage.broker.mark_fork(&channel("w"), common).await.expect("marked");
        }
        let page = stage.broker.read(&channel("w"), common, 0, 9).await.expect("read");
        assert_eq!(page.entries.iter().map(|entry| entry.fork).collect::<Vec<_>>(), [Some(common)]);
        stage.ear.until("the mark is announced", |heard| {
            heard.announced.iter().any(|(_, announced)| matches!(announced, Announced::Look)).then_some(())
        }).await;
    }

    async fn a_message_to_all_replicas_comes_to_this_one_too(stage) {
        assert_eq!(stage.broker.control(Bytes::from_static(b"hello")).await.expect("sent"), 1);
        stage.ear.until("it came", |heard| heard.control.contains(&Bytes::from_static(b"hello")).then_some(())).await;
    }
}

#[tokio::test]
async fn redis_entries_are_exact_to_the_last_digit_and_rise_when_the_clock_went_back() {
    let stage = on_redis().await;
    let server = stage.server.as_ref().expect("a server");
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
    let server = stage.server.as_ref().expect("a server");
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
    let server = stage.server.as_ref().expect("a server");
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
    let server = stage.server.as_ref().expect("a server");
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
    let server = stage.server.as_ref().expect("a server");
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
    let server = stage.server.as_ref().expect("a server");
    let other = Server::start().await;
    let _: String = server.query(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]).await;
    stage.ear.until("the cut", |heard| (heard.cuts == 1).then_some(())).await;
    let why = stage.ear.until("why", |heard| heard.reachable.clone()?.err()).await;
    assert!(why.contains("replica") || why.contains("role"), "{why}");
}

#[tokio::test]
async fn the_embedded_broker_stays_within_its_budget_and_its_newest_events_are_kept() {
    let ear = Arc::new(Ear::default());
    let budget = ByteSize::mib(1).get();
    let broker = MemoryBroker::new(Rules::new(config()), budget, ear as Arc<dyn Sink>);
    let data = "x".repeat(1000);
    let mut last = None;
    for n in 0..5000 {
        let name = format!("m{}", n % 50);
        last = broker.publish(vec![publish(&name, &data, None)]).await.remove(0).expect("accepted").position;
    }
    let mut kept = 0;
    for n in 0..50 {
        let page = broker.read(&channel(&format!("m{n}")), Position::default(), 0, 5000).await.expect("read");
        kept += page.entries.len() * 1000;
        if n == 4999 % 50 {
            assert_eq!(page.entries.last().map(|entry| entry.at), last);
        }
    }
    assert!(kept <= budget && kept > budget / 2, "{kept} of {budget}");
}
